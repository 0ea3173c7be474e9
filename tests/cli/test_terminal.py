"""What somebody at a terminal sees."""

from __future__ import annotations

import codecs
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import pytest

from oa_protocol.server import Answer, Hold, Server

from .command import PATIENCE, credentials, ended, started

pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
TYPE = {"TERM": "xterm", "COLUMNS": "100"}


class Pseudo:
    """A pseudo-terminal; ``end`` is what the command gets."""

    def __init__(self) -> None:
        self._mine, self.end = pty.openpty()
        self.seen = ""
        self._passed = 0
        self._decode = codecs.getincrementaldecoder("utf-8")().decode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._mine)
        os.close(self.end)

    def type(self, text: str) -> None:
        os.write(self._mine, text.encode())

    def wait_for(self, text: str) -> str:
        """Read on until ``text`` is there, after what was waited for before; return what came up to its end."""
        ends = time.monotonic() + PATIENCE
        while (found := self.seen.find(text, self._passed)) < 0:
            assert select.select([self._mine], [], [], max(0, ends - time.monotonic()))[0], self.seen
            self.seen += self._decode(os.read(self._mine, 65536))
        begin, self._passed = self._passed, found + len(text)
        return self.seen[begin : self._passed]

    def rest(self) -> str:
        """All that was shown, now that nobody writes any more."""
        while select.select([self._mine], [], [], 0)[0]:
            self.seen += self._decode(os.read(self._mine, 65536))
        return self.seen


@pytest.fixture
def terminal() -> Iterator[Pseudo]:
    with Pseudo() as made:
        yield made


def ask(server: Server, *arguments: str, env: dict[str, str] | None = None, **pipes: int) -> subprocess.Popen[bytes]:
    return started(["ask", "x", *arguments], credentials(server) | TYPE | (env or {}), **pipes)


def test_progress_is_on_stderr_and_gone_before_the_answer(server: Server, terminal: Pseudo) -> None:
    server.script(Answer(pieces=("[bold]one ", "two"), then=Hold()))
    process = ask(server, stderr=terminal.end)
    terminal.wait_for("waiting for")
    server.release()
    done = ended(process)
    assert (done.code, done.out) == (0, "[bold]one two\n")
    assert "\x1b[2K" in terminal.rest()
    assert "\x1b[?25h" in terminal.seen


def test_answer_and_progress_share_a_terminal(server: Server, terminal: Pseudo) -> None:
    server.script(Answer(pieces=("one ", "t\x1b]0;owned\x07wo"), after=1, then=Hold()))
    process = ask(server, stdout=terminal.end, stderr=terminal.end)
    shown = terminal.wait_for("one")
    assert "waiting for" in shown
    server.release()
    assert ended(process).code == 0
    # No progress within the line, and no control character of the server's.
    assert "one t\ufffd]0;owned\ufffdwo\r\n" in terminal.rest()


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_no_progress(server: Server, terminal: Pseudo, option: str) -> None:
    assert ended(ask(server, option, stderr=terminal.end)).code == 0
    assert terminal.rest() == ""


def test_the_trace_has_no_progress_in_it(server: Server, terminal: Pseudo) -> None:
    assert ended(ask(server, "--trace", stderr=terminal.end)).code == 0
    assert "DELETING -> DELETED" in terminal.rest()
    assert "\x1b" not in terminal.seen


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color(server: Server, terminal: Pseudo, env: dict[str, str], coloured: bool) -> None:
    server.script(Answer(then=Hold()))
    process = ask(server, env=env, stderr=terminal.end)
    terminal.wait_for("waiting for")
    server.release()
    assert ended(process).code == 0
    assert ("\x1b[32m" in terminal.rest()) is coloured


def test_ctrl_c_says_what_it_waits_for_and_a_second_one_restores_the_cursor(server: Server, terminal: Pseudo) -> None:
    server.script(Answer(pieces=("one ", "two"), after=1, then=Hold()))
    process = ask(server, stdout=terminal.end, stderr=terminal.end)
    terminal.wait_for("one")
    process.send_signal(signal.SIGINT)
    assert terminal.wait_for("deleting the chat… (Ctrl-C again quits at once)").startswith("\r\n")
    process.send_signal(signal.SIGINT)
    assert ended(process).code == 130
    assert "\x1b[?25hLeft behind, maybe: chat" in terminal.rest()


def test_a_prompt_is_asked_for_in_vain(terminal: Pseudo) -> None:
    done = ended(started(["ask"], stdin=terminal.end))
    assert (done.code, done.out) == (2, "")
    assert "there is no prompt" in done.err


def chat(server: Server, **pipes: int) -> subprocess.Popen[bytes]:
    return started(["chat"], credentials(server) | TYPE, **pipes)


def test_lines_are_edited_and_ctrl_d_ends_it(server: Server, terminal: Pseudo) -> None:
    process = chat(server, stdin=terminal.end, stdout=terminal.end, stderr=terminal.end)
    terminal.wait_for("> ")
    terminal.type("Hellp\x7fo\r")
    terminal.wait_for("Hello\r\n")
    terminal.wait_for("> ")
    terminal.type("\x04")
    assert ended(process).code == 0
    prompts = [request.body for request in server.requests if request.step == "prompt"]
    assert [b'"Hello"' in body for body in prompts] == [True]
    assert server.chats == ()


def test_ctrl_c_at_the_prompt_ends_it_too(server: Server, terminal: Pseudo) -> None:
    process = chat(server, stdin=terminal.end, stdout=terminal.end, stderr=terminal.end)
    terminal.wait_for("> ")
    terminal.type("Hello\r")
    terminal.wait_for("Hello\r\n")
    terminal.wait_for("Hello\r\n")
    terminal.wait_for("> ")
    process.send_signal(signal.SIGINT)
    terminal.type("\r")  # CPython's readline does not notice a signal between its prompt and its wait
    assert ended(process).code == 130
    assert server.chats == ()


def test_the_prompt_is_not_in_a_stdout_that_is_no_terminal(server: Server, terminal: Pseudo) -> None:
    process = chat(server, stdin=terminal.end, stderr=terminal.end)
    terminal.wait_for("> ")
    terminal.type("Hello\n")
    terminal.wait_for("> ")
    terminal.type("\x04")
    done = ended(process)
    assert (done.code, done.out) == (0, "Hello\n")
