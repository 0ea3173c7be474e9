"""Checks the URL of a proxy, and finds out for which servers the environment wants no proxy."""

from __future__ import annotations

import re
from contextlib import suppress
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from urllib.parse import quote, unquote_to_bytes

HTTP = ("http", "https")
SOCKS = ("socks5", "socks5h")

_URL = re.compile(
    r"(?P<scheme>[a-z0-9]+)://(?:(?P<user>[^:/?#]*)(?::(?P<password>[^/?#]*))?@)?"
    r"(?P<host>\[[0-9a-f:.]+\]|[\w.~-]+)(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII | re.IGNORECASE,
)
_PRINTABLE = re.compile(r"[!-~]+")
_WITH_PORT = re.compile(r"(?P<host>\[.*\]|[^:]*):(?P<port>[0-9]{1,5})")


def check_proxy(proxy: str, schemes: tuple[str, ...]) -> str:
    """Return the URL of a proxy with its user and password percent-encoded, so that every library reads it alike.

    Raises:
        ValueError: it isn't the URL of a proxy, or its scheme isn't one of ``schemes``. A ``#`` or a ``/`` in a
            password is refused, too, because it would cut the URL, and name another proxy. The error doesn't repeat the
            URL, because the password may be anywhere in it.

    """
    parts = _URL.fullmatch(proxy)
    if (
        parts is None
        or not _PRINTABLE.fullmatch(proxy)
        or not _is_host(parts["host"])
        or int(parts["port"] or 1) not in range(1, 65536)
    ):
        raise ValueError(
            "proxy must be a URL such as http://user:password@host:port. Percent-encode everything in the user and the"
            " password that isn't a letter or a digit (# is %23, / is %2F)"
        )
    scheme = parts["scheme"].lower()
    if scheme not in schemes:
        raise ValueError(f"proxy must be a URL that begins with one of {', '.join(f'{s}://' for s in schemes)}")
    shown = ":".join(
        quote(unquote_to_bytes(part), safe="") for part in parts.group("user", "password") if part is not None
    )
    port = f":{parts['port']}" if parts["port"] else ""
    return f"{scheme}://{shown}{'@' if shown else ''}{parts['host'].lower()}{port}"


def _is_host(host: str) -> bool:
    if not host.startswith("[") and not host.rpartition(".")[2].isdigit():
        return True  # a name
    try:
        return ip_address(host.strip("[]")).version == (6 if host.startswith("[") else 4)
    except ValueError:
        return False


def is_excepted(host: str, port: int, no_proxy: str) -> bool:
    """Return whether ``NO_PROXY`` names this server.

    Its entries are names, which include the hosts below them, addresses, networks (``10.0.0.0/8``) and patterns
    (``*.corp``). Each may have a port. They are separated by commas or spaces.
    """
    return any(_names(entry, host, port) for entry in re.split(r"[,\s]+", no_proxy.lower()))


def _names(entry: str, host: str, port: int) -> bool:
    if with_port := _WITH_PORT.fullmatch(entry):
        if int(with_port["port"]) != port:
            return False
        entry = with_port["host"]
    entry, host = entry.replace("[", "").replace("]", "").rstrip("."), host.rstrip(".")
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:  # the host or the entry is a name
        entry = ".".join(map(_ascii, entry.split(".")))
        name = entry.lstrip(".")
        return bool(name) and (fnmatchcase(host, entry) or f".{host}".endswith(f".{name}"))


def _ascii(label: str) -> str:
    """Return a part of a host's name as it is in a base URL."""
    if label.isascii():
        return label
    import idna  # its tables take a while to load

    with suppress(UnicodeError):  # it is the name of no host
        label = idna.encode(label, uts46=True).decode()
    return label
