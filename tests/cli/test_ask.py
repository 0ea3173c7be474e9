from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from oa_protocol.server import Abandon, Answer, Echo, End, Hold, PluginStep, Send, Server, StreamFault

from .command import credentials, ended, oa_protocol, process, started


@pytest.mark.parametrize("api", ["website", "inference"])
def test_stdout_has_the_answer_and_nothing_else(server: Server, api: str) -> None:
    done = oa_protocol("ask", "--api", api, "two  words ", env=credentials(server))
    assert (done.code, done.out, done.err) == (0, "two  words\n", "")
    assert server.chats == ()


def test_without_a_url_an_embedded_server_answers_and_stderr_says_so_in_one_line() -> None:
    done = process("ask", "Hello", env={"OA_TOKEN": "not for this one", "HTTP_PROXY": "http://127.0.0.1:9"})
    assert done.code == 0
    assert done.out.strip()
    assert done.err.startswith("No --url and no OA_URL: talking to an embedded server at http://127.0.0.1:")
    assert done.err.count("\n") == 1


def test_quiet_says_nothing_but_the_answer() -> None:
    done = oa_protocol("ask", "--quiet", "Hello")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "content"), [([], "é 😀\nb\n"), (["-"], "é 😀\nb"), ([], "é 😀\nb\r\n")], ids=["LF", "-", "CRLF"]
)
def test_a_prompt_that_is_piped(server: Server, arguments: list[str], content: str) -> None:
    done = process("ask", *arguments, stdin=content, env={**credentials(server), "PYTHONUTF8": "1"})
    assert (done.code, done.out) == (0, "é 😀\nb\n")


def test_a_stdout_that_cannot_carry_every_character(server: Server) -> None:
    done = process("ask", "a 😀", env={**credentials(server), "PYTHONIOENCODING": "ascii"})
    assert (done.code, done.out) == (0, "a ?\n")


def test_json_has_every_event_on_a_line(server: Server) -> None:
    server.script(Answer(pieces=("a ", PluginStep("why", "search", "x", "y"), "😀")))
    done = oa_protocol("ask", "--json", "Hello", env=credentials(server))
    names = [event.pop("event") for event in done.events]
    assert [name for name in names if name != "queued"] == [
        "created", "prompted", "requested", "token", "plugin_step", "token", "token", "answered", "deleted",
    ]  # fmt: skip
    told = dict(zip(names, done.events, strict=True))
    assert told["answered"]["message"]["content"] == "a 😀"
    assert told["plugin_step"]["current_plugin_action_taken"] == "search"
    assert told["created"]["chat_id"] == told["deleted"]["chat_id"]
    assert (done.code, done.err, done.out.isascii()) == (0, "", True)


def test_json_says_how_it_failed(server: Server) -> None:
    done = oa_protocol("ask", "--json", "--model", "nope", "Hello", env=credentials(server))
    assert [event["event"] for event in done.events] == ["created", "prompted", "failed", "deleted"]
    assert done.events[2]["error"] == "ApiError"
    assert "Model nope not found" in done.events[2]["message"]
    assert done.code == 1


def request_for_an_answer(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(next(one.body for one in server.requests if one.step == "request"))
    return found


def test_every_option_of_an_answer_is_sent(server: Server) -> None:
    options = {
        "temperature": 0.5, "top_k": 7, "top_p": 0.25, "typical_p": 0.125, "repetition_penalty": 1.5,
        "max_new_tokens": 9,
    }  # fmt: skip
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    done = oa_protocol(
        "ask", "x", "--model", "_lorem", "--system-prompt", "Be brief", "--timeout", "60", *arguments,
        env=credentials(server),
    )  # fmt: skip
    assert done.code == 0, done.err
    sent = request_for_an_answer(server)
    assert sent["sampling_parameters"] == options
    assert (sent["model_config_name"], sent["system_prompt"]) == ("_lorem", "Be brief")


def test_the_default_model_is_the_one_that_help_names(server: Server) -> None:
    assert oa_protocol("ask", "x", env=credentials(server)).code == 0
    sent = request_for_an_answer(server)
    assert sent["model_config_name"] in oa_protocol("ask", "--help").out


def test_credentials_from_files(server: Server, tmp_path: Path) -> None:
    cookies, token = tmp_path / "cookies.txt", tmp_path / "token"
    line = "\t".join(["127.0.0.1", "FALSE", "/", "FALSE", "0", *next(iter(server.cookies.items()))])
    cookies.write_text(f"# Netscape HTTP Cookie File\n{line}\n")
    token.write_text(f"{server.token}\n")
    website = oa_protocol("ask", "a", "--url", server.url, "--cookies", str(cookies))
    inference = oa_protocol("ask", "b", "--url", server.url, "--api", "inference", "--token-file", str(token))
    assert [(website.code, website.out), (inference.code, inference.out)] == [(0, "a\n"), (0, "b\n")]


def test_trace_shows_phases_intents_and_replies_on_a_line_each(server: Server) -> None:
    done = oa_protocol("ask", "--trace", "Hello", env=credentials(server))
    lines = [line.split(maxsplit=1)[1] for line in done.err.splitlines()]
    moves = [line.split(" -> ") for line in lines if " -> " in line]
    assert [before for before, _ in moves] == [
        "START", "COOKIES", "CHAT_CREATED", "PROMPTED", "ASSISTANT_REQUESTED", "STREAMING", "ANSWERED", "DELETING",
    ]  # fmt: skip
    assert moves[-1][1] == "DELETED"
    assert [line.split()[1] for line in lines if line.startswith("-> ")] == [
        "LoadCredentials", "CreateChat:", "SendPrompt:", "RequestAssistant:", "OpenStream:", "CloseStream",
        "DeleteChat:",
    ]  # fmt: skip
    assert sum(line.startswith("<- 200") for line in lines) == 5
    assert (done.code, done.out) == (0, "Hello\n")


def test_trace_has_one_side_of_each_request_if_the_server_is_embedded() -> None:
    assert not re.search(r"/api/chat 200 \d+ ms", oa_protocol("ask", "--trace", "Hello").err)


@pytest.mark.clause("OA-2.5")
@pytest.mark.parametrize("arguments", [["ask", "hi"], ["models", "--api", "inference"]])
def test_no_output_has_a_secret_in_it(server: Server, arguments: list[str]) -> None:
    known = credentials(server)
    server.revoke()
    for env in (credentials(server), known):
        done = oa_protocol(*arguments, "--trace", env=env)
        for name in ("OA_COOKIES", "OA_TOKEN"):
            assert env[name].rpartition("=")[2] not in done.out + done.err


@pytest.mark.parametrize("command", ["ask", "chat", "models"])
def test_no_option_takes_a_secret(command: str) -> None:
    for option, value, place in (
        ("--cookies", "next-auth.session-token=SECRET", "OA_COOKIES"),
        ("--token-file", "SECRET", "OA_TOKEN"),
        ("--proxy", "http://me:SECRET@127.0.0.1:9", "HTTPS_PROXY"),
        ("--url", "http://me:SECRET@127.0.0.1:9", "cookies"),
    ):
        arguments = [command, "--url", "http://127.0.0.1:9", option, value]
        done = oa_protocol(*arguments, stdin="x")
        assert (done.code, done.out) == (2, "")
        assert "SECRET" not in done.err
        assert place in done.err


def test_white_space_at_the_end_is_the_final_texts(server: Server) -> None:
    server.script(Answer(pieces=("a", " \n", "b", " \n"), final="a \nb \n"))
    assert oa_protocol("ask", "x", env=credentials(server)).out == "a \nb \n"


def test_an_empty_answer_is_no_line(server: Server) -> None:
    server.script(Answer(pieces=()))
    done = oa_protocol("ask", "x", env=credentials(server))
    assert (done.code, done.out) == (0, "")


def test_a_final_text_that_contradicts_the_tokens_is_noted(server: Server) -> None:
    server.script(Answer(pieces=("wrong",), final="right"))
    done = oa_protocol("ask", "x", env=credentials(server))
    assert (done.code, done.out) == (0, "wrong\n")
    assert "the final text differs" in done.err
    server.script(Answer(pieces=("wrong",), final="right"))
    done = oa_protocol("ask", "--json", "x", env=credentials(server))
    assert {"event": "corrected", "text": "right", "cut": False} in done.events


def test_a_cut_stream_that_the_final_text_does_not_continue_is_a_failure() -> None:
    with Server(Echo(), reader_grace=60) as server:
        server.script(Answer(pieces=("wrong ", "x"), final="right"), StreamFault(after_events=1, then=End()))
        done = oa_protocol("ask", "x", env=credentials(server))
        assert (done.code, done.out) == (5, "wrong\n")
        assert "the stream was cut" in done.err
        assert server.chats == ()


def prompt(server: Server) -> str:
    found: str = json.loads(next(one.body for one in server.requests if one.step == "prompt"))["content"]
    return found


@pytest.mark.parametrize(
    ("argument", "piped", "sent"),
    [
        ("Summarize:", b"a\nb\n", "Summarize:\n\na\nb"),
        ("Summarize:", b"", "Summarize:"),
        ("Summarize:", b" \n", "Summarize:"),
        ("", b"a", "\n\na"),
    ],
)
def test_what_is_piped_in_comes_after_the_argument(server: Server, argument: str, piped: bytes, sent: str) -> None:
    assert oa_protocol("ask", argument, stdin=piped, env=credentials(server)).code == 0
    assert prompt(server) == sent


def test_a_stdin_that_stays_open_is_noted(server: Server) -> None:
    with started(["ask", "Hello"], credentials(server), stdin=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"Waiting for the end of stdin")
        assert ended(process).out == "Hello\n"


@pytest.mark.parametrize(
    ("options", "position", "said"),
    [([], 3, "Waiting for a worker: position 3 of 5.\n"), (["--quiet"], 3, ""), ([], 0, "")],
    ids=["waits", "quiet", "a worker has it"],
)
def test_a_queued_answer_is_noted_once_even_if_stderr_is_no_terminal(
    server: Server, options: list[str], position: int, said: str
) -> None:
    pending = b'data: {"event_type": "pending", "queue_position": %d, "queue_size": 5}\r\n\r\n' % position
    server.script(StreamFault(after_events=0, then=Send(pending * 2)))
    done = oa_protocol("ask", "x", *options, env=credentials(server))
    assert (done.code, done.out, done.err) == (0, "x\n", said)


@pytest.mark.clause("OA-4.7", "OA-5.9")
def test_a_cancelled_answer_says_who_did_it(server: Server) -> None:
    server.script(Answer(then=Abandon("cancelled")), StreamFault(then=End()))
    done = oa_protocol("ask", "x", env=credentials(server))
    assert done.code == 5
    assert "another request of the same account" in done.err


@pytest.mark.clause("OA-6.9")
@pytest.mark.parametrize(("tokens", "phase"), [(0, "ASSISTANT_REQUESTED"), (1, "STREAMING")])
def test_the_time_for_an_answer_ends_in_the_phase_that_it_says(server: Server, tokens: int, phase: str) -> None:
    hold = Hold()
    server.script(Answer(("a ", "b"), after=tokens, then=hold))
    process = started(["ask", "--timeout", "1", "x"], credentials(server))
    server.wait_for("message")
    hold.release()
    done = ended(process)
    assert done.code == 5
    assert f"no answer came in the time allowed (phase {phase})" in done.err
