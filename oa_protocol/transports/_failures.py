"""The errors of the transports. They name the server, the proxy and the library's reason, but never a path."""

from __future__ import annotations

from typing import NoReturn
from urllib.parse import urlsplit

import anyio

from oa_protocol.engine.errors import MaybeSent, NotSent

NO_REPLY = "this is not an HTTP/1 reply"


def cannot_reach(origin: object, error: BaseException) -> NotSent:
    """Return the error to raise if no connection was made."""
    return NotSent(f"cannot reach {origin}: {words_of(error)}")


def connection_failed(origin: object, error: BaseException) -> MaybeSent:
    """Return the error to raise if the request may have left, and no reply has begun."""
    return MaybeSent(f"the connection to {origin} failed: {words_of(error)}")


def reply_broke(error: Exception) -> MaybeSent:
    """Return the error to raise if a reply's body breaks off."""
    return MaybeSent(f"the connection broke in the middle of a reply: {words_of(error)}")


def raise_ungrouped(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """If ``group`` consists of a Ctrl-C, raise a plain ``KeyboardInterrupt``. Otherwise raise the group.

    trio connects in a nursery, which wraps what is raised in it.
    """
    if group.split(KeyboardInterrupt)[1] is None:
        raise KeyboardInterrupt from group
    raise group


def through(proxy: str | None) -> str:
    """Return the words that name the proxy after a server's name, or nothing if there is no proxy."""
    return "" if proxy is None else f" through the proxy {origin_of(proxy)}"


def origin_of(url: str) -> str:
    """Return scheme, host and port of ``url``, without a user and a password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


_WORDS: dict[type[BaseException], str] = {
    TimeoutError: "it took too long",
    anyio.EndOfStream: "the connection was closed from the other side",
    anyio.BrokenResourceError: "the connection broke",
    anyio.ClosedResourceError: "the connection was closed",
}


def words_of(error: BaseException) -> str:
    """Return the text of an error, or else that of what caused it. If both are empty, say what its type means."""
    causes = [error]
    # The context is looked at, too, because httpcore clears the cause.
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    said = [str(cause) for cause in causes] + [_WORDS.get(type(cause), "") for cause in causes]
    return next(filter(None, said), type(error).__name__)
