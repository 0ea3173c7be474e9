"""Ctrl-C, once and twice, in a program of its own: the chat is deleted, and KeyboardInterrupt is its end."""

import signal
import sys

import pytest

from oa_protocol.server import Answer, Fault, Hold, Server
from tests.programs import Program, ends_by_keyboard_interrupt, program

from .site import Api

pytestmark = [
    pytest.mark.clause("OA-7.2"),
    pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as POSIX does"),
]

PROGRAM = ("-m", "tests.driver.interrupted_program")


def is_interrupted_as_it_streams(running: Program, answer: Hold) -> None:
    assert running.stdout is not None
    assert running.stdout.readline() == "streaming\n"
    running.send_signal(signal.SIGINT)
    answer.release()  # an event loop notices a signal that comes just before it sleeps when it wakes, not before


def test_while_it_streams(anyio_backend: str, api: Api) -> None:
    answer = Hold()
    with Server() as server:
        server.script(Answer(pieces=("One ", "two."), after=1, then=answer))
        with program(server, api, *PROGRAM, anyio_backend, api) as running:
            is_interrupted_as_it_streams(running, answer)
            ends_by_keyboard_interrupt(running)
            assert server.chats == ()


@pytest.mark.parametrize("api", ["website"])
def test_while_the_create_is_under_way(anyio_backend: str, api: Api) -> None:
    hold = Hold()
    with Server() as server:
        server.script(Fault("create", after=hold))
        with program(server, api, *PROGRAM, anyio_backend, api) as running:
            server.wait_for("create")
            running.send_signal(signal.SIGINT)
            hold.release()
            ends_by_keyboard_interrupt(running)
            assert server.chats == ()


@pytest.mark.parametrize("api", ["website"])
def test_while_the_chat_is_being_deleted(anyio_backend: str, api: Api) -> None:
    hold = Hold()
    with Server() as server:
        server.script(Fault("delete", before=hold))
        with program(server, api, *PROGRAM, anyio_backend, api) as running:
            server.wait_for("delete")
            running.send_signal(signal.SIGINT)
            hold.release()
            ends_by_keyboard_interrupt(running)
            assert server.chats == ()


def test_while_it_streams_and_again_while_the_chat_is_being_deleted(anyio_backend: str, api: Api) -> None:
    answer, hold = Hold(), Hold()
    with Server() as server:
        server.script(Answer(pieces=("One ", "two."), after=1, then=answer), Fault("delete", before=hold))
        with program(server, api, *PROGRAM, anyio_backend, api) as running:
            is_interrupted_as_it_streams(running, answer)
            server.wait_for("delete")
            running.send_signal(signal.SIGINT)
            hold.release()
            ends_by_keyboard_interrupt(running)
            assert server.chats == ()
