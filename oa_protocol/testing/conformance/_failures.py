"""Tests of failures: requests that weren't sent, requests that may have been sent, and replies that broke off."""

from __future__ import annotations

import threading
from contextlib import suppress

import anyio
import anyio.lowlevel

from oa_protocol.engine.errors import MaybeSent, NotSent, TransportError
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.testing.conformance._suite import IMPATIENCE, Suite, conformance
from oa_protocol.testing.conformance._waiting import expecting
from oa_protocol.testing.conformance._wire import (
    BIG,
    Serve,
    ask,
    check_maybe_sent,
    check_not_sent,
    chunk_of,
    failure_of,
    get,
    head_of,
    must_be,
    name_of,
    need_linux,
    post,
    read_all,
    receive_part,
    reply_of,
)
from oa_protocol.testing.peers import Connection, Peer, UnansweringPort, refusing_port
from oa_protocol.transports import Response


class Failures(Suite):
    """What a transport raises if something goes wrong."""

    @conformance
    async def test_a_refused_connection_was_not_sent(self) -> None:
        """``open`` raises ``NotSent``, the second time, too."""
        self._need_connections()
        with refusing_port() as netloc:
            async with self._transport() as transport:
                for _ in range(2):
                    await check_not_sent(transport, post(f"http://{netloc}", b"{}"))

    @conformance
    async def test_a_connection_that_takes_too_long_was_not_sent(self) -> None:
        """After ``connect_timeout``, ``open`` raises ``NotSent``."""
        self._need("connect_timeout")
        need_linux("because a connection can be made to hang there")
        with UnansweringPort() as port:
            async with self._transport(connect_timeout=IMPATIENCE) as transport:
                await check_not_sent(transport, get(f"http://{port.netloc}"))

    @conformance
    async def test_the_time_for_a_connection_is_for_nothing_else(self) -> None:
        """``connect_timeout`` doesn't limit the wait for the head or the body, because the driver does that."""
        self._need("connect_timeout")
        never = threading.Event()

        def serve(connection: Connection) -> None:
            connection.read_request()
            never.wait(3 * IMPATIENCE)
            connection.send(head_of(b"content-length: 2") + b"o")
            never.wait(3 * IMPATIENCE)
            connection.send(b"k")

        async with self._served(serve, connect_timeout=IMPATIENCE) as (peer, transport):
            response: Response | None = None
            while response is None:
                with expecting(f"nothing was sent, because connecting takes more than {IMPATIENCE} s each time"):
                    await anyio.lowlevel.checkpoint()
                    with suppress(NotSent):  # A busy machine may need more time to connect.
                        response = await transport.open(get(peer.url))
                assert response is not None or not peer.requests, "the request was sent, but open() raised NotSent"
            must_be("the body", await read_all(response), b"ok")
        assert len(peer.requests) == 1, "the request was sent again"

    @conformance
    async def test_a_long_wait_is_neither_ended_nor_begun_again(self) -> None:
        """A transport has no deadlines of its own. It waits an hour for the head, and for the rest of the body."""
        read, waiting = self._signal("the request was read"), self._signal("receive was called")
        head, rest = self._signal("the head may be sent"), self._signal("the rest may be sent")

        def serve(connection: Connection) -> None:
            connection.read_request()
            read.set()
            head.wait()
            connection.send(head_of(b"content-length: 2") + b"o")
            rest.wait()
            connection.send(b"k")

        async with self._served(serve) as (peer, transport):
            response = await self._over_an_hour(lambda: transport.open(get(peer.url)), read, head)
            assert len(peer.requests) == 1, "the request was sent again"
            await receive_part(response, b"o")

            async def receive() -> bytes:
                waiting.set()
                return await response.receive()

            assert await self._over_an_hour(receive, waiting, rest) == b"k", "the rest of the body was lost"
            must_be("the end of the body", await read_all(response), b"")

    @conformance
    async def test_a_request_is_not_sent_again_to_a_name_s_next_address(self) -> None:
        """If a name has several addresses, a transport may try the next one only until the request was sent."""
        self._need_connections()
        need_linux("because the loopback interface has a second address there")

        def serve(connection: Connection) -> None:
            connection.read_request()
            connection.reset()

        patience = 2 * self.patience
        with (
            Peer(serve, patience=patience) as one,
            Peer(serve, patience=patience, host="127.0.0.2", port=one.port) as other,
            name_of("127.0.0.1", "127.0.0.2") as name,
        ):
            async with self._transport() as transport:
                failure = await failure_of(transport, post(f"http://{name}:{one.port}", b"{}"))
        assert len(one.requests + other.requests) == 1, "the request was sent again"
        check_maybe_sent(failure, "the request")

    @conformance
    async def test_an_end_before_the_reply_may_have_been_sent(self) -> None:
        """``open`` raises ``MaybeSent``, and doesn't send the request again."""
        await self._may_have_been_sent(b"", Connection.end)

    @conformance
    async def test_a_reset_before_the_reply_may_have_been_sent(self) -> None:
        """``open`` raises ``MaybeSent``, and doesn't send the request again."""
        await self._may_have_been_sent(b"", Connection.reset)

    @conformance
    async def test_an_end_within_the_head_may_have_been_sent(self) -> None:
        """``open`` raises ``MaybeSent``, and doesn't send the request again."""
        await self._may_have_been_sent(b"HTTP/1.1 200 OK\r\ncontent-le", Connection.end)

    @conformance
    async def test_a_reply_that_is_no_http_may_have_been_sent(self) -> None:
        """If the reply isn't HTTP, or has an unknown version, ``open`` raises ``MaybeSent`` and doesn't try again."""
        for reply in (
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/9.9 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        ):
            await self._may_have_been_sent(reply, Connection.end)

    @conformance
    async def test_a_reset_while_the_body_is_sent_may_have_been_sent(self) -> None:
        """If the connection is reset while 16 MiB are sent, ``open`` raises ``MaybeSent``, and doesn't send them again.

        The server has read the head by then.
        """
        for earlier in (0, 1):
            heads: list[bytes] = []

            def serve(connection: Connection, heads: list[bytes] = heads) -> None:
                while (head := connection.read_head()).startswith(b"GET"):
                    connection.send(reply_of(b"ok"))
                heads.append(head)
                connection.reset()

            async with self._served(serve) as (peer, transport):
                for _ in range(earlier):
                    await ask(transport, get(peer.url))
                failure = await failure_of(transport, post(peer.url, bytes(4 * BIG)))
            which = "the second request" if earlier else "the first request"
            assert len(heads) == 1, f"{which} was sent again"
            check_maybe_sent(failure, which)

    @conformance
    async def test_a_tls_failure_before_the_reply_may_have_been_sent(self) -> None:
        """``open`` raises ``MaybeSent``, because only a failure of the handshake comes before the request."""

        def send_bare(connection: Connection) -> None:
            connection.send_bare(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        await self._may_have_been_sent(b"", send_bare, is_encrypted=True)

    @conformance
    async def test_a_cut_after_the_tls_handshake_may_have_been_sent(self) -> None:
        """If an encrypted connection ends without a close_notify, or is reset, ``open`` raises ``MaybeSent``."""
        await self._may_have_been_sent(b"", Connection.end, is_encrypted=True)
        await self._may_have_been_sent(b"", Connection.reset, is_encrypted=True)

    async def _may_have_been_sent(self, reply: bytes, cut: Serve, *, is_encrypted: bool = False) -> None:
        """Send ``reply``, which isn't a complete one, and ``cut`` the connection.

        Do so after the first request of a connection and after the second one, because libraries often repeat the
        second.
        """
        for earlier in (0, 1):
            for method in ("GET", "POST", "DELETE"):

                def serve_all(connection: Connection) -> None:
                    while connection.read_request().target == "/earlier":
                        connection.send(reply_of(b"ok"))
                    connection.send(reply)
                    cut(connection)

                async with self._served(serve_all, is_encrypted=is_encrypted) as (peer, transport):
                    if earlier:
                        await ask(transport, HttpRequest("GET", f"{peer.url}/earlier", ()))
                    failure = await failure_of(transport, HttpRequest(method, f"{peer.url}/", ()))
                which = f"the second request, a {method}," if earlier else f"the first request, a {method},"
                targets = [request.target for request in peer.requests]
                assert targets == ["/earlier"] * earlier + ["/"], f"{which} was sent again"
                check_maybe_sent(failure, which, reply)

    @conformance
    async def test_a_kept_connection_that_was_closed_is_noticed_or_told(self) -> None:
        """If a server closed an idle connection, the next request uses a new one or fails. It arrives at most once."""

        def serve(connection: Connection) -> None:
            connection.read_request()
            connection.send(reply_of(b"ok"))
            connection.end()

        async with self._served(serve) as (peer, transport):
            await ask(transport, post(peer.url, b"1"))
            arrived = True
            try:
                must_be("the body", await ask(transport, post(peer.url, b"2")), b"ok")
            except TransportError as error:
                arrived = isinstance(error, MaybeSent)
        bodies = [request.body for request in peer.requests]
        must_be("the list of bodies that were sent", bodies, [b"1"], [b"1", b"2"])
        assert arrived or bodies == [b"1"], "the request arrived, but open() raised NotSent"

    @conformance
    async def test_chunks_that_end_too_early_are_no_clean_end(self) -> None:
        """``receive`` raises ``MaybeSent`` each time, even if the connection ended between two chunks."""
        for body in (chunk_of(b"abc"), b"5\r\nabc", b"3\r\nabc\r\n5\r\n", b"3\r\nabc\r\n0\r\n"):
            await self._is_cut(head_of(b"transfer-encoding: chunked") + body, lambda connection: connection.end())

    @conformance
    async def test_a_body_shorter_than_announced_is_no_clean_end(self) -> None:
        """``receive`` raises ``MaybeSent`` if the body is shorter than ``content-length``."""
        await self._is_cut(head_of(b"content-length: 5") + b"abc", lambda connection: connection.end())

    @conformance
    async def test_a_reset_within_a_body_is_no_clean_end(self) -> None:
        """``receive`` raises ``MaybeSent``, no matter how the body's length was sent."""
        for head in (b"transfer-encoding: chunked", b"content-length: 5", b"connection: close"):
            body = chunk_of(b"abc") if b"chunked" in head else b"abc"
            await self._is_cut(head_of(head) + body, lambda connection: connection.reset())

    @conformance
    async def test_chunks_that_are_none_are_no_clean_end(self) -> None:
        """``receive`` raises ``MaybeSent`` if the next bytes aren't a chunk."""
        reply = head_of(b"transfer-encoding: chunked") + chunk_of(b"abc")
        await self._is_cut(reply, lambda connection: connection.send(b"odd\r\n"))

    @conformance
    async def test_a_cut_of_an_encrypted_body_is_no_clean_end(self) -> None:
        """``receive`` raises ``MaybeSent`` after an end without a close_notify, a reset, and unencrypted bytes."""

        def send_bare(connection: Connection) -> None:
            connection.send_bare(b"0\r\n\r\n")

        for cut in (Connection.end, Connection.reset, send_bare):
            await self._is_cut(head_of(b"content-length: 5") + b"abc", cut, is_encrypted=True)

    async def _is_cut(self, reply: bytes, cut: Serve, *, is_encrypted: bool = False) -> None:
        received = self._signal("the body's bytes were received")

        def serve(connection: Connection) -> None:
            connection.read_request()
            connection.send(reply)
            received.wait()
            cut(connection)

        async with self._served(serve, is_encrypted=is_encrypted) as (peer, transport):
            body = b""
            response = await transport.open(get(peer.url))
            with suppress(MaybeSent):  # The transport may raise as soon as it knows that the rest is missing.
                while len(body) < 3:
                    with expecting(f"the data before the cut of {reply!r} is held back"):
                        more = await response.receive()
                    assert more, f"the body of {reply!r} ends as if it were complete"
                    body += more
            received.set()
            for which in ("receive()", "a second receive()"):
                with expecting(f"{which} still waits after the cut of {reply!r}"), suppress(MaybeSent):
                    data = await response.receive()
                    raise AssertionError(f"{which} returns {data!r} after the cut of {reply!r}: raise MaybeSent")
            await response.aclose()
        assert b"abc".startswith(body), f"the body of {reply!r} begins with {body!r}"
