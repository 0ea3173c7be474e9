"""Each example runs as a program, and Ctrl-C has it delete its chat."""

from __future__ import annotations

import signal
import sys

import pytest

from oa_protocol.server import Answer, Fault, Hold, Server
from tests.programs import Program, program

pytestmark = pytest.mark.clause("OA-7.2")

ENGINE = ["http_client", "asyncio_aiohttp", "twisted_agent", "gevent_pool", "pyside_network"]

each_program = pytest.mark.parametrize("name", ENGINE)
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as POSIX does")


def wait_for_output(running: Program, words: str) -> None:
    assert running.stdout is not None
    assert any(words in line for line in running.stdout)


@pytest.mark.parametrize("name", [*ENGINE, "thread_pool"])
def test_it_runs_as_a_program(name: str, server: Server) -> None:
    with program(server, "website", "-u", "-m", f"tests.examples.{name}") as running:
        out, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (0, "")
    assert out.strip()
    assert server.chats == ()


@posix_only
@each_program
def test_its_chat_is_deleted_when_it_is_interrupted_in_the_middle_of_an_answer(name: str, server: Server) -> None:
    hold = Hold()
    server.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    with program(server, "website", "-u", "-m", f"tests.examples.{name}") as running:
        wait_for_output(running, "Token")
        running.send_signal(signal.SIGINT)
        server.wait_for("message")  # it waits for the answer to end, because deleting would break others'
        hold.release()
        running.communicate(timeout=60)
    assert running.returncode != 0
    assert server.chats == ()


@pytest.mark.clause("OA-4.3")
@posix_only
@each_program
def test_its_chat_is_deleted_when_it_is_interrupted_while_the_chat_is_made(name: str, server: Server) -> None:
    hold = Hold()
    server.script(Fault("create", after=hold))
    with program(server, "website", "-u", "-m", f"tests.examples.{name}") as running:
        server.wait_for("create")
        running.send_signal(signal.SIGINT)
        hold.release()
        running.communicate(timeout=60)
    assert running.returncode != 0
    assert server.chats == ()
