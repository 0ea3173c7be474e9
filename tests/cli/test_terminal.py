"""What somebody at a terminal sees."""

from __future__ import annotations

import re
import signal
import subprocess

import pytest

from oa_protocol.server import Answer, Hold, Server

from .command import credentials, ended, started
from .pseudo_terminal import TERMINAL, Pseudo


def ask(server: Server, *arguments: str, env: dict[str, str] | None = None, **pipes: int) -> subprocess.Popen[bytes]:
    return started(["ask", "x", *arguments], credentials(server) | TERMINAL | (env or {}), **pipes)


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


def test_the_trace_has_lines_of_its_own_and_no_progress_in_it(server: Server, terminal: Pseudo) -> None:
    server.script(Answer(pieces=("one ", "two\nth", "ree")))
    assert ended(ask(server, "--trace", stdout=terminal.end, stderr=terminal.end)).code == 0
    lines = terminal.rest().split("\r\n")
    assert [line for line in lines if not re.match(r" *\d+\.\d{3}  ", line)] == ["one two", "three", ""]
    assert "DELETING -> DELETED" in terminal.seen


def test_a_note_waits_for_the_end_of_the_answers_line(server: Server, terminal: Pseudo) -> None:
    server.script(Answer(pieces=("wrong",), final="right"))
    assert ended(ask(server, stdout=terminal.end, stderr=terminal.end)).code == 0
    assert "wrong\r\nNote: the final text differs" in terminal.rest()


def test_progress_fits_into_a_narrow_terminal(server: Server, terminal: Pseudo) -> None:
    server.script(Answer(pieces=("one",), then=Hold()))
    process = ask(server, stdout=terminal.end, stderr=terminal.end, env={"COLUMNS": "8"})
    terminal.wait_for("waiting")
    server.release()
    assert ended(process).code == 0
    assert terminal.rest().endswith("one\r\n") or "one\r\n" in terminal.seen


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
    assert "\x1b[?25hMaybe left behind: chat" in terminal.rest()


def test_a_prompt_is_asked_for_in_vain(terminal: Pseudo) -> None:
    done = ended(started(["ask"], stdin=terminal.end))
    assert (done.code, done.out) == (2, "")
    assert "there is no prompt" in done.err
