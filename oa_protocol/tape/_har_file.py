"""Reads a HAR file (HTTP Archive 1.2) entry by entry, because browsers and proxies write odd entries."""

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
    """A request. Its ``repr`` doesn't show the cookies."""

    url: str
    method: str = "GET"
    headers: list[Any] = []
    cookies: list[Any] = []
    post_data: PostData | None = None

    def __repr__(self) -> str:
        return f"Request({self.method!r})"

    @property
    def cookie_header(self) -> str:
        """The value of the Cookie header, or empty if there was none."""
        return "; ".join(value for name, value in _pairs(self.headers) if name.lower() == "cookie")

    @property
    def cookie_list(self) -> Pairs:
        """The cookies. Use them if the file lacks the Cookie header. A browser may have decoded their values."""
        return _pairs(self.cookies)


class Content(Struct):
    """The body of a response."""

    text: str | None = None
    encoding: str | None = None


class Response(Struct, rename="camel"):
    """A response. Its ``status`` is 0 if there was none."""

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
        """The whole body, or empty if the browser left it out.

        Raises:
            ValueError: the body isn't valid base64.

        """
        content = self.content or Content()
        text = content.text or ""
        return base64.b64decode(text) if content.encoding == "base64" else text.encode(errors="replace")


class Entry(Struct, rename="camel"):
    """One exchange."""

    request: Request
    response: Response | None = None
    started_date_time: Any = None


def read_entries(entries: list[Any], left_out: list[str]) -> list[Entry]:
    """Return the entries in the order of time. For each entry that can't be read, append the reason to ``left_out``."""
    return [entry for _, entry in sorted(_dated(entries, left_out), key=lambda dated: dated[0])]


def _dated(entries: list[Any], left_out: list[str]) -> Iterator[tuple[datetime, Entry]]:
    """Yield each entry with its time. If the date can't be read, use that of the entry before."""
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
