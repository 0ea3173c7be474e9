"""A test suite for transports: subclass it where pytest looks for tests, and say how yours is made.

It plays the servers itself, on free ports of loopback. It needs pytest, and for TLS trustme.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import gzip
import hashlib
import math
import ssl
import sys
import threading
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, ClassVar, Protocol, TypedDict, TypeVar, Unpack

import anyio
import anyio.lowlevel
import pytest

from oa_protocol.engine.errors import MaybeSent, NotSent, TransportError
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.testing.peers import Connection, Peer, Received, Signal, refusing_port, unanswering_port
from oa_protocol.transports import Response, Transport

_ADDED = {"host", "content-length", "connection"}
_BIG = 4 * 1024 * 1024
_IMPATIENCE = 0.05
_SWALLOWED = "the cancellation was swallowed"


class Options(TypedDict, total=False):
    """What a transport may be made with: ``connect_timeout`` is in seconds, ``proxy`` the URL of an HTTP proxy."""

    connect_timeout: float
    proxy: str
    ssl_context: ssl.SSLContext


Suite = TypeVar("Suite", bound="TransportConformance")


def _conformance(body: Callable[[Suite], Coroutine[Any, Any, None]]) -> Callable[[Suite, str], None]:
    """Make a test of it that pytest runs without a plugin, on each of the suite's backends."""

    def test(self: Suite, backend: str) -> None:
        _run(functools.partial(body, self), backend, self.patience)

    test.__name__, test.__qualname__, test.__doc__ = body.__name__, body.__qualname__, body.__doc__
    return test


def _run(body: Callable[[], Awaitable[None]], backend: str, patience: float) -> None:
    """Run it for as long as the patience lasts, in seconds."""

    async def bounded() -> None:
        with anyio.fail_after(patience) as scope:
            try:
                with _expecting(f"the transport hangs: the test was not done after {patience:g} s"):
                    await body()
            finally:
                late = anyio.current_time() - scope.deadline
                if late > patience / 2:
                    raise AssertionError(
                        "the event loop was blocked, or what was cancelled went on: "
                        f"the test could not be ended for {late:.1f} s after its time was up"
                    )

    anyio.run(bounded, backend=backend)


class TransportConformance:
    """What a transport owes, each as a test; see docs/transports.md.

    ``backends`` are anyio's names of the event loops it runs on. ``takes`` names the ``Options`` it can be made with;
    tests that need another are skipped. ``connects`` is False for one that opens no connections of its own.
    ``patience`` is how many seconds a test waits for what does not happen. Raises TypeError or ValueError for a
    subclass in which these are not what they should be.

    >>> from oa_protocol.transports.httpx import HttpxTransport
    >>> class TestHttpx(TransportConformance):
    ...     takes = ("connect_timeout", "proxy", "ssl_context")
    ...
    ...     def make(self, **options):
    ...         return HttpxTransport(**options)

    pytest runs it all; a single test can be called, too:

    >>> TestHttpx().test_a_refused_connection_was_not_sent("asyncio")
    """

    backends: ClassVar[Sequence[str]] = ("asyncio", "trio")
    takes: ClassVar[Sequence[str]] = ()
    connects: ClassVar[bool] = True
    patience: ClassVar[float] = 30.0

    def __init_subclass__(cls) -> None:
        for name in ("backends", "takes"):
            if isinstance(getattr(cls, name), str):
                raise TypeError(f"{name} must be a sequence of names, not a name: write ({getattr(cls, name)!r},)")
        if unknown := set(cls.takes) - Options.__annotations__.keys():
            known = ", ".join(Options.__annotations__)
            raise ValueError(f"takes names options that there are not: {', '.join(sorted(unknown))}; there are {known}")

    def make(self, **options: Unpack[Options]) -> Transport:
        """Return a new transport. Only options that it ``takes`` are given, and most tests give none."""
        raise NotImplementedError("a subclass says here how its transport is made")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test on each backend."""
        metafunc.parametrize("backend", self.backends)

    # ---- the request

    @_conformance
    async def test_the_request_goes_out_as_it_is(self) -> None:
        """Method, target, header fields in their order, and body; of other fields only those that HTTP needs."""
        fields = (
            ("accept", "*/*"),
            ("x-two", "1"),
            ("cookie", "a=b; c=d"),
            ("authorization", "Bearer %2F"),
            ("x-two", "2"),
        )
        with self._peer(_say(_reply(b"ok"))) as peer:
            async with self._transport() as transport:
                url = f"{peer.url}/a%2Fb/%7Ec?y=%2F%20&z=1+2&&"
                await _read(await transport.open(HttpRequest("POST", url, fields, b'{"a": 1}')))
        (request,) = peer.requests
        assert request.method == "POST"
        assert request.target == "/a%2Fb/%7Ec?y=%2F%20&z=1+2&&", "the target was rewritten"
        assert request.body == b'{"a": 1}'
        sent = [(name.lower(), value) for name, value in request.headers]
        assert tuple(field for field in sent if field[0] not in _ADDED) == fields, "other fields, or in another order"
        assert request.values("host") == [peer.netloc]
        assert request.values("content-length") == ["8"]

    @_conformance
    async def test_a_conversation_s_fields_go_out_as_they_are(self) -> None:
        """With each method: none is added, left out, replaced or moved."""
        fields = (
            ("accept", "text/event-stream"),
            ("accept-encoding", "identity"),
            ("user-agent", "oa_protocol/1.0"),
            ("cookie", "a=b"),
        )
        with_body = (*fields, ("content-type", "application/json"))
        sent = [
            ("GET", fields, b""),
            ("POST", with_body, b"{}"),
            ("PUT", with_body, b"{}"),
            ("POST", fields, b""),
            ("DELETE", fields, b""),
        ]
        with self._peer(_say(_reply(b"ok"))) as peer:
            async with self._transport() as transport:
                for method, headers, body in sent:
                    await _read(await transport.open(HttpRequest(method, f"{peer.url}/", headers, body)))
        for (method, headers, _), request in zip(sent, peer.requests, strict=True):
            got = tuple((name.lower(), value) for name, value in request.headers if name.lower() not in _ADDED)
            assert got == headers, f"the {method} has other fields, or in another order"

    @_conformance
    async def test_a_request_without_a_body_has_none(self) -> None:
        """GET, POST, PUT and DELETE."""
        methods = ["GET", "POST", "PUT", "DELETE"]
        with self._peer(_say(_reply(b"ok"))) as peer:
            async with self._transport() as transport:
                for method in methods:
                    await _read(await transport.open(HttpRequest(method, f"{peer.url}/", ())))
        assert [request.method for request in peer.requests] == methods
        for request in peer.requests:
            assert request.values("content-length") in ([], ["0"])
            assert request.values("transfer-encoding") == []

    @_conformance
    async def test_a_big_body_is_sent_whole(self) -> None:
        """4 MiB, without asking first whether they are wanted."""
        body = _noise(_BIG)
        with self._peer(_say(_reply(b"ok"))) as peer:
            async with self._transport() as transport:
                await _read(await transport.open(_post(peer.url, body)))
        (request,) = peer.requests
        assert request.values("expect") == [], "the server was asked first"
        assert request.body == body

    @_conformance
    async def test_no_cookie_is_kept(self) -> None:
        """Credentials are the request's alone."""
        with self._peer(_say(_reply(b"ok", b"set-cookie: a=b; path=/"))) as peer:
            async with self._transport() as transport:
                await _read(await transport.open(_get(peer.url)))
                await _read(await transport.open(_get(peer.url)))
        assert [request.values("cookie") for request in peer.requests] == [[], []]

    @_conformance
    async def test_a_line_break_in_a_header_is_not_sent(self) -> None:
        """Nor one in the name, the target or the method: it is refused, or made harmless."""
        for odd in ("\r\n", "\n", "\r"):
            smuggled = f"1{odd}x-smuggled: 1"
            for request in (
                HttpRequest("GET", "{}/", (("x-odd", smuggled),)),
                HttpRequest("GET", "{}/", ((smuggled, "1"),)),
                HttpRequest("GET", f"{{}}/?{smuggled}", ()),
                HttpRequest(f"GET / HTTP/1.1{odd}x-smuggled: 1{odd}x:", "{}/", ()),
            ):
                heads: list[bytes] = []

                def serve(connection: Connection, heads: list[bytes] = heads) -> None:
                    heads.append(connection.read_head())
                    connection.send(_reply(b""))

                with self._peer(serve) as peer:
                    url = request.url.replace("{}", peer.url)
                    async with self._transport() as transport:
                        with suppress(TransportError):
                            await _read(await transport.open(HttpRequest(request.method, url, request.headers)))
                for head in heads:
                    for ending in (b"\r\n", b"\n", b"\r"):
                        lines = head.lower().split(ending)
                        assert not any(line.strip().startswith(b"x-smuggled") for line in lines), head

    # ---- the reply

    @_conformance
    async def test_status_and_header_fields_are_handed_over(self) -> None:
        """Those that are there twice, twice, in order."""
        with self._peer(_say(_reply(b"", b"X-Two: 1", b"x-one: a, b; c", b"x-two: 2", status=b"422 Odd"))) as peer:
            async with self._transport() as transport:
                response = await transport.open(_get(peer.url))
                assert response.status == 422
                fields = [(name.lower(), value) for name, value in response.headers]
                assert [field for field in fields if field[0].startswith("x-")] == [
                    ("x-two", "1"),
                    ("x-one", "a, b; c"),
                    ("x-two", "2"),
                ]
                await response.aclose()

    @_conformance
    async def test_a_header_field_may_hold_any_byte(self) -> None:
        """0xE9 is none in ASCII, nor alone in UTF-8: the reply is handed over all the same."""
        with self._peer(_say(_reply(b"ok", b"x-name: Andr\xe9"))) as peer:
            async with self._transport() as transport:
                assert await _read(await transport.open(_get(peer.url))) == b"ok"

    @_conformance
    async def test_a_long_head_is_read(self) -> None:
        """A field of 32 KiB, and 64 others."""
        fields = [b"x-long: " + b"a" * 32 * 1024, *(b"x-%d: b" % number for number in range(64))]
        with self._peer(_say(_reply(b"ok", *fields))) as peer:
            async with self._transport() as transport:
                response = await transport.open(_get(peer.url))
                assert [value for name, value in response.headers if name.lower() == "x-long"] == ["a" * 32 * 1024]
                assert await _read(response) == b"ok"

    @_conformance
    async def test_open_returns_when_the_head_is_there(self) -> None:
        """A body that has not begun is not waited for."""
        opened = self._signal("open returned")

        def serve(connection: Connection) -> None:
            connection.read_request()
            connection.send(_head(b"content-length: 2"))
            opened.wait()
            connection.send(b"ok")

        with self._peer(serve) as peer:
            async with self._transport() as transport:
                with _expecting("the head was sent, and open() does not return"):
                    response = await transport.open(_get(peer.url))
                opened.set()
                assert await _read(response) == b"ok"

    @_conformance
    async def test_an_interim_reply_is_skipped(self) -> None:
        """100 and 103 come before the reply."""
        with self._peer(
            _say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n" + _reply(b"ok"))
        ) as peer:
            async with self._transport() as transport:
                response = await transport.open(_get(peer.url))
                assert response.status == 200
                assert await _read(response) == b"ok"

    @_conformance
    async def test_a_redirect_is_not_followed(self) -> None:
        """It is a reply like any other: 301, 302, 303, 307 and 308, to each method."""
        await self._are_handed_over((301, 302, 303, 307, 308), b"location: /elsewhere")

    @_conformance
    async def test_a_refusal_is_handed_over(self) -> None:
        """Whether to ask again is the conversation's business: 401, 407, 408, 421, 425, 429, 500, 502, 503 and 504."""
        challenge = b'www-authenticate: Basic realm="x"'
        await self._are_handed_over((401, 407, 408, 421, 425, 429, 500, 502, 503, 504), b"retry-after: 0", challenge)

    async def _are_handed_over(self, statuses: Sequence[int], *fields: bytes) -> None:
        """The peer replies with the status that the target asks for."""

        def serve(connection: Connection) -> None:
            while True:
                asked = connection.read_request().target.removeprefix("/").encode()
                connection.send(_reply(b"why", *fields, status=asked + b" Odd") if asked.isdigit() else _reply(b"ok"))

        wanted = [(method, status) for status in statuses for method in ("GET", "POST", "DELETE")]
        with self._peer(serve) as peer:
            async with self._transport() as transport:
                for number, (method, status) in enumerate(wanted, start=1):
                    body = b"{}" if method == "POST" else b""
                    response = await transport.open(HttpRequest(method, f"{peer.url}/{status}", (), body))
                    assert response.status == status, f"another reply than the {status} to a {method}"
                    assert await _read(response) == b"why"
                    assert len(peer.requests) == number, f"more was sent after the {status} to a {method}"

    @_conformance
    async def test_nothing_is_decompressed(self) -> None:
        """The body is what the server sent."""
        body = gzip.compress(b"abc")
        with self._peer(_say(_reply(body, b"content-encoding: gzip"))) as peer:
            async with self._transport() as transport:
                assert await _read(await transport.open(_get(peer.url))) == body

    @_conformance
    async def test_204_and_304_have_no_body(self) -> None:
        """Whatever their header says; the connection stays open."""
        for head in (
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
        ):
            with self._peer(_say(head)) as peer:
                async with self._transport() as transport:
                    with _expecting(f"a body is waited for after {head!r}"):
                        body = await _read(await transport.open(_get(peer.url)))
                    assert body == b"", head

    @_conformance
    async def test_the_end_stays_the_end(self) -> None:
        """``b""``, again and again, however the end of the body is told."""
        for reply, ends in (
            (_chunked(b"ab"), False),
            (_reply(b"ab"), False),
            (_head(b"connection: close") + b"ab", True),
            (b"HTTP/1.0 200 OK\r\n\r\nab", True),
            (_chunked(), False),
            (_reply(b""), False),
        ):
            with self._peer(_say(reply, ends=ends)) as peer:
                async with self._transport() as transport:
                    response = await transport.open(_get(peer.url))
                    body = b""
                    while data := await response.receive():
                        body += data
                    assert body == (b"ab" if b"ab" in reply else b""), reply
                    assert [await response.receive() for _ in range(3)] == [b"", b"", b""], reply
                    await response.aclose()

    @_conformance
    async def test_a_body_comes_as_bytes(self) -> None:
        """Each part, and the end: no bytearray, which cannot be a key, nor a view of what may change."""
        for reply in (_chunked(b"ab", b"c"), _reply(b"abc")):
            with self._peer(_say(reply)) as peer:
                async with self._transport() as transport:
                    response = await transport.open(_get(peer.url))
                    data = b"-"
                    while data:
                        data = await response.receive()
                        assert type(data) is bytes, f"receive() returned a {type(data).__name__}"
                    await response.aclose()

    @_conformance
    async def test_a_big_reply_arrives_whole(self) -> None:
        """4 MiB in chunks, of known length, and up to the connection's end."""
        body = _noise(_BIG)
        pieces = [body[start : start + 65_521] for start in range(0, len(body), 65_521)]
        for reply, ends in (
            (_chunked(*pieces), False),
            (_reply(body), False),
            (_head(b"connection: close") + body, True),
        ):
            with self._peer(_say(reply, ends=ends)) as peer:
                async with self._transport() as transport:
                    assert await _read(await transport.open(_get(peer.url))) == body, reply[:60]

    # ---- nothing is held back

    @_conformance
    async def test_a_chunk_is_delivered_while_the_next_is_not_sent(self) -> None:
        """The peer sends each only when the one before has been received."""
        await self._delivered_at_once(_head(b"transfer-encoding: chunked"), [_chunk(b"a"), _chunk(b"b"), _chunk(b"c")])

    @_conformance
    async def test_a_part_of_a_known_length_is_delivered_while_the_rest_is_not_sent(self) -> None:
        """The peer sends each part only when the one before has been received."""
        await self._delivered_at_once(_head(b"content-length: 3"), [b"a", b"b", b"c"])

    @_conformance
    async def test_a_part_of_an_unknown_length_is_delivered_while_the_rest_is_not_sent(self) -> None:
        """The peer sends each part only when the one before has been received."""
        await self._delivered_at_once(_head(b"connection: close"), [b"a", b"b", b"c"])

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

        with self._peer(serve) as peer:
            async with self._transport() as transport:
                response = await transport.open(_get(peer.url))
                for number, (wanted, signal) in enumerate(zip((b"a", b"b", b"c"), received, strict=True)):
                    await _receive(response, wanted, f"part {number}")
                    signal.set()
                assert await _read(response) == b""

    @_conformance
    async def test_chunks_may_be_cut_anywhere(self) -> None:
        """In a size, an extension, the data, a line's end, a trailer; the data before the cut is delivered at once."""
        framing, data = b"", set[int]()  # the bytes, and where among them the body's are
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
                connection.send(_head(b"transfer-encoding: chunked"))
                connection.send(framing[:cut])
                signal.wait()
                connection.send(framing[cut:])

        with self._peer(serve) as peer:
            async with self._transport() as transport:
                for cut, signal in zip(cuts, received, strict=True):
                    response = await transport.open(_get(peer.url))
                    before = len([place for place in data if place < cut])
                    body = b""
                    while len(body) < before:
                        with _expecting(f"with the chunks cut at byte {cut}, what came before is held back"):
                            more = await response.receive()
                        assert more, f"an early end, with the chunks cut at byte {cut}"
                        body += more
                    signal.set()
                    body += await _read(response)
                    assert body == whole, f"with the chunks cut at byte {cut}"

    # ---- sent, or maybe not

    @_conformance
    async def test_a_refused_connection_was_not_sent(self) -> None:
        """NotSent, also when asked again."""
        self._need_connections()
        with refusing_port() as netloc:
            async with self._transport() as transport:
                for _ in range(2):
                    with pytest.raises(NotSent):
                        await transport.open(_post(f"http://{netloc}", b"{}"))

    @_conformance
    async def test_a_connection_that_takes_too_long_was_not_sent(self) -> None:
        """``connect_timeout`` bounds it."""
        self._need("connect_timeout")
        _need_an_unanswering_port()
        with unanswering_port() as netloc:
            async with self._transport(connect_timeout=_IMPATIENCE) as transport:
                with pytest.raises(NotSent):
                    await transport.open(_get(f"http://{netloc}"))

    @_conformance
    async def test_the_time_for_a_connection_is_for_nothing_else(self) -> None:
        """``connect_timeout`` bounds no wait for a head, nor for a body: deadlines are the driver's."""
        self._need("connect_timeout")
        never = threading.Event()

        def serve(connection: Connection) -> None:
            connection.read_request()
            never.wait(3 * _IMPATIENCE)
            connection.send(_head(b"content-length: 2") + b"o")
            never.wait(3 * _IMPATIENCE)
            connection.send(b"k")

        with self._peer(serve) as peer:
            async with self._transport(connect_timeout=_IMPATIENCE) as transport:
                response: Response | None = None
                while response is None:
                    with _expecting(f"nothing was sent: no connection comes about in {_IMPATIENCE} s"):
                        await anyio.lowlevel.checkpoint()
                        with suppress(NotSent):  # a busy machine may take longer to connect
                            response = await transport.open(_get(peer.url))
                    assert response is not None or not peer.requests, "it was sent, and is called not sent"
                assert await _read(response) == b"ok"
        assert len(peer.requests) == 1, "it was sent, and sent again"

    @_conformance
    async def test_an_end_before_the_reply_may_have_been_sent(self) -> None:
        """MaybeSent, and the request is not sent again."""
        await self._may_have_been_sent(lambda connection: connection.end())

    @_conformance
    async def test_a_reset_before_the_reply_may_have_been_sent(self) -> None:
        """MaybeSent, and the request is not sent again."""
        await self._may_have_been_sent(lambda connection: connection.reset())

    @_conformance
    async def test_an_end_within_the_head_may_have_been_sent(self) -> None:
        """MaybeSent, and the request is not sent again."""

        def serve(connection: Connection) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\ncontent-le")
            connection.end()

        await self._may_have_been_sent(serve)

    @_conformance
    async def test_a_reply_that_is_no_http_may_have_been_sent(self) -> None:
        """MaybeSent, and the request is not sent again; another version of HTTP is none, either."""
        for reply in (
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/9.9 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        ):

            def serve(connection: Connection, reply: bytes = reply) -> None:
                connection.send(reply)
                connection.end()

            await self._may_have_been_sent(serve)

    @_conformance
    async def test_a_reset_while_the_body_is_sent_may_have_been_sent(self) -> None:
        """MaybeSent, and the request is not sent again: of a body of 16 MiB, the server has read the head."""
        for earlier in (0, 1):
            heads: list[bytes] = []

            def serve(connection: Connection, heads: list[bytes] = heads) -> None:
                while (head := connection.read_head()).startswith(b"GET"):
                    connection.send(_reply(b"ok"))
                heads.append(head)
                connection.reset()

            with self._peer(serve) as peer:
                async with self._transport() as transport:
                    for _ in range(earlier):
                        await _read(await transport.open(_get(peer.url)))
                    failure = await _failure_of(transport, _post(peer.url, bytes(4 * _BIG)))
            which = "the second request" if earlier else "the first request"
            assert len(heads) == 1, f"{which} was sent again"
            _is_maybe_sent(failure, which)

    async def _may_have_been_sent(self, serve: Callable[[Connection], None]) -> None:
        """As the first request of its connection, and as a later one."""
        for earlier in (0, 1):
            for method in ("GET", "POST", "DELETE"):

                def serve_all(connection: Connection) -> None:
                    while connection.read_request().target == "/earlier":
                        connection.send(_reply(b"ok"))
                    serve(connection)

                with self._peer(serve_all) as peer:
                    async with self._transport() as transport:
                        if earlier:
                            await _read(await transport.open(HttpRequest("GET", f"{peer.url}/earlier", ())))
                        failure = await _failure_of(transport, HttpRequest(method, f"{peer.url}/", ()))
                which = f"the second request, a {method}," if earlier else f"the first request, a {method},"
                targets = [request.target for request in peer.requests]
                assert targets == ["/earlier"] * earlier + ["/"], f"{which} was sent again"
                _is_maybe_sent(failure, which)

    @_conformance
    async def test_a_kept_connection_that_was_closed_is_noticed_or_told(self) -> None:
        """The server closed it while it was idle: the next request takes another, or fails; it arrives once at most."""

        def serve(connection: Connection) -> None:
            connection.read_request()
            connection.send(_reply(b"ok"))
            connection.end()

        with self._peer(serve) as peer:
            async with self._transport() as transport:
                await _read(await transport.open(_post(peer.url, b"1")))
                arrived = True
                try:
                    assert await _read(await transport.open(_post(peer.url, b"2"))) == b"ok"
                except TransportError as error:
                    arrived = isinstance(error, MaybeSent)
        bodies = [request.body for request in peer.requests]
        assert bodies in ([b"1"], [b"1", b"2"])
        assert arrived or bodies == [b"1"], "it arrived, and was called not sent"

    @_conformance
    async def test_chunks_that_end_too_early_are_no_clean_end(self) -> None:
        """MaybeSent, also where the cut is between two chunks; and again, when asked again."""
        for body in (_chunk(b"abc"), b"5\r\nabc", b"3\r\nabc\r\n5\r\n", b"3\r\nabc\r\n0\r\n"):
            await self._is_cut(_head(b"transfer-encoding: chunked") + body, lambda connection: connection.end())

    @_conformance
    async def test_a_body_shorter_than_announced_is_no_clean_end(self) -> None:
        """MaybeSent."""
        await self._is_cut(_head(b"content-length: 5") + b"abc", lambda connection: connection.end())

    @_conformance
    async def test_a_reset_within_a_body_is_no_clean_end(self) -> None:
        """MaybeSent, however the end of the body would have been told."""
        for head in (b"transfer-encoding: chunked", b"content-length: 5", b"connection: close"):
            body = _chunk(b"abc") if b"chunked" in head else b"abc"
            await self._is_cut(_head(head) + body, lambda connection: connection.reset())

    @_conformance
    async def test_chunks_that_are_none_are_no_clean_end(self) -> None:
        """MaybeSent."""
        reply = _head(b"transfer-encoding: chunked") + _chunk(b"abc")
        await self._is_cut(reply, lambda connection: connection.send(b"odd\r\n"))

    async def _is_cut(self, reply: bytes, cut: Callable[[Connection], None]) -> None:
        received = self._signal("the body's bytes were received")

        def serve(connection: Connection) -> None:
            connection.read_request()
            connection.send(reply)
            received.wait()
            cut(connection)

        with self._peer(serve) as peer:
            async with self._transport() as transport:
                body = b""
                response = await transport.open(_get(peer.url))
                with suppress(MaybeSent):  # as soon as it is known that the rest is none
                    while len(body) < 3:
                        with _expecting(f"what came before the cut of {reply!r} is held back"):
                            more = await response.receive()
                        assert more, f"a clean end of {reply!r}"
                        body += more
                received.set()
                for which in ("receive()", "receive(), asked again,"):
                    with _expecting(f"{which} still waits after the cut of {reply!r}"), suppress(MaybeSent):
                        data = await response.receive()
                        raise AssertionError(f"{which} returns {data!r} after the cut of {reply!r}, which is MaybeSent")
                await response.aclose()
        assert b"abc".startswith(body), reply

    # ---- TLS

    @_conformance
    async def test_a_server_with_a_certificate_of_a_trusted_authority_is_served(self) -> None:
        """Over TLS like over plain HTTP."""
        self._need("ssl_context")
        server, trusting = _contexts("127.0.0.1")
        with self._peer(_tls(server, _say(_chunked(b"ok"))), scheme="https") as peer:
            async with self._transport(ssl_context=trusting) as transport:
                assert await _read(await transport.open(_post(peer.url, b"{}"))) == b"ok"
                assert await _read(await transport.open(_post(peer.url, b"{}"))) == b"ok"
        assert [request.body for request in peer.requests] == [b"{}", b"{}"]

    @_conformance
    async def test_a_certificate_of_an_unknown_authority_was_not_sent(self) -> None:
        """NotSent: nothing of the request has left."""
        self._need_connections()
        server, _ = _contexts("127.0.0.1")
        with self._peer(_tls(server, _say(_reply(b"ok"))), scheme="https") as peer:
            async with self._transport() as transport:
                with pytest.raises(NotSent):
                    await transport.open(_post(peer.url, b"{}"))
        assert peer.requests == []

    @_conformance
    async def test_a_certificate_for_another_host_was_not_sent(self) -> None:
        """NotSent: nothing of the request has left."""
        self._need("ssl_context")
        server, trusting = _contexts("another.invalid")
        with self._peer(_tls(server, _say(_reply(b"ok"))), scheme="https") as peer:
            async with self._transport(ssl_context=trusting) as transport:
                with pytest.raises(NotSent):
                    await transport.open(_post(peer.url, b"{}"))
        assert peer.requests == []

    @_conformance
    async def test_a_server_that_speaks_no_tls_was_not_sent(self) -> None:
        """NotSent: nothing of the request has left."""
        self._need_connections()

        def serve(connection: Connection) -> None:
            connection.send(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
            connection.end()

        with self._peer(serve, scheme="https") as peer:
            async with self._transport() as transport:
                with pytest.raises(NotSent):
                    await transport.open(_post(peer.url, b"{}"))

    @_conformance
    async def test_a_tls_handshake_that_takes_too_long_was_not_sent(self) -> None:
        """``connect_timeout`` bounds it."""
        self._need("connect_timeout")
        with self._peer(lambda _: None, scheme="https") as peer:
            async with self._transport(connect_timeout=_IMPATIENCE) as transport:
                with pytest.raises(NotSent):
                    await transport.open(_get(peer.url))

    # ---- proxies

    @_conformance
    async def test_a_proxy_is_asked_for_the_whole_url(self) -> None:
        """A request to an http URL goes to it as it is, but for the target; IPv6 addresses keep their brackets."""
        self._need("proxy")
        for host in ("oa.invalid", "[2001:db8::1]:3000"):
            with self._peer(_say(_reply(b"ok"))) as proxy:
                async with self._transport(proxy=proxy.url) as transport:
                    asked = HttpRequest("POST", f"http://{host}/a%2Fb?c", (("x-one", "1"),), b"{}")
                    assert await _read(await transport.open(asked)) == b"ok"
            (request,) = proxy.requests
            assert (request.method, request.target) == ("POST", f"http://{host}/a%2Fb?c")
            assert request.values("host") == [host]
            assert request.values("x-one") == ["1"]
            assert request.body == b"{}"

    @_conformance
    async def test_a_proxy_is_asked_for_a_tunnel(self) -> None:
        """A request to an https URL goes through it, and the proxy sees none of it."""
        self._need("proxy", "ssl_context")
        for host, target in (("oa.invalid", "oa.invalid:443"), ("[2001:db8::1]:3000", "[2001:db8::1]:3000")):
            await self._is_tunnelled(host, target)

    async def _is_tunnelled(self, host: str, target: str) -> None:
        server, trusting = _contexts(host.partition("]")[0].removeprefix("["))
        tunnels: list[Received] = []

        def serve(connection: Connection) -> None:
            tunnels.append(connection.read_request())
            connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _tls(server, _say(_reply(b"ok")))(connection)

        with self._peer(serve) as proxy:
            async with self._transport(proxy=proxy.url, ssl_context=trusting) as transport:
                secret = HttpRequest("POST", f"https://{host}/a?b", (("authorization", "Bearer secret"),), b"{}")
                assert await _read(await transport.open(secret)) == b"ok"
        (tunnel,) = tunnels
        assert (tunnel.method, tunnel.target) == ("CONNECT", target)
        assert tunnel.values("host") in ([target], [host])
        assert tunnel.values("authorization") == []
        (inside,) = proxy.requests[1:]
        assert (inside.method, inside.target, inside.values("host")) == ("POST", "/a?b", [host])

    @_conformance
    async def test_a_refused_tunnel_was_not_sent(self) -> None:
        """NotSent: the server has seen nothing."""
        self._need("proxy")
        with self._peer(_say(_reply(b"no", status=b"403 Forbidden"))) as proxy:
            async with self._transport(proxy=proxy.url) as transport:
                with pytest.raises(NotSent):
                    await transport.open(_post("https://oa.invalid", b"{}"))
        assert [request.method for request in proxy.requests] == ["CONNECT"]

    @_conformance
    async def test_a_proxy_that_is_not_there_was_not_sent(self) -> None:
        """NotSent: there is no way around it."""
        self._need("proxy")
        with refusing_port() as netloc:
            async with self._transport(proxy=f"http://{netloc}") as transport:
                for url in ("http://oa.invalid", "https://oa.invalid"):
                    with pytest.raises(NotSent):
                        await transport.open(_post(url, b"{}"))

    # ---- cancellation

    @_conformance
    async def test_open_can_be_cancelled_while_it_connects(self) -> None:
        """It ends, and the transport is as good as before."""
        self._need_connections()
        _need_an_unanswering_port()
        begun = self._signal("open was called")
        for cancel in _ways_to_cancel():
            with unanswering_port() as netloc:
                async with self._transport() as transport:

                    async def connect(transport: Transport = transport, netloc: str = netloc) -> None:
                        begun.set()
                        await transport.open(_get(f"http://{netloc}"))

                    assert await cancel(connect, begun), _SWALLOWED
                    await self._works(transport)

    @_conformance
    async def test_open_can_be_cancelled_in_a_tls_handshake(self) -> None:
        """It ends, and the transport is as good as before."""
        self._need("ssl_context")
        _, trusting = _contexts("127.0.0.1")
        for cancel in _ways_to_cancel():
            greeted = self._signal("the peer was greeted")

            def serve(connection: Connection, greeted: Signal = greeted) -> None:
                connection.read_some()
                greeted.set()

            with self._peer(serve, scheme="https") as peer:
                async with self._transport(ssl_context=trusting) as transport:
                    assert await cancel(functools.partial(transport.open, _get(peer.url)), greeted), _SWALLOWED
                    await self._works(transport)
                    await _all_left(peer, "open() was cancelled")

    @_conformance
    async def test_open_can_be_cancelled_while_it_sends(self) -> None:
        """A peer that reads no body: open ends, the connection is closed, and the transport is as good as before."""
        for cancel in _ways_to_cancel():
            begun = self._signal("the head was sent")
            over = self._signal("open was cancelled")

            def serve(connection: Connection, begun: Signal = begun, over: Signal = over) -> None:
                connection.read_head()
                begun.set()
                over.wait()

            with self._peer(serve) as peer:
                async with self._transport() as transport:
                    assert await cancel(functools.partial(transport.open, _post(peer.url, bytes(4 * _BIG))), begun), (
                        _SWALLOWED
                    )
                    over.set()
                    await self._works(transport)
                    await _all_left(peer, "open() was cancelled")

    @_conformance
    async def test_open_can_be_cancelled_while_it_waits_for_the_head(self) -> None:
        """It ends, the connection is closed, and the transport is as good as before."""
        for cancel in _ways_to_cancel():
            read = self._signal("the request was read")

            def serve(connection: Connection, read: Signal = read) -> None:
                connection.read_request()
                read.set()

            with self._peer(serve) as peer:
                async with self._transport() as transport:
                    assert await cancel(functools.partial(transport.open, _get(peer.url)), read), _SWALLOWED
                    await self._works(transport)
                    await _all_left(peer, "open() was cancelled")
            assert len(peer.requests) == 1, "it was sent again"

    @_conformance
    async def test_receive_can_be_cancelled(self) -> None:
        """It ends, the connection is closed with the reply, and the transport is as good as before."""
        for cancel in _ways_to_cancel():
            waiting = self._signal("the next receive waits")
            with self._peer(_say(_head(b"transfer-encoding: chunked") + _chunk(b"a"))) as peer:
                async with self._transport() as transport:
                    response = await transport.open(_get(peer.url))
                    await _receive(response, b"a")

                    async def receive(response: Response = response, waiting: Signal = waiting) -> None:
                        waiting.set()
                        await response.receive()

                    assert await cancel(receive, waiting), _SWALLOWED
                    await self._works(transport)
                    await response.aclose()
                    await _all_left(peer, "reply.aclose()")

    @_conformance
    async def test_a_cancelled_receive_loses_nothing(self) -> None:
        """The next one goes on where it was, or says MaybeSent; it is never a clean end."""
        for cancel in _ways_to_cancel():
            waiting, over = self._signal("the next receive waits"), self._signal("receive was cancelled")

            def serve(connection: Connection, over: Signal = over) -> None:
                connection.read_request()
                connection.send(_head(b"transfer-encoding: chunked") + _chunk(b"a"))
                over.wait()
                connection.send(_chunk(b"b") + _chunk(b"c") + b"0\r\n\r\n")

            with self._peer(serve) as peer:
                async with self._transport() as transport:
                    response = await transport.open(_get(peer.url))
                    await _receive(response, b"a")

                    async def receive(response: Response = response, waiting: Signal = waiting) -> None:
                        waiting.set()
                        await response.receive()

                    assert await cancel(receive, waiting), _SWALLOWED
                    over.set()
                    with suppress(MaybeSent):
                        assert await _read(response) == b"bc", "bytes were lost without a word"
                    await response.aclose()

    @_conformance
    async def test_a_receive_that_is_cancelled_as_bytes_come_loses_nothing(self) -> None:
        """Whatever comes first: what was not returned is returned by the next, or that says MaybeSent."""
        for cancel in _ways_to_cancel():
            for pauses in range(8):
                await self._cancelled_as_bytes_come(cancel, pauses)

    async def _cancelled_as_bytes_come(self, cancel: _Cancels, pauses: int) -> None:
        wanted, sent = self._signal("the next bytes are wanted"), self._signal("they were sent")
        over = self._signal("receive was cancelled")
        got: list[bytes] = []

        def serve(connection: Connection) -> None:
            connection.read_request()
            connection.send(_head(b"transfer-encoding: chunked") + _chunk(b"a"))
            wanted.wait()
            connection.send(_chunk(b"b"))
            sent.set()
            over.wait()
            connection.send(_chunk(b"c") + b"0\r\n\r\n")

        with self._peer(serve) as peer:
            async with self._transport() as transport:
                response = await transport.open(_get(peer.url))
                await _receive(response, b"a")
                waiting = self._signal("the next receive waits")

                async def receive() -> None:
                    waiting.set()
                    got.append(await response.receive())

                async def bytes_come() -> None:
                    wanted.set()
                    sent.wait()  # with the event loop at rest
                    for _ in range(pauses):
                        await anyio.lowlevel.checkpoint()

                await cancel(receive, waiting, bytes_come)
                over.set()
                with suppress(MaybeSent):
                    got.append(await _read(response))
                    assert b"".join(got) == b"bc", f"bytes were lost without a word, {pauses} steps after they came"
                await response.aclose()

    # ---- connections

    @_conformance
    async def test_a_closed_transport_has_no_connections(self) -> None:
        """One reply was left midway, one's body was never asked for, two were read to their ends."""
        with (
            self._peer(_say(_head(b"content-length: 9") + b"ok")) as endless,
            self._peer(_say(_chunked(b"ok"))) as peer,
        ):
            transport = self.make()
            midway = await transport.open(_get(endless.url))
            assert await midway.receive()
            await midway.aclose()
            unread = await transport.open(_get(endless.url))
            await unread.aclose()
            await _read(await transport.open(_get(peer.url)))
            await _read(await transport.open(_get(peer.url)))
            await transport.aclose()
            await _all_left(endless, "transport.aclose()")
            await _all_left(peer, "transport.aclose()")

    @_conformance
    async def test_a_reply_closed_midway_closes_its_connection(self) -> None:
        """At once: for a server that is how it knows that nobody listens any more."""
        with self._peer(_say(_head(b"transfer-encoding: chunked") + _chunk(b"a"))) as peer:
            async with self._transport() as transport:
                response = await transport.open(_get(peer.url))
                await _receive(response, b"a")
                await response.aclose()
                await _all_left(peer, "reply.aclose()")

    @_conformance
    async def test_closing_the_transport_closes_open_replies(self) -> None:
        """Their connections, too."""
        with self._peer(_say(_head(b"transfer-encoding: chunked") + _chunk(b"a"))) as peer:
            transport = self.make()
            response = await transport.open(_get(peer.url))
            await _receive(response, b"a")
            await transport.aclose()
            await _all_left(peer, "transport.aclose()")
            await response.aclose()

    @_conformance
    async def test_closing_twice_is_harmless(self) -> None:
        """A reply, and the transport; one that was never used, too."""
        with self._peer(_say(_reply(b"ok"))) as peer:
            transport = self.make()
            response = await transport.open(_get(peer.url))
            await response.aclose()
            await response.aclose()
            await transport.aclose()
            await transport.aclose()
        await self.make().aclose()

    @_conformance
    async def test_a_close_that_is_cancelled_closes_all_the_same(self) -> None:
        """A reply's, and the transport's: who is cancelled closes what it has, and is cancelled where it does."""
        for cancelled in _ways_to_be_cancelled():
            for what in ("reply", "transport"):
                with self._peer(_say(_head(b"transfer-encoding: chunked") + _chunk(b"a"))) as peer:
                    async with self._transport() as transport:
                        response = await transport.open(_get(peer.url))
                        await _receive(response, b"a")
                        await cancelled(response.aclose if what == "reply" else transport.aclose)
                        await _all_left(peer, f"a cancelled {what}.aclose()")
                        await response.aclose()

    @_conformance
    async def test_a_stream_stays_open_while_other_requests_are_sent(self) -> None:
        """It goes on where it was."""
        on = self._signal("the stream may go on")

        def serve(connection: Connection) -> None:
            connection.read_request()
            connection.send(_head(b"transfer-encoding: chunked") + _chunk(b"a"))
            on.wait()
            connection.send(_chunk(b"b") + b"0\r\n\r\n")

        with self._peer(serve) as stream, self._peer(_say(_reply(b"ok"))) as others:
            async with self._transport() as transport:
                response = await transport.open(_get(stream.url))
                await _receive(response, b"a")
                for _ in range(3):
                    assert await _read(await transport.open(_post(others.url, b"{}"))) == b"ok"
                on.set()
                assert await _read(response) == b"b", "the rest of the stream was lost"

    @_conformance
    async def test_a_reply_left_midway_is_not_read_by_the_next_request(self) -> None:
        """Nor is one that was there as a whole, and never asked for."""
        for former in (_head(b"content-length: 6") + b"for", _reply(b"former")):
            replies = [former, _reply(b"next")]

            def serve(connection: Connection, replies: list[bytes] = replies) -> None:
                while True:
                    connection.read_request()
                    connection.send(replies.pop(0))

            with self._peer(serve) as peer:
                async with self._transport() as transport:
                    response = await transport.open(_get(peer.url))
                    await response.aclose()
                    assert await _read(await transport.open(_get(peer.url))) == b"next"

    @_conformance
    async def test_what_follows_a_reply_is_not_read_by_the_next_request(self) -> None:
        """A connection on which more has come than was asked for is not used again."""
        for pieces in ([_reply(b"1") + _reply(b"surplus")], [_reply(b"1"), _reply(b"surplus")]):
            await self._surplus_is_not_read(pieces, "http")

    @_conformance
    async def test_what_follows_a_reply_over_tls_is_not_read_by_the_next_request(self) -> None:
        """Neither is what lies encrypted in memory."""
        self._need("ssl_context")
        await self._surplus_is_not_read([_reply(b"1"), _reply(b"surplus")], "https")

    async def _surplus_is_not_read(self, pieces: list[bytes], scheme: str) -> None:
        sent = self._signal("the reply and what follows it were sent")
        replies = [pieces, [_reply(b"2")]]

        def serve(connection: Connection) -> None:
            while True:
                connection.read_request()
                for piece in replies.pop(0):
                    connection.send(piece)
                sent.set()

        server, trusting = _contexts("127.0.0.1") if scheme == "https" else (None, None)
        options: Options = {"ssl_context": trusting} if trusting is not None else {}
        with self._peer(_tls(server, serve) if server is not None else serve, scheme=scheme) as peer:
            async with self._transport(**options) as transport:
                first = await transport.open(_get(peer.url))
                await sent.reached()
                assert await _read(first) == b"1"
                assert await _read(await transport.open(_get(peer.url))) == b"2", "what nobody asked for was read"

    def test_nothing_is_left_to_the_garbage_collector(self, backend: str) -> None:
        """No ResourceWarning: every socket was closed by whoever opened it."""

        async def use() -> None:
            with (
                self._peer(_say(_chunked(b"ok"))) as peer,
                self._peer(_say(_head(b"transfer-encoding: chunked") + _chunk(b"a"))) as stream,
                self._peer(lambda connection: connection.reset()) as broken,
            ):
                transport = self.make()
                await _read(await transport.open(_get(peer.url)))
                response = await transport.open(_get(stream.url))
                await _receive(response, b"a")
                with suppress(TransportError):
                    await transport.open(_get(broken.url))
                with anyio.move_on_after(0):
                    await response.receive()
                await response.aclose()
                await _read(await transport.open(_get(peer.url)))
                await transport.aclose()

        gc.collect()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _run(use, backend, self.patience)
            gc.collect()
        left = [str(warning.message) for warning in caught if issubclass(warning.category, ResourceWarning)]
        assert not left, "; ".join(left)

    # ---- what the tests share

    # Peers are more patient than the test, which says what it waited for. When theirs is over they close their
    # connections: so a transport is let go that blocks the event loop, in which nothing else can end it.

    def _peer(self, serve: Callable[[Connection], None], *, scheme: str = "http") -> Peer:
        return Peer(serve, scheme=scheme, patience=2 * self.patience)

    def _signal(self, what: str) -> Signal:
        return Signal(what, patience=2 * self.patience)

    @asynccontextmanager
    async def _transport(self, **options: Unpack[Options]) -> AsyncGenerator[Transport]:
        transport = self.make(**options)
        try:
            yield transport
        except BaseException:
            with anyio.move_on_after(_IMPATIENCE, shield=True), suppress(Exception):
                await transport.aclose()
            raise
        with _expecting("transport.aclose() does not return"):
            await transport.aclose()

    async def _works(self, transport: Transport) -> None:
        with self._peer(_say(_chunked(b"o", b"k"))) as peer:
            assert await _read(await transport.open(_post(peer.url, b"{}"))) == b"ok"

    def _need(self, *options: str) -> None:
        for option in options:
            if option not in self.takes:
                pytest.skip(f"the transport takes no {option}")

    def _need_connections(self) -> None:
        if not self.connects:
            pytest.skip("the transport opens no connections")


# ---- requests and replies


def _get(url: str) -> HttpRequest:
    return HttpRequest("GET", f"{url}/", (("accept", "*/*"),))


def _post(url: str, body: bytes) -> HttpRequest:
    return HttpRequest("POST", f"{url}/", (("accept", "*/*"), ("content-type", "application/json")), body)


def _head(*fields: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join((b"HTTP/1.1 " + status, *fields, b"", b""))


def _reply(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    return _head(*fields, b"content-length: %d" % len(body), status=status) + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _chunked(*pieces: bytes) -> bytes:
    return _head(b"transfer-encoding: chunked") + b"".join(map(_chunk, pieces)) + b"0\r\n\r\n"


def _noise(size: int) -> bytes:
    """Return bytes of which no part looks like another."""
    return hashlib.shake_256().digest(size)


async def _receive(response: Response, wanted: bytes, what: str = "a part of the body") -> None:
    """Receive what the peer has sent, and no more yet."""
    with _expecting(f"{what} was sent, and receive() does not return it: it is held back"):
        data = await response.receive()
    assert data == wanted, f"{what} was lost, or has changed"


async def _read(response: Response) -> bytes:
    """Read a body to its clean end, and close the reply."""
    body = bytearray()
    try:
        while data := await response.receive():
            body += data
    finally:
        await response.aclose()
    return bytes(body)


async def _failure_of(transport: Transport, request: HttpRequest) -> TransportError | None:
    """Return what came of a request; None where there was a reply."""
    try:
        response = await transport.open(request)
    except TransportError as error:
        return error
    await response.aclose()
    return None


def _is_maybe_sent(failure: TransportError | None, which: str) -> None:
    if failure is None:
        raise AssertionError(f"{which} got a reply, and no whole one had come")
    if not isinstance(failure, MaybeSent):
        raise AssertionError(f"{which} was sent, and is called not sent") from failure


# ---- what peers do


def _say(reply: bytes, *, ends: bool = False) -> Callable[[Connection], None]:
    """Send this in reply to each request."""

    def serve(connection: Connection) -> None:
        while True:
            connection.read_request()
            connection.send(reply)
            if ends:
                connection.end()

    return serve


def _tls(context: ssl.SSLContext, serve: Callable[[Connection], None]) -> Callable[[Connection], None]:
    def serve_encrypted(connection: Connection) -> None:
        connection.start_tls(context)
        serve(connection)

    return serve_encrypted


@functools.cache
def _contexts(host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what a server for ``host`` has, and what a client has that trusts the authority behind it."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return server, trusting


def _need_an_unanswering_port() -> None:
    if sys.platform != "linux":
        pytest.skip("elsewhere than on Linux there is no way to have a connection that hangs")


# ---- waiting

_What = str | Callable[[], str]


@contextmanager
def _expecting(what: _What) -> Generator[None]:
    """Say this where the test's time is up in here."""
    try:
        yield
    except anyio.get_cancelled_exc_class() as cancelled:
        if anyio.current_effective_deadline() > -math.inf:
            raise  # it is a Ctrl-C
        raise AssertionError(what if isinstance(what, str) else what()) from cancelled  # which says where it waited


async def _all_left(peer: Peer, after: str) -> None:
    """Wait until the transport has closed all its connections to ``peer``."""
    since = anyio.current_time()
    with _expecting(lambda: f"a connection is still open {anyio.current_time() - since:.1f} s after {after}"):
        await peer.all_left()


# ---- cancellation

_Operation = Callable[[], Awaitable[object]]


async def _nothing() -> None:
    pass


class _Cancels(Protocol):
    """Starts an operation and cancels it once it is under way and ``then`` is done; says whether that ended it."""

    async def __call__(self, operation: _Operation, under_way: Signal, then: _Operation = ...) -> bool: ...


def _ways_to_cancel() -> Sequence[_Cancels]:
    """Return what there is on the event loop that runs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return (_cancel_scope,)
    return (_cancel_scope, _cancel_task)


async def _cancel_scope(operation: _Operation, under_way: Signal, then: _Operation = _nothing) -> bool:
    scope, waiting = anyio.CancelScope(), anyio.CancelScope()
    failures: list[Exception] = []

    async def run() -> None:
        try:
            with scope:
                await operation()
        except Exception as error:
            failures.append(error)
        waiting.cancel()

    with _expecting(lambda: _what_cancelling_waits_for(under_way)):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            with waiting:
                await under_way.reached()
            await then()
            scope.cancel()
    if failures:
        raise failures[0]
    return scope.cancelled_caught


async def _cancel_task(operation: _Operation, under_way: Signal, then: _Operation = _nothing) -> bool:
    """As ``asyncio.timeout``, ``wait_for``, a TaskGroup's sibling, and the loop's end do it."""

    async def run() -> None:
        await operation()

    waiting = anyio.CancelScope()
    task = asyncio.create_task(run())
    task.add_done_callback(lambda _: waiting.cancel())
    with _expecting(lambda: _what_cancelling_waits_for(under_way)):
        with waiting:
            await under_way.reached()
        await then()
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return task.cancelled()


def _ways_to_be_cancelled() -> Sequence[Callable[[_Operation], Awaitable[None]]]:
    """Return what runs an operation whose caller was cancelled before."""
    return (_in_cancelled_scope,) if len(_ways_to_cancel()) == 1 else (_in_cancelled_scope, _in_cancelled_task)


async def _in_cancelled_scope(operation: _Operation) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await operation()


async def _in_cancelled_task(operation: _Operation) -> None:
    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.cancel()  # the one that ends the wait is over; this one strikes where the operation first waits
            await operation()

    ending = asyncio.create_task(run())
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.wait([ending])
    if not ending.cancelled():
        ending.result()


def _what_cancelling_waits_for(under_way: Signal) -> str:
    return "it was cancelled, and goes on" if under_way.is_set else f"it never happened: {under_way}"
