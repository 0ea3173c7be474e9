"""Where a request goes, and what a transport adds to it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from oa_protocol.engine.intents import HttpRequest

_URL = re.compile(r"[!-~]+")
_SERVER = re.compile(r"[^/?#]*(?://[^/?#]*)?")


class Origin(NamedTuple):
    """A server. ``authority`` is what a ``host`` field says."""

    scheme: str
    host: str
    port: int
    authority: str

    @classmethod
    def of(cls, url: str) -> Self:
        """Return the origin of a URL. Raises ValueError if it isn't an http or https URL with a host."""
        if not _URL.fullmatch(url):
            raise ValueError("the URL has characters that a URL cannot have")
        server = _SERVER.match(url)
        return cls(*_parts_of(server[0] if server else ""))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@lru_cache(maxsize=64)  # a client sends all its requests to one server
def _parts_of(server: str) -> tuple[str, str, int, str]:
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the URL must be an http or https URL with a host")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname, port, parts.netloc.rpartition("@")[2]


def target_of(request: HttpRequest) -> str:
    """Return the path and the query."""
    return request.target if request.target.startswith("/") else f"/{request.target}"


def fields_of(request: HttpRequest, origin: Origin) -> tuple[tuple[str, str], ...]:
    """Return the header fields, with ``host``, and with ``content-length`` if the request may have a body."""
    fields = (("host", origin.authority), *request.headers)
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        return (*fields, ("content-length", str(len(request.body))))
    return fields
