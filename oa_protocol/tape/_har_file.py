"""Reads a HAR file (HTTP Archive 1.2) entry by entry, because browsers and proxies write odd ones."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

Pairs = list[tuple[str, str]]


class PostData(Struct):
    """The body of a request."""

    text: str | None = None


class Request(Struct, rename="camel"):
    """What was sent. Its ``repr`` keeps the cookies to itself."""

    url: str
    method: str = "GET"
    headers: list[Any] = []
    cookies: list[Any] = []
    post_data: PostData | None = None

    def __repr__(self) -> str:
        return f"Request({self.method!r})"

    @property
    def cookie_header(self) -> str:
        """The value of the Cookie header; empty if none was sent."""
        return "; ".join(value for name, value in _pairs(self.headers) if name.lower() == "cookie")

    @property
    def cookie_list(self) -> Pairs:
        """The cookies, whose values a browser may have decoded. Not every file has the header."""
        return _pairs(self.cookies)


class Content(Struct):
    """The body of a response."""

    text: str | None = None
    encoding: str | None = None


class Response(Struct, rename="camel"):
    """What came back; ``status`` is 0 if nothing did."""

    raw_status: int | None = msgspec.field(name="status", default=None)
    raw_headers: list[Any] = msgspec.field(name="headers", default_factory=list[Any])
    content: Content | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.raw_status or 0

    @property
    def headers(self) -> Pairs:
        """The header fields, without those of HTTP/2 that begin with a colon."""
        return [(name, value) for name, value in _pairs(self.raw_headers) if not name.startswith(":")]

    @property
    def body(self) -> bytes:
        """The whole body; empty if the browser left it out. Raises ValueError for base64 that is none."""
        content = self.content or Content()
        text = content.text or ""
        return base64.b64decode(text) if content.encoding == "base64" else text.encode(errors="replace")


class Entry(Struct, rename="camel"):
    """One exchange."""

    request: Request
    response: Response | None = None
    started_date_time: Any = None


def read_entries(entries: list[Any], left_out: list[str]) -> list[Entry]:
    """Return the entries in order of time, and add to ``left_out`` which ones can't be read, and why."""
    return [entry for _, entry in sorted(_dated(entries, left_out), key=lambda dated: dated[0])]


def _dated(entries: list[Any], left_out: list[str]) -> Iterator[tuple[datetime, Entry]]:
    """Yield each entry with its time; one whose date can't be read counts as where it stands."""
    began = datetime.min.replace(tzinfo=UTC)
    for number, item in enumerate(entries, 1):
        try:
            entry = msgspec.convert(item, Entry)
        except ValueError as error:  # also lone surrogates
            left_out.append(f"entry {number}: {error}")
            continue
        began = _time(entry.started_date_time) or began
        yield began, entry


def _time(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _pairs(items: list[Any]) -> Pairs:
    """Return the headers or cookies that have a name and a value."""
    found: Pairs = []
    for item in items:
        match item:
            case {"name": str(name), "value": str(value)}:
                found.append((name, value))
            case _:
                pass
    return found
