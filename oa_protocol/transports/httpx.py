"""The transport on httpx's core, httpcore, for asyncio and trio. It is the default if httptools isn't installed.

httpcore connects, through any proxy, sends the request, and reads the reply's head. The body is read here, because a
token would take three times as long through httpcore and httpx.

Each request has its own connection. If cancellation reaches httpcore in the wrong place, it leaves a connection open;
this one is closed here, however the request ended.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from importlib.util import find_spec
from types import ModuleType
from urllib.parse import unquote, urlsplit

import httpcore

from oa_protocol.engine.errors import NotSent
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.transports._failures import (
    NO_REPLY,
    cannot_reach,
    connection_failed,
    through,
    words_of,
)
from oa_protocol.transports._httpcore import Connection, HttpxResponse
from oa_protocol.transports._origin import Origin, fields_of, target_of
from oa_protocol.transports._proxies import HTTP, SOCKS, check_proxy


@cache
def default_ssl_context() -> ssl.SSLContext:
    """Return the context that all transports share, because making one takes as long as a whole conversation.

    It trusts the authorities in the files that ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` name, or else those of certifi.
    Raises NotSent if they can't be read.
    """
    import httpx  # importing it takes long

    return make_ssl_context(httpx.create_ssl_context)


def make_ssl_context(create: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Call ``create``. If its certificates can't be read, raise NotSent, which names the file."""
    try:
        return create()
    except OSError as error:
        named = os.environ.get("SSL_CERT_FILE")
        which = f"SSL_CERT_FILE names, {named}," if named else "come with the HTTP library"
        raise NotSent(f"the certificates that {which} cannot be read: {words_of(error)}") from error


class HttpxTransport:
    """Sends requests over httpx's core.

    Args:
        connect_timeout: how long connecting may take, in seconds. By default there is no limit.
        proxy: the URL of an http, https or socks5 proxy.
        ssl_context: which certificates to trust. By default it is httpx's choice.

    Raises:
        ValueError: the proxy can't be used.

    """

    # httpx2.py replaces these, because httpcore2 has the same interface.
    _core: ModuleType = httpcore
    _default_ssl_context = staticmethod(default_ssl_context)

    def __init__(
        self,
        *,
        connect_timeout: float | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        core = self._core
        proxy = None if proxy is None else check_proxy(proxy, (*HTTP, *SOCKS))
        self._through = through(proxy)
        self._ssl_context = ssl_context
        self._proxy = None if proxy is None else self._core_proxy(proxy)
        # Only connecting has a timeout. The driver bounds everything else.
        self._extensions = {"timeout": {"connect": connect_timeout}}
        self._connections: list[Connection] = []
        # httpcore raises these only if nothing of a request has left.
        self._not_sent = (
            core.ConnectError,
            core.ConnectTimeout,
            core.ProxyError,
            core.UnsupportedProtocol,
            core.LocalProtocolError,
        )
        self._failed = (core.NetworkError, core.ProtocolError, ValueError)

    async def open(self, request: HttpRequest) -> HttpxResponse:
        """Send the request, and return once the reply's head is there. Raises NotSent or MaybeSent."""
        try:
            origin = Origin.of(request.url)
        except ValueError as error:
            raise NotSent(f"cannot send the request: {error}") from error
        route = f"{origin}{self._through}"
        self._connections = [connection for connection in self._connections if not connection.is_closed]
        connection = Connection(self._core)
        self._connections.append(connection)
        try:
            return await self._send(request, origin, connection)
        except BaseException as error:
            await connection.aclose()
            if isinstance(error, self._not_sent):
                raise cannot_reach(route, error) from error
            if isinstance(error, self._failed):
                raise connection_failed(route, error) from error
            raise

    async def _send(self, request: HttpRequest, origin: Origin, connection: Connection) -> HttpxResponse:
        core = self._core
        # In a request to a proxy, an IPv6 address must have its brackets.
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        url = core.URL(scheme=origin.scheme, host=host, port=urlsplit(request.url).port, target=target_of(request))
        headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in fields_of(request, origin)]
        sent = core.Request(request.method, url, headers=headers, content=request.body, extensions=self._extensions)
        # A pool knows how to connect through its proxy. Its own way of sending would only add to the time.
        ssl_context = self._trusted() if origin.scheme == "https" else None
        pool = core.AsyncConnectionPool(ssl_context, self._proxy, network_backend=connection)
        response = await pool.create_connection(url.origin).handle_async_request(sent)
        # h11 accepts every version, and takes the head of another protocol for an interim reply.
        if not response.extensions["http_version"].startswith(b"HTTP/1.") or response.status < HTTPStatus.OK:
            raise ValueError(NO_REPLY)
        return connection.take_reply(response.status, response.headers)

    def _core_proxy(self, url: str) -> httpcore.Proxy:
        parts = urlsplit(url)
        if parts.scheme in SOCKS and find_spec("socksio") is None:
            raise ValueError("a socks proxy needs another package: `pip install 'httpx[socks]'`")
        auth = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
        ssl_context = self._trusted() if parts.scheme == "https" else None
        address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        proxy: httpcore.Proxy = self._core.Proxy(address, auth, ssl_context=ssl_context)
        return proxy

    def _trusted(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = self._default_ssl_context()
        return self._ssl_context

    async def aclose(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            await connection.aclose()
        self._connections.clear()
