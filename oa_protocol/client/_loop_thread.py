"""An event loop on a thread of its own, in which other threads have operations carried out.

A signal's handler, and whatever else interrupts a thread, can strike a thread that waits, but never the loop: there the
operation is cancelled in an orderly way, and cleans up. A loop that nobody has stopped when the program ends is stopped
then. Nothing here survives a fork; a client that was used before one says so.
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

# A signal that comes just before a thread sleeps is noticed when it wakes; on Windows every one is.
_WAKES_EVERY = 1.0

_T = TypeVar("_T")
_P = ParamSpec("_P")

Operation = Callable[[], Coroutine[Any, Any, _T]]


class LoopThread:
    """The loop and its thread, which is started by the first operation.

    When it is stopped, ``farewell`` is awaited in the loop, and what is still being carried out then is cancelled. At
    the end of the program that is waited for, at most ``patience`` seconds.

    A KeyboardInterrupt can strike any line of a thread that waits. So threads share no lock, except for the one of
    the start: a thread that was struck would never release it.
    """

    def __init__(self, farewell: Operation[object], *, patience: float) -> None:
        self.patience = patience
        self._farewell = farewell
        self._starting = threading.Lock()
        self._thread: _Thread | None = None
        self._stop = asyncio.Event()
        self._is_stopping = False
        self._calls: set[_Call[Any]] = set()
        # Why the thread is no longer there, though nobody stopped it.
        self._lost: str | None = None
        self.has_died = False

    def run(self, operation: Operation[_T], *, is_leaving: bool = False) -> _T:
        """Have ``operation`` carried out in the loop; return what it returns, or raise what it raises.

        If this thread is interrupted meanwhile (KeyboardInterrupt), the operation is cancelled and waited for, and the
        interruption is raised then. With ``is_leaving`` it isn't cancelled, and it is begun even if the interruption
        came first.

        Raises:
            ClosedError: the loop is stopped, or was stopped meanwhile; its end has been waited for.
            LocalProtocolError: the thread has died, or is that of a process from which this one was forked.

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
        """Have the loop end; this does not wait. It may be called from any thread, and again."""
        self._is_stopping = True
        if self._thread is not None and self._lost is None:
            self._thread.soon(self._stop.set)

    def join(self, deadline: float | None = None) -> None:
        """Wait for the thread's end, until ``deadline`` by the monotonic clock; raise what interrupted that then."""
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
        """Called in the child of a fork, in which the thread doesn't exist."""
        self._lost = (
            "this client was used before the process was forked, and what it has open belongs to the parent: "
            "make a client of its own in each process"
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
        if call not in self._calls or self._thread is None:  # the interruption came first
            call.give_up()
        else:
            self._thread.soon(call.cancel)

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            thread = _Thread(self._run)
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
        if self._thread is not thread:  # whoever started it was interrupted, and will start another one
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
            serving.cancel()  # and with it all that was under way
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
            await asyncio.sleep(0)  # what was submitted before that has begun now
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
        # A daemon: the others are waited for before any atexit hook is called.
        super().__init__(name="oa_protocol.sync", daemon=True)
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_Executor(thread_name_prefix="oa_protocol.sync helper"))
        self.may_go = self.loop.create_future()
        self._run_loop = run

    def run(self) -> None:
        """Called in the thread."""
        self._run_loop(self)

    def go(self) -> None:
        """Called in the loop when it is settled whose thread this is."""
        self.may_go.set_result(None)

    def soon(self, callback: Callable[[], object]) -> bool:
        """Have the loop call it, and return True, unless the loop is closed."""
        try:
            # Not in the context of the thread that calls this: that may say that it is trio's.
            self.loop.call_soon_threadsafe(callback, context=contextvars.Context())
        except RuntimeError:
            return False
        return True


class _Call(Generic[_T]):
    """One operation, and what comes of it.

    What waits is a lock, for that is safe to interrupt; threading's events and conditions are not.
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
        """Wait for the end, or for a while."""
        if not self.is_over:
            self._settled.acquire(timeout=_WAKES_EVERY)

    @property
    def is_cut_off(self) -> bool:
        """Whether it was not done, or not to its end."""
        return self._task is None or self._task.cancelled()

    def result(self) -> _T:
        """Return or raise what came of it; not where it is cut off."""
        return cast("asyncio.Task[_T]", self._task).result()

    # ---- in the loop

    def begin(self) -> None:
        """Begin with it."""
        if not self.is_over:
            self._task = asyncio.get_running_loop().create_task(self._operation())
            self._task.add_done_callback(self._settle)

    def cancel(self) -> None:
        """Cancel it, if it has begun; once is enough."""
        if self._task is None:
            self.give_up()
        elif not self._is_cancelled:
            self._is_cancelled = True
            self._task.cancel()

    def _settle(self, task: asyncio.Task[_T]) -> None:
        if not task.cancelled():
            task.exception()  # or asyncio complains where nobody is there any more to hear of it
        self.give_up()

    # ---- in either

    def give_up(self) -> None:
        """End the waiting."""
        self.is_over = True
        with suppress(RuntimeError):  # it was over before
            self._settled.release()


class _Executor(ThreadPoolExecutor):
    """The loop's, for looking up the names of hosts. While Python shuts down it does so at once, and in the loop."""

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
    """Stop what nobody has stopped; threads of the program have all ended by now."""
    running = list(_RUNNING)
    interruption: BaseException | None = None
    began = time.monotonic()
    for each in running:
        each.stop()
    for each in running:
        try:
            each.join(began + each.patience)
        except BaseException as error:  # the others are waited for all the same
            interruption = interruption or error
    if interruption is not None:
        raise interruption
