"""Signals, once and twice, in a program of its own: the chat is deleted, and what the handler raised is the end."""

from __future__ import annotations

import signal
import sys

import pytest

from oa_protocol.server import Answer, Fault, Hold, Server, Step
from tests.driver.site import Api
from tests.programs import ends_by_keyboard_interrupt, program

pytestmark = [
    pytest.mark.clause("OA-7.2"),
    pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as POSIX does"),
]

PROGRAM = ("-m", "tests.sync.interrupted_program")


@pytest.mark.parametrize("times", [1, 2])
def test_while_it_streams(api: Api, times: int, server: Server) -> None:
    answer, delete = Hold(), Hold()
    server.script(Answer(pieces=("One ", "two."), after=1, then=answer), Fault("delete", before=delete))
    with program(server, api, *PROGRAM, api) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "streaming\n"
        running.send_signal(signal.SIGINT)
        server.wait_for("delete")
        if times == 2:
            running.send_signal(signal.SIGINT)
        delete.release()
        assert "CancelledError" not in ends_by_keyboard_interrupt(running)
        assert server.chats == ()
    answer.release()


@pytest.mark.clause("OA-4.3")
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("step", ["create", "prompt", "request", "events", "delete"])
def test_while_a_request_is_under_way(step: Step, times: int, server: Server) -> None:
    hold = Hold()
    server.script(Fault(step, before=hold) if step == "events" else Fault(step, after=hold))
    with program(server, "website", *PROGRAM, "website") as running:
        server.wait_for(step)
        for _ in range(times):
            running.send_signal(signal.SIGINT)
        hold.release()
        assert "CancelledError" not in ends_by_keyboard_interrupt(running)
        assert server.chats == ()


def test_whatever_a_handler_raises_waits_for_the_cleanup(server: Server) -> None:
    hold = Hold()
    server.script(Fault("create", after=hold))
    with program(server, "website", *PROGRAM, "website") as running:
        server.wait_for("create")
        running.send_signal(signal.SIGTERM)
        hold.release()
        running.communicate(timeout=30)
        assert running.returncode == 3
        assert server.chats == ()
