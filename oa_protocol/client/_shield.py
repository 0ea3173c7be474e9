"""The runner that cannot be stopped: what must be finished is finished, whatever happens to its caller.

A shield alone isn't enough. A native asyncio cancellation (``Task.cancel``, ``wait_for``, ``asyncio.timeout``, the
loop's shutdown) pierces it, and so does a KeyboardInterrupt. So the operation runs in a child task under a shield of
its own. The host takes every interruption, keeps the first one, and raises it when the child is done. What the handler
of a signal raises is held back as long.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import anyio


async def run_to_completion(operation: Callable[[], Awaitable[None]], *, seconds: float) -> None:
    """Run ``operation`` to its end, but for at most ``seconds``; then raise what interrupted it, if anything did.

    It must be an operation that can be called again and go on: if a native cancellation or a KeyboardInterrupt hits the
    child itself, it is called once more.
    """
    with signals_held():
        runner = _Runner(operation, anyio.current_time() + seconds)
        with anyio.CancelScope(shield=True):
            while not runner.done.is_set():  # once; again only if the child was cancelled before its first step
                async with anyio.create_task_group() as group:
                    group.start_soon(runner.run)
                    while not runner.done.is_set() and not group.cancel_scope.cancel_called:
                        try:
                            await runner.done.wait()
                        except runner.interruptions as interruption:
                            runner.interrupted = runner.interrupted or interruption
        if runner.failure is not None:
            raise runner.failure
        if runner.interrupted is not None:
            raise runner.interrupted


class _Runner:
    def __init__(self, operation: Callable[[], Awaitable[None]], deadline: float) -> None:
        self.done = anyio.Event()
        self.failure: Exception | None = None
        self.interrupted: BaseException | None = None
        self.interruptions = (anyio.get_cancelled_exc_class(), KeyboardInterrupt)
        self._operation = operation
        self._scope = anyio.CancelScope(deadline=deadline, shield=True)

    async def run(self) -> None:
        try:
            with self._scope:
                try:
                    await self._operation()
                except self.interruptions as interruption:
                    if self._scope.cancel_called:
                        raise
                    self.interrupted = self.interrupted or interruption
                    await self._operation()
        except Exception as failure:  # raised to the caller, outside the task group
            self.failure = failure
        finally:
            self.done.set()


_Handler = Callable[[int, FrameType | None], Any]


class _Signals:
    """Holds back what the handlers of signals raise, as long as anything in the main thread must not be stopped.

    A handler raises in the code that runs at that moment, which may be an event loop's own bookkeeping, and that
    doesn't survive it. The handlers themselves run at once: asyncio's answers a first Ctrl-C by cancelling the main
    task.
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
def signals_held() -> Generator[None]:
    """Hold back what the handlers of signals raise; it is raised at the end."""
    if threading.current_thread() is not threading.main_thread():  # handlers run in the main thread only
        yield
        return
    _SIGNALS.hold()
    try:
        yield
    finally:
        _SIGNALS.release()
