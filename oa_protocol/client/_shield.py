"""Runs what must be finished, for example a DELETE, to its end, even if its caller is cancelled or interrupted.

A shield alone isn't enough. A native asyncio cancellation (``Task.cancel``, ``wait_for``, ``asyncio.timeout``, the
loop's shutdown) passes through it, and so does a ``KeyboardInterrupt``. So the operation runs in a child task under a
shield of its own. The host, which is the caller's task, catches every interruption, keeps the first one, and raises it
when the child is done. What the handler of a signal raises is held back until then, too.
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
    """Run ``operation`` to its end, but for at most ``seconds``. Then raise what interrupted it, if anything did.

    If an interruption comes before anything has begun, it is raised at once, and nothing is called.

    Args:
        operation: what to run. An interruption can hit the child itself. Then ``operation`` is called again, and has to
            go on from where it was.
        seconds: how long all the calls may take together.
        at_last: is called after the last of them, however it ended.

    """
    with signals_held():
        runner = _Runner(operation, anyio.current_time() + seconds)
        try:
            # If an interruption ends the host itself, for example while it starts the child, it begins once more.
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
    """One call of ``run_to_completion``. It survives its hosts: each one goes on from what is noted here."""

    def __init__(self, operation: Callable[[], Awaitable[None]], deadline: float) -> None:
        self.is_done = False
        self.failure: Exception | None = None
        self.interrupted: BaseException | None = None
        self._interruptions = (anyio.get_cancelled_exc_class(), KeyboardInterrupt)
        self._operation = operation
        self._deadline = deadline

    def note(self, error: BaseException) -> None:
        """Keep ``error`` if it is an interruption. Otherwise raise it."""
        found: BaseException | None = error
        # Task groups wrap what their children raise. If a group has only interruptions, its first one stands for all.
        while isinstance(found, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", found)
            found = group.exceptions[0] if group.split(self._interruptions)[1] is None else None
        if not isinstance(found, self._interruptions):
            raise error
        self.interrupted = self.interrupted or found

    async def host(self) -> None:
        """Run the operation in its own task, and catch the interruptions of this one."""
        ended, caught = anyio.Event(), None
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                group.start_soon(self.run, ended)
                while not ended.is_set():
                    try:
                        await ended.wait()
                    except self._interruptions as interruption:
                        if group.cancel_scope.cancel_called:
                            # The child has failed, and the group has cancelled this wait because of it. On leaving, the
                            # group raises what the child raised, which says more than this cancellation.
                            caught = interruption
                            break
                        self.note(interruption)
        if caught is not None:  # the group raised nothing, because the child was merely cancelled
            self.note(caught)

    async def run(self, ended: anyio.Event) -> None:
        """Call the operation until it is done, or the time is up. This is the child task."""
        try:
            with anyio.CancelScope(deadline=self._deadline, shield=True) as scope:
                while not self.is_done:
                    try:
                        await self._operation()
                        self.is_done = True
                    except Exception as failure:  # kept for the caller, because the task group would wrap it
                        self.failure = failure
                        self.is_done = True
                    except BaseException as error:
                        if scope.cancel_called:  # the time is up, and the scope ends quietly
                            raise
                        # Somebody cancelled or interrupted the child itself, for example a loop that shuts down.
                        self.note(error)
            self.is_done = True
        finally:
            ended.set()


_Handler = Callable[[int, FrameType | None], Any]


class _Signals:
    """Holds back what the handlers of signals raise, while anything in the main thread must not be stopped.

    A handler raises in whatever code runs at that moment. If that is an event loop's own bookkeeping, the loop breaks.
    The handlers themselves still run at once, because asyncio's handler answers a first Ctrl-C by cancelling the main
    task, which is harmless.

    If a handler raises, only those who hold signals at that moment are waited for. If later ones were waited for, too,
    a program that always has a request under way would never see its Ctrl-C. Each of those who are waited for is asked
    to hurry.
    """

    def __init__(self) -> None:
        self._holders: set[signals_held] = set()
        self._awaited: set[signals_held] = set()
        self._handlers: dict[int, _Handler] = {}
        self._raised: BaseException | None = None

    def hold(self, holder: signals_held) -> None:
        """Hold signals back until ``holder`` is released. The first holder replaces the handlers."""
        self._holders.add(holder)
        if len(self._holders) > 1:
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            # Another library may have saved _receive as the handler that it found, and put it back later. If _receive
            # called itself, it would never end.
            if callable(handler) and handler != self._receive:
                self._handlers[number] = handler
                signal.signal(number, self._receive)

    def release(self, holder: signals_held) -> None:
        """Undo ``hold``, even an incomplete one. If no other holder is waited for, raise what was held back."""
        self._holders.discard(holder)
        self._awaited.discard(holder)
        raised = None
        if not self._awaited:
            raised, self._raised = self._raised, None
        try:
            if not self._holders:
                self._put_back()
        finally:  # even if the handler of the next signal has raised in there
            if raised is not None:
                raise raised

    def forget(self, holder: signals_held) -> None:
        """Release ``holder`` in another thread than the main one. There, nothing can be raised or put back."""
        self._holders.discard(holder)
        self._awaited.discard(holder)
        self._raised = self._raised if self._holders else None

    def _put_back(self) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._receive:  # otherwise the program has set another one, which stays
                signal.signal(number, signal.default_int_handler if _is_of_ended_runner(handler) else handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        try:
            self._handlers[number](number, frame)
        except BaseException as error:
            if not self._holders:  # another library has put this handler back after it was removed
                raise
            if self._raised is None:
                self._raised, self._awaited = error, set(self._holders)
                for holder in self._awaited:
                    holder.hurry()


def _is_of_ended_runner(handler: _Handler) -> bool:
    """Return whether ``handler`` belongs to an ``asyncio.run`` whose main task is over, and which is cleaning up.

    Such a runner puts Python's own handler back only if it finds its own one in place. It found ``_receive`` instead,
    so Python's has to be put back here.
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


class signals_held:  # noqa: N801  # it is used like a function
    """Hold back what the handlers of signals raise, and raise it at the end of the block.

    If anything is held back, the event loop soon calls ``hurry``, which should make the block end earlier.
    """

    def __init__(self, hurry: Callable[[], object] | None = None) -> None:
        self.hurry: Callable[[], object] = bool if hurry is None else partial(_soon(), hurry)

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():  # handlers run in the main thread only
            try:
                _SIGNALS.hold(self)
            except BaseException:  # a signal came before its handler was replaced, so it was raised here
                _SIGNALS.release(self)
                raise

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            _SIGNALS.release(self)
        else:  # perhaps the garbage collector closes a coroutine of the main thread here
            _SIGNALS.forget(self)


def _soon() -> Callable[[Callable[[], object]], object]:
    """Return what makes the running event loop call a function soon. It is safe to use in a signal's handler."""
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        return asyncio.get_running_loop().call_soon_threadsafe
    import trio

    return trio.lowlevel.current_trio_token().run_sync_soon
