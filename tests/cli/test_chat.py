from __future__ import annotations

import subprocess

import pytest

from oa_protocol.server import Answer, Server, WorkerError

from .command import credentials, oa_protocol, started


@pytest.mark.parametrize("api", ["website", "inference"])
@pytest.mark.parametrize(
    "end", ["", "/quit\nnever asked\n", " /quit"], ids=["end of stdin", "/quit", "/quit at the end"]
)
def test_the_lines_are_answered_in_one_chat(server: Server, api: str, end: str) -> None:
    done = oa_protocol("chat", "--api", api, stdin=f"one\n\n  \ntwo  words\n{end}", env=credentials(server))
    assert (done.code, done.out, done.err) == (0, "one\ntwo  words\n", "")
    assert [request.step for request in server.requests].count("create") == 1
    assert [request.step for request in server.requests].count("prompt") == 2
    assert server.chats == ()


def test_an_answer_comes_before_the_next_line_is_read(server: Server) -> None:
    with started(["chat"], credentials(server), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in (b"one\n", b"two\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline() == line
        process.stdin.close()
        assert process.wait(10) == 0


def test_without_a_prompt_no_chat_is_made(server: Server) -> None:
    done = oa_protocol("chat", "--json", stdin="\n", env=credentials(server))
    assert (done.code, done.events) == (0, [{"event": "never_created"}])
    assert server.requests == ()


def test_json_goes_on_over_the_turns(server: Server) -> None:
    done = oa_protocol("chat", "--json", stdin="a\nb\n", env=credentials(server))
    names = [event["event"] for event in done.events if event["event"] != "queued"]
    turn = ["prompted", "requested", "token", "answered"]
    assert names == ["created", *turn, *turn, "deleted"]


def test_an_answer_that_fails_ends_it(server: Server) -> None:
    server.script(Answer(then=WorkerError("It broke.")))
    done = oa_protocol("chat", stdin="a\nb\n", env=credentials(server))
    assert (done.code, done.out) == (5, "")
    assert "It broke." in done.err
    assert server.chats == ()


def test_an_unknown_command_that_is_piped_in_is_a_usage_error(server: Server) -> None:
    done = oa_protocol("chat", stdin="one\n/hlep\ntwo\n", env=credentials(server))
    assert (done.code, done.out) == (2, "one\n")
    assert "unknown command /hlep" in done.err
    assert server.chats == ()
