"""What two tapes of one conversation have in common, and what tells two conversations apart."""

from __future__ import annotations

import json

import pytest

from oa_protocol.tape import Tape, normalize
from oa_protocol.tape.format import Json, decode_bytes

from .taping import CASES, ONE_TURN, recorded

BEFORE = [step for step in ONE_TURN.steps if step["phase"] not in ("STREAMING", "ANSWERED", "DELETING", "DELETED")]
BYTES = b"".join(decode_bytes(step["stream_data"]) for step in ONE_TURN.steps if "stream_data" in step)
PENDING = b'data: {"event_type": "pending", "queue_position": 1, "queue_size": 2}\r\n\r\n'
PING = b": ping - 2026-11-22 08:50:49.981012\r\n\r\n"
MESSAGE = {"id": "06b02a53-f2e8-7d17-8000-1b6ef2482de9", "role": "assistant", "state": "pending"}
DELETED: list[Json] = [{"close": "drain"}, {"intent": None}, {"reply": 200}]
ENDED: list[Json] = [{"stream_end": True}, *DELETED]


def made(*steps: Json, config: Json | None = None) -> Tape:
    """The normal form of a recording of these steps: what comes of each is the engine's."""
    return normalize(recorded(Tape(config or ONE_TURN.config, (*BEFORE, {"stream_opened": True}, *steps))))


def data(*chunks: bytes) -> list[Json]:
    return [{"stream_data": chunk.decode()} for chunk in chunks]


PLAIN = made(*data(BYTES), *ENDED)


def test_there_is_something_to_compare() -> None:
    assert [next(iter(step)) for step in PLAIN.steps] == [
        *("prompt", "intent", "reply", "intent", "reply", "intent", "reply", "intent"),
        *("stream_opened", "stream_data", "close", "intent", "reply"),
    ]
    assert PLAIN.steps[-1] == {"reply": 200, "events": [{"type": "Deleted", "chat_id": "id-1"}], "phase": "DELETED"}


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([*data(*(bytes([byte]) for byte in BYTES)), *ENDED], id="how the stream was cut"),
        pytest.param([*data(PING + PENDING + PENDING, PING + BYTES), *ENDED], id="pings and pending events"),
        pytest.param([*data(PENDING), {"intent": None}, *data(BYTES), *ENDED], id="asking without need"),
        pytest.param([*data(BYTES), {"intent": None}, {"stream_end": True}, *DELETED], id="closing the stream"),
        pytest.param([*data(BYTES, PING), *ENDED], id="what follows the last event"),
        pytest.param([*data(BYTES), *ENDED, {"abandon": True}], id="giving up after the end"),
        pytest.param([*data(BYTES), {"stream_end": True}, {"close": "drain"}, *DELETED], id="closing twice"),
        pytest.param(
            [
                *data(PENDING * 10),
                {"intent": None},
                *data(PING),
                {"reply": 200, "body": json.dumps(MESSAGE)},
                *data(BYTES),
                *ENDED,
            ],
            id="reading the waiting message",
        ),
        pytest.param(
            [*data(BYTES), *ENDED[:-1], {"reply": 200, "headers": {"date": "Wed, 25 Nov 2026 16:03:49 GMT"}}],
            id="headers",
        ),
    ],
)
def test_left_out_is(steps: list[Json]) -> None:
    assert made(*steps) == PLAIN


def test_left_out_are_ids_and_urls() -> None:
    text = str(recorded(ONE_TURN)).replace("06b02a53", "16b02a53").replace("http://oa.example.org", "http://[::1]:8000")
    config, *steps = map(json.loads, text.splitlines())
    assert normalize(Tape(config["config"], tuple(steps))) == normalize(recorded(ONE_TURN))


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([*data(BYTES.replace(b"there", b"here")), *ENDED], id="another answer"),
        pytest.param([*data(BYTES), {"stream_end": True}, {"close": "now"}, *DELETED[1:]], id="another end"),
        pytest.param([*data(BYTES), *ENDED[:-1], {"reply": 500}], id="another reply"),
        pytest.param([*data(BYTES), *ENDED[:-1], {"failure": "MaybeSent"}], id="a lost reply"),
        pytest.param([*data(BYTES), *ENDED[:-1]], id="a reply that is missing"),
        pytest.param([{"stream_end": True}, *data(b"")], id="a lost stream"),
    ],
)
def test_a_difference_is(steps: list[Json]) -> None:
    assert made(*steps) != PLAIN


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_normal_form_has_neither_ids_nor_delays(case: Tape) -> None:
    text = str(normalize(recorded(case)))
    assert "06b02a53" not in text
    assert '"delay"' not in text
    assert "oa.example.org" not in text
