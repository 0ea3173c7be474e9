"""Ctrl-C, and the signals that are as good as one."""

from __future__ import annotations

import asyncio
import selectors
import signal
import subprocess
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest

from oa_protocol.cli import _interrupts
from oa_protocol.cli._interrupts import heartbeat
from oa_protocol.server import Answer, Fault, Hold, Server

from .command import credentials, ended, started


@contextmanager
def streaming(server: Server) -> Generator[subprocess.Popen[bytes]]:
    """A command whose answer has begun, and goes on when the server releases it."""
    server.script(Answer(pieces=("one ", "two "), after=1, then=Hold()))
    process = started(["ask", "x"], credentials(server))
    try:
        assert process.stdout is not None
        assert process.stdout.read(3) == b"one"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_answer_is_given_up_and_the_chat_is_deleted(server: Server, number: int, code: int) -> None:
    with streaming(server) as process:
        process.send_signal(number)
        server.wait_for("message")  # it waits for the answer to end, since deleting would break others'
        server.release()
        done = ended(process)
    assert (done.code, done.out, done.err) == (code, "\n", "")
    assert server.chats == ()
    assert [request.step for request in server.requests][-1] == "delete"


def test_a_second_one_quits_at_once_and_names_the_chat(server: Server) -> None:
    with streaming(server) as process:
        process.send_signal(signal.SIGINT)
        server.wait_for("message")
        process.send_signal(signal.SIGINT)
        done = ended(process)
    (left,) = server.chats
    assert done.code == 130
    assert done.err.startswith(f"\nMaybe left behind: chat {left.id}\nTo delete it, run `oa-protocol sweep`")


def test_a_second_one_quits_at_once_even_if_stderr_is_closed(server: Server) -> None:
    with streaming(server) as process:
        assert process.stderr is not None
        process.stderr.close()
        process.send_signal(signal.SIGINT)
        server.wait_for("message")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert len(server.chats) == 1


def test_while_the_chat_is_made_its_reply_is_awaited(server: Server) -> None:
    server.script(Fault("create", after=Hold()))
    with started(["ask", "x"], credentials(server)) as process:
        server.wait_until(lambda: bool(server.chats))
        process.send_signal(signal.SIGINT)
        server.release()
        done = ended(process)
    assert (done.code, done.out, server.chats) == (130, "", ())


def test_while_the_models_are_awaited(server: Server) -> None:
    server.script(Fault("models", before=Hold()))
    with started(["models"], credentials(server)) as process:
        server.wait_for("models")
        process.send_signal(signal.SIGINT)
        done = ended(process)
    assert (done.code, done.out, done.err) == (130, "", "")


def test_while_a_line_is_awaited(server: Server) -> None:
    with started(["chat"], credentials(server), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"Hello\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"Hello\n"
        process.send_signal(signal.SIGINT)
        with suppress(BrokenPipeError):
            process.stdin.write(b"\n")  # a signal that comes just before a read is noticed after it
            process.stdin.flush()
        server.wait_for("delete")
        process.wait(10)
        assert (process.returncode, server.chats) == (130, ())


def test_a_signal_that_comes_just_before_the_loop_sleeps_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Selector(selectors.DefaultSelector):
        signals = 3

        def select(self, timeout: float | None = None) -> Any:
            if timeout != 0 and self.signals:
                self.signals -= 1
                loop.call_soon(noticed.put_nowait, self.signals)
                assert timeout is not None, "it sleeps for good"
            return super().select(timeout)

    async def notice() -> list[int]:
        return [await noticed.get() for _ in range(3)]

    monkeypatch.setattr(_interrupts, "_HEARTBEAT", 0.01)
    loop = asyncio.SelectorEventLoop(Selector())
    noticed = asyncio.Queue[int]()
    with closing(loop), heartbeat(loop):
        assert loop.run_until_complete(notice()) == [2, 1, 0]
