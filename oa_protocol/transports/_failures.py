"""What the transports say if something fails: the server's name, the proxy's, and the library's words; never a path."""

from __future__ import annotations

from typing import NoReturn
from urllib.parse import urlsplit

import anyio

from oa_protocol.engine.errors import MaybeSent, NotSent

NO_REPLY = "this is no reply of HTTP/1"


def cannot_reach(origin: object, error: Exception) -> NotSent:
    """Return what to raise where no connection came about."""
    return NotSent(f"cannot reach {origin}: {words_of(error)}")


def connection_failed(origin: object, error: Exception) -> MaybeSent:
    """Return what to raise where the request may have left, and no reply has begun."""
    return MaybeSent(f"the connection to {origin} failed: {words_of(error)}")


def reply_broke(error: Exception) -> MaybeSent:
    """Return what to raise where a body does not end as it should."""
    return MaybeSent(f"the connection broke in the middle of a reply: {words_of(error)}")


def raise_ungrouped(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """Raise the Ctrl-C that ``group`` is of, as it was; trio connects in a nursery, which wraps it. Else the group."""
    if group.split(KeyboardInterrupt)[1] is None:
        raise KeyboardInterrupt from group
    raise group


def through(proxy: str | None) -> str:
    """Return what follows a server's name if there is a proxy on the way: its scheme, host and port."""
    return "" if proxy is None else f" through the proxy {origin_of(proxy)}"


def origin_of(url: str) -> str:
    """Return scheme, host and port of ``url``, without the user and the password that it may hold."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


_WORDS: dict[type[BaseException], str] = {
    TimeoutError: "it took too long",
    anyio.EndOfStream: "the connection was closed from the other side",
    anyio.BrokenResourceError: "the connection broke",
    anyio.ClosedResourceError: "the connection was closed",
}


def words_of(error: BaseException) -> str:
    """Return what the error says, or what caused it; if neither says anything, what its kind means."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:  # httpcore clears the cause
        causes.append(cause)
    said = [str(cause) for cause in causes] + [_WORDS.get(type(cause), "") for cause in causes]
    return next(filter(None, said), type(error).__name__)
