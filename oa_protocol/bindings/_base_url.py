"""The normal form of a server's URL. The whole package uses this form, so that URLs can be compared."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, unquote, urlsplit

_NOT_IN_URLS = frozenset(' "<>\\^`{|}')
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(:[0-9]*)?")
_REGISTERED_NAME = re.compile(r"[a-z0-9._~!$&'()*+,;=-]+")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_base_url(base_url: str) -> str:
    """Return ``base_url`` in its normal form (RFC 3986, section 6.2.2 and 6.2.3), without a slash at its end.

    In this form, the scheme and the host are in lower case, and an international name is in its ASCII form (UTS #46, as
    in browsers). There is no default port, no dot segment, and no percent escape that isn't needed.

    Raises:
        ValueError: the text isn't an http or https URL with a host, or it has a query, a fragment or credentials. The
            message doesn't contain the text, because it may contain a secret.

    """
    if "@" in base_url:
        raise ValueError("base_url must have no credentials in it; give them as cookies= or token=")
    if "?" in base_url or "#" in base_url:
        raise ValueError("base_url must have no query and no fragment")
    if any(char in _NOT_IN_URLS or not (char.isprintable() or char in "\u200c\u200d") for char in base_url):
        raise ValueError("base_url has characters that a URL cannot have")
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:  # This error contains a part of the URL, which may be a secret, so it isn't passed on.
        raise ValueError("base_url is not a URL: its host or its port can't be read") from None
    if parts.scheme not in _DEFAULT_PORTS or not _HOST_AND_PORT.fullmatch(parts.netloc):
        raise ValueError("base_url must be an http or https URL with a host")
    if not parts.path.isascii():
        raise ValueError("base_url has characters in its path that a URL cannot have: percent-encode them")
    shown = "" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{_host(parts)}{shown}{_path(parts.path)}"


def _host(parts: SplitResult) -> str:
    name = parts.hostname or ""
    try:
        if parts.netloc.startswith("["):
            return f"[{ipaddress.IPv6Address(name).compressed}]"
        name = ".".join(_ascii(label) for label in unquote(name, errors="strict").lower().split("."))
    except ValueError:
        raise ValueError("base_url has no valid host") from None
    if not _REGISTERED_NAME.fullmatch(name):
        raise ValueError("base_url has characters in its host that a host's name cannot have")
    return name


def _ascii(label: str) -> str:
    if label.isascii():  # Keep it even if it isn't a DNS name, for example a container's name with an underscore.
        return label
    import idna  # It is imported only here, because its tables take a while to load.

    return idna.encode(label, uts46=True).decode()


def _path(path: str) -> str:
    segments: list[str] = []
    for segment in _ESCAPE.sub(_unescaped, path).split("/")[1:]:
        if segment == "..":
            del segments[-1:]
        elif segment != ".":
            segments.append(segment)
    return "/".join(["", *segments]).rstrip("/")


def _unescaped(escape: re.Match[str]) -> str:
    char = unquote(escape[0])
    return char if _UNRESERVED.fullmatch(char) else escape[0].upper()
