"""What a recorder writes: all that passes, at once, and no secret."""

from __future__ import annotations

import io
import json
import logging
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.website import Website
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import LocalProtocolError, MaybeSent, NotSent, TransportError
from oa_protocol.engine.intents import Exchange
from oa_protocol.engine.phases import Phase
from oa_protocol.tape import Recorder, Tape, load_tapes, parse_tapes, replay
from oa_protocol.tape.format import Json, decode_bytes

from .taping import CASES, ONE_TURN, record, recorded, recorder

CHAT = "06b02a53-f28e-708d-8000-044bde7b4953"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.placeholder.of-a-token"


def outputs(step: Json) -> Json:
    kept = {name: value for name, value in step.items() if name in ("intent", "events", "raises", "phase")}
    if kept.get("intent"):
        kept["intent"] = {
            name: value for name, value in kept["intent"].items() if name not in ("cookie", "authorization")
        }
    return kept


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_step_is_on_the_tape_up_to_the_end(case: Tape) -> None:
    steps = recorded(case).steps
    assert [outputs(step) for step in steps] == [outputs(step) for step in case.steps[: len(steps)]]
    if len(steps) < len(case.steps):
        assert steps[-1]["phase"] in ("DELETED", "NEVER_CREATED", "LEAKED")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_tape_replays_equal(case: Tape) -> None:
    difference = replay(recorded(case))
    assert difference is None, str(difference)


def test_a_step_is_on_the_tape_before_its_call_returns() -> None:
    file = io.StringIO()
    conversation = Recorder(Website("http://oa.example.org"), Credentials(token="t"), tape=file)
    assert file.getvalue() == ""
    for expected in ({"prompt": "Hello", "phase": "START"}, {"prompt": "Hello", "raises": "LocalProtocolError"}):
        with suppress(LocalProtocolError):
            conversation.prompt("Hello")
        (tape,) = parse_tapes(file.getvalue())
        assert tape.steps[-1].items() >= expected.items()


def test_a_tape_whose_writer_died_in_a_line_is_read_up_to_there() -> None:
    text = record(ONE_TURN)
    whole = text.splitlines(keepends=True)
    (tape,) = parse_tapes("".join(whole[:5]) + whole[5][:20])
    assert len(tape.steps) == 4
    assert replay(tape) is None


@pytest.mark.clause("OA-6.11")
def test_a_refused_call_is_on_the_tape_and_replays() -> None:
    file = io.StringIO()
    conversation = Recorder(Website("http://oa.example.org"), Credentials(token="t"), tape=file)
    with pytest.raises(ValueError, match="NUL"):
        conversation.prompt("\0")
    with pytest.raises(LocalProtocolError):
        conversation.receive_silence()
    (tape,) = parse_tapes(file.getvalue())
    assert [step["raises"] for step in tape.steps] == ["ValueError", "LocalProtocolError"]
    assert replay(tape) is None


def test_an_engine_that_breaks_leaves_the_input_on_the_tape(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    conversation = Recorder(Website("http://oa.example.org"), Credentials(token="t"), tape=file)
    conversation.prompt("Hello")
    conversation.next_intent()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Conversation, "receive_reply", broken)
    with pytest.raises(ZeroDivisionError):
        conversation.receive_reply(200, [], b"{}")
    (tape,) = parse_tapes(file.getvalue())
    assert tape.steps[-1] == {"reply": 200, "body": "{}", "raises": "ZeroDivisionError", "phase": "START"}


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(NotSent("no route"), "NotSent"), (MaybeSent("no route"), "MaybeSent"), (TransportError("no route"), "MaybeSent")],
)
def test_a_failure_is_told_with_its_words(failure: TransportError, kind: str) -> None:
    file = io.StringIO()
    conversation = Recorder(Website("http://oa.example.org"), Credentials(token="t"), tape=file)
    conversation.prompt("Hello")
    conversation.next_intent()
    conversation.receive_failure(failure)
    assert parse_tapes(file.getvalue())[0].steps[-1].items() >= {"failure": kind, "reason": "no route"}.items()


def test_patience_that_ended_is_on_the_tape() -> None:
    opened = next(number for number, step in enumerate(ONE_TURN.steps) if "stream_opened" in step) + 1
    tape = recorded(Tape(ONE_TURN.config, (*ONE_TURN.steps[:opened], {"answer_timed_out": True})))
    assert tape.steps[-1].items() >= {"answer_timed_out": True, "phase": "FAILED"}.items()
    assert replay(tape) is None


def test_what_went_wrong_is_told_in_words() -> None:
    steps = {step["reason"]: step for case in CASES.values() for step in recorded(case).steps if "reason" in step}
    (failed,) = (step for reason, step in steps.items() if reason.startswith("there are no credentials: give cookies="))
    assert failed["events"][0]["error"]["type"] == "AuthenticationError"
    (leaked,) = (
        step for reason, step in steps.items() if reason == "the chat could not be deleted in the time allowed"
    )
    assert leaked["events"][-1]["type"] == "Leaked"


def test_bytes_that_are_no_text_are_kept() -> None:
    (case,) = (case for case in CASES.values() if case is ONE_TURN)
    opened = next(number for number, step in enumerate(case.steps) if "stream_opened" in step) + 1
    steps = (*case.steps[:opened], {"stream_data": {"base64": "/w=="}, "phase": "STREAMING"})
    assert recorded(Tape(case.config, steps)).steps[-1]["stream_data"] == {"base64": "/w=="}


ANYTHING = [
    *(step for case in CASES.values() for step in case.steps if "intent" not in step),
    *({"intent": None} for _ in range(150)),
]


@settings(deadline=None)
@given(st.sampled_from(list(CASES.values())), st.lists(st.sampled_from(ANYTHING), max_size=30))
def test_whatever_happens_in_whatever_order_replays_equal(case: Tape, happening: list[Json]) -> None:
    tape = recorded(Tape(case.config, ({"prompt": "Hello"}, *happening)))
    assert parse_tapes(str(tape)) == [tape]
    difference = replay(tape)
    assert difference is None, str(difference)


# ---- secrets


def test_no_credentials_are_on_a_tape() -> None:
    file = io.StringIO()
    conversation = Recorder(
        Website("http://oa.example.org"), Credentials({"session.0": "half-a-secret", "lang": "en"}, TOKEN), tape=file
    )
    conversation.prompt("Hello")
    create = conversation.next_intent()
    assert isinstance(create, Exchange)
    assert dict(create.request.headers)["authorization"] == f"Bearer {TOKEN}"
    head, _, asked = (json.loads(line) for line in file.getvalue().splitlines())
    assert head["config"]["credentials"] == {
        "cookies": {"session.0": "secret-1", "lang": "secret-2"},
        "token": "secret-3",
    }
    assert asked["intent"]["cookie"] == "session.0=secret-1; lang=secret-2"
    assert asked["intent"]["authorization"] == "Bearer secret-3"
    assert replay(parse_tapes(file.getvalue())[0]) is None


def test_a_secret_that_a_server_repeats_is_masked_and_replays_equal() -> None:
    file = io.StringIO()
    conversation = Recorder(InferenceServer("http://oa.example.org"), Credentials(token=TOKEN), retries=0, tape=file)
    conversation.prompt("Hello")
    conversation.next_intent()
    headers = [("Location", f"/login?next={TOKEN}"), ("Set-Cookie", "fresh=one")]
    (failed, _) = conversation.receive_reply(422, headers, json.dumps({"detail": f"Bad {TOKEN}"}).encode())
    assert TOKEN in str(failed)
    assert TOKEN not in file.getvalue()
    assert "fresh=secret-" in file.getvalue()
    (tape,) = parse_tapes(file.getvalue())
    assert tape.steps[-1]["events"][0]["error"]["message"] == "Bad secret-1"
    assert replay(tape) is None


def test_the_cookies_that_a_reply_sets_are_masked_and_where_it_repeats_one() -> None:
    file = io.StringIO()
    conversation = Recorder(Website("http://oa.example.org"), Credentials({"a": "b"}), retries=0, tape=file)
    conversation.prompt("Hello")
    conversation.next_intent()
    first, second = "first-of-two-cookies", "second-of-two-cookies"
    headers = [("Set-Cookie", f"one={first}; Path=/"), ("set-cookie", f"two={second}")]
    conversation.receive_reply(422, headers, f"{first} {second}".encode())
    (tape,) = parse_tapes(file.getvalue())
    assert tape.steps[-1]["headers"] == {"set-cookie": "two=secret-3"}
    assert tape.steps[-1]["body"] == "secret-2 secret-3"
    assert replay(tape) is None


def test_a_secret_among_bytes_that_are_no_text_is_masked() -> None:
    file = io.StringIO()
    conversation = Recorder(InferenceServer("http://oa.example.org"), Credentials(token=TOKEN), retries=0, tape=file)
    conversation.prompt("Hello")
    conversation.next_intent()
    conversation.receive_reply(422, [], b"\xff " + TOKEN.encode())
    (tape,) = parse_tapes(file.getvalue())
    assert decode_bytes(tape.steps[-1]["body"]) == b"\xff secret-1"
    assert replay(tape) is None


def test_refused_and_renewed_credentials_are_told_apart() -> None:
    file = io.StringIO()
    conversation = Recorder(Website("http://oa.example.org"), Credentials({"session": "old"}), tape=file)
    conversation.prompt("Hello")
    conversation.next_intent()
    conversation.receive_reply(403, [], b"")
    conversation.next_intent()
    conversation.receive_cookies(Credentials({"session": "new"}))
    conversation.next_intent()
    (tape,) = parse_tapes(file.getvalue())
    assert [step["intent"]["cookie"] for step in tape.steps if step.get("intent", {}).get("cookie")] == [
        "session=secret-1",
        "session=secret-2",
    ]
    assert replay(tape) is None


def test_what_a_tape_cannot_do_without_is_no_secret() -> None:
    file = io.StringIO()
    cookies = {
        "callback": "http://oa.example.org/chat/a",
        "site": "http://oa.example",
        "chat": CHAT,
        "role": "assistant",
    }
    conversation = Recorder(Website("http://oa.example.org"), Credentials(cookies), tape=file)
    conversation.prompt("assistant")
    conversation.next_intent()
    conversation.receive_reply(200, [], json.dumps({"id": CHAT}).encode())
    conversation.next_intent()
    (tape,) = parse_tapes(file.getvalue())
    assert tape.config["base_url"] == "http://oa.example.org"
    assert tape.steps[-1]["intent"]["body"] == {"chat_id": CHAT, "parent_id": None, "content": "assistant"}
    assert replay(tape) is None


def test_the_password_of_a_proxy_is_masked() -> None:
    file = io.StringIO()
    conversation = Recorder(Website("http://oa.example.org"), Credentials(token="t"), tape=file)
    conversation.prompt("Hello")
    conversation.next_intent()
    conversation.receive_failure(NotSent("cannot connect to http://me:hunter2@proxy.example.org:3128"))
    step = parse_tapes(file.getvalue())[0].steps[-1]
    assert step["reason"] == "cannot connect to http://***@proxy.example.org:3128"


# ---- the file


def test_a_path_is_opened_by_the_first_step_and_closed_with_the_last(tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    conversation = Recorder(Website("http://oa.example.org"), tape=path)
    assert not path.exists()
    conversation.close()
    assert conversation.phase is Phase.NEVER_CREATED
    before = path.read_text("utf-8")
    conversation.abandon()  # after the end nothing is told, and nothing opened: an unclosed file would be an error here
    assert path.read_text("utf-8") == before
    (tape,) = load_tapes(path)
    assert [step["phase"] for step in tape.steps] == ["NEVER_CREATED"]


def test_a_file_that_was_given_stays_open() -> None:
    file = io.StringIO()
    Recorder(Website("http://oa.example.org"), tape=file).close()
    assert not file.closed


class Full(io.StringIO):
    """A file on a disk that is full after some lines."""

    room = 3

    def write(self, text: str, /) -> int:
        if self.room == 0:
            raise OSError(28, "No space left on device")
        self.room -= 1
        return super().write(text)


def test_a_full_disk_stops_the_recording_alone(caplog: pytest.LogCaptureFixture) -> None:
    file = Full()
    conversation = recorder(ONE_TURN.config, file)
    with caplog.at_level(logging.WARNING, "oa_protocol"):
        conversation.prompt("Hello")
        for _ in range(3):
            conversation.next_intent()
        assert conversation.close() == []
        conversation.abandon()
    assert conversation.phase is Phase.LEAKED
    assert [record.getMessage() for record in caplog.records] == [
        "the tape cannot be written, and recording stops: [Errno 28] No space left on device"
    ]


def test_a_path_that_cannot_be_opened_stops_the_recording_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    conversation = Recorder(Website("http://oa.example.org"), tape=tmp_path)
    conversation.close()
    assert conversation.phase is Phase.NEVER_CREATED
    assert len(caplog.records) == 1
