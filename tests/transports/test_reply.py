"""Servers and proxies bend HTTP: what httpx reads is read over httptools, too."""

from __future__ import annotations

import h11
import hypothesis
import pytest
from hypothesis import strategies as st

from oa_protocol.transports.fast._reply import Reply

BODY = b'{"id": "x"}'
LENGTH = b"content-length: %d\r\n" % len(BODY)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


def read(data: bytes, at_once: int) -> Reply:
    reply = Reply()
    for start in range(0, len(data), at_once):
        reply.feed(data[start : start + at_once])
    reply.feed_end()
    return reply


@pytest.mark.parametrize("at_once", [1, 7, 1000])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(OK + b"x: one\r\n  two\r\n" + LENGTH + b"\r\n" + BODY, id="a folded field"),
        pytest.param(OK + b"x: a\x01b\r\n" + LENGTH + b"\r\n" + BODY, id="a control character"),
        pytest.param(OK.replace(b"\r", b"") + LENGTH.replace(b"\r", b"") + b"\n" + BODY, id="line feeds alone"),
        pytest.param(OK + LENGTH + b"x: y\r\n" + LENGTH + b"\r\n" + BODY, id="the length twice"),
        pytest.param(OK + b"Content-Length: 11 , 11\r\n\r\n" + BODY, id="the length twice in one field"),
        pytest.param(CHUNKED.replace(b"\r\n", b"\r\n" + LENGTH, 1) + b"b\r\n" + BODY + b"\r\n0\r\n\r\n", id="both"),
        pytest.param(b"HTTP/1.2 200\r\n" + LENGTH + b"\r\n" + BODY, id="a later version, no reason"),
        pytest.param(b"HTTP/1.1 200 \xc3\xa9\x01\r\n" + LENGTH + b"\r\n" + BODY, id="an odd reason"),
        pytest.param(b"\r\n" + OK + LENGTH + b"\r\n" + BODY, id="an empty line first"),
        pytest.param(CHUNKED + b"B  \r\n" + BODY + b"\r\n0\r\n\r\n", id="a padded size"),
        pytest.param(CHUNKED + b"b\t; n = v\r\n" + BODY + b"\r\n0;\r\n\r\n", id="spaces around an extension"),
        pytest.param(CHUNKED + b'000b;{"a": [b]}\r\n' + BODY + b"\r\n0\r\n\r\n", id="an odd extension"),
        pytest.param(CHUNKED + b"b\r\n" + BODY + b"\r\n0\r\nx: 1\n\t2\r\n\n", id="odd trailers"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\n" + BODY, id="up to the end of the connection"),
        pytest.param(
            b"HTTP/1.1 102 x\r\n\r\nHTTP/1.1 100\r\na: b\r\n\r\n" + OK + LENGTH + b"\r\n" + BODY, id="interim"
        ),
    ],
)
def test_a_reply_that_is_a_little_off_is_read(data: bytes, at_once: int) -> None:
    reply = read(data, at_once)
    assert (reply.fault, reply.status, reply.take_body()) == ("", 200, BODY)


@pytest.mark.parametrize(
    "data",
    [
        CHUNKED + b"b\r\n" + BODY + b"0\r\n\r\n",
        CHUNKED + b"b\r\n" + BODY + b"\r\n0\r\n" + OK + b"\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"-1\r\n",
        OK.replace(b"1.1", b"9.9") + LENGTH + b"\r\n" + BODY,
        OK + b"transfer-encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    ],
)
def test_a_reply_that_is_wrong_is_not_read_to_a_clean_end(data: bytes) -> None:
    reply = read(data, 1000)
    assert reply.fault
    assert not reply.is_complete


def test_a_folded_field_is_one_line() -> None:
    assert read(OK + b"x: one \r\n\t two\r\n" + LENGTH + b"\r\n" + BODY, 1000).headers[0] == ("x", "one two")


LINE_ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\n"])
FIELDS = st.sampled_from(
    [
        LENGTH.strip(),
        b"transfer-encoding: chunked",
        b"Transfer-Encoding:Chunked",
        b"content-length: 11,11",
        b"content-length: 0",
        b"connection: close",
        b"connection: upgrade",
        b"upgrade: h2c",
        b"x:",
        b"x: \xff\x01\x7f",
        b"\tfolded",
        b" \x0b",
    ]
)
FIRST = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.0 200", b"HTTP/1.1 204 ", b"HTTP/1.1 304 \xe9", b"HTTP/1.1 999 x"]
)
REST = st.sampled_from(
    [
        BODY,
        b"b\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"B;a\r\n" + BODY + b"\r\n00;\x01b c\r\n\r\n",
        b"1\t \r\n{\r\na\r\n" + BODY[1:] + b"\r\n0\r\ny: z\n\tw\r\n\r\n",
        b"b\r\n" + BODY + b"\r\n0\r\nodd\r\n\r\n",
        b"b\r\n" + BODY,
        b"",
    ]
)


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    lines = [draw(FIRST), *draw(st.lists(FIELDS, max_size=4)), b""]
    return b"".join(line + draw(LINE_ENDS) for line in lines) + draw(REST)


def read_by_h11(data: bytes) -> tuple[int, bytes] | None:
    """What the parser under httpx makes of it; None if it refuses it."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        connection.receive_data(data)
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                connection.receive_data(b"")
    except h11.RemoteProtocolError:
        return None
    return status, body


@hypothesis.given(replies(), st.integers(1, 40) | st.just(1000))
def test_what_httpx_reads_is_read_alike(data: bytes, at_once: int) -> None:
    if (wanted := read_by_h11(data)) is None:
        return
    reply = read(data, at_once)
    assert (reply.fault, reply.status, reply.take_body()) == ("", *wanted)
