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
from collections.abc import Awaitable, Callable
from functools import partial
from types import FrameType
from typing import Any, cast

import anyio


async def run_to_completion(
    operation: Callable[[], Awaitable[None]], *, seconds: float, at_last: Callable[[], object] = bool
) -> None:
    """Run ``operation`` to its end, but for at most ``seconds``; then raise what interrupted it, if anything did.

    It must be an operation that can be called again and go on, because an interruption can hit the child itself.
    ``at_last`` is called when that is over, however it ended. If an interruption comes before anything has begun, it
    is raised at once, and nothing is called.
    """
    with signals_held():
        runner = _Runner(operation, anyio.current_time() + seconds)
        try:
            while not runner.is_done:
                try:
                    await runner.host()
                except BaseException as error:
                    runner.note(error)
        finally:
            at_last()
        if runner.failure is not None:
            raise runner.failure
        if runner.interrupted is not None:
            raise runner.interrupted


class _Runner:
    def __init__(self, operation: Callable[[], Awaitable[None]], deadline: float) -> None:
        self.is_done = False
        self.failure: Exception | None = None
        self.interrupted: BaseException | None = None
        self._interruptions = (anyio.get_cancelled_exc_class(), KeyboardInterrupt)
        self._operation = operation
        self._deadline = deadline

    def note(self, error: BaseException) -> None:
        """Keep an interruption; raise any other error."""
        found: BaseException | None = error
        while isinstance(found, BaseExceptionGroup):  # its first one stands for all, if all are interruptions
            group = cast("BaseExceptionGroup[BaseException]", found)
            found = group.exceptions[0] if group.split(self._interruptions)[1] is None else None
        if not isinstance(found, self._interruptions):
            raise error
        self.interrupted = self.interrupted or found

    async def host(self) -> None:
        """Run the operation in a task of its own, and take the interruptions of this one."""
        ended, struck = anyio.Event(), None
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                group.start_soon(self.run, ended)
                while not ended.is_set():
                    try:
                        await ended.wait()
                    except self._interruptions as interruption:
                        if group.cancel_scope.cancel_called:  # the child was struck, and may say of what
                            struck = interruption
                            break
                        self.note(interruption)
        if struck is not None:
            self.note(struck)

    async def run(self, ended: anyio.Event) -> None:
        try:
            with anyio.CancelScope(deadline=self._deadline, shield=True) as scope:
                while not self.is_done:
                    try:
                        await self._operation()
                        self.is_done = True
                    except Exception as failure:  # raised to the caller, outside the task group
                        self.failure = failure
                        self.is_done = True
                    except BaseException as error:
                        if scope.cancel_called:
                            raise
                        self.note(error)
            self.is_done = True
        finally:
            ended.set()


_Handler = Callable[[int, FrameType | None], Any]


class _Signals:
    """Holds back what the handlers of signals raise, as long as anything in the main thread must not be stopped.

    A handler raises in the code that runs at that moment, which may be an event loop's own bookkeeping, and that
    doesn't survive it. The handlers themselves run at once: asyncio's answers a first Ctrl-C by cancelling the main
    task.

    What was raised waits for those who held signals at that moment, and for nobody who came later, so that it is
    raised under steady load as well. Each of them is asked to hurry.
    """

    def __init__(self) -> None:
        self._holders: set[signals_held] = set()
        self._awaited: set[signals_held] = set()
        self._handlers: dict[int, _Handler] = {}
        self._raised: BaseException | None = None

    def hold(self, holder: signals_held) -> None:
        self._holders.add(holder)
        if len(self._holders) > 1:
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler) and handler != self._receive:  # which others may have found there, and put back
                self._handlers[number] = handler
                signal.signal(number, self._receive)

    def release(self, holder: signals_held) -> None:
        """Undo ``hold``, even if that was not complete; the last one that is waited for raises what was held back."""
        self._holders.discard(holder)
        self._awaited.discard(holder)
        raised = None
        if not self._awaited:
            raised, self._raised = self._raised, None
        try:
            if not self._holders:
                self._put_back()
        finally:  # the next signal may strike right here
            if raised is not None:
                raise raised

    def _put_back(self) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._receive:  # nobody has put their own there meanwhile
                signal.signal(number, signal.default_int_handler if _is_of_ended_runner(handler) else handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        try:
            self._handlers[number](number, frame)
        except BaseException as error:
            if not self._holders:  # somebody who found this handler has put it back when all was over
                raise
            if self._raised is None:
                self._raised, self._awaited = error, set(self._holders)
                for holder in self._awaited:
                    holder.hurry()


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


class signals_held:  # noqa: N801  # it reads as what it does
    """Hold back what the handlers of signals raise; it is raised at the end.

    If anything is held back, the event loop calls ``hurry`` soon, which should bring the end nearer.
    """

    def __init__(self, hurry: Callable[[], object] | None = None) -> None:
        self.hurry: Callable[[], object] = bool if hurry is None else partial(_soon(), hurry)

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():  # handlers run in the main thread only
            try:
                _SIGNALS.hold(self)
            except BaseException:  # a signal struck before its handler was replaced
                _SIGNALS.release(self)
                raise

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            _SIGNALS.release(self)


def _soon() -> Callable[[Callable[[], object]], object]:
    """Return what has the event loop that runs call a function; the handler of a signal may use it."""
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        return asyncio.get_running_loop().call_soon_threadsafe
    import trio

    return trio.lowlevel.current_trio_token().run_sync_soon
