"""The transport on httpx, for asyncio and trio. It is the default if httptools isn't installed.

Each conversation has its own connection pool. A shared pool is slow with many streams. Under cancellation, it
loses connections until no DELETE gets through.

Each request has its own connection, because httpx doesn't say whether more has come than the reply. If the
connection were used again, httpx would read the rest as the next reply, and a DELETE that was refused would look
confirmed.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from types import ModuleType
from typing import Any, cast

import anyio
import anyio.abc
import httpx

from oa_protocol.engine.errors import MaybeSent, NotSent
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.transports._failures import (
    NO_REPLY,
    cannot_reach,
    connection_failed,
    origin_of,
    raise_ungrouped,
    reply_broke,
    through,
    words_of,
)
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
"""The errors that httpx raises only if nothing of a request has left."""


@cache
def default_ssl_context() -> ssl.SSLContext:
    """Return the context that all transports share, because making one takes as long as a whole conversation.

    It trusts the authorities in the files that ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` name, or else those of certifi.
    Raises NotSent if they can't be read.
    """
    return make_ssl_context(httpx.create_ssl_context)


def make_ssl_context(create: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Call ``create``. If its certificates can't be read, raise NotSent, which names the file."""
    try:
        return create()
    except OSError as error:
        named = os.environ.get("SSL_CERT_FILE")
        which = f"SSL_CERT_FILE names, {named}," if named else "come with the HTTP library"
        raise NotSent(f"the certificates that {which} cannot be read: {words_of(error)}") from error


class Body:
    """A request's body. httpx's own is an async generator. If its sending is interrupted, trio warns about that."""

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

    Args:
        connect_timeout: how long connecting may take, in seconds. By default there is no limit.
        proxy: the URL of an http, https or socks5 proxy.
        ssl_context: which certificates to trust. By default it is httpx's choice.

    Raises:
        ValueError: the proxy can't be used.

    """

    # httpx2.py replaces these, because httpx2 has the same interface.
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
        # Only connecting has a timeout. The driver bounds everything else.
        self._timeout = {"connect": connect_timeout, "pool": connect_timeout, "read": None, "write": None}
        proxy = None if proxy is None else check_proxy(proxy, (*HTTP, *SOCKS))
        self._through = through(proxy)
        self._has_http_proxy = has_http(proxy)
        library = self._httpx
        try:
            self._transport = library.AsyncHTTPTransport(
                verify=ssl_context or self._default_ssl_context(),
                proxy=proxy,
                trust_env=False,
                limits=library.Limits(max_keepalive_connections=0),
            )
        except ImportError as error:
            raise ValueError(f"a socks proxy needs another package: {error}") from error

    async def open(self, request: HttpRequest) -> HttpxResponse:
        """Send the request, and return once the reply's head is there. Raises NotSent or MaybeSent."""
        route = origin_of(request.url) + self._through
        connecting = _Connecting()
        try:
            sent = build_request(self._httpx, request, has_http_proxy=self._has_http_proxy)
            sent.extensions = {"timeout": self._timeout, "trace": connecting.trace}
            sent.stream = self._make_body(request.body)
            response = await self._transport.handle_async_request(sent)
        except self._not_sent as error:
            raise cannot_reach(route, error) from error
        except (self._httpx.TransportError, ssl.SSLError) as error:  # on asyncio, httpx lets TLS errors through
            raise connection_failed(route, error) from error
        except BaseExceptionGroup as group:
            await connecting.abandon()
            raise_ungrouped(group)
        except BaseException:
            await connecting.abandon()
            raise
        reply = HttpxResponse(response, (self._httpx.TransportError, self._httpx.StreamError, ssl.SSLError))
        if not is_final(response):
            await reply.aclose()
            raise MaybeSent(f"the connection to {route} failed: {NO_REPLY}")
        return reply

    async def aclose(self) -> None:
        """Close the pool."""
        await self._transport.aclose()


class _BracketedUrl(httpx.URL):
    """A URL whose ``raw_host`` is an IPv6 address in brackets, as it is written in a request."""

    @property
    def raw_host(self) -> bytes:
        """The host in brackets."""
        return b"[%b]" % super().raw_host


def has_http(proxy: str | None) -> bool:
    """Return whether there is a proxy, and it speaks HTTP."""
    return proxy is not None and proxy.startswith(HTTP)


def build_request(library: ModuleType, request: HttpRequest, *, has_http_proxy: bool) -> httpx.Request:
    """Return the request in httpx's form.

    httpcore copies the URL's host into the request to an HTTP proxy, so an IPv6 address must have its brackets there.
    """
    sent: httpx.Request = library.Request(
        request.method, request.url, headers=list(request.headers), content=request.body
    )
    if has_http_proxy and ":" in sent.url.host:
        sent.url = _BracketedUrl(request.url)
    return sent


def is_final(response: httpx.Response) -> bool:
    """Return whether this is a final reply of HTTP/1. httpx accepts interim replies, and every version."""
    return response.extensions["http_version"].startswith(b"HTTP/1.") and response.status_code >= HTTPStatus.OK


def without_brackets(event: str, info: Mapping[str, Any]) -> None:
    """Take the brackets off an IPv6 address again before TLS begins, because certificates have none."""
    if event == "proxy.start_tls.started":
        cast("dict[str, Any]", info)["server_hostname"] = info["server_hostname"].strip("[]")


class _Connecting:
    """The connection during its TLS handshake. If it is cancelled in there, httpcore leaves the connection open."""

    def __init__(self) -> None:
        self._stream: anyio.abc.AsyncResource | None = None

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Note the connection. httpcore calls this before and after each of its steps."""
        without_brackets(event, info)
        if event == "connection.connect_tcp.complete":
            self._stream = info["return_value"]
        elif event == "connection.start_tls.complete":
            self._stream = None

    async def abandon(self) -> None:
        """Close the connection that httpcore has left open, if there is one."""
        if self._stream is not None:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()


class HttpxResponse:
    """A reply of ``HttpxTransport``."""

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
        """Return the next bytes of the body.

        If a call is cancelled, httpx closes the connection, so the next call raises MaybeSent.
        """
        if self._is_broken:
            raise MaybeSent("the reply broke off in an earlier call")
        try:
            return await anext(self._chunks, b"")
        except BaseException as error:
            self._is_broken = True
            if isinstance(error, self._failures):
                raise reply_broke(error) from error
            raise

    async def aclose(self) -> None:
        """Release the reply, and close its connection."""
        try:
            await self._response.aclose()
        except BaseException:
            # httpcore first takes a lock. If an asyncio task is cancelled while it waits there, httpcore closes
            # nothing.
            with anyio.CancelScope(shield=True):
                await self._response.extensions["network_stream"].aclose()
            raise
        # The body is a chain of async generators. Closing the outermost one would leave the others to the garbage
        # collector, and trio warns about that. Reading on, with the connection closed, ends all of them.
        with suppress(*self._failures):
            while await anext(self._chunks, b""):
                pass
