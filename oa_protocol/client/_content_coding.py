"""Decodes replies that come compressed, because some proxies ignore that the request asked for ``identity``.

A body that can't be decoded is handed over as it is, and one that is cut ends where it is cut. Then the engine treats
it like any other reply that it can't read. It isn't reported as a failure of the network, because the engine would try
again, and each create would leave a chat behind. If the network fails in the middle of a reply, the transport says so.
"""

from __future__ import annotations

import zlib

from oa_protocol.bindings.replies import header_pairs
from oa_protocol.transports import Response

_CODINGS = ("gzip", "x-gzip", "deflate")

# A small reply can decode to gigabytes. So it is decoded in pieces of at most this many bytes, and the reader can stop.
_PIECE = 64 * 1024

# How zlib is to read its input: find out by itself whether it is gzip or zlib, or take it without a header.
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_RAW = -zlib.MAX_WBITS


def decoded(response: Response) -> Response:
    """Return ``response``, wrapped in a decoder if it is compressed in a way that zlib knows."""
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
        self._is_plain = False  # the body isn't compressed after all, and is handed over as it is
        self._holds_more = False  # the decoder may give more without new input

    async def receive(self) -> bytes:
        """Return the next bytes, or ``b""`` at the end."""
        while not (data := self._decode()):
            more = await self._response.receive()
            if more:
                self._coded += more
            elif self._decoder is not None or self._is_plain or not self._coded:
                return b""
            else:
                self._is_plain = True  # the body is over, and too short to be compressed
        return data

    async def aclose(self) -> None:
        """Release the reply."""
        await self._response.aclose()

    def _decode(self) -> bytes:
        """Return a decoded piece, or ``b""`` if more input is needed."""
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
        """Choose a decoder by the first two bytes: gzip's mark, zlib's checksum, or neither."""
        if start == b"\x1f\x8b" or (start[0] & 15 == 8 and int.from_bytes(start) % 31 == 0):
            self._decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
        elif self._coding == "deflate":  # some servers send it without zlib's header
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
        if decoder.eof:  # a gzip file may have several members, one after the other
            self._decoder, self._coded, self._holds_more = None, decoder.unused_data, False
        return data
