"""Reads the head of an HTTP/1 reply with httptools. The body is read by ``Body``."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import httptools

from oa_protocol.transports import LONGEST_HEAD
from oa_protocol.transports._body import HEAD_END, Body
from oa_protocol.transports._failures import NO_REPLY, words_of

_FOLD = re.compile(rb"[ \t]*\r?\n[ \t]+")
_LENGTH = re.compile(rb"^content-length:(.*)\n", re.IGNORECASE | re.MULTILINE)


class Reply(Body):
    """What has arrived of a reply, from the first byte of its head. Interim replies are skipped."""

    def __init__(self) -> None:
        super().__init__()
        self._is_kept_alive = False
        self._read_part = cast("Callable[[Body], bool]", Reply._read_head)

    @property
    def leaves_connection_usable(self) -> bool:
        """Whether the next request may be sent over the same connection."""
        return self.is_complete and self._is_kept_alive and not self._unread

    def _read_head(self) -> bool:
        if self._unread.startswith((b"\r", b"\n")):
            self._unread = self._unread.lstrip(b"\r\n")
        unread = self._unread
        if not unread.startswith(b"HTTP/"[: len(unread)]):
            raise ValueError("it does not begin with HTTP/")
        end = HEAD_END.search(unread)
        if (end.end() if end else len(unread)) > LONGEST_HEAD:
            raise ValueError(f"the head is longer than {LONGEST_HEAD} bytes")
        if end is None:
            return False
        head = _Head(bytes(unread[: end.end()]))
        del unread[: end.end()]
        if (
            head.status == HTTPStatus.SWITCHING_PROTOCOLS
            or not head.version.startswith("1.")
            or head.status < HTTPStatus.CONTINUE
        ):
            raise ValueError(NO_REPLY)
        if head.status >= HTTPStatus.OK:
            self.begin(head.status, head.headers)
            self._is_kept_alive = head.is_kept_alive and not self.is_ambiguous
        return True


class _Head:
    """The head of a reply, as httptools reads it."""

    def __init__(self, data: bytes) -> None:
        if b"\0" in data:
            raise ValueError("the head has a zero byte in it")
        self.headers: list[tuple[str, str]] = []
        self.is_kept_alive = False
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,  # accepts control characters
            lenient_chunked_length=True,  # accepts a length beside chunks
            lenient_version=True,
            lenient_optional_cr_before_lf=True,
        )
        try:
            self._parser.feed_data(_say_length_once(_FOLD.sub(b" ", data)))
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise ValueError(words_of(error)) from error
        self.status: int = self._parser.get_status_code()
        self.version: str = self._parser.get_http_version()
        del self._parser  # it refers to this object, and the cycle would wait for the garbage collector

    # ---- what httptools calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.is_kept_alive = self._parser.should_keep_alive()


def _say_length_once(head: bytes) -> bytes:
    """If a head has several equal lengths, return it with a single one (RFC 9110, section 8.6)."""
    said: list[bytes] = [length.strip() for field in _LENGTH.findall(head) for length in field.split(b",")]
    if len(said) < 2 or len(set(said)) > 1:
        return head
    first, end, rest = head.partition(b"\n")
    return first + end + b"content-length: " + said[0] + end + _LENGTH.sub(b"", rest)
