"""The transport on httpx2, httpx's successor with the same interface, for asyncio and trio."""

from __future__ import annotations

import ssl
from functools import cache
from typing import Any, cast

import httpx2

from oa_protocol.transports.httpx import NOT_SENT, Body, HttpxTransport, make_ssl_context


@cache
def default_ssl_context() -> ssl.SSLContext:
    """Return the one context that all transports share. Trusted are the authorities that the system trusts."""
    return make_ssl_context(httpx2.create_ssl_context)


class _Httpx2Body(Body, httpx2.AsyncByteStream):
    pass


class Httpx2Transport(HttpxTransport):
    """Sends requests over httpx2.

    ``connect_timeout`` is in seconds; ``proxy`` is an http, https or socks5 URL; ``ssl_context`` says whom to trust,
    and None is httpx2's choice. Raises ValueError for a proxy that cannot be used.
    """

    _httpx = cast("Any", httpx2)
    _not_sent = tuple(getattr(httpx2, error.__name__) for error in NOT_SENT)
    _make_body = cast("Any", _Httpx2Body)
    _default_ssl_context = staticmethod(default_ssl_context)
