"""The transport on httpx's blocking API, in worker threads."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

import httpx

from oa_protocol.engine.errors import MaybeSent
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.transports._failures import NO_REPLY, cannot_reach, connection_failed, origin_of, reply_broke, through
from oa_protocol.transports._proxies import HTTP, SOCKS, check_proxy
from oa_protocol.transports.blocking import BlockingTransport
from oa_protocol.transports.httpx import default_ssl_context

_NOT_SENT: tuple[type[Exception], ...] = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
    httpx.InvalidURL,
)
"""The errors that httpx raises only if nothing of a request has left."""


class BlockingHttpxTransport(BlockingTransport):
    """Sends requests over ``httpx.HTTPTransport``. Each has its own connection, so that it can be interrupted.

    Args:
        connect_timeout: how long connecting may take, in seconds. It also bounds how long a thread may go on after a
            cancellation. By default there is no limit.
        proxy: the URL of an http, https or socks5 proxy.
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
        super().__init__(_Client(connect_timeout, proxy, ssl_context))


class _Client:
    def __init__(self, connect_timeout: float | None, proxy: str | None, ssl_context: ssl.SSLContext | None) -> None:
        proxy = None if proxy is None else check_proxy(proxy, (*HTTP, *SOCKS))
        self.through = through(proxy)
        self.has_http_proxy = _has_http(proxy)
        self.timeout = {"connect": connect_timeout, "pool": None, "read": None, "write": None}
        self.transport = httpx.HTTPTransport(
            verify=ssl_context or default_ssl_context(),
            proxy=proxy,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    def exchange(self, request: HttpRequest) -> _Exchange:
        return _Exchange(self, request)

    def close(self) -> None:
        self.transport.close()


class _Exchange:
    def __init__(self, client: _Client, request: HttpRequest) -> None:
        self._client = client
        self._request = request
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        self._is_interrupted = False
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())
        self.status = 0
        self.headers: Sequence[tuple[str, str]] = ()

    def begin(self) -> None:
        request = self._request
        route = origin_of(request.url) + self._client.through
        try:
            sent = _build_request(request, has_http_proxy=self._client.has_http_proxy)
            sent.extensions = {"timeout": self._client.timeout, "trace": self._trace}
            response = self._client.transport.handle_request(sent)
        except _NOT_SENT as error:
            raise cannot_reach(route, error) from error
        except httpx.TransportError as error:
            raise connection_failed(route, error) from error
        self._response = response
        if not _is_final(response):
            raise MaybeSent(f"the connection to {route} failed: {NO_REPLY}")
        self._chunks = response.iter_raw()
        self.status = response.status_code
        self.headers = response.headers.multi_items()

    def receive(self) -> bytes:
        try:
            return next(self._chunks, b"")
        except (httpx.TransportError, httpx.StreamError) as error:
            raise reply_broke(error) from error

    def interrupt(self) -> None:
        with self._lock:
            self._is_interrupted = True
            self._shut_down()

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        with self._lock:
            if self._handle is not None:
                self._handle.close()

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Keep a duplicate of the socket. httpcore calls this before and after each of its steps.

        TLS replaces the socket by another one. A duplicate belongs to the same connection as both, so shutting it down
        wakes a thread that is blocked in either.
        """
        _without_brackets(event, info)
        if event.endswith("connect_tcp.complete"):
            with self._lock:
                self._handle = info["return_value"].get_extra_info("socket").dup()
                if self._is_interrupted:
                    self._shut_down()

    def _shut_down(self) -> None:
        if self._handle is not None:
            with suppress(OSError):  # the server may have closed the connection already
                self._handle.shutdown(socket.SHUT_RDWR)


class _BracketedUrl(httpx.URL):
    """A URL whose ``raw_host`` is an IPv6 address in brackets, as it is written in a request."""

    @property
    def raw_host(self) -> bytes:
        """The host in brackets."""
        return b"[%b]" % super().raw_host


def _has_http(proxy: str | None) -> bool:
    """Return whether there is a proxy, and it speaks HTTP."""
    return proxy is not None and proxy.startswith(HTTP)


def _build_request(request: HttpRequest, *, has_http_proxy: bool) -> httpx.Request:
    """Return the request in httpx's form.

    httpcore copies the URL's host into the request to an HTTP proxy, so an IPv6 address must have its brackets there.
    """
    sent = httpx.Request(request.method, request.url, headers=list(request.headers), content=request.body)
    if has_http_proxy and ":" in sent.url.host:
        sent.url = _BracketedUrl(request.url)
    return sent


def _is_final(response: httpx.Response) -> bool:
    """Return whether this is a final reply of HTTP/1. httpx accepts interim replies, and every version."""
    return response.extensions["http_version"].startswith(b"HTTP/1.") and response.status_code >= HTTPStatus.OK


def _without_brackets(event: str, info: Mapping[str, Any]) -> None:
    """Take the brackets off an IPv6 address again before TLS begins, because certificates have none."""
    if event == "proxy.start_tls.started":
        cast("dict[str, Any]", info)["server_hostname"] = info["server_hostname"].strip("[]")
