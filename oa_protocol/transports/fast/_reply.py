"""Reads an HTTP/1 reply as it arrives. httptools reads the head; the body is read here.

The body isn't left to httptools, because it accepts only chunks that follow the standard to the letter, and the chunks
of many servers and proxies don't. So this module is as lenient as h11, which reads replies for httpx, and more lenient
if RFC 9112 says that a client must be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

import httptools

from oa_protocol.transports import LONGEST_HEAD
from oa_protocol.transports._failures import NO_REPLY, words_of

_HEAD_END = re.compile(rb"\n\r?\n")
_FOLD = re.compile(rb"[ \t]*\r?\n[ \t]+")
_LENGTH = re.compile(rb"^content-length:(.*)\n", re.IGNORECASE | re.MULTILINE)
_PLAIN_SIZE = re.compile(rb"0*([1-9a-f][0-9a-f]{0,8})\r\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?\r?\n")
_TRAILER = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:|[ \t]).*\n")
_NO_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class Reply:
    """What has arrived of a reply.

    Attributes:
        status: the HTTP status, or 0 until the head has arrived. Interim replies are skipped.
        headers: the header fields.
        is_complete: whether the body has ended.
        leaves_connection_usable: whether the next request may be sent over the same connection.
        fault: what is wrong with the reply, if it is malformed or ended too early.

    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.is_complete = False
        self.leaves_connection_usable = False
        self.fault = ""
        self._is_kept_alive = False
        self._unread = bytearray()
        self._body: list[bytes] = []
        self._left = 0
        self._trailer_bytes = 0
        # The method that reads the next part. It returns whether there may be more to read in what has arrived.
        self._read_part: Callable[[Reply], bool] = Reply._read_head

    def close(self) -> None:
        """Note that the reply is no longer read. If it isn't complete, it never will be."""
        if not self.is_complete:
            self._fail("it was closed")

    def take_body(self) -> bytes:
        """Return what has arrived of the body since the last call."""
        if not self._body:
            return b""
        data = b"".join(self._body)
        self._body.clear()
        return data

    def feed(self, data: bytes) -> None:
        """Read what has arrived."""
        # This shortcut is for streams. A server sends each token as one chunk, which mostly arrives in one piece.
        if not self._unread and self._read_part is Reply._read_chunk_size and self._is_one_chunk(data):
            return
        self._unread += data
        try:
            while not self.is_complete and self._read_part(self):
                pass
        except (ValueError, httptools.HttpParserError) as error:
            self._fail(f"this is not HTTP: {words_of(error)}")
        if self.is_complete:
            self.leaves_connection_usable = self._is_kept_alive and not self._unread

    def _is_one_chunk(self, data: bytes) -> bool:
        """If ``data`` is exactly one whole chunk, read it, and return True. It is far faster than line by line."""
        size = _PLAIN_SIZE.match(data)
        if size is None or len(data) != size.end() + int(size[1], 16) + 2 or data[-2:] != b"\r\n":
            return False
        self._body.append(data[size.end() : -2])
        return True

    def feed_end(self) -> None:
        """Note that nothing more will come."""
        if self._read_part is Reply._read_to_end:
            self.is_complete = True
        elif not self.is_complete:
            self._fail("the server closed the connection")

    def _fail(self, fault: str) -> None:
        self.fault = self.fault or fault

    # ---- the head

    def _read_head(self) -> bool:
        if self._unread.startswith((b"\r", b"\n")):
            self._unread = self._unread.lstrip(b"\r\n")
        unread = self._unread
        if not unread.startswith(b"HTTP/"[: len(unread)]):
            raise ValueError("it does not begin with HTTP/")
        end = _HEAD_END.search(unread)
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
            self._begin_body(head)
        return True

    def _begin_body(self, head: _Head) -> None:
        coding = ", ".join(head.values("transfer-encoding")).lower()
        lengths = head.values("content-length")
        if head.status in _NO_BODY:
            self.is_complete = True
        elif coding:
            if coding != "chunked":
                raise ValueError("its transfer coding is not chunked")
            self._read_part = Reply._read_chunk_size
        elif lengths:
            self._left = int(lengths[0])
            self.is_complete = not self._left
            self._read_part = Reply._read_rest
        else:
            self._read_part = Reply._read_to_end
        self.status, self.headers = head.status, head.headers
        # If a head has both, the two ends may disagree about the end of the body (RFC 9112, section 6.3).
        self._is_kept_alive = head.is_kept_alive and not (coding and lengths)

    # ---- the body

    def _read_to_end(self) -> bool:
        self._take(len(self._unread))
        return False

    def _read_rest(self) -> bool:
        self.is_complete = self._take_left()
        return False

    def _read_chunk_size(self) -> bool:
        line = self._take_line()
        if not line:
            return False
        size = _CHUNK.fullmatch(line)
        if size is None:
            raise ValueError("a chunk's size is not a number")
        self._left = int(size[1], 16)
        self._read_part = Reply._read_chunk if self._left else Reply._read_trailer
        return True

    def _read_chunk(self) -> bool:
        if not self._take_left():
            return False
        self._read_part = Reply._read_chunk_end
        return True

    def _read_chunk_end(self) -> bool:
        line = self._take_line()
        if line not in (b"", b"\r\n", b"\n"):
            raise ValueError("a chunk is longer than its size")
        if line:
            self._read_part = Reply._read_chunk_size
        return bool(line)

    def _read_trailer(self) -> bool:
        line = self._take_line()
        self._trailer_bytes += len(line)
        if self._trailer_bytes > LONGEST_HEAD:
            raise ValueError(f"the trailers are longer than {LONGEST_HEAD} bytes")
        if line in (b"\r\n", b"\n"):
            self.is_complete = True
        elif line and not _TRAILER.fullmatch(line):
            raise ValueError("a trailer is not a header field")
        return bool(line)

    def _take_left(self) -> bool:
        """Take as many of the bytes that are left as have arrived. Return whether none is left."""
        size = min(self._left, len(self._unread))
        self._take(size)
        self._left -= size
        return not self._left

    def _take(self, size: int) -> None:
        if size:
            self._body.append(bytes(self._unread[:size]))
            del self._unread[:size]

    def _take_line(self) -> bytes:
        """Return the next line, or ``b""`` if its end hasn't arrived yet."""
        end = self._unread.find(b"\n") + 1
        if (end or len(self._unread)) > LONGEST_HEAD:
            raise ValueError(f"a line is longer than {LONGEST_HEAD} bytes")
        line = bytes(self._unread[:end])
        del self._unread[:end]
        return line


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
        with suppress(httptools.HttpParserUpgrade):
            self._parser.feed_data(_say_length_once(_FOLD.sub(b" ", data)))
        self.status: int = self._parser.get_status_code()
        self.version: str = self._parser.get_http_version()
        del self._parser  # it refers to this object, and the cycle would wait for the garbage collector

    def values(self, name: str) -> list[str]:
        """Return the values of the header fields of this name, in lower case."""
        return [value.strip() for field, value in self.headers if field.lower() == name]

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
