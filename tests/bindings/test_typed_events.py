"""Events of other types than ``message``, which a binding may ask for."""

from __future__ import annotations

import pytest

from oa_protocol.bindings.sse import SSEDecoder

STREAM = (
    b'event: metadata\r\ndata: {"attempt":1}\r\nid: 1\r\n\r\n'
    b": heartbeat\r\n\r\n"
    b'event: messages\r\ndata: ["a"]\r\nid: 2\r\n\r\n'
    b"data: plain\r\n\r\n"
    b'event: error\ndata: {"error":\ndata: "b"}\n\n'
)
PAYLOADS = [b'messages\n["a"]', b"plain", b'error\n{"error":\n"b"}']


def decoder_of(limit: int = 1000) -> SSEDecoder:
    return SSEDecoder(limit, types=(b"messages", b"error"))


@pytest.mark.clause("OA-5.2")
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_the_payload_of_a_named_type_begins_with_the_type(size: int) -> None:
    decoder = decoder_of()
    chunks = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert [payload for chunk in chunks for payload in decoder.feed(chunk)] == PAYLOADS


@pytest.mark.clause("OA-5.2")
def test_an_event_whose_type_the_binding_does_not_name_is_a_sign_of_life() -> None:
    decoder = decoder_of()
    assert decoder.feed(b"event: metadata\ndata: {}\n\nevent: values\ndata: {}\n\n") == []
    assert decoder.keepalives == 2
    assert not decoder.settled
    decoder.feed(b"event: messages\ndata: []\n\n")
    assert decoder.keepalives == 0
    assert decoder.settled


@pytest.mark.clause("OA-5.10")
def test_the_limit_is_that_of_the_data() -> None:
    decoder = decoder_of(limit=20)
    assert decoder.feed(b"event: messages\ndata: 34567890123456\n\n") == [b"messages\n34567890123456"]
    assert not decoder.too_large
    assert decoder.feed(b"event: messages\ndata: 345678901234567\n\n") == []
    assert decoder.too_large


@pytest.mark.clause("OA-5.2")
def test_a_message_in_the_usual_spelling_is_still_split_at_once() -> None:
    decoder = decoder_of()
    decoder.feed(b"event: messages\ndata: []\n\n")
    assert decoder.feed(b"data: a\r\n\r\n") == (b"a",)  # a tuple: the fast path's
    assert decoder.feed(b"data: a\r\n\r\ndata: b\r\n\r\n") == [b"a", b"b"]
