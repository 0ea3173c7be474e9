"""Tests of cancellation: a cancelled call ends, and the transport still works afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Unpack

import anyio
import anyio.lowlevel
from anyio import to_thread

from oa_protocol.engine.errors import MaybeSent
from oa_protocol.testing.conformance._suite import Options, Suite, conformance
from oa_protocol.testing.conformance._waiting import SWALLOWED, Cancels, all_left, ways_to_cancel
from oa_protocol.testing.conformance._wire import (
    BEGUN,
    BIG,
    chunk_of,
    get,
    must_be,
    need_linux,
    post,
    read_all,
    receive_part,
    say,
    tls_contexts,
)
from oa_protocol.testing.peers import Connection, Signal, UnansweringPort
from oa_protocol.transports import Response, Transport


class Cancelled(Suite):
    """What a transport does if a call is cancelled."""

    @conformance
    async def test_open_can_be_cancelled_while_it_connects(self) -> None:
        """``open`` ends, and the transport still works."""
        self._need_connections()
        need_linux("because a connection can be made to hang there")
        begun = self._signal("open was called")
        for cancel in ways_to_cancel():
            with UnansweringPort() as port:
                async with self._transport() as transport:

                    async def connect(transport: Transport = transport, netloc: str = port.netloc) -> None:
                        begun.set()
                        await transport.open(get(f"http://{netloc}"))

                    assert await cancel(connect, begun), SWALLOWED
                    await self._works(transport)

    @conformance
    async def test_a_cancelled_open_sends_nothing_later(self) -> None:
        """If the connection comes about after ``open`` was cancelled, nothing is sent over it."""
        self._need_connections()
        need_linux("because a connection can be made to hang there")
        begun, cancel = self._signal("open was called"), ways_to_cancel()[0]
        with UnansweringPort() as port:
            async with self._transport() as transport:

                async def connect() -> None:
                    begun.set()
                    await transport.open(post(f"http://{port.netloc}", b"{}"))

                assert await cancel(connect, begun, port.wait_until_wanted), SWALLOWED
                must_be("what was sent later", await to_thread.run_sync(port.answer), b"")

    @conformance
    async def test_open_can_be_cancelled_in_a_tls_handshake(self) -> None:
        """``open`` ends, and the transport still works."""
        self._need("ssl_context")
        _, trusting = tls_contexts("127.0.0.1")
        await self._open_is_cancelled(
            "the peer was greeted", Connection.read_some, scheme="https", ssl_context=trusting
        )

    @conformance
    async def test_open_can_be_cancelled_while_it_sends(self) -> None:
        """If the peer doesn't read the body, ``open`` ends, the connection is closed, and the transport still works."""
        await self._open_is_cancelled("the head was sent", Connection.read_head, body=bytes(4 * BIG))

    @conformance
    async def test_open_can_be_cancelled_while_it_waits_for_the_head(self) -> None:
        """``open`` ends, the connection is closed, and the transport still works."""
        await self._open_is_cancelled("the request was read", Connection.read_request)

    async def _open_is_cancelled(
        self,
        what: str,
        read: Callable[[Connection], object],
        *,
        body: bytes = b"",
        scheme: str = "http",
        **options: Unpack[Options],
    ) -> None:
        """Cancel ``open`` once the peer has ``read`` a part of the request, and check that it isn't sent again."""
        for cancel in ways_to_cancel():
            begun, over = self._signal(what), self._signal("open was cancelled")

            def serve(connection: Connection, begun: Signal = begun, over: Signal = over) -> None:
                read(connection)
                begun.set()
                over.wait()

            async with self._served(serve, scheme=scheme, **options) as (peer, transport):
                assert await cancel(functools.partial(transport.open, post(peer.url, body)), begun), SWALLOWED
                over.set()
                await self._works(transport)
                await all_left(peer, "open() was cancelled")
            assert len(peer.connections) == 1, "the request was sent again"

    @conformance
    async def test_receive_can_be_cancelled(self) -> None:
        """``receive`` ends, closing the reply closes its connection, and the transport still works."""
        for cancel in ways_to_cancel():
            waiting = self._signal("the next receive waits")
            async with self._served(say(BEGUN)) as (peer, transport):
                response = await transport.open(get(peer.url))
                await receive_part(response, b"a")

                async def receive(response: Response = response, waiting: Signal = waiting) -> None:
                    waiting.set()
                    await response.receive()

                assert await cancel(receive, waiting), SWALLOWED
                await self._works(transport)
                await response.aclose()
                await all_left(peer, "reply.aclose()")

    @conformance
    async def test_a_cancelled_receive_loses_nothing(self) -> None:
        """The next ``receive`` continues with the next byte, or raises ``MaybeSent``. It never skips bytes."""
        for cancel in ways_to_cancel():
            waiting, over = self._signal("the next receive waits"), self._signal("receive was cancelled")

            def serve(connection: Connection, over: Signal = over) -> None:
                connection.read_request()
                connection.send(BEGUN)
                over.wait()
                connection.send(chunk_of(b"b") + chunk_of(b"c") + b"0\r\n\r\n")

            async with self._served(serve) as (peer, transport):
                response = await transport.open(get(peer.url))
                await receive_part(response, b"a")

                async def receive(response: Response = response, waiting: Signal = waiting) -> None:
                    waiting.set()
                    await response.receive()

                assert await cancel(receive, waiting), SWALLOWED
                over.set()
                with suppress(MaybeSent):
                    assert await read_all(response) == b"bc", "bytes were lost without an error"
                await response.aclose()

    @conformance
    async def test_a_receive_that_is_cancelled_as_bytes_come_loses_nothing(self) -> None:
        """If bytes arrive during the cancellation, the next ``receive`` returns them, or raises ``MaybeSent``."""
        for cancel in ways_to_cancel():
            for pauses in range(8):
                await self._cancelled_as_bytes_come(cancel, pauses)

    async def _cancelled_as_bytes_come(self, cancel: Cancels, pauses: int) -> None:
        wanted, sent = self._signal("the next bytes are wanted"), self._signal("they were sent")
        over = self._signal("receive was cancelled")
        got: list[bytes] = []

        def serve(connection: Connection) -> None:
            connection.read_request()
            connection.send(BEGUN)
            wanted.wait()
            connection.send(chunk_of(b"b"))
            sent.set()
            over.wait()
            connection.send(chunk_of(b"c") + b"0\r\n\r\n")

        async with self._served(serve) as (peer, transport):
            response = await transport.open(get(peer.url))
            await receive_part(response, b"a")
            waiting = self._signal("the next receive waits")

            async def receive() -> None:
                waiting.set()
                got.append(await response.receive())

            async def bytes_come() -> None:
                wanted.set()
                # This blocks the event loop on purpose, so that the bytes have arrived before the transport runs again.
                sent.wait()
                for _ in range(pauses):
                    await anyio.lowlevel.checkpoint()

            await cancel(receive, waiting, bytes_come)
            over.set()
            with suppress(MaybeSent):
                got.append(await read_all(response))
                assert b"".join(got) == b"bc", f"bytes were lost without an error, {pauses} steps after they came"
            await response.aclose()
