"""The default transport: httptools if it is installed, otherwise httpx. A socks proxy always needs httpx."""

from __future__ import annotations

import urllib.request
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from oa_protocol.transports import TransportFactory
from oa_protocol.transports._proxies import HTTP, SOCKS, check_proxy, is_excepted

if TYPE_CHECKING:
    from oa_protocol.transports.fast.httptools import HttptoolsTransport
    from oa_protocol.transports.httpx import HttpxTransport


def default_transport_factory(*, connect_timeout: float | None = None, proxy: str | None = None) -> TransportFactory:
    """Return a function that makes transports.

    Args:
        connect_timeout: how long connecting may take, in seconds. By default there is no limit.
        proxy: the URL of a proxy (http, https, socks5 or socks5h). By default the transports connect to the server
            itself. They don't read the environment; ``proxy_of_environment`` does.

    Raises:
        ValueError: the proxy can't be used.

    """
    if proxy is not None:
        proxy = check_proxy(proxy, (*HTTP, *SOCKS))
    make = _transport_class(proxy)
    if proxy is not None:
        make(proxy=proxy)  # so that a missing package for socks is an error now; nothing is connected yet
    return lambda: make(connect_timeout=connect_timeout, proxy=proxy)


def _transport_class(proxy: str | None) -> type[HttptoolsTransport | HttpxTransport]:
    is_socks = proxy is not None and proxy.startswith(SOCKS)
    if find_spec("httptools") is not None and not is_socks:
        from oa_protocol.transports.fast.httptools import HttptoolsTransport

        return HttptoolsTransport
    from oa_protocol.transports.httpx import HttpxTransport

    return HttpxTransport


def proxy_of_environment(base_url: str) -> str | None:
    """Return the proxy that the environment, or the system's settings, name for ``base_url`` at this moment."""
    parts = urlsplit(base_url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    # Both are needed: proxy_bypass also knows the settings of Windows and macOS, but understands little more than names
    # in NO_PROXY.
    if (
        proxy is None
        or is_excepted(parts.hostname or "", port, proxies.get("no", ""))
        or urllib.request.proxy_bypass(parts.netloc)
    ):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
