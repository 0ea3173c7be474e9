"""Reads a reply's body off a connection, as it arrives. ``HttptoolsTransport`` and ``HttpxTransport`` use it.

The body isn't left to httptools, because it accepts only chunks that follow the standard to the letter, and the chunks
of many servers and proxies don't. It isn't left to h11 either, which reads heads for httpx: h11 takes each chunk for
itself, and costs more than all the rest of a stream. So this module is as lenient as h11, and more lenient if RFC 9112
says that a client must be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus

import anyio
from anyio.abc import ByteStream

from oa_protocol.transports import LONGEST_HEAD
from oa_protocol.transports._failures import reply_broke, words_of

BROKEN = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)
"""What a connection raises if it breaks."""

HEAD_END = re.compile(rb"\n\r?\n")

_PLAIN_SIZE = re.compile(rb"0*([1-9A-Fa-f][0-9A-Fa-f]{0,8})\r\n")
_TWO_DIGITS = {f"{size:{form}}\r\n".encode(): size for size in range(0x10, 0x100) for form in "xX"}
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?\r?\n")
_TRAILER = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:|[ \t]).*\n")
_NO_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class Body:
    """What has arrived of a reply whose head is known.

    Attributes:
        status: the HTTP status, or 0 until the head has arrived.
        headers: the header fields.
        is_complete: whether the body has ended.
        fault: what is wrong with the reply, if it is malformed or ended too early.
        is_ambiguous: whether the head has two ways to find the end of the body (RFC 9112, section 6.3).

    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.is_complete = False
        self.fault = ""
        self.is_ambiguous = False
        self._unread = bytearray()
        self._body: list[bytes] = []
        self._left = 0
        self._trailer_bytes = 0
        # The method that reads the next part. It returns whether there may be more to read in what has arrived.
        self._read_part: Callable[[Body], bool] = Body._read_to_end

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
        # This shortcut is for streams. A server sends each token as one chunk, so mostly only whole chunks arrive.
        if not self._unread and self._read_part is Body._read_chunk_size:
            taken = self._take_whole_chunks(data)
            if taken == len(data):
                return
            data = data[taken:]
        self._unread += data
        try:
            while not self.is_complete and self._read_part(self):
                pass
        except ValueError as error:
            self._fail(f"this is not HTTP: {words_of(error)}")

    def _take_whole_chunks(self, data: bytes) -> int:
        """Take the chunks at the beginning of ``data`` that are complete and plain. Return how many bytes they are.

        This is far faster than line by line. The chunk of a token usually has a size of two digits, and looking that up
        is faster than the regular expression.
        """
        place = 0
        while True:
            if size := _TWO_DIGITS.get(data[place : place + 4]):
                start = place + 4
            elif line := _PLAIN_SIZE.match(data, place):
                start, size = line.end(), int(line[1], 16)
            else:
                return place
            end = start + size
            if data[end : end + 2] != b"\r\n":
                return place
            self._body.append(data[start:end])
            place = end + 2

    def feed_end(self) -> None:
        """Note that nothing more will come."""
        if self._read_part is Body._read_to_end:
            self.is_complete = True
        elif not self.is_complete:
            self._fail("the server closed the connection")

    def _fail(self, fault: str) -> None:
        self.fault = self.fault or fault

    def begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Note the head, which says how to read the body. Raises ValueError if the body can't be read."""
        codings = values_of("transfer-encoding", headers)
        coding = ", ".join(codings).lower()
        lengths = values_of("content-length", headers)
        self.is_ambiguous = bool(codings and lengths)
        if status in _NO_BODY:
            self.is_complete = True
        elif coding:
            if coding != "chunked":
                raise ValueError("its transfer coding is not chunked")
            self._read_part = Body._read_chunk_size
        elif lengths:
            self._left = int(lengths[0])
            self.is_complete = not self._left
            self._read_part = Body._read_rest
        else:
            self._read_part = Body._read_to_end
        self.status, self.headers = status, headers

    def _read_to_end(self) -> bool:
        self._take(len(self._unread))
        return False

    def _read_rest(self) -> bool:
        self.is_complete = self._take_left()
        return False

    def _read_chunk_size(self) -> bool:
        del self._unread[: self._take_whole_chunks(bytes(self._unread))]
        line = self._take_line()
        if not line:
            return False
        size = _CHUNK.fullmatch(line)
        if size is None:
            raise ValueError("a chunk's size is not a number")
        self._left = int(size[1], 16)
        self._read_part = Body._read_chunk if self._left else Body._read_trailer
        return True

    def _read_chunk(self) -> bool:
        if not self._take_left():
            return False
        self._read_part = Body._read_chunk_end
        return True

    def _read_chunk_end(self) -> bool:
        line = self._take_line()
        if line not in (b"", b"\r\n", b"\n"):
            raise ValueError("a chunk is longer than its size")
        if line:
            self._read_part = Body._read_chunk_size
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


def values_of(name: str, headers: list[tuple[str, str]]) -> list[str]:
    """Return the values of the header fields of this name, which is in lower case."""
    return [value.strip() for field, value in headers if field.lower() == name]


class SocketResponse:
    """A reply that is read off ``stream`` here. A transport's own class opens and closes it."""

    def __init__(self, stream: ByteStream, reply: Body) -> None:
        self._stream = stream
        self._reply = reply

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._reply.status

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The header fields."""
        return self._reply.headers

    async def receive(self) -> bytes:
        """Return the next bytes of the body. If a call is cancelled, the next one returns its bytes."""
        reply = self._reply
        while not (data := reply.take_body()) and not reply.is_complete:
            try:
                await self._read()
            except BROKEN as error:
                raise reply_broke(error) from error
        return data

    async def _read(self) -> None:
        if self._reply.fault:
            raise OSError(self._reply.fault)
        try:
            data = await self._stream.receive()
        except anyio.EndOfStream:
            self._reply.feed_end()
        except BROKEN as error:
            self._reply.fault = words_of(error)  # kept, because some sockets report it once, and then a clean end
            raise
        else:
            self._reply.feed(data)
