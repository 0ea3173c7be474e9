"""The transport on httpx, for asyncio and trio; it is the default where nothing faster is installed.

Each conversation has a small connection pool to itself. One pool shared by all is slow with many streams, and under
cancellation it loses connections until no DELETE gets through.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import anyio
import anyio.abc
import httpx

from oa_protocol.engine.errors import MaybeSent
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.transports import KEEP_ALIVE
from oa_protocol.transports._failures import cannot_reach, connection_failed, origin_of, raise_ungrouped, reply_broke
from oa_protocol.transports._proxies import HTTP, SOCKS, check_proxy

NOT_SENT: tuple[type[Exception], ...] = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
    httpx.InvalidURL,
)
"""What httpx raises while nothing of a request has left."""


@cache
def default_ssl_context() -> ssl.SSLContext:
    """Return the one context that all transports share, for making one takes as long as a whole conversation.

    Trusted are the authorities in the files that SSL_CERT_FILE or SSL_CERT_DIR name, else certifi's.
    """
    return httpx.create_ssl_context()


class Body:
    """A request's body. httpx's own is an async generator, of which trio warns where its sending was interrupted."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._left = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._left = self._content
        return self

    async def __anext__(self) -> bytes:
        data, self._left = self._left, b""
        if not data:
            raise StopAsyncIteration
        return data


class _HttpxBody(Body, httpx.AsyncByteStream):
    pass


class HttpxTransport:
    """Sends requests over httpx.

    ``connect_timeout`` is in seconds; ``proxy`` is an http, https or socks5 URL; ``ssl_context`` says whom to trust,
    and None is httpx's choice. Raises ValueError for a proxy that cannot be used.
    """

    # What a library with the same interface has in place of these: see httpx2.py.
    _httpx = httpx
    _not_sent = NOT_SENT
    _make_body: Callable[[bytes], httpx.AsyncByteStream] = _HttpxBody
    _default_ssl_context = staticmethod(default_ssl_context)

    def __init__(
        self,
        *,
        connect_timeout: float | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        # The body's time is the driver's business: it knows what it waits for.
        self._timeout = {"connect": connect_timeout, "pool": connect_timeout, "read": None, "write": None}
        library = self._httpx
        try:
            self._transport = library.AsyncHTTPTransport(
                verify=ssl_context or self._default_ssl_context(),
                proxy=None if proxy is None else check_proxy(proxy, (*HTTP, *SOCKS)),
                trust_env=False,
                limits=library.Limits(keepalive_expiry=KEEP_ALIVE),
            )
        except ImportError as error:
            raise ValueError(f"a socks proxy needs another package: {error}") from error

    async def open(self, request: HttpRequest) -> HttpxResponse:
        """Send the request. Raises NotSent or MaybeSent."""
        connecting = _Connecting()
        try:
            sent = self._httpx.Request(
                request.method,
                request.url,
                headers=list(request.headers),
                content=request.body,
                extensions={"timeout": self._timeout, "trace": connecting.trace},
            )
            sent.stream = self._make_body(request.body)
            response = await self._transport.handle_async_request(sent)
        except self._not_sent as error:
            raise cannot_reach(origin_of(request.url), error) from error
        except self._httpx.TransportError as error:
            raise connection_failed(origin_of(request.url), error) from error
        except BaseExceptionGroup as group:
            await connecting.abandon()
            raise_ungrouped(group)
        except BaseException:
            await connecting.abandon()
            raise
        return HttpxResponse(response, (self._httpx.TransportError, self._httpx.StreamError))

    async def aclose(self) -> None:
        """Close the pool."""
        await self._transport.aclose()


class _Connecting:
    """The connection while its TLS handshake goes on: interrupted in there, httpcore would leave it open for good."""

    def __init__(self) -> None:
        self._stream: anyio.abc.AsyncResource | None = None

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Called by httpcore before and after each thing it does."""
        if event == "connection.connect_tcp.complete":
            self._stream = info["return_value"]
        elif event == "connection.start_tls.complete":
            self._stream = None

    async def abandon(self) -> None:
        """Close what httpcore forgets."""
        if self._stream is not None:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()


class HttpxResponse:
    """A reply of HttpxTransport."""

    def __init__(self, response: httpx.Response, failures: tuple[type[Exception], ...]) -> None:
        self._response = response
        self._failures = failures
        self._chunks: AsyncIterator[bytes] = response.aiter_raw()
        self._is_broken = False

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status_code

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """The header fields."""
        return self._response.headers.multi_items()

    async def receive(self) -> bytes:
        """Return the next bytes. After a cancellation it raises MaybeSent, for httpx has closed the connection."""
        if self._is_broken:
            raise MaybeSent("the reply was broken off before")
        try:
            return await anext(self._chunks, b"")
        except BaseException as error:
            self._is_broken = True
            if isinstance(error, self._failures):
                raise reply_broke(error) from error
            raise

    async def aclose(self) -> None:
        """Let go of the reply."""
        try:
            await self._response.aclose()
        except BaseException:
            # httpcore takes a lock first: a task of asyncio's that is cancelled there closes nothing any more.
            with anyio.CancelScope(shield=True):
                await self._response.extensions["network_stream"].aclose()
            raise
        # The body is a chain of async generators. Closing the outermost leaves the others to the garbage collector,
        # which trio warns of; reading on, with the connection closed, ends them all.
        with suppress(*self._failures):
            while await anext(self._chunks, b""):
                pass
