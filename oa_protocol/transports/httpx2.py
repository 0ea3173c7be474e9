"""The transport on httpx2's core, for asyncio and trio. httpx2 is httpx's successor, and has the same interface."""

from __future__ import annotations

import ssl
from functools import cache

import httpcore2
import httpx2

from oa_protocol.transports.httpx import HttpxTransport, make_ssl_context


@cache
def default_ssl_context() -> ssl.SSLContext:
    """Return the context that all transports share. It trusts the authorities that the system trusts."""
    return make_ssl_context(httpx2.create_ssl_context)


class Httpx2Transport(HttpxTransport):
    """Sends requests over httpx2's core.

    Args:
        connect_timeout: how long connecting may take, in seconds. By default there is no limit.
        proxy: the URL of an http, https or socks5 proxy.
        ssl_context: which certificates to trust. By default it is httpx2's choice.

    Raises:
        ValueError: the proxy can't be used.

    """

    _core = httpcore2
    _default_ssl_context = staticmethod(default_ssl_context)
