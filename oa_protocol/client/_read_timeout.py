"""Bounds each read of a stream, and lets another task interrupt it.

Tokens come one by one, and each is a read. anyio's CancelScope is made anew for every one of them, with a timer of its
own, which on asyncio takes a third of all the time that a token costs. There one scope serves all reads of a stream,
and its timer is left alone until it rings: then it is seen whether the read that is under way has taken too long.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self, cast

import anyio


class ReadScope(Protocol):
    """Scopes for the reads of one stream, one after the other."""

    def until(self, deadline: float | None) -> AbstractContextManager[object, bool]:
        """Return a scope that is cancelled at ``deadline``, by the event loop's clock; None is never.

        Like anyio's, it ends quietly if it was cancelled. On asyncio, a single CancelledError is raised in it.
        """
        ...

    def cancel(self) -> None:
        """Cancel the read that is under way, if one is."""
        ...

    def close(self) -> None:
        """Let go of what is kept between reads."""
        ...


def read_scope() -> ReadScope:
    """Return the one for the event loop that runs."""
    return AsyncioReadScope() if anyio.get_cancelled_exc_class() is asyncio.CancelledError else AnyioReadScope()


class AnyioReadScope:
    """A scope of anyio's for each read."""

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()

    def until(self, deadline: float | None) -> anyio.CancelScope:
        """As ReadScope says."""
        self._scope = anyio.CancelScope(deadline=math.inf if deadline is None else deadline)
        return self._scope

    def cancel(self) -> None:
        """As ReadScope says."""
        self._scope.cancel()

    def close(self) -> None:
        """As ReadScope says."""


class AsyncioReadScope:
    """One scope for all reads: what asyncio.timeout does, but for the timer, which is kept."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._is_cancelled = False
        self._deadline = math.inf
        self._timer: asyncio.Handle | None = None
        self._rings_at = math.inf  # uvloop's handles don't all say when

    def until(self, deadline: float | None) -> Self:
        """As ReadScope says."""
        self._deadline = math.inf if deadline is None else deadline
        if deadline is not None and self._rings_at > deadline:
            self._set_timer()
        return self

    def __enter__(self) -> None:
        self._reader = reader = cast("asyncio.Task[object]", asyncio.current_task(self._loop))
        self._cancelling = reader.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        reader, self._reader = cast("asyncio.Task[object]", self._reader), None
        if not self._is_cancelled:
            return False
        self._is_cancelled = False
        # Somebody else may have cancelled the task as well, and asyncio raises one CancelledError for both.
        is_ours = reader.uncancel() <= self._cancelling
        return is_ours and isinstance(error, asyncio.CancelledError)

    def cancel(self) -> None:
        """As ReadScope says."""
        reader = self._reader
        # Where it is being cancelled already, a second call would take that CancelledError's message, by which anyio
        # knows its own.
        if reader is not None and not self._is_cancelled and not getattr(reader, "_must_cancel", False):
            self._is_cancelled = True
            reader.cancel()

    def close(self) -> None:
        """As ReadScope says."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._rings_at = math.inf

    def _set_timer(self) -> None:
        self.close()
        self._rings_at = self._deadline
        self._timer = self._loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, math.inf
        if self._reader is None:
            return
        if self._loop.time() < self._deadline:
            self._set_timer()
        else:
            # Where the loop was blocked, what the read waits for may be here, and its task be next.
            self._loop.call_soon(self._give_up)

    def _give_up(self) -> None:
        if self._loop.time() >= self._deadline:
            self.cancel()
