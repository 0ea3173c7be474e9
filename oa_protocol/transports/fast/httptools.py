"""The fast transport: anyio's sockets, on asyncio and trio, and httptools to read replies (Node.js's parser).

The way of a request, and what a failure there means::

    open     spell the request ─► take an idle connection, or connect ─► send ─► read the head
             NotSent              NotSent                                MaybeSent
    receive  read the body                                               MaybeSent
    aclose   the connection is idle now, where the reply was read to its end; else it is closed

The driver of a conversation sends one request after the other, so there are two connections at most: a stream's, and
the one beside it.
"""

from __future__ import annotations

import base64
import re
import ssl
from dataclasses import dataclass, field
from typing import NamedTuple, Self
from urllib.parse import unquote, urlsplit

import anyio
import httptools
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from oa_protocol.engine.errors import NotSent
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.transports import KEEP_ALIVE
from oa_protocol.transports._failures import cannot_reach, connection_failed, raise_ungrouped, reply_broke, words_of
from oa_protocol.transports._proxies import HTTP, check_proxy
from oa_protocol.transports.fast.sockets import connect, is_silent

_LONGEST_HEAD = 64 * 1024

_BROKEN = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)

_URL = re.compile(r"[!-~]+")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(r"[\t -~\x80-\xff]*")


class HttptoolsTransport:
    """Sends requests over its own sockets.

    ``connect_timeout`` is in seconds, and for the handshakes, too; ``proxy`` is an http or https URL; ``ssl_context``
    says whom to trust, and None is httpx's choice. Raises ValueError for a proxy that cannot be used.
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
        self._ssl_context = ssl_context
        self._connections: list[_Connection] = []

    async def open(self, request: HttpRequest) -> HttptoolsResponse:
        """Send the request. Raises NotSent or MaybeSent."""
        try:
            origin = _Origin.of(request.url)
            message = _spell(request, origin, self._proxy)
        except ValueError as error:
            raise NotSent(f"cannot send the request: {error}") from error
        response = HttptoolsResponse(await self._idle_connection(origin) or await self._connect(origin))
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

    async def _idle_connection(self, origin: _Origin) -> _Connection | None:
        self._connections = [connection for connection in self._connections if not connection.is_closed]
        for connection in self._connections:
            if connection.idle_until is None:
                continue
            if connection.origin == origin and connection.is_fit:
                connection.idle_until = None
                return connection
            await connection.aclose()
        return None

    async def _connect(self, origin: _Origin) -> _Connection:
        try:
            with anyio.fail_after(self._connect_timeout):
                connection = await self._reach(origin)
        except (*_BROKEN, ValueError) as error:
            raise cannot_reach(origin, error) from error
        except BaseExceptionGroup as group:
            raise_ungrouped(group)
        self._connections.append(connection)
        return connection

    async def _reach(self, origin: _Origin) -> _Connection:
        """Connect to the server, or to the proxy that takes the requests for it."""
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
            await _close(socket)
            raise
        return _Connection(origin, socket, stream)

    async def _encrypt(self, stream: ByteStream, peer: _Origin) -> ByteStream:
        if self._ssl_context is None:
            from oa_protocol.transports.httpx import default_ssl_context  # httpx takes its time to import

            self._ssl_context = default_ssl_context()
        # HTTP says itself where a body ends; hardly a server says goodbye in TLS.
        return await TLSStream.wrap(
            stream, hostname=peer.host, ssl_context=self._ssl_context, standard_compatible=False, server_side=False
        )


class HttptoolsResponse:
    """A reply of HttptoolsTransport."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._reply = _Reply()
        self._is_closed = False

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._reply.status

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The header fields."""
        return self._reply.headers

    async def begin(self, message: bytes) -> None:
        """Send the request, and return once the reply's head is there. Raises MaybeSent."""
        try:
            await self._connection.stream.send(message)
            while not self._reply.status:
                await self._read()
        except _BROKEN as error:
            raise connection_failed(self._connection.origin, error) from error

    async def receive(self) -> bytes:
        """Return the next bytes. After a cancellation it goes on where it was."""
        reply = self._reply
        while not (data := reply.take_body()) and not reply.is_complete:
            try:
                await self._read()
            except _BROKEN as error:
                raise reply_broke(error) from error
        return data

    async def _read(self) -> None:
        if self._reply.fault:
            raise OSError(self._reply.fault)
        try:
            data = await self._connection.stream.receive()
        except anyio.EndOfStream:
            self._reply.feed_end()
        except _BROKEN as error:
            self._reply.fault = words_of(error)  # some sockets would tell it once, and then a clean end
            raise
        else:
            self._reply.feed(data)

    async def aclose(self) -> None:
        """Let go of the reply."""
        if self._is_closed:
            return
        self._is_closed = True
        self._reply.close()
        if self._reply.leaves_connection_usable:
            self._connection.idle_until = anyio.current_time() + KEEP_ALIVE
        else:
            await self._connection.aclose()


class _Connection:
    """A connection that is in use by one reply; or idle, until a time of the event loop's clock; or closed."""

    def __init__(self, origin: _Origin, socket: ByteStream, stream: ByteStream) -> None:
        self.origin = origin
        self.stream = stream
        self.idle_until: float | None = None
        self.is_closed = False
        self._socket = socket  # under the stream, where that is encrypted

    @property
    def is_fit(self) -> bool:
        """Whether an idle connection can be used again: what comes over it now is its end, or nothing good."""
        return self.idle_until is not None and anyio.current_time() < self.idle_until and is_silent(self._socket)

    async def aclose(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            await _close(self._socket)


class _Reply:
    """What has arrived of a reply: httptools calls the ``on_`` methods for what it finds in the bytes it is fed.

    Its head is awaited until there is a ``status``; then its body until it ``is_complete``. A ``fault`` ends it early.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.is_complete = False
        self.leaves_connection_usable = False
        self.fault = ""
        self._has_begun = False
        self._says_its_length = False
        self._body: list[bytes] = []
        self._field_bytes = 0
        self._fruitless_bytes = 0
        self._parser = httptools.HttpResponseParser(self)

    def close(self) -> None:
        """Let go of the parser, which holds this one in turn: a cycle, which would wait for the garbage collector."""
        if not self.is_complete:
            self._fail("it was closed")
        del self._parser

    def take_body(self) -> bytes:
        """Return what has arrived of the body since the last call."""
        if not self._body:
            return b""
        data = b"".join(self._body)
        self._body.clear()
        return data

    def feed(self, data: bytes) -> None:
        if not self._has_begun and (start := data.lstrip(b"\r\n")):
            self._has_begun = True
            if not start.startswith(b"H"):  # the parser knows protocols that look like this one
                self._fail("this is no HTTP")
                return
        self._fruitless_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"this is no HTTP: {words_of(error)}")
        if self._fruitless_bytes > _LONGEST_HEAD:
            self._fail(f"no end of a line in {self._fruitless_bytes} bytes")

    def feed_end(self) -> None:
        if self.status and not self._says_its_length:
            self.is_complete = True
        else:
            self._fail("the server closed the connection")

    def _fail(self, fault: str) -> None:
        self.leaves_connection_usable = False
        if not self.is_complete:  # what follows a complete reply is no part of it
            self.fault = self.fault or fault

    def on_message_begin(self) -> None:
        self.leaves_connection_usable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fruitless_bytes = 0
        self._field_bytes += len(name) + len(value) + len(": \r\n")
        if self._field_bytes > _LONGEST_HEAD:
            self._fail(f"the head is longer than {_LONGEST_HEAD} bytes")
        elif not self.status:  # or these are trailers
            self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self._fruitless_bytes = 0
        status = self._parser.get_status_code()
        if self.status:
            return
        if self._parser.get_http_version() not in ("1.0", "1.1") or status < 100:
            self._fail("this is no HTTP/1 status line")
        elif status < 200:
            self.headers.clear()
        else:
            self._begin_body(status)

    def _begin_body(self, status: int) -> None:
        for name, value in self.headers:
            match name.lower():
                case "content-length":
                    self._says_its_length = True
                case "transfer-encoding":
                    self._says_its_length = True
                    if value.strip().lower() != "chunked":
                        self._fail("its transfer coding is not chunked")
                        return
                case _:
                    pass
        self.status = status

    def on_body(self, data: bytes) -> None:
        self._fruitless_bytes = 0
        if not self.is_complete:
            self._body.append(data)

    def on_message_complete(self) -> None:
        if self.status and not self.is_complete:
            self.is_complete = True
            self.leaves_connection_usable = self._parser.should_keep_alive()


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int
    authority: str

    @classmethod
    def of(cls, url: str) -> Self:
        """Raises ValueError where it is no http or https URL with a host."""
        if not _URL.fullmatch(url):
            raise ValueError("the URL has characters that a URL cannot have")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the URL must be an http or https URL with a host")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, parts.hostname, port, parts.netloc.rpartition("@")[2])

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class _Proxy:
    """An HTTP proxy: it forwards requests to http servers, and opens tunnels to https ones."""

    origin: _Origin
    headers: tuple[tuple[str, str], ...] = field(repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """Raises ValueError where it is no URL of a proxy."""
        url = check_proxy(url, HTTP)
        origin, parts = _Origin.of(url), urlsplit(url)
        if parts.username is None:
            return cls(origin, ())
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return cls(origin, (("proxy-authorization", f"Basic {base64.b64encode(user.encode()).decode()}"),))


async def _open_tunnel(stream: ByteStream, origin: _Origin, proxy: _Proxy) -> None:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}"
    await stream.send(_spell_head("CONNECT", target, (("host", target), *proxy.headers)))
    reply = _Reply()
    while not reply.status and not reply.fault:
        reply.feed(await stream.receive())
    if not 200 <= reply.status < 300:
        raise NotSent(f"the proxy {proxy.origin} opens no tunnel to {origin}: {reply.fault or reply.status}")


def _spell(request: HttpRequest, origin: _Origin, proxy: _Proxy | None) -> bytes:
    target = request.target if request.target.startswith("/") else f"/{request.target}"
    headers = (("host", origin.authority), *request.headers)
    if proxy is not None and origin.scheme == "http":
        target = f"{origin}{target}"
        headers = (*headers, *proxy.headers)
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        headers = (*headers, ("content-length", str(len(request.body))))
    return _spell_head(request.method, target, headers) + request.body


def _spell_head(method: str, target: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Raises ValueError for what would break out of its place."""
    if not _TOKEN.fullmatch(method):
        raise ValueError("the method has characters that a method cannot have")
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
            raise ValueError(f"the header {name!r} has characters that a header cannot have")
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode("latin-1")


async def _close(stream: ByteStream) -> None:
    """Close it, also where the caller is cancelled: it waits for nobody."""
    with anyio.CancelScope(shield=True):
        await stream.aclose()
