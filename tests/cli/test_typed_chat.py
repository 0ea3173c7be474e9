"""``oa-protocol chat`` as somebody at a terminal uses it."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from oa_protocol.server import Answer, Fault, Hold, Reply, Server, WorkerError

from .command import credentials, ended, started
from .pseudo_terminal import TERMINAL, Pseudo


def wait_for_prompt(terminal: Pseudo) -> None:
    terminal.wait_for("\x1b[?2004h")  # from here on a paste is marked as one: the editor begins
    terminal.wait_for("> ")


def chat(server: Server, terminal: Pseudo, *arguments: str, **pipes: int) -> subprocess.Popen[bytes]:
    ends = {"stdin": terminal.end, "stdout": terminal.end, "stderr": terminal.end} | pipes
    process = started(["chat", *arguments], credentials(server) | TERMINAL, **ends)
    wait_for_prompt(terminal)
    return process


def prompts(server: Server) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in server.requests if request.step == "prompt"]


def contents(server: Server) -> list[str]:
    return [prompt["content"] for prompt in prompts(server)]


def test_lines_are_edited_and_ctrl_d_leaves(server: Server, terminal: Pseudo) -> None:
    process = chat(server, terminal)
    terminal.type("Hellp\x7fo\r")
    terminal.wait_for("Hello\r\n")
    wait_for_prompt(terminal)
    terminal.type("\x04")
    assert ended(process).code == 0
    assert contents(server) == ["Hello"]
    assert server.chats == ()


def test_a_pasted_block_is_one_prompt(server: Server, terminal: Pseudo) -> None:
    process = chat(server, terminal)
    terminal.type("\x1b[200~/one\r\ntwo\n\x1b[201~three\r")
    terminal.wait_for("/one\r\ntwo\r\nthree\r\n")
    wait_for_prompt(terminal)
    terminal.type("/exit\r")
    assert ended(process).code == 0
    assert contents(server) == ["/one\ntwo\nthree"]


@pytest.mark.clause("OA-3.3", "OA-6.13")
@pytest.mark.parametrize("api", ["website", "inference"])
def test_ctrl_c_stops_an_answer_and_the_next_prompt_is_answered(server: Server, terminal: Pseudo, api: str) -> None:
    server.script(Answer(("one ", "two"), after=1, then=Hold()))
    process = chat(server, terminal, "--api", api)
    terminal.type("first\r")
    terminal.wait_for("one")
    process.send_signal(signal.SIGINT)
    terminal.wait_for("\r\nStopped.")
    wait_for_prompt(terminal)
    terminal.type("second\r")
    terminal.wait_for("waiting for the stopped answer")
    server.release()
    terminal.wait_for("second\r\n")
    wait_for_prompt(terminal)
    terminal.type("/exit\r")
    assert ended(process).code == 0
    assert "two" not in terminal.seen
    (first, second) = prompts(server)
    assert (first["parent_id"], second["content"]) == (None, "second")
    assert second["parent_id"] is not None
    assert server.chats == ()


@pytest.mark.clause("OA-7.2")
@pytest.mark.parametrize(("way", "code"), [("\x03", 130), (signal.SIGINT, 130), ("\x04", 0), ("/exit\r", 0)])
def test_after_a_stop_each_way_out_deletes_the_chat(
    server: Server, terminal: Pseudo, way: str | signal.Signals, code: int
) -> None:
    server.script(Answer(("one ", "two"), after=1, then=Hold()))
    process = chat(server, terminal)
    terminal.type("first\r")
    terminal.wait_for("one")
    process.send_signal(signal.SIGINT)
    wait_for_prompt(terminal)
    if isinstance(way, str):
        terminal.type(way)
    else:
        process.send_signal(way)
    server.wait_for("message")
    server.release()
    assert ended(process).code == code
    assert server.chats == ()


@pytest.mark.clause("OA-4.3", "OA-7.2")
def test_a_second_ctrl_c_while_the_first_one_is_at_work_leaves(server: Server, terminal: Pseudo) -> None:
    server.script(Fault("create", after=Hold()))
    process = chat(server, terminal)
    terminal.type("first\r")
    server.wait_until(lambda: bool(server.chats))
    process.send_signal(signal.SIGINT)
    terminal.wait_for("Stopped.")
    process.send_signal(signal.SIGINT)
    server.release()
    assert ended(process).code == 130
    assert server.chats == ()


def test_a_stopped_answer_that_fails_later_ends_the_chat_in_its_own_words(server: Server, terminal: Pseudo) -> None:
    hold = Hold()
    server.script(Fault("request", after=hold), Answer(then=WorkerError("It broke.")))
    process = chat(server, terminal)
    terminal.type("first\r")
    server.wait_for("request")
    process.send_signal(signal.SIGINT)
    wait_for_prompt(terminal)
    hold.release()
    terminal.type("second\r")
    assert ended(process).code == 5
    assert "Error: the server says 'It broke.'" in terminal.rest()


def test_ctrl_c_drops_a_line_that_has_begun(server: Server, terminal: Pseudo) -> None:
    process = chat(server, terminal)
    terminal.type("never sent")
    terminal.wait_for("never sent")
    terminal.type("\x03")
    wait_for_prompt(terminal)
    terminal.type("/exit\r")
    assert ended(process).code == 0
    assert server.requests == ()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_the_prompt_leaves(server: Server, terminal: Pseudo, number: signal.Signals) -> None:
    process = chat(server, terminal)
    terminal.type("Hello\r")
    terminal.wait_for("Hello\r\n")
    wait_for_prompt(terminal)
    process.send_signal(number)
    assert ended(process).code == 128 + number
    assert server.chats == ()


def test_commands_are_carried_out_and_not_sent(server: Server, terminal: Pseudo) -> None:
    process = chat(server, terminal)
    terminal.type("/hlep me\r")
    terminal.wait_for("Unknown command /hlep: /help lists the commands")
    wait_for_prompt(terminal)
    terminal.type("/help\r")
    terminal.wait_for("/exit        leave, and delete the chat")
    wait_for_prompt(terminal)
    terminal.type("//etc\r")
    terminal.wait_for("/etc\r\n")
    wait_for_prompt(terminal)
    terminal.type("/quit\r")
    assert ended(process).code == 0
    assert contents(server) == ["/etc"]


def test_a_prompt_that_no_server_stores_is_an_error_and_the_chat_goes_on(server: Server, terminal: Pseudo) -> None:
    process = chat(server, terminal)
    terminal.type("\x1b[200~a\0b\x1b[201~\r")
    terminal.wait_for("Error: prompt has a NUL character")
    wait_for_prompt(terminal)
    terminal.type("Hello\r")
    terminal.wait_for("Hello\r\n")
    wait_for_prompt(terminal)
    terminal.type("/exit\r")
    assert ended(process).code == 0


def history(state_folder: Path) -> Path:
    return state_folder / "oa-protocol" / "chat_history"


def test_what_was_typed_is_there_the_next_time_for_its_user_alone(
    server: Server, terminal: Pseudo, state_folder: Path
) -> None:
    for typed in ("Hello\r", "\x1b[A\r"):
        process = chat(server, terminal)
        terminal.type(typed)
        terminal.wait_for("Hello\r\n")
        wait_for_prompt(terminal)
        terminal.type("\x04")
        assert ended(process).code == 0
        assert stat.S_IMODE(history(state_folder).stat().st_mode) == 0o600
        history(state_folder).chmod(0o644)
    assert contents(server) == ["Hello", "Hello"]


def test_no_history_keeps_none(server: Server, terminal: Pseudo, state_folder: Path) -> None:
    process = chat(server, terminal, "--no-history")
    terminal.type("Hello\r")
    terminal.wait_for("Hello\r\n")
    wait_for_prompt(terminal)
    terminal.type("\x04")
    assert ended(process).code == 0
    assert not history(state_folder).exists()


def test_a_history_that_cannot_be_kept_is_noted_and_the_chat_goes_on(
    server: Server, terminal: Pseudo, state_folder: Path
) -> None:
    history(state_folder).mkdir(parents=True)
    process = chat(server, terminal)
    assert "Note: there is no history" in terminal.seen
    terminal.type("/exit\r")
    assert ended(process).code == 0


def test_the_prompt_is_not_in_a_stdout_that_is_no_terminal(server: Server, terminal: Pseudo) -> None:
    process = chat(server, terminal, stdout=subprocess.PIPE)
    terminal.type("Hello\r")
    wait_for_prompt(terminal)
    terminal.type("\x04")
    done = ended(process)
    assert (done.code, done.out) == (0, "Hello\n")


def test_a_terminal_that_hangs_up_deletes_the_chat(server: Server) -> None:
    with Pseudo() as terminal:
        process = chat(server, terminal)
        terminal.type("Hello\r")
        terminal.wait_for("Hello\r\n")
        wait_for_prompt(terminal)
    assert process.wait(30) is not None
    assert server.chats == ()


def test_what_a_command_cannot_do_is_an_error_and_the_chat_goes_on(server: Server, terminal: Pseudo) -> None:
    process = chat(server, terminal)
    terminal.type("/regenerate\r")
    terminal.wait_for("there is no prompt in the chat")
    wait_for_prompt(terminal)
    terminal.type("Hello\r")
    terminal.wait_for("Hello\r\n")
    wait_for_prompt(terminal)
    terminal.type("/edit Bye\r")
    terminal.wait_for("the first prompt of a chat can't be edited")
    wait_for_prompt(terminal)
    server.script(Fault("chat", before=Reply(500)))
    terminal.type("/branch\r")
    terminal.wait_for("HTTP 500 while reading the chat")
    wait_for_prompt(terminal)
    terminal.type("/exit\r")
    assert ended(process).code == 0
    assert server.chats == ()
