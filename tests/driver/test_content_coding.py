"""Replies that are compressed although the client didn't ask for that."""

from __future__ import annotations

import gzip
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest

from oa_protocol import ChatLeakedWarning, OAError, RemoteProtocolError
from oa_protocol.bindings.replies import MAX_BODY
from oa_protocol.client._carrier import read_body
from oa_protocol.client._content_coding import decoded
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.server import Answer, Fault, Reply
from oa_protocol.transports import Response
from oa_protocol.transports.httpx import HttpxTransport

from .site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.clause("OA-2.8")]


class Canned:
    """A reply with this body, in these pieces."""

    status = 200

    def __init__(self, coding: str, body: bytes, size: int = 1000) -> None:
        self.headers = [("Content-Encoding", coding), ("content-length", str(len(body)))]
        self.pieces = [body[start : start + size] for start in range(0, len(body), size)]
        self.is_closed = False

    async def receive(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def aclose(self) -> None:
        self.is_closed = True


def raw(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(data) + encoder.flush()


TEXT = b'{"id": "%d"}' % (7**5000)
WAYS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("X-GZip", gzip.compress),
    ("identity, gzip", gzip.compress),
    ("gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
    ("deflate", zlib.compress),
    ("deflate", raw),
]


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(("coding", "encode"), WAYS)
@pytest.mark.parametrize("text", [TEXT, b"0" * 300_000, b""], ids=["long", "even", "empty"])
async def test_a_compressed_reply_is_decoded(
    coding: str, encode: Callable[[bytes], bytes], size: int, text: bytes
) -> None:
    canned = Canned(coding, encode(text), size)
    response = decoded(canned)
    assert (response.status, response.headers) == (200, canned.headers)
    assert await read_body(response) == text
    assert await response.receive() == b""
    await response.aclose()
    assert canned.is_closed


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
async def test_an_empty_body_is_empty_whatever_its_header_says(coding: str) -> None:
    assert await read_body(decoded(Canned(coding, b""))) == b""


async def test_a_reply_that_is_not_compressed_stays_as_it_is() -> None:
    canned = Canned("identity", b"abc")
    assert decoded(canned) is canned


async def test_what_was_flushed_is_there_while_the_rest_is_not_sent() -> None:
    encoder = zlib.compressobj(wbits=31)
    flushed = encoder.compress(b"data: x\r\n\r\n") + encoder.flush(zlib.Z_SYNC_FLUSH)
    canned = Canned("gzip", flushed)
    response = decoded(canned)
    assert await response.receive() == b"data: x\r\n\r\n"
    canned.pieces.append(encoder.flush())
    assert await response.receive() == b""


@pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("deflate", raw)])
async def test_a_compressed_reply_that_is_cut_ends_there(coding: str, encode: Callable[[bytes], bytes]) -> None:
    response = decoded(Canned(coding, encode(TEXT)[:-9]))
    assert TEXT.startswith(await read_body(response))
    assert await response.receive() == b""


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    ("coding", "body"),
    [("gzip", TEXT), ("gzip", b"1"), ("br", TEXT), ("gzip, gzip", raw(TEXT))],
    ids=["plain text", "a byte", "brotli", "two codings"],
)
async def test_what_cannot_be_decoded_stays_as_it_is(coding: str, body: bytes, size: int) -> None:
    assert await read_body(decoded(Canned(coding, body, size))) == body


async def test_what_goes_wrong_within_stays_as_it_is_from_there() -> None:
    encoder = zlib.compressobj(wbits=31)
    flushed = encoder.compress(b"abc") + encoder.flush(zlib.Z_SYNC_FLUSH)
    assert await read_body(decoded(Canned("gzip", flushed + b"\xff" * 9, len(flushed)))) == b"abc" + b"\xff" * 9


async def test_a_small_reply_that_decodes_to_gigabytes_is_read_no_further_than_any_other() -> None:
    canned = Canned("gzip", gzip.compress(bytes(8 * MAX_BODY)))
    body = await read_body(decoded(canned))
    assert MAX_BODY < len(body) < MAX_BODY + 100_000
    assert canned.pieces


class CompressedReply:
    """Another reply, compressed; each piece can be decoded at once."""

    def __init__(self, inner: Response) -> None:
        self._inner = inner
        self._encoder = zlib.compressobj(wbits=31)
        self._has_body = False
        self.status = inner.status

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        return [*self._inner.headers, ("content-encoding", "gzip")]

    async def receive(self) -> bytes:
        data = await self._inner.receive()
        if data:
            self._has_body = True
            return self._encoder.compress(data) + self._encoder.flush(zlib.Z_SYNC_FLUSH)
        had_body, self._has_body = self._has_body, False
        return self._encoder.flush() if had_body else b""

    async def aclose(self) -> None:
        await self._inner.aclose()


class CompressingProxy(HttpxTransport):
    """The way through a proxy that compresses whatever it gets."""

    async def open(self, request: HttpRequest) -> Response:  # type: ignore[override]
        return CompressedReply(await super().open(request))


async def test_a_conversation_through_a_proxy_that_compresses_all_is_like_any_other(site: Site) -> None:
    site.transport = CompressingProxy
    site.script(Answer(pieces=("Yes", ".")))
    async with site.client() as client, client.chat() as chat:
        assert await chat.ask("Hello") == "Yes."
        assert await client.models()


@pytest.mark.parametrize("cut", [8, 20], ids=["its trailer is missing", "its end is missing"])
async def test_a_proxy_that_never_finishes_what_it_compresses_leaves_at_most_one_chat(site: Site, cut: int) -> None:
    body = gzip.compress(b'{"id": "06b02a53-f28e-708d-8000-044bde7b4953"}')[:-cut]
    site.endless = True
    site.script(Fault("create", after=Reply(200, body, (("content-encoding", "gzip"),)), times=9))
    client = site.client()
    with suppress(OAError), warnings.catch_warnings(action="ignore"):
        async with client, client.chat() as chat:
            await chat.ask("Hello")
    site.left = set(site.chats)
    assert (site.steps.count("create"), len(site.chats)) == (1, 1)


class Brotli(HttpxTransport):
    async def open(self, request: HttpRequest) -> Response:  # type: ignore[override]
        return Canned("br", b"x" if request.method == "POST" else b"")


async def test_an_unknown_coding_is_named_and_one_chat_is_left(site: Site) -> None:
    site.transport = Brotli
    client = site.client()
    with pytest.warns(ChatLeakedWarning), pytest.raises(RemoteProtocolError, match="content-encoding is br"):
        async with client, client.chat() as chat:
            await chat.ask("Hello")
    assert len(client.leaked) == 1
