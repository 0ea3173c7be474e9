"""Tracebacks for users of the kit, without this package's frames at the top."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

_LEADING = ("oa_protocol.testing.", "anyio.", "asyncio.", "contextlib.", "trio.")

E = TypeVar("E", bound=BaseException)


def from_user_code(failure: E) -> E:
    """Cut the tracebacks of ``failure`` and its causes so that they begin in the user's code. Return ``failure``."""
    seen: BaseException | None = failure
    while seen is not None:
        seen.with_traceback(_first_of_user(seen.__traceback__))
        seen = seen.__cause__ or seen.__context__
    return failure


def _first_of_user(entry: TracebackType | None) -> TracebackType | None:
    while entry is not None and f"{entry.tb_frame.f_globals.get('__name__')}.".startswith(_LEADING):
        entry = entry.tb_next
    return entry
