from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from oa_protocol.server import Answer, Hold, Server
from oa_protocol.tape import load_tapes
from tests.tape.test_har import captured

from .command import credentials, ended, oa_protocol, started

FULL = Path("/dev/full")
VECTORS = Path(__file__).parents[2] / "specs" / "vectors"


@pytest.mark.parametrize("api", ["website", "inference"])
def test_a_recorded_question_is_printed_and_replays_equal(server: Server, api: str, tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    done = oa_protocol("ask", "--api", api, "--tape", str(path), "two  words", env=credentials(server))
    assert (done.code, done.out, done.err) == (0, "two  words\n", "")
    told = oa_protocol("replay", str(path))
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith(f"{api} at {server.url}, model OA_SFT_Llama_30B_6\n")
    for said in ('asks "two  words"', '"two  words"; Answered  [ANSWERED]', "[DELETED]", "This engine does the same."):
        assert said in told.out


def test_a_recorded_chat_has_all_its_turns(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    assert oa_protocol("chat", "--tape", str(path), stdin="a\nb\n", env=credentials(server)).code == 0
    (tape,) = load_tapes(path)
    assert [step["input"]["text"] for step in tape.steps if "text" in step.get("input", {})] == ["a", "b"]


def test_the_tape_of_a_process_that_was_killed_has_what_it_did(server: Server, tmp_path: Path) -> None:
    path, hold = tmp_path / "tape.jsonl", Hold()
    server.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    command = started(["ask", "--tape", str(path), "Count"], credentials(server))
    server.wait_for("events")
    command.kill()
    ended(command)
    hold.release()
    (tape,) = load_tapes(path)
    assert "OpenStream" in [step["intent"]["kind"] for step in tape.steps if step.get("intent")]
    assert oa_protocol("replay", str(path)).code == 0


def test_an_engine_that_does_something_else_is_reported_with_the_step(tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    lines = (VECTORS / "conversations.jsonl").read_text("utf-8").splitlines()[:4]
    path.write_text("\n".join([*lines[:3], json.dumps(json.loads(lines[3]) | {"intent": None})]), "utf-8")
    done = oa_protocol("replay", str(path))
    assert done.code == 1
    assert "This engine does something else:\nstep 3: the next intent\n  expected: " in done.out


def test_a_file_of_several_conversations_tells_each_with_its_name() -> None:
    done = oa_protocol("replay", str(VECTORS / "deleting.jsonl"))
    assert done.code == 0
    names = [case.name for case in load_tapes(VECTORS / "deleting.jsonl")]
    assert [line for line in done.out.splitlines() if line in names] == names


def test_a_browsers_recording_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "browser.HAR"
    path.write_text(captured("happy_path"), "utf-8")
    done = oa_protocol("replay", str(path))
    assert done.code == 0
    assert 'asks "Hello, who are you?"' in done.out
    assert "[DELETED]" in done.out


HEAD = b'{"config": {"api": "website", "base_url": "http://oa.example.org"%b}}\n'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "there is nothing in it"),
        (b"\xff", "can't decode"),
        (b"no JSON\n\n", "line 1 of the tape is not JSON"),
        (b'{"config": {}}\n', "api must be one of"),
        (b'{"config": {"api": "website"}}\n', "base_url"),
        (HEAD % b', "options": []', "Expected `object`, got `array` - at `$.config.options`"),
        (HEAD % b"" + b'{"now": 0, "input": {"type": "Close"}}\n', "step 1 of the tape has no phase"),
        (
            HEAD % b"" + b'{"now": 0, "intent": null, "phase": "START"}\n{"dance": 1, "phase": "START"}\n',
            "not a step of a tape",
        ),
    ],
)
def test_what_is_no_tape_is_a_usage_error(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    path.write_bytes(content)
    done = oa_protocol("replay", str(path))
    assert (done.code, done.out) == (2, "")
    assert problem in done.err


def test_a_har_file_without_a_chat_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "browser.har"
    path.write_text('{"log": {"entries": []}}')
    done = oa_protocol("replay", str(path))
    assert (done.code, done.out) == (2, "")
    assert "begin recording before the first prompt" in done.err


def test_a_tape_that_cannot_be_written_is_a_usage_error_before_anything_is_sent(server: Server, tmp_path: Path) -> None:
    done = oa_protocol("ask", "--tape", str(tmp_path), "Hello", env=credentials(server))
    assert (done.code, done.out) == (2, "")
    assert "the file cannot be written: Is a directory" in done.err
    assert server.requests == ()


def test_a_stdout_without_a_reader_ends_the_printing() -> None:
    out_end, in_end = os.pipe()
    os.close(out_end)
    command = started(["replay", str(VECTORS / "recovery.jsonl")], stdout=in_end)
    os.close(in_end)
    done = ended(command)
    assert (done.code, done.err) == (141, "")


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_a_stdout_that_is_full_is_reported_without_a_traceback() -> None:
    with FULL.open("wb") as full:
        done = ended(started(["replay", str(VECTORS / "recovery.jsonl")], stdout=full.fileno()))
    assert (done.code, done.err) == (1, "Error: stdout: No space left on device\n")


def test_a_tape_is_shown_as_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = oa_protocol("replay", str(VECTORS / "conversations.jsonl"), "--html", str(page))
    assert (done.code, done.err) == (0, "")
    assert "This engine does the same." in done.out
    assert "CreateChat: POST /api/chat" in page.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    done = oa_protocol("replay", str(VECTORS / "conversations.jsonl"), "--html", str(tmp_path / "none" / "page.html"))
    assert done.code == 2
    assert "the page cannot be written" in done.err
