"""Every exit code, and its error message. There is never a traceback."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from oa_protocol.client.client import Client
from oa_protocol.server import Answer, Fault, Hold, Reply, Reset, Server, WorkerError

from .command import COMMAND, PATIENCE, credentials, ended, environment, oa_protocol, process, started

FULL = Path("/dev/full")


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (["ask"], b"", "the prompt is empty"),
        (["ask", " \n"], b"", "the prompt is empty"),
        (["ask"], b"a\0b", "prompt has a NUL character"),
        (["ask"], b"a\xffb", "stdin is not UTF-8: byte 0xff at 1"),
        (["chat"], b"\xc3\n", "stdin is not UTF-8: byte 0xc3 at 0"),
        (["chat"], b"a\0b\n", "prompt has a NUL character"),
        (["ask"], b"a" * (8 * 1024 * 1024 + 1), "over 8 MiB"),
        (["chat"], b"a" * (8 * 1024 * 1024 + 1), "over 8 MiB"),
        (["ask", "\udcff"], b"", "prompt has a lone surrogate"),
        (["ask", "x", "--temperature", "nan"], b"", "Error: --temperature must be finite"),
        (["ask", "x", "--top-k", "1.5"], b"", "'--top-k'"),
        (["ask", "x", "--timeout", "0"], b"", "'--timeout'"),
        (["ask", "x", "--timeout", "nan"], b"", "Error: --timeout must not be negative"),
        (["ask", "x", "--url", "http://127.0.0.1:9/?a"], b"", "Error: --url must have no query"),
        (["ask", "x", "--url", "ftp://127.0.0.1"], b"", "Error: --url must be an http or https URL"),
        (["ask", "x", "--url", "http://127.0.0.1:9", "--proxy", "gopher://x"], b"", "Error: --proxy must be"),
        (["ask", "x", "--cookies", os.devnull], b"", "need a server: give its --url, or set OA_URL"),
        (["ask", "x", "--url", "http://127.0.0.1:9", "--token-file", os.devnull], b"", "the file is empty"),
        (["serve", "--host", "0.0.0.0"], b"", "it listens on loopback only"),
        (["serve", "--port", "65536"], b"", "'--port'"),
    ],
    ids=range(20),
)  # fmt: skip
def test_2_usage(arguments: list[str], stdin: bytes, said: str) -> None:
    done = oa_protocol(*arguments, stdin=stdin)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    lines = [line for line in done.err.splitlines() if "talking to an embedded server" not in line]
    assert lines[0].startswith("Error: ")
    assert len(lines) <= 2


def test_2_standard_streams_that_are_closed() -> None:
    for shell, said in (("ask <&-", "stdin is closed"), ("chat <&-", "stdin is closed"), ("ask x >&-", "stdout is")):
        done = subprocess.run(
            ["sh", "-c", f'"$@" {shell}', "sh", *COMMAND], env=environment(), stderr=subprocess.PIPE, timeout=PATIENCE
        )
        assert done.returncode == 2
        assert said in done.stderr.decode()


@pytest.mark.parametrize("command", [["ask", "x"], ["ask", "x", "--api", "inference"], ["models"]])
def test_3_no_credentials(server: Server, command: list[str]) -> None:
    done = oa_protocol(*command, env={"OA_URL": server.url})
    assert (done.code, done.out) == (3, "")
    assert "there are no credentials: give --cookies or --token-file" in done.err
    assert "OA_COOKIES" in done.err


def test_3_rejected_credentials(server: Server) -> None:
    done = process("ask", "x", env={"OA_URL": server.url, "OA_COOKIES": "next-auth.session-token=x"})
    assert done.code == 3
    assert "HTTP 403" in done.err
    assert "Give credentials with --cookies or OA_COOKIES" in done.err


@pytest.mark.parametrize("status", [429, 503])
def test_4_busy(server: Server, status: int) -> None:
    # A wait that is longer than a minute is not waited for.
    busy = Reply(status, b'{"message":"Try later"}', (("retry-after", "3600"), ("content-type", "application/json")))
    server.script(Fault("create", before=busy))
    done = oa_protocol("ask", "x", env=credentials(server))
    assert (done.code, done.out) == (4, "")
    assert done.err.startswith("Error: Try later: HTTP")
    server.script(Fault("models", before=Reply(status)))
    assert oa_protocol("models", env=credentials(server)).code == 4


def test_5_the_answer_failed(server: Server) -> None:
    server.script(Answer(pieces=("half ", "whole"), after=1, then=WorkerError("It broke.\x1b[2J")))
    done = oa_protocol("ask", "x", env=credentials(server))
    assert (done.code, done.out) == (5, "half\n")
    assert done.err.startswith("Error: ")
    assert "It broke." in done.err
    assert "\x1b" not in done.err
    assert server.chats == ()


def test_5_the_answer_took_too_long(server: Server) -> None:
    server.script(Answer(then=Hold()))
    command = started(["ask", "x", "--timeout", "0.05"], credentials(server))
    server.wait_for("message")  # the answer is given up, and only its end is waited for
    server.release()
    done = ended(command)
    assert (done.code, done.out, server.chats) == (5, "", ())


def test_6_a_chat_is_left_and_named(server: Server) -> None:
    server.script(Fault("delete", before=Reply(403), times=9))
    done = process("ask", "x", env=credentials(server))
    (left,) = server.chats
    assert (done.code, done.out) == (6, "x\n")
    assert f"Left behind: chat {left.id}: " in done.err
    assert "run `oa-protocol sweep` with the same --url" in done.err
    assert "Warning" not in done.err


def test_6_without_a_journal_no_sweep_is_promised(server: Server) -> None:
    server.script(Fault("delete", before=Reply(403), times=9))
    done = oa_protocol("ask", "x", "--journal", "", env=credentials(server))
    assert done.code == 6
    assert "sweep" not in done.err


def test_6_comes_before_1_and_after_5(server: Server) -> None:
    refuses = Fault("delete", before=Reply(403), times=9)
    server.script(refuses)
    assert oa_protocol("ask", "x", "--model", "nope", env=credentials(server)).code == 6
    server.script(refuses, Answer(then=WorkerError()))
    done = oa_protocol("ask", "--json", "x", env=credentials(server))
    assert done.code == 5
    assert "Left behind: chat" in done.err
    assert done.events[-1]["event"] == "leaked"
    assert done.events[-1]["records"][0]["chat_id"] in done.err


def test_6_a_chat_that_may_exist(server: Server) -> None:
    server.script(Fault("create", after=Reset()))
    done = oa_protocol("ask", "x", env=credentials(server))
    assert done.code == 6
    assert "Left behind: chat (id unknown)" in done.err


@pytest.mark.parametrize("code", [0, 6])
def test_a_trace_without_a_reader_changes_neither_the_work_nor_its_exit_code(server: Server, code: int) -> None:
    if code == 6:
        server.script(Fault("delete", before=Reply(403), times=9))
    out_end, in_end = os.pipe()
    os.close(out_end)
    command = started(["ask", "--trace", "a b c"], credentials(server), stderr=in_end)
    os.close(in_end)
    done = ended(command)
    assert (done.code, done.out) == (code, "a b c\n")
    assert bool(server.chats) == (code == 6)


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_tape_on_a_full_disk_costs_nothing_but_the_tape(server: Server) -> None:
    done = process("ask", "--tape", str(FULL), "a b c", env=credentials(server))
    assert (done.code, done.out) == (0, "a b c\n")
    assert done.err.count("\n") == 1
    assert "recording stops" in done.err


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_1_the_help_cannot_be_printed() -> None:
    with FULL.open("w") as full:
        done = ended(started(["--help"], stdout=full.fileno()))
    assert (done.code, done.err) == (1, "Error: stdout: No space left on device\n")


def test_141_stdout_is_closed_and_the_chat_is_deleted(server: Server) -> None:
    out_end, in_end = os.pipe()
    os.close(out_end)
    command = started(["ask", "a b c"], credentials(server), stdout=in_end)
    os.close(in_end)
    done = ended(command)
    assert (done.code, done.err) == (141, "")
    assert server.chats == ()
    assert "delete" in [request.step for request in server.requests]


def test_1_anything_else() -> None:
    with Server() as server:
        done = oa_protocol("ask", "x", "--model", "nope", env=credentials(server))
    assert done.code == 1
    assert done.err.startswith("Error: Model nope not found")
    assert done.err.endswith("The server's models: oa-protocol models\n")
    done = oa_protocol("models", env=credentials(server))
    assert done.code == 1
    assert done.err.startswith(f"Error: cannot reach {server.url}")
    with Server() as other:
        done = oa_protocol("serve", "--port", other.url.rpartition(":")[2])
    assert done.code == 1
    assert "cannot listen on port" in done.err


@pytest.mark.skipif(not FULL.exists(), reason="needs a disk that is full")
def test_1_a_full_disk(server: Server) -> None:
    with FULL.open("wb") as full:
        done = ended(started(["ask", "x"], credentials(server), stdout=full.fileno()))
    assert (done.code, done.err) == (1, "Error: stdout: No space left on device\n")
    assert server.chats == ()


def test_1_a_bug_is_reported_without_a_traceback_unless_traced(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("oh")

    monkeypatch.setattr(Client, "models", fails)
    done = oa_protocol("models", env=credentials(server))
    assert (done.code, done.err) == (1, "Error: unexpected RuntimeError: oh (--trace shows where)\n")
    done = oa_protocol("models", "--trace", env=credentials(server))
    assert done.code == 1
    assert "in fails" in done.err
