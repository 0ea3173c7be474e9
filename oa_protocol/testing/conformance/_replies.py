"""Tests of replies: they are handed over unchanged, as soon as their bytes arrive."""

from __future__ import annotations

import gzip
from collections.abc import Sequence

from oa_protocol.engine.intents import HttpRequest
from oa_protocol.testing.conformance._suite import Suite, conformance
from oa_protocol.testing.conformance._waiting import expecting
from oa_protocol.testing.conformance._wire import (
    BIG,
    ask,
    chunk_of,
    chunked,
    get,
    head_of,
    must_be,
    noise,
    read_all,
    receive_part,
    reply_of,
    say,
)
from oa_protocol.testing.peers import Connection


class Replies(Suite):
    """What a transport receives."""

    @conformance
    async def test_status_and_header_fields_are_handed_over(self) -> None:
        """Fields keep their order, and a field that occurs twice is handed over twice, however it is written."""
        sent = b"X-Two: 1", b"x-one: a, b; c", b"x-two: 2", b"x-two: 3"
        async with self._served(say(reply_of(b"", *sent, status=b"422 Odd"))) as (peer, transport):
            response = await transport.open(get(peer.url))
            must_be("the status", response.status, 422)
            fields = [(name.lower(), value) for name, value in response.headers]
            must_be(
                "the list of header fields",
                [field for field in fields if field[0].startswith("x-")],
                [("x-two", "1"), ("x-one", "a, b; c"), ("x-two", "2"), ("x-two", "3")],
            )
            await response.aclose()

    @conformance
    async def test_a_header_field_may_hold_any_byte(self) -> None:
        """A field may contain bytes that are neither ASCII nor UTF-8, for example a single 0xE9."""
        async with self._served(say(reply_of(b"ok", b"x-name: Andr\xe9"))) as (peer, transport):
            must_be("the body", await ask(transport, get(peer.url)), b"ok")

    @conformance
    async def test_a_long_head_is_read(self) -> None:
        """A head with a field of 32 KiB and 64 other fields is accepted."""
        fields = [b"x-long: " + b"a" * 32 * 1024, *(b"x-%d: b" % number for number in range(64))]
        async with self._served(say(reply_of(b"ok", *fields))) as (peer, transport):
            response = await transport.open(get(peer.url))
            long = [value for name, value in response.headers if name.lower() == "x-long"]
            must_be("the field x-long of 32 KiB", long, ["a" * 32 * 1024])
            must_be("the body", await read_all(response), b"ok")

    @conformance
    async def test_open_returns_when_the_head_is_there(self) -> None:
        """``open`` doesn't wait for the first byte of the body."""
        opened = self._signal("open returned")

        def serve(connection: Connection) -> None:
            connection.read_request()
            connection.send(head_of(b"content-length: 2"))
            opened.wait()
            connection.send(b"ok")

        async with self._served(serve) as (peer, transport):
            with expecting("the head was sent, but open() does not return"):
                response = await transport.open(get(peer.url))
            opened.set()
            must_be("the body", await read_all(response), b"ok")

    @conformance
    async def test_an_interim_reply_is_skipped(self) -> None:
        """Replies with status 100 and 103 are skipped, because the final reply follows them."""
        async with (
            self._peer(
                say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n" + reply_of(b"ok"))
            ) as peer,
            self._transport() as transport,
        ):
            response = await transport.open(get(peer.url))
            must_be("the status after two interim replies", response.status, 200)
            must_be("the body", await read_all(response), b"ok")

    @conformance
    async def test_a_redirect_is_not_followed(self) -> None:
        """Status 301, 302, 303, 307 and 308 are handed over like any other, for each method."""
        await self._are_handed_over((301, 302, 303, 307, 308), b"location: /elsewhere")

    @conformance
    async def test_a_refusal_is_handed_over(self) -> None:
        """An error status is handed over without a second try, because the engine decides whether to try again."""
        challenge = b'www-authenticate: Basic realm="x"'
        await self._are_handed_over((401, 407, 408, 421, 425, 429, 500, 502, 503, 504), b"retry-after: 0", challenge)

    @conformance
    async def test_a_refusal_that_closes_its_connection_is_handed_over(self) -> None:
        """The request isn't sent again, although the connection ends, because this reply belongs to the request."""
        await self._are_handed_over((401, 408, 421, 429, 500, 502, 503, 504), b"connection: close")

    @conformance
    async def test_a_body_is_handed_over_whatever_the_method(self) -> None:
        """Every reply may have a body, even a DELETE's with status 200: it may be a proxy's login page."""
        await self._are_handed_over((200, 201, 202))

    async def _are_handed_over(self, statuses: Sequence[int], *fields: bytes) -> None:
        """Check that a reply with each status is handed over. The peer takes the status from the target."""

        def serve(connection: Connection) -> None:
            while True:
                asked = connection.read_request().target.removeprefix("/").encode()
                if not asked.isdigit():
                    connection.send(reply_of(b"ok"))
                    continue
                connection.send(reply_of(b"why", *fields, status=asked + b" Odd"))
                if b"connection: close" in fields:
                    return connection.end()

        wanted = [(method, status) for status in statuses for method in ("GET", "POST", "PUT", "DELETE")]
        async with self._served(serve) as (peer, transport):
            for number, (method, status) in enumerate(wanted, start=1):
                body = b"{}" if method in ("POST", "PUT") else b""
                response = await transport.open(HttpRequest(method, f"{peer.url}/{status}", (), body))
                must_be(f"the status after a {method}", response.status, status)
                assert await read_all(response) == b"why", f"the body of the {status} to a {method} is lost"
                assert len(peer.requests) == number, f"more was sent after the {status} to a {method}"

    @conformance
    async def test_nothing_is_decompressed(self) -> None:
        """The body is handed over as the server sent it, even if it is compressed."""
        body = gzip.compress(b"abc")
        async with self._served(say(reply_of(body, b"content-encoding: gzip"))) as (peer, transport):
            must_be("the body", await ask(transport, get(peer.url)), body)

    @conformance
    async def test_204_and_304_have_no_body(self) -> None:
        """Replies with status 204 and 304 have no body, even if ``content-length`` says otherwise."""
        for head in (
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
        ):
            async with self._served(say(head)) as (peer, transport):
                with expecting(f"the transport waits for a body after {head!r}"):
                    body = await ask(transport, get(peer.url))
                must_be(f"the body after {head!r}", body, b"")

    @conformance
    async def test_the_end_stays_the_end(self) -> None:
        """After the end of the body, each ``receive`` returns ``b""``, no matter how the body's length was sent."""
        for reply, ends in (
            (chunked(b"ab"), False),
            (reply_of(b"ab"), False),
            (head_of(b"connection: close") + b"ab", True),
            (b"HTTP/1.0 200 OK\r\n\r\nab", True),
            (chunked(), False),
            (reply_of(b""), False),
        ):
            async with self._served(say(reply, ends=ends)) as (peer, transport):
                response = await transport.open(get(peer.url))
                body = b""
                while data := await response.receive():
                    body += data
                must_be(f"the body of {reply!r}", body, b"ab" if b"ab" in reply else b"")
                more = [await response.receive() for _ in range(3)]
                must_be(f"what three calls of receive() return after the end of {reply!r}", more, [b"", b"", b""])
                await response.aclose()

    @conformance
    async def test_a_body_comes_as_bytes(self) -> None:
        """``receive`` returns bytes, not a bytearray or a memoryview, which can't be hashed or may change later."""
        for reply in (chunked(b"ab", b"c"), reply_of(b"abc")):
            async with self._served(say(reply)) as (peer, transport):
                response = await transport.open(get(peer.url))
                data = b"-"
                while data:
                    data = await response.receive()
                    assert type(data) is bytes, f"receive() returned a {type(data).__name__}"
                await response.aclose()

    @conformance
    async def test_a_big_reply_arrives_whole(self) -> None:
        """A body of 4 MiB arrives complete: in chunks, with a known length, and up to the connection's end."""
        body = noise(BIG)
        pieces = [body[start : start + 65_521] for start in range(0, len(body), 65_521)]
        for reply, ends in (
            (chunked(*pieces), False),
            (reply_of(body), False),
            (head_of(b"connection: close") + body, True),
        ):
            async with self._served(say(reply, ends=ends)) as (peer, transport):
                must_be(f"the body of {reply[:60]!r}", await ask(transport, get(peer.url)), body)

    @conformance
    async def test_a_chunk_is_delivered_while_the_next_is_not_sent(self) -> None:
        """Each chunk is delivered at once. The peer doesn't send the next one before that."""
        await self._delivered_at_once(
            head_of(b"transfer-encoding: chunked"), [chunk_of(b"a"), chunk_of(b"b"), chunk_of(b"c")]
        )

    @conformance
    async def test_a_part_of_a_known_length_is_delivered_while_the_rest_is_not_sent(self) -> None:
        """Each part of a body with a known length is delivered at once. The peer doesn't send the next before that."""
        await self._delivered_at_once(head_of(b"content-length: 3"), [b"a", b"b", b"c"])

    @conformance
    async def test_a_part_of_an_unknown_length_is_delivered_while_the_rest_is_not_sent(self) -> None:
        """Each part of a body without a length is delivered at once. The peer doesn't send the next before that."""
        await self._delivered_at_once(head_of(b"connection: close"), [b"a", b"b", b"c"])

    async def _delivered_at_once(self, head: bytes, parts: list[bytes]) -> None:
        received = [self._signal(f"part {number} was received") for number in range(len(parts))]

        def serve(connection: Connection) -> None:
            connection.read_request()
            connection.send(head)
            for part, signal in zip(parts, received, strict=True):
                connection.send(part)
                signal.wait()
            connection.send(b"0\r\n\r\n" if b"chunked" in head else b"")
            connection.end()

        async with self._served(serve) as (peer, transport):
            response = await transport.open(get(peer.url))
            for number, (wanted, signal) in enumerate(zip((b"a", b"b", b"c"), received, strict=True)):
                await receive_part(response, wanted, f"part {number}")
                signal.set()
            must_be("the end of the body", await read_all(response), b"")

    @conformance
    async def test_chunks_may_be_cut_anywhere(self) -> None:
        """Chunks may be cut in a size, an extension, the data, a line end or a trailer.

        The data before the cut is delivered at once.
        """
        framing, data = b"", set[int]()  # all bytes, and the indices of those that belong to the body
        for piece, is_data in (
            (b"3\r\n", False),
            (b"abc", True),
            (b'\r\n00A;x="y"\r\n', False),
            (b"0123456789", True),
            (b"\r\n1\r\n", False),
            (b"!", True),
            (b"\r\n0\r\nx-trailer: z\r\n\r\n", False),
        ):
            data.update(range(len(framing), len(framing) + len(piece)) if is_data else ())
            framing += piece
        whole = bytes(framing[place] for place in sorted(data))
        cuts = range(1, len(framing))
        received = [self._signal(f"what came before the cut at {cut} was received") for cut in cuts]

        def serve(connection: Connection) -> None:
            for cut, signal in zip(cuts, received, strict=True):
                connection.read_request()
                connection.send(head_of(b"transfer-encoding: chunked"))
                connection.send(framing[:cut])
                signal.wait()
                connection.send(framing[cut:])

        async with self._served(serve) as (peer, transport):
            for cut, signal in zip(cuts, received, strict=True):
                response = await transport.open(get(peer.url))
                before = len([place for place in data if place < cut])
                body = b""
                while len(body) < before:
                    with expecting(f"with the chunks cut at byte {cut}, the data before that is held back"):
                        more = await response.receive()
                    assert more, f"the body ends too early with the chunks cut at byte {cut}"
                    body += more
                signal.set()
                body += await read_all(response)
                must_be(f"the body with the chunks cut at byte {cut}", body, whole)
