"""The fast transport, for asyncio and trio. It uses anyio's sockets, and reads replies with httptools (Node's parser).

Here is the way of a request, and what a failure of each step raises::

    open     write the request ─► take an idle connection, or connect ─► send ─► read the head
             NotSent              NotSent                                MaybeSent
    receive  read the body                                               MaybeSent
    aclose   keep the connection as idle if the reply was read to its end, otherwise close it

The driver of a conversation sends one request after the other. So there are at most two connections: the one of a
stream, and the one of the exchange beside it.
"""

from __future__ import annotations

import base64
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from oa_protocol.engine.errors import NotSent
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.transports import KEEP_ALIVE
from oa_protocol.transports._body import BROKEN, SocketResponse
from oa_protocol.transports._failures import cannot_reach, connection_failed, raise_ungrouped, through
from oa_protocol.transports._origin import Origin, fields_of, target_of
from oa_protocol.transports._proxies import HTTP, check_proxy
from oa_protocol.transports.fast._reply import Reply
from oa_protocol.transports.fast.sockets import close, connect, is_silent

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(r"[\t -~\x80-\xff]*")


class HttptoolsTransport:
    """Sends requests over its own sockets.

    Args:
        connect_timeout: how long connecting may take, in seconds, handshakes included. By default there is no limit.
        proxy: the URL of an http or https proxy.
        ssl_context: which certificates to trust. By default it is httpx's choice.

    Raises:
        ValueError: the proxy can't be used.

    """

    def __init__(
        self,
        *,
        connect_timeout: float | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._connect_timeout = connect_timeout
        self._proxy = None if proxy is None else _Proxy.of(proxy)
        self._through = through(proxy)
        self._ssl_context = ssl_context
        self._connections: list[_Connection] = []

    async def open(self, request: HttpRequest) -> HttptoolsResponse:
        """Send the request, and return once the reply's head is there. Raises NotSent or MaybeSent."""
        try:
            origin = Origin.of(request.url)
            message = _spell(request, origin, self._proxy)
        except ValueError as error:
            raise NotSent(f"cannot send the request: {error}") from error
        route = f"{origin}{self._through}"
        response = HttptoolsResponse(await self._idle_connection(origin) or await self._connect(origin, route))
        try:
            await response.begin(message)
        except BaseException:
            await response.aclose()
            raise
        return response

    async def aclose(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            await connection.aclose()
        self._connections.clear()

    async def _idle_connection(self, origin: Origin) -> _Connection | None:
        self._connections = [connection for connection in self._connections if not connection.is_closed]
        for connection in self._connections:
            if connection.idle_until is None:
                continue
            if connection.origin == origin and connection.is_fit:
                connection.idle_until = None
                return connection
            await connection.aclose()
        return None

    async def _connect(self, origin: Origin, route: str) -> _Connection:
        try:
            connection = None
            with anyio.move_on_after(self._connect_timeout):
                connection = _Connection(origin, route, *await self._reach(origin))
            if connection is None:
                raise TimeoutError
        except (*BROKEN, ValueError) as error:
            raise cannot_reach(route, error) from error
        except BaseExceptionGroup as group:
            raise_ungrouped(group)
        self._connections.append(connection)
        return connection

    async def _reach(self, origin: Origin) -> tuple[ByteStream, ByteStream]:
        """Connect to the server, or to its proxy. Return the socket, and the stream, which may be encrypted."""
        proxy = self._proxy
        peer = origin if proxy is None else proxy.origin
        socket = stream = await connect(peer.host, peer.port)
        try:
            if peer.scheme == "https":
                stream = await self._encrypt(stream, peer)
            if proxy is not None and origin.scheme == "https":
                await _open_tunnel(stream, origin, proxy)
                stream = await self._encrypt(stream, origin)
        except BaseException:
            await close(socket)
            raise
        return socket, stream

    async def _encrypt(self, stream: ByteStream, peer: Origin) -> ByteStream:
        if self._ssl_context is None:
            from oa_protocol.transports.httpx import default_ssl_context  # importing httpx takes long

            self._ssl_context = default_ssl_context()
        # HTTP itself says where a body ends, and hardly any server sends a TLS close notice.
        return await TLSStream.wrap(
            stream, hostname=peer.host, ssl_context=self._ssl_context, standard_compatible=False, server_side=False
        )


class HttptoolsResponse(SocketResponse):
    """A reply of ``HttptoolsTransport``."""

    _reply: Reply

    def __init__(self, connection: _Connection) -> None:
        super().__init__(connection.stream, Reply())
        self._connection = connection
        self._is_closed = False

    async def begin(self, message: bytes) -> None:
        """Send the request, and return once the reply's head is there. Raises MaybeSent."""
        # A server may refuse a request, and close the connection, before it has read all of it.
        with suppress(*BROKEN):
            await self._connection.stream.send(message)
        try:
            while not self._reply.status:
                await self._read()
        except BROKEN as error:
            raise connection_failed(self._connection.route, error) from error

    async def aclose(self) -> None:
        """Release the reply. Its connection is kept for the next request if it is usable, and otherwise closed."""
        if self._is_closed:
            return
        self._is_closed = True
        self._reply.close()
        if self._reply.leaves_connection_usable:
            self._connection.idle_until = anyio.current_time() + KEEP_ALIVE
        else:
            await self._connection.aclose()


class _Connection:
    """A connection. One reply uses it, or it is idle, or it is closed.

    Attributes:
        idle_until: until when an idle connection may be used, by the event loop's clock. None if it isn't idle.

    """

    def __init__(self, origin: Origin, route: str, socket: ByteStream, stream: ByteStream) -> None:
        self.origin = origin
        self.route = route
        self.stream = stream
        self.idle_until: float | None = None
        self.is_closed = False
        self._socket = socket  # what an encrypted stream is on top of; closing it doesn't wait for the server

    @property
    def is_fit(self) -> bool:
        """Whether an idle connection is reusable. If anything has come over it, it was closed, or is out of sync."""
        return self.idle_until is not None and anyio.current_time() < self.idle_until and is_silent(self.stream)

    async def aclose(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            await close(self._socket)


@dataclass(frozen=True, slots=True)
class _Proxy:
    """An HTTP proxy. It forwards requests to http servers, and opens tunnels to https servers."""

    origin: Origin
    headers: tuple[tuple[str, str], ...] = field(repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """Return the proxy at a URL. Raises ValueError if it can't be used."""
        url = check_proxy(url, HTTP)
        origin, parts = Origin.of(url), urlsplit(url)
        if parts.username is None:
            return cls(origin, ())
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return cls(origin, (("proxy-authorization", f"Basic {base64.b64encode(user.encode()).decode()}"),))


async def _open_tunnel(stream: ByteStream, origin: Origin, proxy: _Proxy) -> None:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}"
    await stream.send(_spell_head("CONNECT", target, (("host", target), *proxy.headers)))
    reply = Reply()
    while not reply.status and not reply.fault:
        reply.feed(await stream.receive())
    if not 200 <= reply.status < 300:
        raise NotSent(f"the proxy {proxy.origin} opens no tunnel to {origin}: {reply.fault or reply.status}")


def _spell(request: HttpRequest, origin: Origin, proxy: _Proxy | None) -> bytes:
    target, headers = target_of(request), fields_of(request, origin)
    if proxy is not None and origin.scheme == "http":
        target = f"{origin}{target}"
        headers = (*headers, *proxy.headers)
    return _spell_head(request.method, target, headers) + request.body


def _spell_head(method: str, target: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return a request's head. Raises ValueError for characters that would make another request of it."""
    if not _TOKEN.fullmatch(method):
        raise ValueError("the method has characters that a method cannot have")
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
            raise ValueError(f"the header {name!r} has characters that a header cannot have")
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode("latin-1")
