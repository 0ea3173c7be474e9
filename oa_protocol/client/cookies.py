"""Finding the website API's cookies for a base URL.

They come from a mapping, a Cookie header, a file that a browser or an extension of it wrote (cookies.txt, JSON, HAR),
or a browser's own store. From a file or a store only those are taken that a browser would send to the base URL
(RFC 6265, section 5.4). No error and no repr in this module holds a cookie's value.
"""

import ipaddress
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

import msgspec

from oa_protocol.bindings.base import check_base_url
from oa_protocol.engine.errors import AuthenticationError

MAX_FILE_SIZE = 64 * 1024 * 1024  # bytes; a HAR file holds whole responses

_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"[0-9a-z._:-]{1,253}")
_HOSTS_SHOWN = 8
_EXPIRY = re.compile(r"-?[0-9]*\.?[0-9]*")
_MILLISECONDS = 1e11  # in seconds this is the year 5138, in milliseconds 1973

# RFC 6265 allows less, browsers send more (spaces, quotes, commas in values). What must not pass is what could end
# the cookie or the header line, and what HTTP libraries disagree about how to encode.
_NAME = re.compile(r"[!-+\--:<>-~]+")  # printable ASCII without space , ; =
_VALUE = re.compile(r"[ -:<-~]*")  # printable ASCII without ;


def load_cookies(
    source: Mapping[str, str] | str | os.PathLike[str], base_url: str, *, now: float | None = None
) -> dict[str, str]:
    """Return the cookies for ``base_url``, by name.

    ``source`` is one of these:

    - a mapping, or the value of a Cookie header (``"a=b; c=d"``): all of its cookies are taken;
    - the path of a file: cookies.txt (Netscape), a JSON export of a browser extension, Selenium or Playwright, or a
      HAR file. A string is a path if a file exists there;
    - ``"browser:NAME"``, for example ``"browser:firefox"``: that browser's own store. It needs the extra
      ``oa_protocol[browser]``.

    ``now`` is the Unix time in seconds against which expiry is judged, by default the current one.

    Raises ValueError if the name or the value of a cookie cannot be sent (it names the cookie) or ``base_url`` cannot
    be used, TypeError if a mapping holds anything but str, and AuthenticationError if the source cannot be read or has
    no cookie for ``base_url``.
    """
    if isinstance(source, Mapping):
        return _checked(source.items())
    # os.path, because a long Cookie header makes Path.exists raise OSError.
    if isinstance(source, str) and not os.path.exists(source):  # noqa: PTH110  # as said above
        if source.startswith("browser:"):
            url = _parsed(base_url)
            browser = source.removeprefix("browser:")
            return _sent_to(url, _from_browser(browser, url), f"the cookie store of {browser}", now)
        return _from_header(source)
    return _sent_to(_parsed(base_url), _from_file(Path(source)), f"the cookies file {source}", now)


@dataclass(frozen=True, slots=True)
class Cookie:
    """One cookie of a browser.

    ``domain`` is in lower case and has no leading dot; ``expires`` is a Unix time in seconds, or None for a cookie
    that lasts as long as the browser's session.
    """

    name: str
    value: str = field(repr=False)
    domain: str
    path: str = "/"
    host_only: bool = True
    secure: bool = False
    expires: float | None = None

    def belongs_to(self, host: str) -> bool:
        """Tell whether ``host``, in lower case, domain-matches this cookie (RFC 6265, section 5.1.3)."""
        if self.host_only or _is_ip_address(host):
            return host == self.domain
        return f".{host}".endswith(f".{self.domain}")


class _Pair(msgspec.Struct, frozen=True):
    """A header or a cookie in a HAR file."""

    name: str
    value: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"


class _ExportedCookie(_Pair, frozen=True, rename="camel"):
    """A cookie as EditThisCookie, Cookie-Editor, Selenium (``expiry``) and Playwright (``expires``) write it."""

    domain: str
    path: str = "/"
    host_only: bool | None = None
    secure: bool = False
    session: bool = False
    expiration_date: float | None = None
    expiry: float | None = None
    expires: float | None = None

    def cookie(self) -> Cookie:
        expires = None if self.session else self.expiration_date or self.expiry or self.expires
        return _cookie(self.name, self.value, self.domain, self.path, self.host_only, self.secure, expires)


class _Request(msgspec.Struct, frozen=True):
    url: str
    headers: list[_Pair] = []
    cookies: list[_Pair] = []

    def pairs(self) -> list[tuple[str, str]]:
        # The header is what was sent; browsers may have decoded the values in the list.
        header = "; ".join(header.value for header in self.headers if header.name.lower() == "cookie")
        return list(_header_pairs(header)) or [(cookie.name, cookie.value) for cookie in self.cookies]


class _Entry(msgspec.Struct, frozen=True, rename="camel"):
    started_date_time: Annotated[datetime, msgspec.Meta(tz=True)]
    request: _Request


class _Log(msgspec.Struct, frozen=True):
    entries: list[_Entry]


class _Document(msgspec.Struct, frozen=True):
    """A HAR file (``log``), or a Playwright storage state (``cookies``)."""

    log: _Log | None = None
    cookies: list[_ExportedCookie] | None = None


def _checked(pairs: Iterable[tuple[object, object]]) -> dict[str, str]:
    cookies: dict[str, str] = {}
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"cookie {name!r}: name and value must both be str")
        if not _NAME.fullmatch(name):
            raise ValueError(f"cookie {name!r}: the name is empty or holds a character that cannot be sent")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"cookie {name!r}: its value holds a character that cannot be sent")
        cookies[name] = value
    return cookies


def _parsed(base_url: str) -> SplitResult:
    return urlsplit(check_base_url(base_url))


def _sent_to(url: SplitResult, cookies: Sequence[Cookie], place: str, now: float | None) -> dict[str, str]:
    """Return the cookies that a browser would send to ``url``."""
    now = time.time() if now is None else now
    host = url.hostname or ""
    path = url.path.rstrip("/") + "/"  # every request goes below the base URL
    trustworthy = url.scheme == "https" or host in _LOOPBACK_HOSTS  # browsers send secure cookies to loopback hosts
    of_host = [cookie for cookie in cookies if cookie.belongs_to(host)]
    alive = [cookie for cookie in of_host if cookie.expires is None or cookie.expires > now]
    sent = [
        cookie
        for cookie in alive
        if path.startswith(cookie.path.rstrip("/") + "/") and (trustworthy or not cookie.secure)
    ]
    if sent:
        sent.sort(key=lambda cookie: (len(cookie.path), len(cookie.domain), cookie.host_only))
        found = {cookie.name: cookie.value for cookie in sent}
        # Other programs on this host have cookies too, with whatever in them: they are left out, not refused.
        sendable = {name: value for name, value in found.items() if _NAME.fullmatch(name) and _VALUE.fullmatch(value)}
        return _checked((sendable or found).items())

    log_in = f"Log in to {host} in the browser; a file must then be exported again."
    if alive:
        raise AuthenticationError(
            f"{place} has cookies for {host}, but none that may be sent to {url.scheme}://{host}{path}."
            " Check the base URL: secure cookies need https, and a cookie's path must match."
        )
    if of_host:
        raise AuthenticationError(f"{place} has only expired cookies for {host}. {log_in}")
    raise AuthenticationError(f"{place} has no cookie for {host}{_others(cookies)}. {log_in}")


def _others(cookies: Iterable[Cookie]) -> str:
    # A broken file may have anything, secrets included, in the place of a domain.
    hosts = sorted({cookie.domain for cookie in cookies if _HOST.fullmatch(cookie.domain)})
    more = f" and {len(hosts) - _HOSTS_SHOWN} more" if len(hosts) > _HOSTS_SHOWN else ""
    return f", only for {', '.join(hosts[:_HOSTS_SHOWN])}{more}" if hosts else ""


def _from_header(header: str) -> dict[str, str]:
    # Browsers put the most specific cookie first: of several with one name, it wins.
    cookies = _checked(reversed(list(_header_pairs(header))))
    if not cookies:
        # The text may be a token in the wrong place: it is not repeated.
        raise AuthenticationError(
            "the cookies given are neither the path of an existing file, nor browser:NAME, nor a Cookie header value"
            " (name=value; name=value). Check the path."
        )
    return cookies


def _header_pairs(header: str) -> Iterator[tuple[str, str]]:
    for piece in header.split(";"):
        name, equals, value = piece.partition("=")
        if equals:
            yield name.strip(" \t"), value.strip(" \t")


def _from_file(path: Path) -> list[Cookie]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_SIZE + 1)
    except (OSError, ValueError) as error:
        raise AuthenticationError(f"the cookies file cannot be read: {error}. Check its path.") from error
    if len(content) > MAX_FILE_SIZE:
        raise AuthenticationError(
            f"the cookies file {path} is over {MAX_FILE_SIZE // 1024**2} MiB. Export only the website's own cookies."
        )
    text = content.decode("utf-8-sig", errors="replace")
    try:
        cookies = _from_json(text) if text.lstrip().startswith(("[", "{")) else list(_from_netscape(text))
    except (ValueError, RecursionError) as error:
        raise AuthenticationError(
            f"the cookies file {path} cannot be parsed: {error}."
            " It must be cookies.txt (Netscape format), a JSON export, or a HAR file."
        ) from None  # a JSONDecodeError holds the whole document
    if not cookies:
        raise AuthenticationError(
            f"the cookies file {path} holds no cookie at all. Log in in the browser and export its cookies again"
            " (Chrome leaves them out of a HAR file unless it is exported with sensitive data)."
        )
    return cookies


def _from_netscape(text: str) -> Iterator[Cookie]:
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.rstrip("\r").removeprefix("#HttpOnly_").split("\t", 6)
        if not line.strip() or fields[0].startswith("#"):
            continue
        if len(fields) == 6:  # an editor took the tab before an empty value
            fields.append("")
        if len(fields) != 7 or not _EXPIRY.fullmatch(fields[4]):
            raise ValueError(f"line {number} is not a cookie, which has seven fields with tabs between them")
        domain, subdomains, path, secure, expires, name, value = fields
        yield _cookie(name, value, domain, path, subdomains != "TRUE", secure == "TRUE", float(expires or 0))


def _from_json(text: str) -> list[Cookie]:
    # Not msgspec.json, which refuses the lone surrogates that a HAR file has where a body was cut.
    document: list[_ExportedCookie] | _Document = msgspec.convert(json.loads(text), list[_ExportedCookie] | _Document)
    match document:
        case list():
            return [exported.cookie() for exported in document]
        case _Document(log=_Log(entries=entries)):
            return _from_har(entries)
        case _Document(cookies=list(exports)):
            return [exported.cookie() for exported in exports]
        case _:
            raise ValueError("its JSON holds neither `log` nor `cookies`")


def _from_har(entries: Iterable[_Entry]) -> list[Cookie]:
    """Return the cookies of each host's newest request that had any."""
    newest: dict[str, list[Cookie]] = {}
    for entry in sorted(entries, key=lambda entry: entry.started_date_time):
        try:
            url = urlsplit(entry.request.url)
        except ValueError:
            continue
        # Reversed, because the most specific cookie comes first and the last one wins.
        pairs = reversed(entry.request.pairs())
        host, secure = url.hostname or "", url.scheme in {"https", "wss"}
        if cookies := [_cookie(name, value, host, "/", True, secure) for name, value in pairs]:
            newest[host] = cookies
    return [cookie for cookies in newest.values() for cookie in cookies]


def _from_browser(browser: str, url: SplitResult) -> list[Cookie]:
    try:
        browser_cookie3 = import_module("browser_cookie3")
    except ImportError as error:
        raise AuthenticationError(
            "reading a browser's cookies needs an extra: pip install 'oa_protocol[browser]'"
        ) from error
    readers = {reader.__name__: reader for reader in browser_cookie3.all_browsers}
    if browser not in readers:
        raise AuthenticationError(f"browser:NAME needs one of these names: {', '.join(sorted(readers))}")
    host = url.hostname or ""
    # It filters by substring, and a parent domain's cookies are wanted too; other sites' need not be decrypted.
    filter_by = host if _is_ip_address(host) else ".".join(host.split(".")[-2:])
    problem = f"the cookie store of {browser} cannot be read"
    remedy = "Export its cookies to a file instead, and give the file's path."
    try:
        jar = list(readers[browser](domain_name=filter_by))
    except (browser_cookie3.BrowserCookieError, OSError) as error:
        raise AuthenticationError(f"{problem}: {error}. {remedy}") from error
    except Exception as error:  # it lets those of its decoders and key rings through, and their text could be anything
        raise AuthenticationError(f"{problem} ({type(error).__name__}). {remedy}") from None
    return [_cookie(c.name, c.value or "", c.domain, c.path, None, bool(c.secure), c.expires) for c in jar]


def _cookie(
    name: str,
    value: str,
    domain: str,
    path: str,
    host_only: bool | None,
    secure: bool,
    expires: float | None = None,
) -> Cookie:
    """Return the cookie with what the sources write differently made equal."""
    if host_only is None:
        host_only = not domain.startswith(".")
    if expires is not None and expires <= 0:  # how files write that it lasts for the session
        expires = None
    if expires is not None and expires > _MILLISECONDS:  # Firefox 142 and later
        expires /= 1000
    return Cookie(name, value, domain.lower().strip(".[]"), path, host_only, secure, expires)


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
