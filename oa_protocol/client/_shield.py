"""The runner that nothing can stop: what must be finished is finished, whatever happens to its caller.

A shield alone does not hold: a native asyncio cancellation (``Task.cancel``, ``wait_for``, ``asyncio.timeout``, the
loop's shutdown) pierces it, and so does a KeyboardInterrupt. So the operation runs in a child task under a shield of
its own, while the host takes every interruption, keeps the first one, and raises it when the child is done. What a
signal's handler raises is held back as long.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import signal
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import anyio


async def finalize(operation: Callable[[], Awaitable[None]], *, deadline: Callable[[], float], at_once: bool) -> None:
    """Run ``operation`` to its end; then raise the interruption that came meanwhile, if one did.

    From the first interruption on (from the start, with ``at_once``) the operation has until ``deadline()``, a time of
    the event loop's clock, and is cancelled then. It must be one that can be called again and go on: where a native
    cancellation or a KeyboardInterrupt strikes the child itself, it is called once more.
    """
    with _signals_held():
        runner = _Runner(operation, deadline)
        if at_once:
            runner.bound()
        with anyio.CancelScope(shield=at_once) as host:
            while not runner.done.is_set():  # once; again only where the child was cancelled before its first step
                async with anyio.create_task_group() as group:
                    group.start_soon(runner.run)
                    while not runner.done.is_set() and not group.cancel_scope.cancel_called:
                        try:
                            await runner.done.wait()
                        except runner.interruptions as interruption:
                            host.shield = True
                            runner.bound()
                            runner.interrupted = runner.interrupted or interruption
        if runner.failure is not None:
            raise runner.failure
        if runner.interrupted is not None:
            raise runner.interrupted


class _Runner:
    def __init__(self, operation: Callable[[], Awaitable[None]], deadline: Callable[[], float]) -> None:
        self.done = anyio.Event()
        self.failure: Exception | None = None
        self.interrupted: BaseException | None = None
        self.interruptions = (anyio.get_cancelled_exc_class(), KeyboardInterrupt)
        self._operation = operation
        self._deadline = deadline
        self._scope = anyio.CancelScope(shield=True)

    def bound(self) -> None:
        if self._scope.deadline == math.inf:
            self._scope.deadline = self._deadline()

    async def run(self) -> None:
        try:
            with self._scope:
                try:
                    await self._operation()
                except self.interruptions as interruption:
                    if self._scope.cancel_called:
                        raise
                    self.interrupted = self.interrupted or interruption
                    self.bound()
                    await self._operation()
        except Exception as failure:  # raised to the caller, outside the task group
            self.failure = failure
        finally:
            self.done.set()


_Handler = Callable[[int, FrameType | None], Any]


class _Signals:
    """Holds back what the handlers of signals raise, as long as anything is being finalized in the main thread.

    They raise it in whatever code runs at that moment, an event loop's own bookkeeping included, which does not survive
    that. The handlers themselves run at once: asyncio's answers a first Ctrl-C by cancelling the main task.
    """

    def __init__(self) -> None:
        self._holders = 0
        self._handlers: dict[int, _Handler] = {}
        self._raised: BaseException | None = None

    def hold(self) -> None:
        self._holders += 1
        if self._holders > 1:
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler) and handler != self._receive:  # which others may have found there, and put back
                self._handlers[number] = handler
                signal.signal(number, self._receive)

    def release(self) -> None:
        """Undo one ``hold``; the last one raises what was held back."""
        if self._holders > 1:
            self._holders -= 1
            return
        try:
            for number, handler in self._handlers.items():
                if signal.getsignal(number) == self._receive:  # nobody has put their own there meanwhile
                    signal.signal(number, signal.default_int_handler if _is_of_ended_runner(handler) else handler)
        finally:  # the next signal may strike right here
            self._holders = 0
            raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def _receive(self, number: int, frame: FrameType | None) -> None:
        try:
            self._handlers[number](number, frame)
        except BaseException as error:  # somebody who found this handler has put it back when all was over
            if not self._holders:
                raise
            self._raised = self._raised or error


def _is_of_ended_runner(handler: _Handler) -> bool:
    """Tell whether ``handler`` is that of an ``asyncio.run`` which is over, and only ends its tasks.

    It would have put Python's own handler back, had it found its own in place.
    """
    if not isinstance(handler, partial) or not isinstance(getattr(handler.func, "__self__", None), asyncio.Runner):
        return False
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is asyncio.Runner.run.__code__:
            return False
        frame = frame.f_back
    return True


_SIGNALS = _Signals()


@contextmanager
def _signals_held() -> Generator[None]:
    if threading.current_thread() is not threading.main_thread():  # handlers run in the main thread only
        yield
        return
    _SIGNALS.hold()
    try:
        yield
    finally:
        _SIGNALS.release()
