"""Runs an event loop on its own thread, and lets other threads carry out operations in it.

A signal's handler, or anything else that interrupts a thread, can raise only in the thread that waits, and never in the
loop. In the loop the operation is cancelled in the usual way, and cleans up. A loop that still runs at the end of the
program is stopped then. After a fork, the child can't use the parent's loop, and each call there raises an error.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, ParamSpec, TypeVar, cast

from oa_protocol.engine.errors import ClosedError, LocalProtocolError

# How often a waiting thread wakes up, in seconds. If a signal comes just before the thread goes to sleep, Python runs
# its handler only when the thread wakes up. On Windows that is true of every signal.
_WAKES_EVERY = 1.0

_T = TypeVar("_T")
_P = ParamSpec("_P")

Operation = Callable[[], Coroutine[Any, Any, _T]]


class LoopThread:
    """The loop and its thread, which the first operation starts.

    When it is stopped, ``farewell`` is awaited in the loop, and then everything that is still going on is cancelled. At
    the end of the program this is waited for, but for at most ``patience`` seconds.

    A ``KeyboardInterrupt`` can be raised at any line of a thread that waits, even between taking a lock and the ``try``
    that would release it. So threads share no lock, except the one for starting the thread.

    Attributes:
        has_died: whether an error has ended the thread before it was stopped.

    """

    def __init__(self, farewell: Operation[object], *, patience: float) -> None:
        self.patience = patience
        self._farewell = farewell
        self._starting = threading.Lock()
        self._thread: _Thread | None = None
        self._stop = asyncio.Event()
        self._is_stopping = False
        self._calls: set[_Call[Any]] = set()
        # Why the thread is no longer there, if it wasn't stopped.
        self._lost: str | None = None
        self.has_died = False

    def run(self, operation: Operation[_T], *, is_leaving: bool = False) -> _T:
        """Carry out ``operation`` in the loop. Return what it returns, or raise what it raises.

        If this thread is interrupted meanwhile, for example by a ``KeyboardInterrupt``, the operation is cancelled and
        waited for. Then the interruption is raised.

        Args:
            operation: returns a new coroutine.
            is_leaving: whether the operation cleans up. Then it is carried out to its end, even if the interruption
                came before it began. It doesn't start the thread, because without one there is nothing to clean up.

        Raises:
            ClosedError: the loop was stopped before or meanwhile, and has ended.
            LocalProtocolError: the thread has died, or it belongs to the process from which this one was forked.

        """
        call = _Call(operation)
        interruption: BaseException | None = None
        while True:
            try:
                while not call.is_over:
                    if interruption is not None and not is_leaving:
                        self._cancel(call)
                    elif not call.is_submitted:
                        self._submit(call, may_start=not is_leaving)
                    call.wait()
                break
            except BaseException as error:
                interruption = interruption or error
        self._calls.discard(call)
        if interruption is not None:
            raise interruption
        if call.is_cut_off:
            if self._lost is not None:
                raise LocalProtocolError(self._lost)
            self.join()
            raise ClosedError("the client is closed, or was closed while this was under way")
        return call.result()

    def stop(self) -> None:
        """Ask the loop to end, without waiting for it. Any thread may call this, and it may be called again."""
        self._is_stopping = True
        self.soon(self._stop.set)

    def soon(self, callback: Callable[[], object]) -> None:
        """Ask the loop to call ``callback``, if there is a loop, without waiting for it."""
        if self._thread is not None and self._lost is None:
            self._thread.soon(callback)

    def join(self, deadline: float | None = None) -> None:
        """Wait until the thread has ended, or until ``deadline``. Then raise what interrupted the wait.

        The deadline is by the monotonic clock. Without one, it waits as long as it takes.
        """
        interruption: BaseException | None = None
        while self._thread is not None and self._thread.is_alive():
            try:
                if deadline is not None and time.monotonic() >= deadline:
                    break
                self._thread.join(_WAKES_EVERY)
            except BaseException as error:
                interruption = interruption or error
        if interruption is not None:
            raise interruption

    def forget(self) -> None:
        """Note that this process is the child of a fork, in which the thread doesn't exist."""
        self._lost = (
            "this client was used before the process was forked, and its open chats belong to the parent process: "
            "make a new client in each process"
        )

    def _submit(self, call: _Call[Any], *, may_start: bool) -> None:
        if self._thread is None and may_start and not self._is_stopping:
            self._start()
        thread = self._thread
        if thread is None or self._is_stopping or self._lost is not None:
            call.give_up()
            return
        self._calls.add(call)
        if thread.soon(call.begin):
            call.is_submitted = True
        else:
            call.give_up()

    def _cancel(self, call: _Call[Any]) -> None:
        if call not in self._calls or self._thread is None:  # the interruption came before it was submitted
            call.give_up()
        else:
            self._thread.soon(call.cancel)

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            thread = _Thread(self._run)
            # start() may be interrupted when the thread runs already. So the thread waits for go(), and then looks
            # whether it is the one that was noted here. If it isn't, it ends.
            try:
                thread.start()
                self._thread = thread
            finally:
                thread.soon(thread.go)
        if self._is_stopping:
            self.stop()

    def _run(self, thread: _Thread) -> None:
        loop = thread.loop
        loop.run_until_complete(thread.may_go)
        if self._thread is not thread:  # see _start; the next call starts another thread
            loop.close()
            return
        _RUNNING.add(self)
        serving = loop.create_task(self._serve())
        try:
            loop.run_until_complete(serving)
            loop.run_until_complete(loop.shutdown_asyncgens())
        except BaseException as error:
            self.has_died = True
            self._lost = f"the client's thread has died of {error!r}: make another client"
            serving.cancel()  # it cancels everything that is still going on
            with suppress(BaseException):
                loop.run_until_complete(serving)
            raise
        finally:
            self._is_stopping = True
            loop.close()
            for call in list(self._calls):
                call.give_up()
            _RUNNING.discard(self)

    async def _serve(self) -> None:
        try:
            await self._stop.wait()
            await asyncio.sleep(0)  # operations that were submitted just before begin now, and are cancelled below
            await self._farewell()
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            if others:
                await asyncio.wait(others)


class _Thread(threading.Thread):
    """A thread with an event loop."""

    def __init__(self, run: Callable[[_Thread], None]) -> None:
        # A daemon, because Python waits for all other threads before it calls _stop_all.
        super().__init__(name="oa_protocol.sync", daemon=True)
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_Executor(thread_name_prefix="oa_protocol.sync helper"))
        self.may_go = self.loop.create_future()
        self._run_loop = run

    def run(self) -> None:
        """Run the loop. ``start`` calls this in the new thread."""
        self._run_loop(self)

    def go(self) -> None:
        """Let the thread go on, because it is settled whether it is used."""
        self.may_go.set_result(None)

    def soon(self, callback: Callable[[], object]) -> bool:
        """Ask the loop to call ``callback``. Return False if the loop is closed."""
        try:
            # In an empty context. If the calling thread runs trio, a copy of its context would make anyio take this
            # loop for trio's.
            self.loop.call_soon_threadsafe(callback, context=contextvars.Context())
        except RuntimeError:
            return False
        return True


class _Call(Generic[_T]):
    """One operation, and its outcome.

    The waiting thread waits for a plain lock, because an interrupted wait can't break one. The events and conditions of
    ``threading`` can be left in a broken state.
    """

    def __init__(self, operation: Operation[_T]) -> None:
        self.is_submitted = False
        self.is_over = False
        self._operation = operation
        self._task: asyncio.Task[_T] | None = None
        self._is_cancelled = False
        self._settled = threading.Lock()
        self._settled.acquire()

    # ---- in the waiting thread

    def wait(self) -> None:
        """Wait until it is over, but not longer than ``_WAKES_EVERY``."""
        if not self.is_over:
            self._settled.acquire(timeout=_WAKES_EVERY)

    @property
    def is_cut_off(self) -> bool:
        """Whether it was never begun, or was cancelled."""
        return self._task is None or self._task.cancelled()

    def result(self) -> _T:
        """Return or raise its outcome, unless it is cut off."""
        return cast("asyncio.Task[_T]", self._task).result()

    # ---- in the loop

    def begin(self) -> None:
        """Begin, unless it was given up before."""
        if not self.is_over:
            self._task = asyncio.get_running_loop().create_task(self._operation())
            self._task.add_done_callback(self._settle)

    def cancel(self) -> None:
        """Cancel it, but only once, so that its cleanup isn't cancelled, too."""
        if self._task is None:
            self.give_up()
        elif not self._is_cancelled:
            self._is_cancelled = True
            self._task.cancel()

    def _settle(self, task: asyncio.Task[_T]) -> None:
        if not task.cancelled():
            task.exception()  # otherwise asyncio logs an error if the waiting thread is gone and never looks at it
        self.give_up()

    # ---- in either

    def give_up(self) -> None:
        """Note that it is over, and wake the waiting thread."""
        self.is_over = True
        with suppress(RuntimeError):  # it was over before
            self._settled.release()


class _Executor(ThreadPoolExecutor):
    """The loop's executor, which looks up host names.

    While Python shuts down, no thread can be started. Then it calls the function at once, in the loop.
    """

    def submit(self, function: Callable[_P, _T], /, *args: _P.args, **keywords: _P.kwargs) -> Future[_T]:
        try:
            return super().submit(function, *args, **keywords)
        except RuntimeError:
            future: Future[_T] = Future()
            try:
                future.set_result(function(*args, **keywords))
            except Exception as error:
                future.set_exception(error)
            return future


_RUNNING: set[LoopThread] = set()


def _forget_all() -> None:
    for each in _RUNNING:
        each.forget()
    _RUNNING.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


@atexit.register
def _stop_all() -> None:
    """Stop each loop that still runs. The program's own threads have all ended by now."""
    running = list(_RUNNING)
    interruption: BaseException | None = None
    began = time.monotonic()
    for each in running:
        each.stop()
    for each in running:
        try:
            each.join(began + each.patience)
        except BaseException as error:  # even then the other threads are waited for
            interruption = interruption or error
    if interruption is not None:
        raise interruption
