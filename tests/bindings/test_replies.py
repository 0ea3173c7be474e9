"""Replies: which headers count, what a status means, and which exception an unwelcome one is raised as (section 8)."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import DecodeError

from oa_protocol.bindings.base import Headers
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.replies import MAX_BODY, Reply, is_nested_too_deeply
from oa_protocol.bindings.website import Website
from oa_protocol.engine.errors import ApiError, AuthenticationError, HTTPStatusError, RemoteProtocolError
from oa_protocol.engine.intents import CreateChat, RequestAssistant

WEBSITE = Website("http://oa.test")
BINDING = InferenceServer("http://oa.test")
DOING = "reading the chat"


def reply(status: int, body: bytes = b"", headers: Headers = ()) -> Reply:
    return Reply.of(BINDING, status, headers, body)


# ---- headers

FIELDS = [("Date", "Sun, 22 Nov 2026 08:18:06 GMT"), ("RETRY-AFTER", "7"), ("location", "/x"), ("x", "y")]


@pytest.mark.clause("OA-6.3", "OA-6.8", "OA-2.7")
@pytest.mark.parametrize(
    "spell",
    [
        pytest.param(lambda: FIELDS, id="pairs"),
        pytest.param(lambda: [(name.encode(), value.encode()) for name, value in FIELDS], id="pairs of bytes"),
        pytest.param(lambda: iter(FIELDS), id="an iterator"),
        pytest.param(lambda: dict(FIELDS), id="a mapping"),
        pytest.param(lambda: httpx.Headers(FIELDS), id="httpx"),
        pytest.param(lambda: httpx.Headers(FIELDS).raw, id="raw httpx"),
    ],
)
def test_headers_are_read_as_http_libraries_have_them(spell: Callable[[], Headers]) -> None:
    found = reply(503, headers=spell())
    assert (found.date, found.location, found.retry_after) == ("Sun, 22 Nov 2026 08:18:06 GMT", "/x", 7.0)


def test_what_are_no_headers_is_named() -> None:
    with pytest.raises(TypeError, match=r"^headers must be a mapping or pairs, not int$"):
        reply(200, headers=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_header_in_bytes_may_be_latin_1() -> None:
    assert reply(302, headers=[(b"Location", b"/caf\xe9")]).location == "/café"


@pytest.mark.clause("OA-6.3")
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *(("0", 0.0), (" 12 ", 12.0), ("1.5", 1.5), ("-3", 0.0), ("+3", 3.0), ("9" * 400, math.inf)),
        *((odd, None) for odd in ("inf", "nan", "", "soon", "1e3", "1_0", "12 s", "3 Nov", "Sun, 22 Nov 2026")),
        ("Sun, 22 Nov 2026 08:18:16 GMT", 10.0),
        ("Sunday, 22-Nov-26 08:18:16 GMT", 10.0),
        ("Sun, 22 Nov 2026 08:18:16 +0000", 10.0),
        ("Sun, 22 Nov 2026 08:18:16 -0000", 10.0),
        ("Sun, 22 Nov 2026 08:18:16 UTC", 10.0),
        ("Sun, 22 Nov 2026 08:18:16 +0100", None),
        ("Sun Nov 22 08:18:16 2026", 10.0),
        (" Tue Dec  1 08:18:06 2026 ", 9 * 86400.0),
        ("Sun, 22 Nov 2026 08:17:60 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
        ("Tuesday, 01-Jan-69 00:00:00 GMT", 1328888514.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 251606965313.0),
        ("Sun, 22 Nov 99999 08:18:16 GMT", None),
        ("Sun, 22 Nov 99999999999999999999 08:18:16 GMT", None),
        ("Sun, 22 November 2026 08:18:16 GMT", None),
        ("Sun, 22 Nov 2026 08:18:16 CET", None),
    ],
)
def test_retry_after_is_in_seconds_or_a_date_by_the_servers_clock(value: str, seconds: float | None) -> None:
    headers = [("date", "Sun, 22 Nov 2026 08:18:06 GMT"), ("retry-after", value)]
    assert reply(503, headers=headers).retry_after == seconds


@pytest.mark.clause("OA-6.3")
def test_a_year_of_two_digits_is_one_from_1970_on() -> None:
    headers = {"date": "Thu, 01 Jan 1970 00:00:00 GMT", "retry-after": "Thursday, 01-Jan-70 00:00:10 GMT"}
    assert reply(503, headers=headers).retry_after == 10.0


@pytest.mark.clause("OA-6.3")
@pytest.mark.parametrize("date", [{}, {"date": "soon"}])
def test_retry_after_as_a_date_says_nothing_if_the_reply_has_none(date: dict[str, str]) -> None:
    headers = {**date, "retry-after": "Sun, 22 Nov 2026 08:18:16 GMT"}
    assert reply(503, headers=headers).retry_after is None


@pytest.mark.parametrize("body", [b"ab", bytearray(b"ab"), memoryview(b"ab")], ids=lambda body: type(body).__name__)
def test_a_body_may_be_any_bytes(body: bytes) -> None:
    assert reply(200, body).body == b"ab"


# ---- a status


@pytest.mark.clause("OA-6.1", "OA-6.2", "OA-6.3", "OA-6.4")
@given(st.integers(100, 999))
def test_what_a_status_means(status: int) -> None:
    found = reply(status)
    assert found.is_success == (status // 100 == 2)
    assert found.is_busy == (status in (429, 503))
    assert found.is_away == (status in (429, 502, 503, 504))
    assert found.is_refusal == (status // 100 in (3, 4) and status != 429)
    assert found.rejects_credentials == (status in (401, 403))


# ---- an unwelcome reply


LOG_IN = ". Log in again and give the new cookies or token"
WAIT = ". The server is busy: try again later"
WRONG_SERVER = ". Is the base URL right, the API the right one, and the chat feature on?"
MODELS = ". The server's models: await client.models(), or oa-protocol models"


@pytest.mark.clause("OA-8.1")
@pytest.mark.parametrize(
    ("status", "body", "kind", "start", "end"),
    [
        (404, b'{"detail":"Chat not found"}', ApiError, "Chat not found: ", ""),
        (403, b"", AuthenticationError, "the server rejects the credentials: ", LOG_IN),
        (401, b'{"detail":"Token has expired"}', AuthenticationError, "Token has expired: ", LOG_IN),
        (500, b"Internal Server Error", HTTPStatusError, "", ": 'Internal Server Error'"),
        (502, b"", HTTPStatusError, "", ""),
        (413, b'{"message":"too long"}', ApiError, "too long: ", ". Shorten the prompt, or begin a new chat"),
        (422, b'{"message":"Model X not found"}', ApiError, "Model X not found: ", MODELS),
        (422, b'{"message":"Something else"}', ApiError, "Something else: ", ""),
        (429, b"", HTTPStatusError, "", WAIT),
        (503, b'{"detail":"busy"}', ApiError, "busy: ", WAIT),
        (404, b"<html>", HTTPStatusError, "", ": '<html>'" + WRONG_SERVER),
        (404, b'{"detail":"Not Found"}', ApiError, "Not Found: ", WRONG_SERVER),
        (400, b"\xff" * 1000, HTTPStatusError, "", f": '{200 * chr(0xFFFD)}'"),
        (500, b'{"detail": {"no": "text"}}', HTTPStatusError, "", """: '{"detail": {"no": "text"}}'"""),
        (500, b'{"detail": null}', HTTPStatusError, "", """: '{"detail": null}'"""),
        (500, b"[" * 100_000, HTTPStatusError, "", f": '{200 * '['}'"),
    ],
    ids=lambda value: ascii(value)[:40].replace("\\", ""),
)
def test_the_exception_for_an_unwelcome_reply(
    status: int, body: bytes, kind: type[Exception], start: str, end: str
) -> None:
    error = reply(status, body).error(DOING, "X")
    assert type(error) is kind
    assert str(error) == f"{start}HTTP {status} while reading the chat (phase X){end}"
    assert (error.phase, getattr(error, "status", None)) == ("X", status)


@pytest.mark.clause("OA-2.7")
@pytest.mark.parametrize("status", [300, 307, 399])
@pytest.mark.parametrize(
    ("headers", "target"), [([("location", "https://elsewhere/")], "https://elsewhere/"), ([], "")]
)
def test_a_redirect_names_its_target(status: int, headers: Headers, target: str) -> None:
    hint = f"It points to {target!r}, and redirects are not followed: use that server's URL"
    assert str(reply(status, headers=headers).error(DOING)) == f"HTTP {status} while reading the chat. {hint}"


def test_only_a_request_that_is_limited_may_have_met_the_rate_limit() -> None:
    hint = "Servers of this protocol say that for a rate limit, too: wait some minutes"
    doing = RequestAssistant.doing
    assert str(reply(500, b"").error(doing)) == f"HTTP 500 while {doing}. {hint}"
    assert str(reply(500, b"").error(CreateChat.doing)) == f"HTTP 500 while {CreateChat.doing}"


@pytest.mark.clause("OA-8.1")
@pytest.mark.parametrize("key", ["detail", "message"])
def test_the_servers_words_are_on_the_error(key: str) -> None:
    error = reply(400, b'{"%s": "Parent message not found"}' % key.encode()).error(DOING)
    assert isinstance(error, ApiError)
    assert (error.message, error.phase) == ("Parent message not found", None)
    assert str(error) == "Parent message not found: HTTP 400 while reading the chat"


# ---- a success without what it must carry


@pytest.mark.clause("OA-8.2")
@pytest.mark.parametrize(
    "body", [b"", b"null", b"<html>", b"{}", b'{"id": 1}', b"\xff", b'{"id": "\xff"}', b"[" * 100_000]
)
def test_a_success_without_what_it_must_carry_is_none(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"something other than a new chat.*\(phase START\)"):
        reply(200, body).decode(BINDING.read_chat_id, "a new chat", "START")


@pytest.mark.clause("OA-8.2")
def test_a_success_that_holds_an_error_message_is_that_error() -> None:
    with pytest.raises(ApiError, match=r"^Locked \(instead of a new chat\) \(phase START\)$") as raised:
        reply(200, b'{"message": "Locked"}').decode(BINDING.read_chat_id, "a new chat", "START")
    assert (raised.value.phase, raised.value.status, raised.value.message) == ("START", 200, "Locked")


@pytest.mark.clause("OA-8.2")
def test_a_coding_of_the_body_is_named_if_the_body_cannot_be_read() -> None:
    coded = reply(200, b"\x1f\x8b", {"Content-Encoding": "gzip"})
    hint = "Its content-encoding is gzip, although we asked for none: does a proxy do that?"
    with pytest.raises(RemoteProtocolError, match=f"{re.escape(hint)}$"):
        coded.decode(BINDING.read_chat_id, "a new chat", None)


@pytest.mark.clause("OA-8.2")
@pytest.mark.parametrize(
    "error",
    [ValueError("odd"), DecodeError("odd"), UnicodeDecodeError("utf-8", b"", 0, 1, "odd"), RecursionError("odd")],
    ids=lambda error: type(error).__name__,
)
def test_a_binding_may_raise_these_if_it_cannot_read(error: Exception) -> None:
    def read(body: bytes) -> str:
        raise error

    with pytest.raises(RemoteProtocolError, match="odd"):
        reply(200, b"x").decode(read, "a new chat", None)


@pytest.mark.clause("OA-5.10")
def test_a_body_over_the_limit_is_refused_and_one_at_the_limit_is_read() -> None:
    body = b'{"id":"a"' + b" " * (MAX_BODY - 10) + b"}"
    assert reply(200, body).decode(BINDING.read_chat_id, "a new chat", None) == "a"
    with pytest.raises(RemoteProtocolError, match="more than 8,388,608 bytes"):
        reply(200, body + b" ").decode(BINDING.read_chat_id, "a new chat", None)
    with pytest.raises(RemoteProtocolError, match="more than 9 bytes"):
        Reply.of(BINDING, 200, (), b'{"id":"a"}', most=9).decode(BINDING.read_chat_id, "a new chat", None)
    words = b'{"detail":"a"' + b" " * MAX_BODY + b"}"
    assert type(reply(500, words).error(DOING)) is HTTPStatusError


@pytest.mark.clause("OA-5.10")
def test_json_that_is_nested_too_deeply_says_nothing() -> None:
    too_deep = b'{"id":"a","detail":"Chat not found","x":' + b"[" * 500 + b"]" * 500 + b"}"
    with pytest.raises(RemoteProtocolError, match="more than 500 arrays and objects are inside one another"):
        reply(200, too_deep).decode(BINDING.read_chat_id, "a new chat", None)
    assert not reply(404, too_deep).denies_chat
    assert not Reply.of(WEBSITE, 404, (), too_deep).confirms_deletion
    assert type(reply(404, too_deep).error(DOING)) is HTTPStatusError
    assert reply(404, too_deep.replace(b"[]", b"1")).denies_chat


@pytest.mark.clause("OA-5.10")
@pytest.mark.parametrize(
    ("text", "too_deep"),
    [
        pytest.param(500 * b"[" + 500 * b"]" + b"[]", False, id="500 levels"),
        pytest.param(501 * b"[", True, id="501 levels"),
        pytest.param(501 * b"[]", False, id="many of one level"),
        pytest.param(10 * b"{}" + 501 * b"[", True, id="after some of one level"),
        pytest.param(b'"' + 501 * b"[" + b'"', False, id="in a text"),
    ],
)
def test_how_deeply_a_text_is_nested(text: bytes, too_deep: bool) -> None:
    assert is_nested_too_deeply(text) is too_deep


NESTED = """
import threading
from oa_protocol import InferenceServer
from oa_protocol.bindings.replies import Reply
body = b'{"id":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
reply = Reply.of(InferenceServer("http://oa.test"), 500, (), body)
threading.stack_size(256 * 1024)
thread = threading.Thread(target=lambda: print(repr(reply.words)))
thread.start()
thread.join()
"""


@pytest.mark.clause("OA-5.10")
def test_nested_json_does_not_crash_a_thread_with_a_small_stack() -> None:
    done = subprocess.run([sys.executable, "-c", NESTED], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "''\n"), done.stderr
