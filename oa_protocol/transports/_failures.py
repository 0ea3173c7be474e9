"""What the transports say where something fails: the server's name, never a path, and the library's words."""

from __future__ import annotations

from typing import NoReturn
from urllib.parse import urlsplit

from oa_protocol.engine.errors import MaybeSent, NotSent


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


def origin_of(url: str) -> str:
    """Return scheme, host and port of ``url``."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def words_of(error: Exception) -> str:
    """Return what the error says, or its name where it says nothing."""
    return str(error) or type(error).__name__
