"""What a recorder writes: all that passes, at once, and no secret."""

from __future__ import annotations

import copy
import html
import io
import json
import logging
import pickle
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oa_protocol.bindings.base import Credentials, Headers
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.website import Website
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import ApiError, LocalProtocolError, MaybeSent, NotSent, TransportError
from oa_protocol.engine.events import Failed
from oa_protocol.engine.inputs import (
    Abandon,
    Close,
    CredentialsFound,
    ExchangeFailed,
    Input,
    Prompt,
    ReplyReceived,
    StreamData,
    StreamEnded,
    TimePassed,
)
from oa_protocol.engine.intents import CreateChat, Exchange
from oa_protocol.engine.phases import Phase
from oa_protocol.tape import Recorder, Tape, load_tapes, parse_tapes, replay
from oa_protocol.tape.format import OUTPUTS, Json, decode_bytes, decode_input, take_step
from oa_protocol.tape.redact import Masks

from .taping import CASES, ONE_TURN, OPENED, record, recorded, recorder

CHAT = "06b02a53-f28e-708d-8000-044bde7b4953"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.placeholder.of-a-token"


def outputs(step: Json) -> Json:
    kept = {name: value for name, value in step.items() if name in OUTPUTS}
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
    asked = {"input": {"type": "Prompt", "text": "Hello"}}
    for expected in (asked | {"phase": "START"}, asked | {"raises": "LocalProtocolError"}):
        with suppress(LocalProtocolError):
            conversation.handle(Prompt("Hello"), 0.0)
        (tape,) = parse_tapes(file.getvalue())
        assert tape.steps[-1].items() >= expected.items()


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_recorder_is_neither_pickled_nor_copied(
    duplicate: Callable[[Recorder], object], steps: int, tmp_path: Path
) -> None:
    conversation = Recorder(Website("http://oa.test"), tape=tmp_path / "tape.jsonl")
    for _ in range(steps):
        conversation.handle(Prompt("Hello"), 0.0)
    with pytest.raises(TypeError, match="a Recorder can't be pickled or copied"):
        duplicate(conversation)
    conversation.handle(Abandon(), 1.0)


def test_a_tape_whose_writer_died_in_a_line_is_read_up_to_there() -> None:
    text = record(ONE_TURN)
    whole = text.splitlines(keepends=True)
    (tape,) = parse_tapes("\ufeff" + "".join(whole[:5]) + whole[5][:20])
    assert len(tape.steps) == 4
    assert replay(tape) is None


@pytest.mark.clause("OA-6.11")
def test_a_refused_call_is_on_the_tape_and_replays() -> None:
    file = io.StringIO()
    conversation = Recorder(Website("http://oa.example.org"), Credentials(token="t"), tape=file)
    with pytest.raises(ValueError, match="NUL"):
        conversation.handle(Prompt("\0"), 0.0)
    with pytest.raises(LocalProtocolError):
        conversation.handle(StreamEnded(), 0.0)
    (tape,) = parse_tapes(file.getvalue())
    assert [step["raises"] for step in tape.steps] == ["ValueError", "LocalProtocolError"]
    assert replay(tape) is None


def test_an_engine_that_breaks_leaves_the_input_on_the_tape(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    conversation = Recorder(Website("http://oa.example.org"), Credentials(token="t"), tape=file)
    conversation.handle(Prompt("Hello"), 0.0)
    conversation.next_intent(0.0)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Conversation, "handle", broken)
    with pytest.raises(ZeroDivisionError):
        conversation.handle(ReplyReceived(200, [], b"{}"), 0.0)
    (tape,) = parse_tapes(file.getvalue())
    happened = {"type": "ReplyReceived", "status": 200, "body": "{}"}
    assert tape.steps[-1].items() >= {"input": happened, "raises": "ZeroDivisionError", "phase": "START"}.items()


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(NotSent("no route"), "NotSent"), (MaybeSent("no route"), "MaybeSent"), (TransportError("no route"), "MaybeSent")],
)
def test_a_failure_is_recorded_with_its_text(failure: TransportError, kind: str) -> None:
    file = io.StringIO()
    conversation = Recorder(Website("http://oa.example.org"), Credentials(token="t"), tape=file)
    conversation.handle(Prompt("Hello"), 0.0)
    conversation.next_intent(0.0)
    conversation.handle(ExchangeFailed(failure), 0.0)
    happened = parse_tapes(file.getvalue())[0].steps[-1]["input"]
    assert happened == {"type": "ExchangeFailed", "failure": {"type": kind, "reason": "no route"}}


def test_an_error_is_recorded_as_text() -> None:
    steps = {step["reason"]: step for case in CASES.values() for step in recorded(case).steps if "reason" in step}
    (failed,) = (step for reason, step in steps.items() if reason.startswith("there are no credentials: give cookies="))
    assert failed["events"][0]["error"]["type"] == "AuthenticationError"
    (leaked,) = (
        step for reason, step in steps.items() if reason == "the chat could not be deleted in the time allowed"
    )
    assert leaked["events"][-1]["type"] == "Leaked"


def test_bytes_that_are_no_text_are_kept() -> None:
    data = {"type": "StreamData", "data": {"base64": "/w=="}}
    tape = recorded(Tape(ONE_TURN.config, (*ONE_TURN.steps[:OPENED], {"now": 1.0, "input": data})))
    assert tape.steps[-1]["input"] == data


@pytest.mark.parametrize("kind", get_args(Input))
def test_each_input_is_on_the_tape_by_the_fields_of_its_struct(kind: type[Input]) -> None:
    """An input whose fields are of a new type needs a row in ``tape.format`` and one in ``tape.redact``."""
    values: dict[object, Any] = {
        str: "Hello",
        str | None: "b",
        int: 204,
        bool: False,
        bytes: b"\xff",
        Headers: (("date", "now"),),
        Credentials | None: Credentials({"session": "secret-1"}, "secret-2"),
        TransportError: NotSent("no route"),
    }
    made = kind(**{name: values[hint] for name, hint in get_type_hints(kind).items()})
    encoded = json.loads(json.dumps(Masks("http://oa.example.org").input(made)))
    assert encoded.keys() == {"type", *kind.__struct_fields__}
    decoded = decode_input(encoded)
    if isinstance(made, ExchangeFailed):  # exceptions are compared by identity
        assert isinstance(decoded, ExchangeFailed)
        assert (type(decoded.failure), str(decoded.failure)) == (NotSent, "no route")
    else:
        assert decoded == made


def test_headers_are_kept_however_the_driver_spells_them() -> None:
    for headers in ({"Date": "now"}, [("Date", "now")], iter([(b"Date", b"now")])):
        file = io.StringIO()
        conversation = Recorder(Website("http://oa.example.org"), Credentials(token="t"), tape=file)
        conversation.handle(Prompt("Hello"), 0.0)
        conversation.next_intent(0.0)
        conversation.handle(ReplyReceived(503, headers), 0.0)
        (tape,) = parse_tapes(file.getvalue())
        assert tape.steps[-1]["input"]["headers"] == {"date": "now"}


def test_bytes_of_a_stream_are_on_the_tape_once_however_they_are_handed_in() -> None:
    file = io.StringIO()
    conversation = recorder(ONE_TURN.config, file)
    for step in ONE_TURN.steps[:OPENED]:
        take_step(conversation, step)
    conversation.handle(StreamData(b"data: "), 1.0)
    conversation.receive_stream_data(b"data: ", 2.0)
    (tape,) = parse_tapes(file.getvalue())
    assert [(step["now"], step["input"]["type"]) for step in tape.steps[OPENED:]] == [
        *((1.0, "StreamData"), (2.0, "StreamData"))
    ]


# ---- time


def paused(start: float, file: io.StringIO) -> Recorder:
    """A conversation that began at ``start`` and has a pause that began 0.1 s later."""
    conversation = Recorder(Website("http://oa.example.org"), Credentials(token="t"), tape=file)
    conversation.handle(Prompt("Hello"), start)
    conversation.next_intent(start)
    conversation.handle(ExchangeFailed(NotSent("no route")), start + 0.1)
    return conversation


@pytest.mark.parametrize("start", [0.0, 0.1, 1 / 3, 12345.6789, 1.7e9, -5.0])
def test_a_deadline_is_by_the_callers_clock_and_comes_when_it_says(start: float) -> None:
    file = io.StringIO()
    conversation = paused(start, file)
    deadline = conversation.deadline
    assert deadline == pytest.approx(start + 0.6, abs=2e-6)
    assert conversation.next_intent(start + 0.5) is None
    conversation.handle(TimePassed(), deadline or 0.0)
    assert isinstance(conversation.next_intent(deadline or 0.0), CreateChat)
    (tape,) = parse_tapes(file.getvalue())
    assert replay(tape) is None


def test_times_are_counted_from_the_first_step_in_microseconds_rounded_up() -> None:
    file = io.StringIO()
    conversation = paused(1000.0, file)
    conversation.next_intent(1000.2000001)
    (tape,) = parse_tapes(file.getvalue())
    assert [step["now"] for step in tape.steps] == [0.0, 0.0, 0.100001, 0.200001]
    assert tape.steps[-1]["deadline"] == 0.600001


@given(st.floats(0, 2e9), st.lists(st.floats(0, 40), max_size=12))
def test_at_any_time_a_recording_replays_equal(start: float, pauses: list[float]) -> None:
    file = io.StringIO()
    conversation = Recorder(Website("http://oa.example.org"), Credentials(token="t"), tape=file)
    now = start
    conversation.handle(Prompt("Hello"), now)
    for pause in pauses:
        conversation.next_intent(now)
        now = min(now + pause, conversation.deadline or now + pause)
        conversation.handle(TimePassed(), now)
        assert conversation.deadline is None or conversation.deadline > now
    (tape,) = parse_tapes(file.getvalue())
    assert replay(tape) is None


ANYTHING = [
    *(step["input"] for case in CASES.values() for step in case.steps if "input" in step),
    *(None for _ in range(150)),
]
"""Every input of the vectors, and a question for the next intent as often as an input."""


@settings(deadline=None)
@given(
    st.sampled_from(list(CASES.values())),
    st.lists(st.tuples(st.floats(0, 20), st.sampled_from(ANYTHING)), max_size=30),
)
def test_whatever_happens_in_whatever_order_replays_equal(
    case: Tape, happening: list[tuple[float, Json | None]]
) -> None:
    steps: list[Json] = [{"now": 0.0, "input": {"type": "Prompt", "text": "Hello"}}]
    now = 0.0
    for pause, happened in happening:
        now += pause
        steps.append({"now": now} if happened is None else {"now": now, "input": happened})
    tape = recorded(Tape(case.config, tuple(steps)))
    assert parse_tapes(str(tape)) == [tape]
    difference = replay(tape)
    assert difference is None, str(difference)


# ---- secrets


def test_no_credentials_are_on_a_tape() -> None:
    file = io.StringIO()
    conversation = Recorder(
        Website("http://oa.example.org"), Credentials({"session.0": "half-a-secret", "lang": "en"}, TOKEN), tape=file
    )
    conversation.handle(Prompt("Hello"), 0.0)
    create = conversation.next_intent(0.0)
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
    conversation.handle(Prompt("Hello"), 0.0)
    conversation.next_intent(0.0)
    headers = [("Location", f"/login?next={TOKEN}"), ("Set-Cookie", "fresh=one")]
    (failed, _) = conversation.handle(ReplyReceived(422, headers, json.dumps({"detail": f"Bad {TOKEN}"}).encode()), 0.0)
    assert isinstance(failed, Failed)
    assert TOKEN in cast("ApiError", failed.error).message
    assert TOKEN not in file.getvalue()
    assert "fresh=secret-" in file.getvalue()
    (tape,) = parse_tapes(file.getvalue())
    assert tape.steps[-1]["events"][0]["error"]["message"] == "Bad secret-1"
    assert replay(tape) is None


def test_the_cookies_that_a_reply_sets_or_repeats_are_masked() -> None:
    file = io.StringIO()
    conversation = Recorder(Website("http://oa.example.org"), Credentials({"a": "b"}), retries=0, tape=file)
    conversation.handle(Prompt("Hello"), 0.0)
    conversation.next_intent(0.0)
    first, second = "first-of-two-cookies", "second-of-two-cookies"
    headers = [("Set-Cookie", f"one={first}; Path=/"), ("set-cookie", f"two={second}")]
    conversation.handle(ReplyReceived(422, headers, f"{first} {second}".encode()), 0.0)
    (tape,) = parse_tapes(file.getvalue())
    assert tape.steps[-1]["input"]["headers"] == {"set-cookie": "two=secret-3"}
    assert tape.steps[-1]["input"]["body"] == "secret-2 secret-3"
    assert replay(tape) is None


def test_a_secret_among_bytes_that_are_no_text_is_masked() -> None:
    file = io.StringIO()
    conversation = Recorder(InferenceServer("http://oa.example.org"), Credentials(token=TOKEN), retries=0, tape=file)
    conversation.handle(Prompt("Hello"), 0.0)
    conversation.next_intent(0.0)
    conversation.handle(ReplyReceived(422, [], b"\xff " + TOKEN.encode()), 0.0)
    (tape,) = parse_tapes(file.getvalue())
    assert decode_bytes(tape.steps[-1]["input"]["body"]) == b"\xff secret-1"
    assert replay(tape) is None


SPELLED = '"quoted" \\ back/slash + percent'


@pytest.mark.clause("OA-2.5")
@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"detail": f"Bad {SPELLED}"}),
        json.dumps({"detail": f"Bad {SPELLED}"}).replace("/", "\\/"),
        json.dumps({"detail": json.dumps([SPELLED])}),
        json.dumps({SPELLED: SPELLED, "detail": [{"msg": SPELLED, "loc": [SPELLED]}]}),
        f"/login?next={quote(SPELLED, safe='')}",
        f"<p>{html.escape(SPELLED)}</p>",
        f"{'x' * 190} {SPELLED}",
    ],
)
def test_a_secret_is_found_however_a_server_spells_it(body: str) -> None:
    file = io.StringIO()
    conversation = Recorder(Website("http://oa.example.org"), Credentials({"a": SPELLED}), retries=0, tape=file)
    conversation.handle(Prompt("Hello"), 0.0)
    conversation.next_intent(0.0)
    (failed, _) = conversation.handle(ReplyReceived(422, [("location", body)], body.encode()), 0.0)
    for text in (file.getvalue(), str(failed), json.dumps(json.loads(file.getvalue().splitlines()[-1])["input"])):
        assert "quoted" not in text
    assert replay(parse_tapes(file.getvalue())[0]) is None


@pytest.mark.clause("OA-2.5")
@pytest.mark.parametrize("secret", [TOKEN, '"quoted"and\\slashed', "eeeeeeeeeeeeeeeeeeef"])
@given(cuts=st.sets(st.integers(0, 120), max_size=6))
def test_a_secret_that_the_pieces_of_a_stream_cut_is_masked_and_replays_equal(secret: str, cuts: set[int]) -> None:
    file = io.StringIO()
    config = ONE_TURN.config | {"credentials": {"cookies": {"a": secret}}}
    conversation = recorder(config, file)
    for step in ONE_TURN.steps[:OPENED]:
        take_step(conversation, step)
    data = b'data: {"event_type": "token", "text": %s}\r\n\r\n' % json.dumps(f"é {secret}.").encode()
    places = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(places):
        conversation.receive_stream_data(data[start:end], 1.0)
    conversation.handle(StreamEnded(), 2.0)
    (tape,) = parse_tapes(file.getvalue())
    pieces = [decode_bytes(step["input"]["data"]) for step in tape.steps[OPENED:-1]]
    assert b"".join(pieces) == data.replace(json.dumps(secret)[1:-1].encode(), b"secret-1")
    assert len(pieces) == len(places) - 1
    assert replay(tape) is None


@pytest.mark.clause("OA-2.5")
def test_a_secret_in_whose_middle_a_stream_breaks_is_masked() -> None:
    file = io.StringIO()
    conversation = recorder(ONE_TURN.config | {"credentials": {"cookies": {"a": TOKEN}}}, file)
    for step in ONE_TURN.steps[:OPENED]:
        take_step(conversation, step)
    for piece in (b"data: e", TOKEN.encode()[:10], TOKEN.encode()[10:-1]):
        conversation.receive_stream_data(piece, 1.0)
    conversation.receive_stream_data(b"", 1.0)
    conversation.handle(StreamEnded(), 2.0)
    assert TOKEN[:10] not in file.getvalue()
    assert TOKEN[10:-1] not in file.getvalue()


def test_refused_and_renewed_credentials_are_distinguished() -> None:
    file = io.StringIO()
    conversation = Recorder(Website("http://oa.example.org"), Credentials({"session": "old"}), tape=file)
    conversation.handle(Prompt("Hello"), 0.0)
    conversation.next_intent(0.0)
    conversation.handle(ReplyReceived(403, [], b""), 0.0)
    conversation.next_intent(0.0)
    conversation.handle(CredentialsFound(Credentials({"session": "new"})), 0.0)
    conversation.next_intent(0.0)
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
    conversation.handle(Prompt("assistant"), 0.0)
    conversation.next_intent(0.0)
    conversation.handle(ReplyReceived(200, [], json.dumps({"id": CHAT}).encode()), 0.0)
    conversation.next_intent(0.0)
    (tape,) = parse_tapes(file.getvalue())
    assert tape.config["base_url"] == "http://oa.example.org"
    stands_for_it = "00000000-0000-0000-0000-000000000003"
    assert tape.steps[-1]["intent"]["body"] == {"chat_id": stands_for_it, "parent_id": None, "content": "assistant"}
    assert replay(tape) is None


def test_the_password_of_a_proxy_is_masked() -> None:
    file = io.StringIO()
    conversation = Recorder(Website("http://oa.example.org"), Credentials(token="t"), tape=file)
    conversation.handle(Prompt("Hello"), 0.0)
    conversation.next_intent(0.0)
    conversation.handle(ExchangeFailed(NotSent("cannot connect to http://me:hunter2@proxy.example.org:3128")), 0.0)
    step = parse_tapes(file.getvalue())[0].steps[-1]
    assert step["input"]["failure"]["reason"] == "cannot connect to http://***@proxy.example.org:3128"


# ---- the file


def test_a_path_is_opened_by_the_first_step_and_closed_with_the_last(tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    conversation = Recorder(Website("http://oa.example.org"), tape=path)
    assert not path.exists()
    conversation.handle(Close(), 0.0)
    assert conversation.phase is Phase.NEVER_CREATED
    before = path.read_text("utf-8")
    conversation.handle(Abandon(), 0.0)  # after the end nothing is written, and no file opened, which would stay open
    assert path.read_text("utf-8") == before
    (tape,) = load_tapes(path)
    assert [step["phase"] for step in tape.steps] == ["NEVER_CREATED"]


def test_a_file_that_was_given_stays_open() -> None:
    file = io.StringIO()
    Recorder(Website("http://oa.example.org"), tape=file).handle(Close(), 0.0)
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
        conversation.handle(Prompt("Hello"), 0.0)
        for _ in range(3):
            conversation.next_intent(0.0)
        assert conversation.handle(Close(), 0.0) == []
        conversation.handle(Abandon(), 0.0)
    assert conversation.phase is Phase.LEAKED
    assert [record.getMessage() for record in caplog.records] == [
        "the tape cannot be written, and recording stops: [Errno 28] No space left on device"
    ]


def test_a_path_that_cannot_be_opened_stops_the_recording_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    conversation = Recorder(Website("http://oa.example.org"), tape=tmp_path)
    conversation.handle(Close(), 0.0)
    assert conversation.phase is Phase.NEVER_CREATED
    assert len(caplog.records) == 1
