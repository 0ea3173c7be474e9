"""Replies: which headers count, what a status means, and which exception an unwelcome one is raised as."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_protocol.bindings import json as schemas
from oa_protocol.bindings.replies import MAX_BODY, Reply
from oa_protocol.engine.errors import ApiError, AuthenticationError, HTTPStatusError, RemoteProtocolError


@pytest.mark.clause("OA-6.3", "OA-6.8", "OA-2.7")
def test_header_names_may_have_any_case() -> None:
    headers = [("Date", "Sun, 22 Nov 2026 08:18:06 GMT"), ("RETRY-AFTER", "7"), ("location", "/x"), ("x", "y")]
    assert Reply.of(503, headers, b"") == Reply(503, b"", "Sun, 22 Nov 2026 08:18:06 GMT", "/x", 7.0)


@pytest.mark.clause("OA-6.3")
@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), (" 12 ", 12.0), ("1.5", 1.5), ("-3", 0.0), ("inf", None), ("nan", None), ("", None), ("soon", None)],
)
def test_retry_after_counts_where_it_is_in_seconds(value: str, seconds: float | None) -> None:
    assert Reply.of(503, [("retry-after", value)], b"").retry_after == seconds


@pytest.mark.clause("OA-6.1", "OA-6.2", "OA-6.3", "OA-6.4")
@given(st.integers(100, 999))
def test_what_a_status_means(status: int) -> None:
    reply = Reply(status, b"")
    assert reply.is_success == (status // 100 == 2)
    assert reply.is_busy == (status in (429, 503))
    assert reply.is_refusal == (status // 100 in (3, 4) and status != 429)
    assert reply.rejects_credentials == (status in (401, 403))


@pytest.mark.clause("OA-8.1")
@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (404, b'{"detail":"Chat not found"}', ApiError, "Chat not found: HTTP 404 while reading the chat (phase X)"),
        (403, b"", AuthenticationError, "the server rejects the credentials: HTTP 403"),
        (401, b'{"detail":"Token has expired"}', AuthenticationError, "Token has expired: HTTP 401"),
        (500, b"Internal Server Error", HTTPStatusError, "HTTP 500 while reading the chat (phase X): 'Internal Server"),
        (502, b"", HTTPStatusError, "HTTP 502 while reading the chat (phase X)"),
        (413, b'{"message":"too long"}', ApiError, "Shorten the prompt"),
        (422, b'{"message":"Model X not found"}', ApiError, "The server's models:"),
        (503, b'{"detail":"busy"}', ApiError, "try again later"),
        (404, b"<html>", HTTPStatusError, "Is the base URL right"),
        (404, b'{"detail":"Not Found"}', ApiError, "Is the base URL right, the API the right one"),
        (307, b"", HTTPStatusError, "It points to 'https://elsewhere/', and redirects are not followed"),
        (400, b"\xff" * 1000, HTTPStatusError, "HTTP 400"),
    ],
)
def test_the_exception_for_an_unwelcome_reply(status: int, body: bytes, kind: type[Exception], text: str) -> None:
    error = Reply(status, body, location="https://elsewhere/").error("reading the chat", "X")
    assert type(error) is kind
    assert text in str(error)
    assert error.phase == "X"
    assert len(str(error)) < 1000


@pytest.mark.clause("OA-8.2")
@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b"<html>", RemoteProtocolError, "something else than a new chat"),
        (b'{"identifier":"a"}', RemoteProtocolError, "missing required field `id`"),
        (b"[" * 100_000, RemoteProtocolError, "something else than a new chat"),
        (b'{"message":"Something went wrong"}', ApiError, "Something went wrong (instead of a new chat)"),
    ],
    ids=["html", "another field", "a nesting bomb", "words"],
)
def test_a_success_without_what_it_must_carry(body: bytes, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as raised:
        Reply(200, body).decode(schemas.decode_created, "a new chat", None)
    assert text in str(raised.value)


@pytest.mark.clause("OA-5.10")
def test_a_body_over_the_limit_is_refused_and_one_at_the_limit_is_read() -> None:
    body = b'{"id":"a"' + b" " * (MAX_BODY - 10) + b"}"
    assert Reply(200, body).decode(schemas.decode_created, "a new chat", None).id == "a"
    with pytest.raises(RemoteProtocolError, match="more than 8,388,608 bytes"):
        Reply(200, body + b" ").decode(schemas.decode_created, "a new chat", None)
    words = b'{"detail":"a"' + b" " * MAX_BODY + b"}"
    assert type(Reply(500, words).error("reading the chat")) is HTTPStatusError
