"""Decodes replies that come compressed although the request asked for ``identity``: some proxies don't look at it.

What can't be decoded stays as it is. The engine then says that the reply is compressed, and treats it like any other
reply that it can't read. As a failure of the network it would be asked for again, and each create would leave a chat.
"""

from __future__ import annotations

import zlib

from oa_protocol.bindings.replies import header_pairs
from oa_protocol.engine.errors import MaybeSent
from oa_protocol.transports import Response

_CODINGS = ("gzip", "x-gzip", "deflate")

# A small reply can decode to gigabytes, so it's decoded in pieces, and whoever reads can stop in time.
_PIECE = 64 * 1024

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_RAW = -zlib.MAX_WBITS


def decoded(response: Response) -> Response:
    """Return ``response``, or what decodes it if it's compressed."""
    named = [value for name, value in header_pairs(response.headers) if name.lower() == "content-encoding"]
    codings = [coding.strip().lower() for value in named for coding in value.split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    return _Decoded(response, codings[0]) if len(codings) == 1 and codings[0] in _CODINGS else response


class _Decoded:
    """A reply whose body is decoded while it arrives."""

    def __init__(self, response: Response, coding: str) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._coding = coding
        self._coded = b""
        self._decoder: zlib._Decompress | None = None  # pyright: ignore[reportPrivateUsage]  # it has no other name
        self._is_plain = False
        self._holds_more = False

    async def receive(self) -> bytes:
        """Return the next bytes, ``b""`` at the end. Raises MaybeSent if the body breaks off."""
        while not (data := self._decode()):
            more = await self._response.receive()
            if more:
                self._coded += more
            elif self._decoder is not None:
                raise MaybeSent(f"the connection broke in the middle of a reply that is compressed ({self._coding})")
            elif self._is_plain or not self._coded:
                return b""
            else:
                self._is_plain = True
        return data

    async def aclose(self) -> None:
        """Let go of the reply."""
        await self._response.aclose()

    def _decode(self) -> bytes:
        """Return a piece of what can be decoded."""
        while self._coded or self._holds_more:
            if self._decoder is None and not self._is_plain:
                if len(self._coded) < len(b"\x1f\x8b"):
                    return b""
                self._begin(self._coded[:2])
            data = self._next_piece()
            if data:
                return data
        return b""

    def _begin(self, start: bytes) -> None:
        """Begin to decode what starts like this: with gzip's mark, with zlib's check sum, or without either."""
        if start == b"\x1f\x8b" or (start[0] & 15 == 8 and int.from_bytes(start) % 31 == 0):
            self._decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
        elif self._coding == "deflate":  # servers disagree on what that is
            self._decoder = zlib.decompressobj(_RAW)
        else:
            self._is_plain = True

    def _next_piece(self) -> bytes:
        decoder, data = self._decoder, b""
        if decoder is not None:
            try:
                data = decoder.decompress(self._coded, _PIECE)
            except zlib.error:
                self._decoder, self._is_plain = None, True
        if self._is_plain or decoder is None:
            data, self._coded, self._holds_more = self._coded, b"", False
            return data
        self._holds_more = len(data) == _PIECE
        self._coded = decoder.unconsumed_tail
        if decoder.eof:  # gzip may come in several parts
            self._decoder, self._coded, self._holds_more = None, decoder.unused_data, False
        return data
