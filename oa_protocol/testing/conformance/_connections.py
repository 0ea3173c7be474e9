"""Tests of connections: each one has one exchange at a time, and is closed at the right time."""

from __future__ import annotations

import gc
import warnings
from contextlib import suppress

import anyio

from oa_protocol.engine.errors import TransportError
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.testing.conformance._suite import Suite, conformance
from oa_protocol.testing.conformance._waiting import all_left, expecting, ways_to_be_cancelled
from oa_protocol.testing.conformance._wire import (
    BEGUN,
    ask,
    chunk_of,
    chunked,
    get,
    head_of,
    must_be,
    post,
    read_all,
    receive_part,
    reply_of,
    say,
)
from oa_protocol.testing.peers import Connection, Signal


class Connections(Suite):
    """When a transport uses a connection, and when it closes one."""

    @conformance
    async def test_a_closed_transport_has_no_connections(self) -> None:
        """Closing the transport closes all connections: after two complete replies, a partly read and an unread one."""
        async with (
            self._peer(say(head_of(b"content-length: 9") + b"ok")) as endless,
            self._peer(say(chunked(b"ok"))) as peer,
        ):
            transport = self._make()
            midway = await transport.open(get(endless.url))
            assert await midway.receive(), "receive() returned b'', although the body goes on"
            await midway.aclose()
            unread = await transport.open(get(endless.url))
            await unread.aclose()
            await ask(transport, get(peer.url))
            await ask(transport, get(peer.url))
            await transport.aclose()
            await all_left(endless, "transport.aclose()")
            await all_left(peer, "transport.aclose()")

    @conformance
    async def test_a_reply_closed_midway_closes_its_connection(self) -> None:
        """The connection is closed at once, because that tells the server that its reply is no longer read."""
        async with self._served(say(BEGUN)) as (peer, transport):
            response = await transport.open(get(peer.url))
            await receive_part(response, b"a")
            await response.aclose()
            await all_left(peer, "reply.aclose()")

    @conformance
    async def test_closing_the_transport_closes_open_replies(self) -> None:
        """If a reply is still open, closing the transport closes its connection, too."""
        async with self._peer(say(BEGUN)) as peer:
            transport = self._make()
            response = await transport.open(get(peer.url))
            await receive_part(response, b"a")
            await transport.aclose()
            await all_left(peer, "transport.aclose()")
            await response.aclose()

    @conformance
    async def test_closing_waits_for_no_peer(self) -> None:
        """``aclose`` doesn't wait for a peer that neither reads nor closes, with or without TLS."""
        for is_encrypted in (False, True) if "ssl_context" in self.takes else (False,):
            over = self._signal("all is closed")

            def serve(connection: Connection, over: Signal = over) -> None:
                connection.send(reply_of(b"ok") if connection.read_request().method == "POST" else BEGUN)
                over.wait()

            async with self._served(serve, is_encrypted=is_encrypted) as (peer, transport):
                midway = await transport.open(get(peer.url))
                await receive_part(midway, b"a")
                with expecting("reply.aclose() waits for its peer"):
                    await midway.aclose()
                stream = await transport.open(get(peer.url))
                await receive_part(stream, b"a")
                await ask(transport, post(peer.url, b"{}"))
                with expecting("transport.aclose() waits for its peers"):
                    await transport.aclose()
                over.set()
                await stream.aclose()

    @conformance
    async def test_closing_twice_is_harmless(self) -> None:
        """You can close a reply and a transport twice, and close a transport that was never used."""
        async with self._peer(say(reply_of(b"ok"))) as peer:
            transport = self._make()
            response = await transport.open(get(peer.url))
            await response.aclose()
            await response.aclose()
            await transport.aclose()
            await transport.aclose()
        await self._make().aclose()

    @conformance
    async def test_a_close_that_is_cancelled_closes_all_the_same(self) -> None:
        """If the task that calls ``aclose`` has been cancelled, the connection is closed anyway."""
        for cancelled in ways_to_be_cancelled():
            for what in ("reply", "transport"):
                async with self._served(say(BEGUN)) as (peer, transport):
                    response = await transport.open(get(peer.url))
                    await receive_part(response, b"a")
                    await cancelled(response.aclose if what == "reply" else transport.aclose)
                    await all_left(peer, f"a cancelled {what}.aclose()")
                    await response.aclose()

    @conformance
    async def test_the_connection_of_an_open_stream_is_used_for_nothing_else(self) -> None:
        """Other requests use other connections, and the stream goes on undisturbed."""
        streaming: list[Connection] = []
        misused: list[Connection] = []

        def serve(connection: Connection) -> None:
            while True:
                if connection.read_request().target == "/stream":
                    streaming.append(connection)
                    connection.send(BEGUN)
                elif connection in streaming:
                    misused.append(connection)
                    return connection.reset()
                else:
                    connection.send(reply_of(b"ok"))

        async with self._served(serve) as (peer, transport):
            response = await transport.open(HttpRequest("GET", f"{peer.url}/stream", ()))
            await receive_part(response, b"a")
            try:
                for _ in range(3):
                    with expecting("while a stream is open, another request is not sent, or gets no reply"):
                        must_be("the body", await ask(transport, post(peer.url, b"{}")), b"ok")
            finally:
                assert not misused, "a request was sent over the connection of an open stream"
            streaming.pop().send(chunk_of(b"b") + b"0\r\n\r\n")
            assert await read_all(response) == b"b", "the rest of the stream was lost"

    @conformance
    async def test_what_comes_after_a_reply_is_not_read_as_the_next_one(self) -> None:
        """If bytes arrive after the end of a reply, at once or later, the connection isn't used again."""
        for reply in (reply_of(b"ok"), chunked(b"ok"), head_of(status=b"204 No Content")):
            await self._comes_after(reply, at_once=True)
            await self._comes_after(reply, at_once=False)

    @conformance
    async def test_what_comes_after_an_encrypted_reply_is_not_read_as_the_next_one(self) -> None:
        """The TLS layer may have such bytes, even if the socket has none left."""
        await self._comes_after(reply_of(b"ok"), at_once=True, is_encrypted=True)
        await self._comes_after(reply_of(b"ok"), at_once=False, is_encrypted=True)

    async def _comes_after(self, reply: bytes, *, at_once: bool, is_encrypted: bool = False) -> None:
        was_read, sent = self._signal("the reply was read"), self._signal("a second reply was sent")

        def serve(connection: Connection) -> None:
            connection.read_request()
            if len(peer.requests) > 1:
                connection.send(reply_of(b"next"))
                return
            surplus = reply_of(b"surplus")
            if at_once and not is_encrypted:
                connection.send(reply + surplus)
            else:  # TLS keeps two records apart, even if they come at once
                connection.send(reply)
                if not at_once:
                    was_read.wait()
                connection.send(surplus)
            sent.set()

        async with self._served(serve, is_encrypted=is_encrypted) as (peer, transport):
            response = await transport.open(get(peer.url))
            if at_once:
                await sent.reached()
            must_be("the body", await read_all(response), b"ok", b"")
            was_read.set()
            await sent.reached()
            with expecting("a request was sent over a connection that has had bytes after the end of a reply"):
                body = await ask(transport, get(peer.url))
            assert body == b"next", "the bytes after a reply were read as the next reply"

    @conformance
    async def test_a_reply_left_midway_is_not_read_by_the_next_request(self) -> None:
        """The rest of a reply that was closed early, even if all of it had arrived, isn't the next request's reply."""
        for former in (head_of(b"content-length: 6") + b"for", reply_of(b"former")):
            replies = [former, reply_of(b"next")]

            def serve(connection: Connection, replies: list[bytes] = replies) -> None:
                while True:
                    connection.read_request()
                    connection.send(replies.pop(0))

            async with self._served(serve) as (peer, transport):
                response = await transport.open(get(peer.url))
                await response.aclose()
                must_be("the body after that of a reply left midway", await ask(transport, get(peer.url)), b"next")

    def test_nothing_is_left_to_the_garbage_collector(self, backend: str) -> None:
        """There is no ``ResourceWarning``, because the transport closes each socket that it opens."""

        async def use() -> None:
            async with (
                self._peer(say(chunked(b"ok"))) as peer,
                self._peer(say(BEGUN)) as stream,
                self._peer(lambda connection: connection.reset()) as broken,
            ):
                transport = self._make()
                await ask(transport, get(peer.url))
                response = await transport.open(get(stream.url))
                await receive_part(response, b"a")
                with suppress(TransportError):
                    await transport.open(get(broken.url))
                with anyio.move_on_after(0):
                    await response.receive()
                await response.aclose()
                await ask(transport, get(peer.url))
                await transport.aclose()

        gc.collect()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._run(use, backend)
            gc.collect()
        left = [str(warning.message) for warning in caught if issubclass(warning.category, ResourceWarning)]
        assert not left, "; ".join(left)
