"""Finds the website API's cookies for a base URL.

They come from a mapping, a Cookie header, a file that a browser or one of its extensions wrote (cookies.txt, JSON,
HAR), or a browser's own store. From a file or a store, only the cookies that a browser would send to the website's API
are taken (RFC 6265, section 5.4). No error, log record or repr in this module contains a cookie's value.
"""

import codecs
import ipaddress
import json
import logging
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from oa_protocol.bindings.base import Credentials, check_base_url, is_cookie
from oa_protocol.engine.errors import AuthenticationError

logger = logging.getLogger("oa_protocol")

MAX_FILE_SIZE = 64 * 1024 * 1024  # bytes; a HAR file holds whole responses

_API = "/api/chat"
"""Every request of the website's API goes there or below (OA-1.1)."""

# A broken file may have a secret in a domain's place. So an error names only what looks like a host. Tokens don't.
_HOST = re.compile(r"(?:[0-9a-z_-]{1,63}\.)+(?:[a-z]{2,24}|xn--[0-9a-z-]+)|localhost|[0-9.]{7,15}|[0-9a-f:]{2,39}")
_SHOWN = 8

# A larger Unix time isn't in seconds: this is after the year 9999 in seconds, and in 1978 in milliseconds.
_LATEST = 2.6e11
_CHROME_EPOCH = 11644473600 * 1e6  # Chrome counts microseconds since 1601

# An IPv6 address in brackets may begin a cookies.txt, so it is no JSON.
_JSON = re.compile(r"\s*(?:\{|\[(?![0-9a-f:.]+\]))", re.IGNORECASE)
_TOKEN = re.compile(r"[\w.+/~-]{16,}=+")
_FOREIGN = (
    (b"sqlite format 3", "it is a browser's own database: give browser:NAME, or export the cookies"),
    (b"cook\0", "it is Safari's own cookie store: export the cookies"),
    (b"#lwp-cookies", "it is a cookie jar of libwww-perl: save it with http.cookiejar.MozillaCookieJar"),
    (b"pk\3\4", "it is a ZIP archive: unpack it"),
    (b"\x1f\x8b", "it is compressed with gzip: unpack it"),
    (b"<", "it is an HTML or XML page"),
    (b"curl ", "it is a curl command: give the text of its Cookie header instead of a path"),
    (b"cookie:", "it is a Cookie header: give its text instead of a path"),
)
"""How files begin that are often mistaken for cookies files, in lower case, and what to do with them."""

_LeftOut = list[str]


def load_cookies(
    source: Mapping[str, str] | str | os.PathLike[str], base_url: str, *, now: float | None = None
) -> dict[str, str]:
    """Return the cookies for ``base_url``, by name.

    ``source`` is one of these:

    - a mapping, or the value of a Cookie header (``"a=b; c=d"``). All of its cookies are taken.
    - the path of a file: cookies.txt (Netscape), a JSON export of a browser extension, Selenium or Playwright, or a
      HAR file. A string is a path if a file exists there. What can't be read in it is left out, and logged.
    - ``"browser:NAME"``, for example ``"browser:firefox"``: that browser's own store. It needs the extra
      ``oa_protocol[browser]``.

    Args:
        source: where the cookies are, as above.
        base_url: the server's URL. From a file or a store, only the cookies that a browser would send there are taken.
        now: the time at which the cookies must still be valid, as a Unix time in seconds. By default it is the current
            time.

    Returns:
        The values of the cookies by their names.

    Raises:
        AuthenticationError: the source can't be read, or it has no cookie for ``base_url``.
        ValueError: a cookie's name or value can't be sent, or ``base_url`` can't be used.
        TypeError: a mapping has something in it that isn't a ``str``.

    """
    if isinstance(source, Mapping):
        return _checked(source)
    # os.path is used, because a long Cookie header makes Path.exists raise OSError.
    if isinstance(source, str) and not os.path.exists(source):  # noqa: PTH110  # see above
        if source.startswith("browser:"):
            browser, url = source.removeprefix("browser:"), urlsplit(check_base_url(base_url))
            return _sent_to(url, _from_browser(browser, url), f"the cookie store of {browser}", now)
        return _from_header(source)
    return _sent_to(urlsplit(check_base_url(base_url)), _from_file(Path(source)), f"the cookies file {source}", now)


@dataclass(frozen=True, slots=True)
class Cookie:
    """One cookie of a browser.

    Attributes:
        name: its name.
        value: its value, which is secret.
        domain: the host that it is for, in lower case and without a leading dot.
        path: the path at or below which it is sent.
        host_only: whether it is sent only to ``domain`` itself, and not to hosts below it.
        secure: whether it is sent only over https, or to the local machine.
        expires: a Unix time in seconds, or None if it lasts as long as the browser's session.
        partition: the site on whose pages it is sent, or None if it is sent on all sites' pages.

    """

    name: str
    value: str = field(repr=False)
    domain: str
    path: str = "/"
    host_only: bool = True
    secure: bool = False
    expires: float | None = None
    partition: str | None = None

    def belongs_to(self, host: str) -> bool:
        """Return whether ``host``, in lower case, domain-matches this cookie (RFC 6265, section 5.1.3)."""
        if self.partition is not None and not _is_within(host, self.partition):
            return False
        if self.host_only or _ip_address(host):
            return host == self.domain
        return _is_within(host, self.domain)

    def is_for(self, path: str) -> bool:
        """Return whether ``path`` path-matches this cookie (RFC 6265, section 5.1.4)."""
        return path == self.path or path.startswith(self.path if self.path.endswith("/") else f"{self.path}/")


def _is_within(host: str, domain: str) -> bool:
    return f".{host}".endswith(f".{domain}")


class _ExportedCookie(msgspec.Struct, frozen=True, rename="camel"):
    """A cookie as EditThisCookie, Cookie-Editor, Selenium (``expiry``) and Playwright (``expires``) write it."""

    name: str
    value: str
    domain: str
    path: str | None = "/"
    host_only: bool | None = None
    secure: bool | None = False
    session: bool | None = False
    expiration_date: float | str | None = None
    expiry: float | str | None = None
    expires: float | str | None = None
    partition_key: str | dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"

    def cookie(self) -> Cookie:
        expires = None if self.session else self.expiration_date or self.expiry or self.expires
        key = self.partition_key
        site = key.get("topLevelSite") if isinstance(key, dict) else key
        partition = urlsplit(site).hostname if isinstance(site, str) else None
        return _cookie(
            self.name,
            self.value,
            self.domain,
            self.path or "/",
            self.host_only,
            bool(self.secure),
            expires,
            partition=partition,
        )


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _checked(cookies: Mapping[str, str]) -> dict[str, str]:
    return dict(Credentials(cookies).cookies)


def _sent_to(url: SplitResult, cookies: list[Cookie], place: str, now: float | None) -> dict[str, str]:
    """Return the cookies that a browser would send to the API at ``url``."""
    now = time.time() if now is None else now
    host = _host(url.hostname or "")
    path = url.path.rstrip("/") + _API
    trustworthy = url.scheme == "https" or _is_loopback(host)  # browsers send secure cookies to loopback hosts
    of_host = [cookie for cookie in cookies if cookie.belongs_to(host)]
    alive = [cookie for cookie in of_host if cookie.expires is None or cookie.expires > now]
    sent = [cookie for cookie in alive if cookie.is_for(path) and (trustworthy or not cookie.secure)]
    if sent:
        sent.sort(key=lambda cookie: (len(cookie.path), len(cookie.domain), cookie.host_only))
        found = {cookie.name: cookie.value for cookie in sent}
        # A cookie that can't be sent may belong to another program on this host. It is left out, and isn't an error.
        sendable = {name: value for name, value in found.items() if is_cookie(name, value)}
        _tell_left_out(place, ["a cookie with characters that cannot be sent"] * (len(found) - len(sendable)))
        return _checked(sendable or found)

    log_in = f"Log in to {host} in the browser; a file must then be exported again."
    if alive:
        raise AuthenticationError(
            f"{place} has cookies for {host}, but none that may be sent to {url.scheme}://{host}{path}."
            " Check the base URL: secure cookies need https, and a cookie's path must match."
        )
    if of_host:
        raise AuthenticationError(f"{place} has only expired cookies for {host}. {log_in}")
    raise AuthenticationError(f"{place} has no cookie for {host}{_others(cookies)}. {log_in}")


def _is_loopback(host: str) -> bool:
    address = _ip_address(host)
    return address.is_loopback if address else _is_within(host, "localhost")


def _others(cookies: Iterable[Cookie]) -> str:
    hosts = sorted({cookie.domain for cookie in cookies if _HOST.fullmatch(cookie.domain)})
    return f", only for {_first(hosts, ', ')}" if hosts else ""


def _first(items: list[str], separator: str) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return separator.join(items[:_SHOWN]) + more


def _tell_left_out(place: str, left_out: _LeftOut) -> None:
    if left_out:
        logger.warning("left out what cannot be used in %s: %s", place, _first(left_out, "; "))


def _from_header(header: str) -> dict[str, str]:
    if len(header) > 1 and header[0] == header[-1] and header[0] in "\"'":  # quotes from a shell or an env file
        header = header[1:-1]
    if header[:7].lower() == "cookie:":
        header = header[7:]
    # The text may be a token, or a whole export. So the errors don't repeat it.
    if _is_json(header):
        raise AuthenticationError(
            "the cookies given are JSON, but must be a Cookie header value or a path. Save them in a file, and give"
            " its path."
        )
    pairs = [] if _TOKEN.fullmatch(header) else list(_header_pairs(header))
    if not pairs:
        raise AuthenticationError(
            "the cookies given are neither the path of an existing file, nor browser:NAME, nor a Cookie header value"
            " (name=value; name=value). Check the path."
        )
    # Browsers put the most specific cookie first. If there are several of one name, the first one has to win.
    return _checked(dict(reversed(pairs)))


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), (list, dict))
    except (ValueError, RecursionError):
        return False


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
    text = _text(content)
    left_out: _LeftOut = []
    try:
        cookies = list(_from_json(text, left_out) if _JSON.match(text) else _from_netscape(text, left_out))
    except (ValueError, RecursionError) as error:
        cookies, left_out = [], [str(error)]
    if cookies:
        _tell_left_out(f"the cookies file {path}", left_out)
        return cookies
    if left_out:
        start = content[:100].lstrip().lower()
        what = next((what for begin, what in _FOREIGN if start.startswith(begin)), _first(left_out, "; "))
        # A JSONDecodeError contains the whole document, so it is not chained to this error.
        raise AuthenticationError(
            f"the cookies file {path} cannot be parsed: {what}."
            " It must be cookies.txt (Netscape format), a JSON export, or a HAR file."
        )
    raise AuthenticationError(
        f"the cookies file {path} holds no cookie at all. Log in in the browser and export its cookies again"
        " (Chrome leaves them out of a HAR file unless it is exported with sensitive data)."
    )


def _text(content: bytes) -> str:
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # Windows' shell writes that
    return content.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")


def _from_netscape(text: str, left_out: _LeftOut) -> Iterator[Cookie]:
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        entry = line.removeprefix("#HttpOnly_")
        if not entry.strip() or entry.startswith("#"):
            continue
        # An editor may have replaced the tabs by spaces, or cut off the last tab, which is before an empty value.
        fields = entry.split("\t", 6) if "\t" in entry else entry.split(None, 6)
        if len(fields) == 6:
            fields.append("")
        if len(fields) != 7 or ("\t" not in entry and fields[1].upper() not in ("TRUE", "FALSE")):
            left_out.append(f"line {number} is not a cookie: it needs seven fields with tabs between them")
            continue
        domain, subdomains, path, secure, expires, name, value = fields
        host_only = subdomains.upper() != "TRUE"
        try:
            yield _cookie(name, value, domain, path, host_only, secure.upper() == "TRUE", expires)
        except ValueError as error:
            left_out.append(f"line {number}: {error}")


def _from_json(text: str, left_out: _LeftOut) -> Iterator[Cookie]:
    # msgspec.json can't be used. It refuses lone surrogates, and a HAR file has some if a body was cut.
    document: Any = json.loads(text)
    match document:
        case [*exports]:
            return _exported(exports, left_out)
        case {"log": {"entries": list()}}:
            return _from_har(document["log"]["entries"], left_out)
        case {"cookies": list()}:
            return _exported(document["cookies"], left_out)
        case _:
            raise ValueError("its JSON isn't a list of cookies, and has neither `log` nor `cookies`")


def _exported(exports: list[Any], left_out: _LeftOut) -> Iterator[Cookie]:
    for number, exported in enumerate(exports, 1):
        try:
            yield msgspec.convert(exported, _ExportedCookie, strict=False).cookie()
        except ValueError as error:  # the other entries can still be used
            left_out.append(f"cookie {number}: {error}")


def _from_har(entries: list[Any], left_out: _LeftOut) -> Iterator[Cookie]:
    """Yield the cookies of each host's newest request that had any."""
    from oa_protocol.tape._har_file import read_entries  # imported only here, because few cookies come from HAR files

    newest: dict[str, list[Cookie]] = {}
    for entry in read_entries(entries, left_out):
        request = entry.request
        try:
            url = urlsplit(request.url)
        except ValueError:
            continue
        # The header is preferred, because it is what was sent. The list may have decoded values. It is reversed,
        # because the most specific cookie comes first, and the last one of a name wins.
        pairs = reversed(list(_header_pairs(request.cookie_header)) or request.cookie_list)
        host, secure = url.hostname or "", url.scheme in {"https", "wss"}
        if cookies := [_cookie(name, value, host, "/", True, secure) for name, value in pairs]:
            newest[host] = cookies
    for cookies in newest.values():
        yield from cookies


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
    # browser_cookie3 filters by substring. A parent domain's cookies are needed, too, so the filter is the last two
    # parts of the name. The cookies of other sites are not decrypted.
    filter_by = host if _ip_address(host) else ".".join(host.split(".")[-2:])
    problem = f"the cookie store of {browser} cannot be read"
    remedy = "Export its cookies to a file instead, and give the file's path."
    try:
        jar = list(readers[browser](domain_name=filter_by))
    except (browser_cookie3.BrowserCookieError, OSError) as error:
        raise AuthenticationError(f"{problem}: {error}. {remedy}") from error
    except Exception as error:
        # Errors of its decoders and of key rings come through, too. Their text isn't shown, because it could contain
        # anything.
        raise AuthenticationError(f"{problem} ({type(error).__name__}). {remedy}") from None
    return [_cookie(c.name, c.value or "", c.domain, c.path, None, bool(c.secure), c.expires) for c in jar]


def _cookie(
    name: str,
    value: str,
    domain: str,
    path: str,
    host_only: bool | None,
    secure: bool,
    expires: float | str | None = None,
    *,
    partition: str | None = None,
) -> Cookie:
    """Return the cookie in one form, because the sources write it differently. Raises ValueError for a bad expiry."""
    if name.startswith("__Host-"):  # browsers send such a cookie to one host only, even if an export says otherwise
        host_only = True
    if host_only is None:
        host_only = not domain.startswith(".")
    path = path if path.startswith("/") else "/"
    return Cookie(name, value.strip(" \t"), _host(domain), path, host_only, secure, _unix_time(expires), partition)


def _unix_time(expires: float | str | None) -> float | None:
    """Return an expiry as a Unix time in seconds, or None if the cookie lasts for the browser's session."""
    if isinstance(expires, str):
        expires = _parsed_time(expires)
    if expires is None or expires <= 0 or not math.isfinite(expires):
        return None
    if expires > _CHROME_EPOCH:
        expires -= _CHROME_EPOCH
    while expires > _LATEST:  # milliseconds (Firefox 142 and later), or microseconds
        expires /= 1000
    return expires


def _parsed_time(text: str) -> float | None:
    if text.strip().lower() in ("", "session"):
        return None
    for read in (float, _iso_time, _http_time):
        with suppress(ValueError, OverflowError):  # the second one is of a year that is too large
            return read(text)
    raise ValueError("its expiry is not a date")


def _iso_time(text: str) -> float:
    return _in_utc(datetime.fromisoformat(text)).timestamp()


def _http_time(text: str) -> float:
    return _in_utc(parsedate_to_datetime(text)).timestamp()


def _host(domain: str) -> str:
    """Return a host in the form in which hosts are compared."""
    domain = domain.lower().strip(".[]")
    return str(_ip_address(domain) or domain)


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
