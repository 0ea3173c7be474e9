"""Bounds the waits of a conversation, one after the other, and lets another task interrupt them.

Tokens come one by one, and each is a wait. A new anyio ``CancelScope`` for each of them, with its own timer, takes a
third of all the time that a token costs on asyncio. So on asyncio one scope serves many waits. Its timer isn't moved
with each one. When the timer goes off, the scope looks whether the current wait has taken too long, and sets the timer
again if it hasn't.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self, cast

import anyio


class WaitScope(Protocol):
    """Scopes for the waits of one conversation, one after the other."""

    @property
    def suits_running_loop(self) -> bool:
        """Whether it can be used in the event loop that runs now."""
        ...

    def until(self, deadline: float | None) -> AbstractContextManager[object, bool]:
        """Return a scope for one wait, which is cancelled at ``deadline`` by the event loop's clock. None means never.

        If the scope was cancelled, it ends quietly, like anyio's. On asyncio, ``CancelledError`` is raised in it only
        once; anyio would raise it at each further ``await``.
        """
        ...

    def move(self, deadline: float | None) -> None:
        """Move the deadline of the wait that is under way."""
        ...

    def cancel(self) -> None:
        """Cancel the wait that is under way, if one is."""
        ...

    def close(self) -> None:
        """Release what is kept between waits."""
        ...


def wait_scope() -> WaitScope:
    """Return the scope that suits the running event loop."""
    return AsyncioWaitScope() if anyio.get_cancelled_exc_class() is asyncio.CancelledError else AnyioWaitScope()


class AnyioWaitScope:
    """A new scope of anyio's for each wait. It is used on trio."""

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()

    @property
    def suits_running_loop(self) -> bool:
        """See ``WaitScope``."""
        return True

    def until(self, deadline: float | None) -> anyio.CancelScope:
        """See ``WaitScope``."""
        self._scope = anyio.CancelScope()
        self.move(deadline)
        return self._scope

    def move(self, deadline: float | None) -> None:
        """See ``WaitScope``."""
        self._scope.deadline = math.inf if deadline is None else deadline

    def cancel(self) -> None:
        """See ``WaitScope``."""
        self._scope.cancel()

    def close(self) -> None:
        """See ``WaitScope``."""


class AsyncioWaitScope:
    """One scope for all waits. It works like ``asyncio.timeout``, except that it keeps its timer."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._is_cancelled = False
        self._deadline = math.inf
        self._timer: asyncio.Handle | None = None
        self._rings_at = math.inf  # kept here, because not all of uvloop's handles have when()

    @property
    def suits_running_loop(self) -> bool:
        """See ``WaitScope``."""
        return asyncio._get_running_loop() is self._loop  # it doesn't raise if trio runs

    def until(self, deadline: float | None) -> Self:
        """See ``WaitScope``."""
        self._deadline = math.inf if deadline is None else deadline
        if deadline is not None and self._rings_at > deadline:
            self._set_timer()
        return self

    def move(self, deadline: float | None) -> None:
        """See ``WaitScope``."""
        self.until(deadline)

    def __enter__(self) -> None:
        self._waiter = waiter = cast("asyncio.Task[object]", asyncio.current_task(self._loop))
        self._cancelling = waiter.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        waiter, self._waiter = cast("asyncio.Task[object]", self._waiter), None
        if not self._is_cancelled:
            return False
        self._is_cancelled = False
        # Somebody else may have cancelled the task, too, and asyncio raises one CancelledError for both. Then it has to
        # go on to the caller.
        is_ours = waiter.uncancel() <= self._cancelling
        return is_ours and isinstance(error, asyncio.CancelledError)

    def cancel(self) -> None:
        """See ``WaitScope``."""
        waiter = self._waiter
        # If the task is being cancelled already, a second cancel() would replace the message of its CancelledError, and
        # anyio recognizes its own cancellations by their message.
        if waiter is not None and not self._is_cancelled and not getattr(waiter, "_must_cancel", False):
            self._is_cancelled = True
            waiter.cancel()

    def close(self) -> None:
        """See ``WaitScope``."""
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
        if self._waiter is None:
            return
        if self._loop.time() < self._deadline:
            self._set_timer()
        else:
            # If the loop was blocked, what is waited for may be there, and the waiter may be the next task to run. So
            # the loop gets one more round before the wait counts as too long.
            self._loop.call_soon(self._give_up)

    def _give_up(self) -> None:
        if self._loop.time() >= self._deadline:
            self.cancel()
