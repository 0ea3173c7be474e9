"""Replies, in the form that the engine uses, and the errors that they are turned into."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TypeVar, cast

from msgspec import DecodeError, Struct

from oa_protocol.bindings.base import Binding, Credentials, Headers
from oa_protocol.engine.errors import ApiError, AuthenticationError, HTTPStatusError, OAError, RemoteProtocolError

MAX_BODY = 8 * 1024 * 1024
"""The largest size of a reply's body, in bytes. A driver may stop reading after one byte more."""

MAX_LIST = 256 * 1024 * 1024
"""The largest size of a list of chats that a client reads for its owner. Each title may be a whole prompt (WIRE 33)."""

MAX_NESTING = 500
"""How many arrays and objects may be inside one another. A shorter text can't be nested more deeply.

JSON decoders recurse, also into fields that no reader asks for. From Python 3.12 on, their own limit fits the stack of
a main thread, but not the smaller stacks that other threads may have: 100,000 brackets crash Python 3.13 in a thread
with 256 KiB. So the depth is checked before anything is decoded.
"""

TOO_DEEP = f"more than {MAX_NESTING} arrays and objects are inside one another"

_SNIPPET = 200
_BUSY = frozenset({429, 503})
_AWAY = _BUSY | {502, 504}

_JSON_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")

_DELAY = re.compile(r"\s*[+-]?[0-9]+(\.[0-9]*)?\s*", re.ASCII)
_WORD = re.compile(r"[A-Za-z]+|[0-9]+")
# Some servers write one of these instead of "GMT": Python's and Go's usual functions for dates do.
_UTC = re.compile(r"(UTC|[+-]0000)\s*$")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

UNREADABLE = (ValueError, DecodeError, RecursionError)
"""The errors that a binding may raise for a body or an event that doesn't have the right form."""

_NONE = Credentials()

T = TypeVar("T")


class Reply(Struct, frozen=True):
    """The parts of a reply that the engine needs.

    Attributes:
        binding: the binding that reads the body.
        status: the HTTP status.
        body: the body.
        date: the ``date`` header.
        location: the ``location`` header.
        retry_after: how many seconds the server asks us to wait, or None.
        content_encoding: the ``content-encoding`` header.
        credentials: the credentials of the request. They are removed from error messages, because a server may repeat
            them.
        most: the most bytes that the body may have.

    """

    binding: Binding
    status: int
    body: bytes
    date: str | None = None
    location: str | None = None
    retry_after: float | None = None
    content_encoding: str | None = None
    credentials: Credentials = _NONE
    most: int = MAX_BODY

    @classmethod
    def of(
        cls,
        binding: Binding,
        status: int,
        headers: Headers,
        body: bytes,
        credentials: Credentials = _NONE,
        most: int = MAX_BODY,
    ) -> Reply:
        """Return a reply with the headers that the engine needs. Names of headers may have any case.

        Raises:
            TypeError: the status isn't a number, the headers aren't header fields, or the body isn't bytes.

        """
        if isinstance(cast("object", status), bool) or not isinstance(cast("object", status), int):
            raise TypeError(f"status must be a number, not {status!r}")
        if not isinstance(cast("object", body), (bytes, bytearray, memoryview)):
            raise TypeError(f"body must be bytes, not {type(body).__name__}")
        found = {name.lower(): value for name, value in header_pairs(headers)}
        date = found.get("date")
        wait = seconds_to_wait(found.get("retry-after"), date)
        coding = found.get("content-encoding")
        return cls(binding, status, bytes(body), date, found.get("location"), wait, coding, credentials, most)

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def is_busy(self) -> bool:
        """Whether the server says that it didn't carry out the request, and may do so later (OA-6.3)."""
        return self.status in _BUSY

    @property
    def is_away(self) -> bool:
        """Whether the server can't answer now, because it is busy, or because a proxy doesn't reach it."""
        return self.status in _AWAY

    @property
    def is_refusal(self) -> bool:
        """Whether the server says that it didn't carry out the request, and never will (OA-6.2)."""
        return 300 <= self.status < 500 and not self.is_busy

    @property
    def rejects_credentials(self) -> bool:
        """Whether other credentials may help."""
        return self.status in (401, 403)

    def decode(self, reader: Callable[[bytes], T], what: str, phase: str | None) -> T:
        """Return what ``reader`` finds in the body.

        Args:
            reader: the binding's method that reads this kind of body.
            what: what the body should be, in words, for the error message.
            phase: the name of the phase, for the error message.

        Raises:
            ApiError: the body is an error message, although the status says success.
            RemoteProtocolError: the body is something else, or is too large.

        """
        problem = self._problem
        if not problem:
            try:
                return reader(self.body)
            except UNREADABLE as error:
                problem = str(error)
            if words := self.words:
                raise ApiError(
                    f"{self._hide(words)} (instead of {what}){_in(phase)}",
                    phase=phase,
                    status=self.status,
                    message=words,
                )
        hint = "Is the base URL that of an Open Assistant server, and the api the right one?"
        if self.content_encoding:
            hint = f"Its content-encoding is {self.content_encoding}, although we asked for none: does a proxy do that?"
        raise RemoteProtocolError(
            f"the server sent something other than {what}: {problem}{_in(phase)}. {hint}", phase=phase
        )

    @property
    def words(self) -> str:
        """The error message in the body, or an empty text."""
        return "" if self._problem else self.binding.read_error(self.body)

    @property
    def confirms_deletion(self) -> bool:
        """Whether this reply to a DELETE confirms that the chat is gone."""
        return not self._problem and self.binding.is_deleted(self.status, self.body)

    @property
    def denies_chat(self) -> bool:
        """Whether this reply to a read of a chat says that there is no such chat."""
        return not self._problem and self.binding.is_not_found(self.status, self.body)

    @property
    def _problem(self) -> str:
        """Why the body must not be decoded at all (OA-5.10), or an empty text."""
        if len(self.body) > self.most:
            return f"more than {self.most:,} bytes"
        return TOO_DEEP if is_nested_too_deeply(self.body) else ""

    def error(self, doing: str, phase: str | None = None) -> OAError:
        """Return this reply as an error. ``doing`` is what the request was for, for example "creating the chat"."""
        words = self.words
        shown = self._hide(words)
        said = f"HTTP {self.status} while {doing}{_in(phase)}"
        hint = self._hint(words, doing)
        if self.rejects_credentials:
            return AuthenticationError(
                f"{shown or 'the server rejects the credentials'}: {said}{hint}", phase=phase, status=self.status
            )
        if words:
            return ApiError(f"{shown}: {said}{hint}", phase=phase, status=self.status, message=words)
        text = self._hide(self.body[:MAX_BODY].decode(errors="replace"))[:_SNIPPET].strip()
        return HTTPStatusError(f"{said}{f': {text!r}' if text else ''}{hint}", phase=phase, status=self.status)

    def _hide(self, text: str) -> str:
        return self.credentials.hide_in(text, self.binding.base_url)

    def _hint(self, words: str, doing: str) -> str:
        match self.status:
            case 429 | 503:
                hint = "The server is busy: try again later"
            case status if 300 <= status < 400:
                target = self._hide(self.location or "")
                hint = f"It points to {target!r}, and redirects are not followed: use that server's URL"
            case status:
                hint = self.binding.hint(status, words, doing)
        return f". {hint}" if hint else ""


def is_nested_too_deeply(text: bytes) -> bool:
    """Return whether more than ``MAX_NESTING`` arrays and objects are inside one another."""
    if text.count(b"[") + text.count(b"{") <= MAX_NESTING:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_JSON_STRING.sub(b"", text)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_NESTING:
            return True
    return False


def header_pairs(headers: Headers) -> list[tuple[str, str]]:
    """Return header fields as pairs of text, in whatever form an HTTP library has them.

    Raises:
        TypeError: ``headers`` aren't header fields.

    """
    if not isinstance(cast("object", headers), Iterable):
        raise TypeError(f"headers must be a mapping or pairs, not {type(headers).__name__}")
    pairs = cast("Mapping[object, object]", headers).items() if isinstance(headers, Mapping) else headers
    return [
        (name if isinstance(name, str) else _text(name), value if isinstance(value, str) else _text(value))
        for name, value in cast("Iterable[tuple[object, object]]", pairs)
    ]


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")  # HTTP/1.1 allows any byte in a field's value, and this decodes all of them.
    raise TypeError(f"headers must be text or bytes, not {type(value).__name__}")


def seconds_to_wait(retry_after: str | None, date: str | None) -> float | None:
    """Return how many seconds the server asks us to wait, or None if the header can't be read.

    A date in ``Retry-After`` is compared with the reply's own ``date``, because the engine has no clock, and the
    server's clock may be wrong.
    """
    if retry_after is None:
        return None
    if _DELAY.fullmatch(retry_after):
        return max(float(retry_after), 0.0)
    try:
        return max((_moment(retry_after) - _moment(date or "")).total_seconds(), 0.0)
    except (ValueError, OverflowError):
        return None


def _moment(http_date: str) -> datetime:
    """Return a date that is in one of the three forms of RFC 9110, section 5.6.7.

    ``email.utils`` isn't used, because it imports sockets, and the engine mustn't import anything that can do I/O.
    """
    match _WORD.findall(_UTC.sub("GMT", http_date)):
        case [_, day, month, year, hour, minute, second, "GMT"] | [_, month, day, hour, minute, second, year]:
            century = 0 if len(year) == 4 else 2000 if int(year) < 70 else 1900
            date = int(year) + century, _MONTHS.index(month) + 1, int(day)
            return datetime(*date, int(hour), int(minute), min(int(second), 59), tzinfo=UTC)  # 60 is a leap second
        case _:
            raise ValueError("no HTTP date")


def _in(phase: str | None) -> str:
    return f" (phase {phase})" if phase else ""
