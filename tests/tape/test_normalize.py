"""What two tapes of one conversation have in common, and what makes two conversations differ."""

from __future__ import annotations

import json

import pytest

from oa_protocol.engine.errors import MaybeSent
from oa_protocol.engine.inputs import (
    Abandon,
    Close,
    ExchangeFailed,
    Input,
    Interrupted,
    ReplyReceived,
    StreamData,
    StreamEnded,
    TimePassed,
)
from oa_protocol.tape import Tape, normalize, parse_tapes
from oa_protocol.tape.format import Json, decode_bytes
from oa_protocol.tape.redact import Masks

from .taping import CASES, ONE_TURN, OPENED, recorded

BYTES = b"".join(decode_bytes(step["input"]["data"]) for step in ONE_TURN.steps if "data" in step.get("input", {}))
PENDING = b'data: {"event_type": "pending", "queue_position": 1, "queue_size": 2}\r\n\r\n'
PING = b": ping - 2026-11-22 08:50:49.981012\r\n\r\n"
MESSAGE = {"id": "06b02a53-f2e8-7d17-8000-1b6ef2482de9", "role": "assistant", "state": "pending"}
DELETED: list[Input | None] = [Close(), None, ReplyReceived(200)]
ENDED: list[Input | None] = [StreamEnded(), *DELETED]


def made(*inputs: Input | None, every: float = 0.0) -> Tape:
    """The normal form of a recording in which this happened to an open stream; None is a question for an intent."""
    masks = Masks(ONE_TURN.config["base_url"])
    steps: list[Json] = [
        {"now": number * every} | ({} if happened is None else {"input": masks.input(happened)})
        for number, happened in enumerate(inputs, 1)
    ]
    return normalize(recorded(Tape(ONE_TURN.config, (*ONE_TURN.steps[:OPENED], *steps))))


def data(*chunks: bytes) -> list[Input | None]:
    return [StreamData(chunk) for chunk in chunks]


PLAIN = made(*data(BYTES), *ENDED)


def test_there_is_something_to_compare() -> None:
    assert [(step.get("input") or step["intent"]).get("type", "intent") for step in PLAIN.steps] == [
        *("Prompt", "intent", "ReplyReceived", "intent", "ReplyReceived", "intent", "ReplyReceived", "intent"),
        *("StreamOpened", "StreamData", "Close", "intent", "ReplyReceived"),
    ]
    assert PLAIN.steps[-1] == {
        "input": {"type": "ReplyReceived", "status": 200},
        "events": [{"type": "Deleted", "chat_id": "id-1"}],
        "phase": "DELETED",
    }


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([*data(*(bytes([byte]) for byte in BYTES)), *ENDED], id="how the stream was cut"),
        pytest.param([*data(PING + PENDING + PENDING, PING + BYTES), *ENDED], id="pings and pending events"),
        pytest.param([*data(PENDING), None, *data(BYTES), *ENDED], id="asking without need"),
        pytest.param([*data(BYTES), None, StreamEnded(), *DELETED], id="closing the stream"),
        pytest.param([*data(BYTES, PING), *ENDED], id="what follows the last event"),
        pytest.param([*data(BYTES), *ENDED, Abandon()], id="giving up after the end"),
        pytest.param([*data(BYTES), StreamEnded(), Close(), *DELETED], id="closing twice"),
        pytest.param(
            [
                *data(PENDING * 10),
                None,
                *data(PING),
                ReplyReceived(200, (), json.dumps(MESSAGE).encode()),
                *data(BYTES),
                *ENDED,
            ],
            id="reading the waiting message",
        ),
        pytest.param(
            [*data(BYTES), *ENDED[:-1], ReplyReceived(200, (("date", "Wed, 25 Nov 2026 16:03:49 GMT"),))],
            id="headers",
        ),
        pytest.param([*data(BYTES), TimePassed(), *ENDED], id="time without effect"),
        pytest.param([Interrupted(), *data(BYTES), *ENDED], id="an interruption without effect"),
        pytest.param([*data(PENDING * 10), None, Interrupted(), *data(BYTES), *ENDED], id="a read that was given up"),
    ],
)
def test_left_out_is(steps: list[Input | None]) -> None:
    assert made(*steps) == PLAIN


def test_left_out_are_times() -> None:
    assert made(*data(BYTES), *ENDED, every=1.25) == PLAIN


def test_left_out_are_ids_and_urls() -> None:
    text = str(recorded(ONE_TURN)).replace("06b02a53", "16b02a53").replace("http://oa.example.org", "http://[::1]:8000")
    config, *steps = map(json.loads, text.splitlines())
    assert normalize(Tape(config["config"], tuple(steps))) == normalize(recorded(ONE_TURN))


@pytest.mark.parametrize(
    "step",
    [
        {"now": 0, "phase": "LEAKED", "events": [{"type": "Leaked"}], "input": {"type": "Abandon"}},
        {"now": 0, "phase": "START", "input": {"type": "ExchangeFailed", "failure": "gone"}},
    ],
)
def test_a_step_of_another_form_stays(step: Json) -> None:
    (tape,) = parse_tapes(str(Tape(ONE_TURN.config, (step,))))
    (normal,) = normalize(tape).steps
    assert normal == {name: value for name, value in step.items() if name != "now"}


def test_a_character_that_json_escapes_is_no_part_of_an_id() -> None:
    almost = "\x1fb02a53-f28e-708d-8000-044bde7b4953"
    assert normalize(Tape(ONE_TURN.config | {"chat_id": almost}, ONE_TURN.steps)).config["chat_id"] == almost


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([*data(BYTES.replace(b"there", b"here")), *ENDED], id="another answer"),
        pytest.param([*data(BYTES), StreamEnded(), Close(drain=False), *DELETED[1:]], id="another end"),
        pytest.param([*data(BYTES), *ENDED[:-1], ReplyReceived(500)], id="another reply"),
        pytest.param([*data(BYTES), *ENDED[:-1], ExchangeFailed(MaybeSent("cut"))], id="a lost reply"),
        pytest.param([*data(BYTES), *ENDED[:-1]], id="a reply that is missing"),
        pytest.param([StreamEnded(), *data(b"")], id="a lost stream"),
        pytest.param([None, TimePassed(), StreamEnded()], id="a silent stream"),
    ],
)
def test_a_difference_is(steps: list[Input | None]) -> None:
    assert made(*steps) != PLAIN


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_normal_form_has_neither_ids_nor_times(case: Tape) -> None:
    text = str(normalize(recorded(case)))
    assert "06b02a53" not in text
    assert '"now"' not in text
    assert '"deadline"' not in text
    assert "oa.example.org" not in text
