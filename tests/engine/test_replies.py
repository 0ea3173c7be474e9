"""A reply as the engine judges it, and what it is raised as (section 8)."""

import pytest

from oa_protocol.bindings import json as schemas
from oa_protocol.bindings.replies import MAX_BODY, Reply
from oa_protocol.engine.errors import ApiError, AuthenticationError, HTTPStatusError, RemoteProtocolError

DOING = "requesting the answer"


def reply(status: int, body: bytes = b"", **headers: str) -> Reply:
    return Reply.of(status, headers.items(), body)


@pytest.mark.clause("OA-8.1")
@pytest.mark.parametrize("key", ["detail", "message"])
def test_the_servers_words_reach_the_caller(key: str) -> None:
    error = reply(400, b'{"%s": "Parent message not found"}' % key.encode()).error(DOING, "CHAT_CREATED")
    assert isinstance(error, ApiError)
    assert (error.status, error.message, error.phase) == (400, "Parent message not found", "CHAT_CREATED")
    assert str(error) == "Parent message not found: HTTP 400 while requesting the answer (phase CHAT_CREATED)"


@pytest.mark.clause("OA-8.1")
def test_a_list_of_complaints_is_joined_readably() -> None:
    body = (
        b'{"detail": [{"loc": ["body", "parent_id"], "msg": "field required", "type": "value_error.missing"},'
        b' {"loc": ["body", 1], "msg": "Expecting value", "type": "x", "ctx": {}}, {"msg": "no place"}]}'
    )
    error = reply(422, body).error(DOING)
    assert isinstance(error, ApiError)
    assert error.message == "body.parent_id: field required; body.1: Expecting value; no place"


@pytest.mark.clause("OA-8.1")
@pytest.mark.parametrize("status", [401, 403])
def test_rejected_credentials_are_an_authentication_error_with_the_servers_words(status: int) -> None:
    error = reply(status, b'{"detail": "Not authenticated"}').error(DOING)
    assert isinstance(error, AuthenticationError)
    assert error.status == status
    assert str(error).startswith("Not authenticated: ")
    assert "the server rejects the credentials" in str(reply(status).error(DOING))


@pytest.mark.clause("OA-8.1")
@pytest.mark.parametrize(
    "body",
    [b"", b"Internal Server Error", b"{", b'{"detail": {"no": "text"}}', b'{"detail": null}', b"\xff", b"[" * 100_000],
    ids=lambda body: repr(body)[:30],
)
def test_other_bodies_are_an_http_status_error(body: bytes) -> None:
    error = reply(500, body).error(DOING)
    assert isinstance(error, HTTPStatusError)
    assert error.status == 500
    assert "HTTP 500" in str(error)
    assert len(str(error)) < 1000


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (403, b"", "Log in again"),
        (413, b'{"detail": "Message content exceeds max length"}', "Shorten the prompt"),
        (422, b'{"detail": "Model gpt-4 not found"}', "client.models()"),
        (422, b'{"detail": "Something else"}', "while requesting the answer"),
        (429, b"", "try again later"),
        (503, b"", "try again later"),
        (404, b"", "chat feature on?"),
        (404, b'{"detail": "Chat not found"}', "Chat not found"),
        (500, b"", "rate limit"),
        (307, b"", "'http://elsewhere.test/'"),
        (418, b"", "HTTP 418"),
    ],
)
def test_an_error_says_what_may_help(status: int, body: bytes, words: str) -> None:
    assert words in str(reply(status, body, location="http://elsewhere.test/").error(DOING))


@pytest.mark.clause("OA-8.2")
@pytest.mark.parametrize("body", [b"", b"null", b"<html>", b"{}", b'{"id": 1}', b"\xff", b'{"id": "\xff"}'])
def test_a_success_without_what_it_must_carry_is_none(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"something else than a new chat.*\(phase START\)"):
        reply(200, body).decode(schemas.decode_created, "a new chat", "START")


@pytest.mark.clause("OA-8.2")
def test_a_success_that_holds_an_error_message_is_that_error() -> None:
    with pytest.raises(ApiError, match=r"^Locked \(instead of a new chat\)$") as raised:
        reply(200, b'{"message": "Locked"}').decode(schemas.decode_created, "a new chat", None)
    assert (raised.value.status, raised.value.message) == (200, "Locked")


@pytest.mark.clause("OA-5.10")
def test_a_body_over_the_limit_is_not_decoded() -> None:
    body = b'{"id": "' + b"x" * MAX_BODY + b'"}'
    with pytest.raises(RemoteProtocolError, match="8,388,608 bytes"):
        reply(200, body).decode(schemas.decode_created, "a new chat", None)
    assert isinstance(reply(400, body).error(DOING), HTTPStatusError)


def test_what_was_decoded_is_returned() -> None:
    assert reply(200, b'{"id": "x", "more": 1}').decode(schemas.decode_created, "a new chat", None).id == "x"


def test_header_names_have_any_case() -> None:
    found = Reply.of(503, [("Retry-After", "1.5"), ("DATE", "now"), ("Location", "/")], b"")
    assert (found.retry_after, found.date, found.location) == (1.5, "now", "/")
