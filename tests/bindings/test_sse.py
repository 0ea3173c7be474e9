"""Server-sent events: the decoder against a literal reading of the WHATWG algorithm, and its limits."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oa_protocol.bindings.sse import SSEDecoder
from oa_protocol.testing.strategies import chunkings, event_streams

from .whatwg import EventStream

PLENTY = 1 << 20

cut_streams = event_streams().flatmap(chunkings)


def decode(chunks: list[bytes], limit: int = PLENTY) -> list[bytes]:
    decoder = SSEDecoder(limit)
    return [payload for chunk in chunks for payload in decoder.feed(chunk)]


def decode_until_too_large(chunks: list[bytes], limit: int) -> tuple[list[bytes], bool]:
    """What came before the large event, and whether there was one."""
    decoder = SSEDecoder(limit)
    payloads: list[bytes] = []
    for chunk in chunks:
        payloads += decoder.feed(chunk)
        if decoder.too_large:
            return payloads, True
    return payloads, False


@pytest.mark.clause("OA-5.2", "OA-5.3")
@given(cut_streams)
@example([b"data: a\r", b"", b"\ndata: b\n\n"])
@example([b"data: a\r", b"\r", b"\n"])
@example([b"\xef", b"\xbb", b"\xbfdata: a\r\n\r\n"])
@example([b"\xef\xbb", b"data: a\n\n"])
@example([b"", b"data: a\r\n\r\n", b"\xef\xbb\xbfdata: b\r\n\r\n"])
@example([b":\n"])
@example([b"data: a\r\n\r\n", b"data: b", b"data: c\r\n\r\n"])
@example([b"data: a\r\n\r\n", b"data: b\n", b"data: c\r\n\r\n"])
@example([b"data: a\r\n\r\n", b"event: ping\n", b"data: c\r\n\r\n"])
@example([b"data: a\r\n", b"\r\ndata: b\r\n\r\n"])
@example([b"data: a\r\n\r\nevent: ping\r\ndata: b\r\n\r\ndata: c\r\n\r", b"\ndata: d\r\n\r\n"])
def test_every_stream_is_decoded_as_the_whatwg_algorithm_says_as_soon_as_it_says(chunks: list[bytes]) -> None:
    decoder, literal = SSEDecoder(PLENTY), EventStream()
    payloads: list[str] = []
    for chunk in chunks:
        payloads += [payload.decode(errors="replace") for payload in decoder.feed(chunk)]
        literal.feed(chunk)
        assert payloads == literal.payloads
        assert decoder.keepalives == literal.keepalives


@pytest.mark.clause("OA-5.2")
@given(cut_streams, st.integers(8, 60))
@example([b"data: good\r\n\r\ndata: much too large\r\n\r\n"], 12)
@example([b"\xef\xbb", b"\xbfdata: 1234"], 10)
@example([b": a comment of sixteen\n\n"], 16)
@example([b"data: 12345\nid: 123456\n\n"], 14)
def test_a_limit_is_exceeded_at_the_same_event_for_all_cuts_of_the_stream(chunks: list[bytes], limit: int) -> None:
    stream = b"".join(chunks)
    one_by_one = [stream[index : index + 1] for index in range(len(stream))]
    assert decode_until_too_large(chunks, limit) == decode_until_too_large(one_by_one, limit)
    assert decode_until_too_large([stream], limit) == decode_until_too_large(one_by_one, limit)


@pytest.mark.clause("OA-5.2")
@pytest.mark.parametrize(
    ("stream", "payloads"),
    [
        pytest.param(b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"], id="the spelling of this protocol's servers"),
        pytest.param(b"data: a\n\ndata: b\r\rdata: c\r\n\n", [b"a", b"b", b"c"], id="any line end"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", [b"a"], id="a byte order mark"),
        pytest.param(b"data:a\n\ndata:  b\n\n", [b"a", b" b"], id="one space after the colon is none of the data"),
        pytest.param(b"data: a\nid: 7\r\n\r\n", [b"a"], id="another line end before the last one"),
        pytest.param(b"data: a\ndata\ndata: b\n\n", [b"a\n\nb"], id="several lines of data"),
        pytest.param(b"data\n\n", [b""], id="no data, but a line of it"),
        pytest.param(b"data: \r\n\r\n", [b""], id="empty data"),
        pytest.param(b"id: 7\n\nretry: 10\n\n", [], id="an event without data"),
        pytest.param(b"event: message\ndata: a\n\n", [b"a"], id="the type spelled out"),
        pytest.param(b"event: ping\ndata: a\n\ndata: b\n\n", [b"b"], id="another type"),
        pytest.param(b"event: ping\n\ndata: b\n\n", [b"b"], id="the type is forgotten with its event"),
        pytest.param(b": data: a\r\n\r\ndata: b\r\n\r\n", [b"b"], id="a comment"),
        pytest.param(b"data: a\r\n\r\ndata: b\r\n", [b"a"], id="an unfinished event is none"),
        pytest.param("data: a\u2028b\u0085c\n\n".encode(), ["a\u2028b\u0085c".encode()], id="other line separators"),
        pytest.param(b"data: \xff\n\n", [b"\xff"], id="no UTF-8"),
    ],
)
def test_what_is_data(stream: bytes, payloads: list[bytes]) -> None:
    assert decode([stream]) == payloads
    assert decode([stream[index : index + 1] for index in range(len(stream))]) == payloads


@pytest.mark.clause("OA-5.3")
@pytest.mark.parametrize("stream", [b"data: a\r\n\r", b"data: a\r\r", b"data: a\n\n", b"data: a\r\n\n"])
def test_an_event_is_there_with_the_byte_that_ends_its_blank_line(stream: bytes) -> None:
    decoder = SSEDecoder(PLENTY)
    assert decoder.feed(stream[:-1]) == []
    assert decoder.feed(stream[-1:]) == [b"a"]
    assert decoder.feed(b"\ndata: b\n\n") == [b"b"]


@pytest.mark.clause("OA-5.10")
@pytest.mark.parametrize(
    "event",
    [
        pytest.param(b"data: 4567890123\r\n\r\n", id="a line, in the usual spelling"),
        pytest.param(b"data: 4567890123\n\n", id="a line, in another spelling"),
        pytest.param(b": 34567890123456\n\n", id="a comment"),
        pytest.param(b"data:67\ndata:123456\n\n", id="a line and the data before it"),
        pytest.param(b"data:67\nid: 5678901\n\n", id="an ignored line and the data before it"),
    ],
)
@pytest.mark.parametrize("cut", range(21))
def test_an_event_at_the_limit_is_taken_and_one_byte_more_is_refused(event: bytes, cut: int) -> None:
    longest_line = 0
    size = 0
    for line in event.splitlines():
        longest_line = max(longest_line, len(line) + size)
        size += len(line.removeprefix(b"data:")) + 1 if line.startswith(b"data:") else 0
    expected = decode([event])
    assert decode_until_too_large([event[:cut], event[cut:]], limit=longest_line) == (expected, False)
    assert decode_until_too_large([event[:cut], event[cut:]], limit=longest_line - 1)[1]


@pytest.mark.clause("OA-5.10")
def test_the_limit_is_that_of_each_event() -> None:
    assert decode_until_too_large([b"data: 1234\n\n", b"data: 5678\n\n"], limit=10) == ([b"1234", b"5678"], False)


@pytest.mark.clause("OA-5.10")
@pytest.mark.parametrize("start", [b"data: ", b"data: 123\ndata: ", b": ", b"event: ", b"data: a\r\n\r\ndata: ", b"\r"])
def test_a_line_without_an_end_is_refused_at_the_limit(start: bytes) -> None:
    assert decode_until_too_large([start, *1001 * [b"x"]], limit=1000)[1]


@pytest.mark.clause("OA-5.10")
def test_an_incomplete_line_counts_with_the_data_before_it() -> None:
    chunks = [b"data:67\n", b"data:12345"]
    assert decode_until_too_large(chunks, limit=12)[1]
    assert not decode_until_too_large(chunks, limit=13)[1]


def test_before_the_first_bytes_nothing_is_settled() -> None:
    decoder = SSEDecoder(PLENTY)
    assert (decoder.keepalives, decoder.too_large, decoder.settled) == (0, False, False)


@pytest.mark.clause("OA-5.10")
def test_lines_of_data_without_a_blank_line_are_refused_at_the_limit() -> None:
    assert decode_until_too_large(1001 * [b"data\n"], limit=1000)[1]


@pytest.mark.clause("OA-5.10")
def test_events_before_the_large_one_are_returned_even_from_the_same_chunk() -> None:
    decoder = SSEDecoder(20)
    assert decoder.feed(b"data: a\r\n\r\ndata: b\r\n\r\ndata: " + 30 * b"x") == [b"a", b"b"]
    assert decoder.too_large


@pytest.mark.clause("OA-5.10")
@pytest.mark.parametrize("line", [b"data: a\r\n\r\n", b": ping\n\n", b"id: 1\n", b"event: x\ndata: y\n\n"])
def test_an_endless_stream_of_small_events_takes_no_memory(line: bytes) -> None:
    decoder = SSEDecoder(1000)
    for _ in range(100):
        decoder.feed(line)
    tracemalloc.start()
    try:
        for _ in range(5000):
            decoder.feed(line)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 50_000


@pytest.mark.clause("OA-5.8")
def test_keepalives_are_counted_from_the_last_event_on() -> None:
    decoder = SSEDecoder(PLENTY)
    decoder.feed(b": ping\r\n\r\nevent: ping\r\ndata: 2026-11-22 08:33:18.087159\r\n\r\n: ping\r\n\r\n")
    assert decoder.keepalives == 3
    decoder.feed(b"data: a\r\n\r\n")
    assert decoder.keepalives == 0
    decoder.feed(b"data: a\r\n\r\n: ping\n\n")
    assert decoder.keepalives == 1
