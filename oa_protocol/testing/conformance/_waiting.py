"""How the tests wait for something, and how they cancel a call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

import anyio

from oa_protocol.testing.peers import Peer, Signal

SWALLOWED = "the cancellation was swallowed"


# ---- waiting

_What = str | Callable[[], str]


@contextmanager
def expecting(what: _What) -> Generator[None]:
    """Raise ``AssertionError`` with this message if the test's time is up inside the block."""
    try:
        yield
    except anyio.get_cancelled_exc_class() as cancelled:
        if anyio.current_effective_deadline() > -math.inf:
            raise  # The deadline hasn't passed, so this is a Ctrl-C.
        # The cause's traceback shows the line that was waiting.
        raise AssertionError(what if isinstance(what, str) else what()) from cancelled


async def all_left(peer: Peer, after: str) -> None:
    """Wait until the transport has closed all its connections to ``peer``."""
    since = anyio.current_time()
    with expecting(
        lambda: (
            f"a connection is still open {anyio.current_time() - since:.1f} s after {after} "
            "(BlockingTransport: `interrupt` must end a blocked `begin` or `receive`)"
        )
    ):
        await peer.all_left()


# ---- cancellation

_Operation = Callable[[], Awaitable[object]]


async def _nothing() -> None:
    pass


class Cancels(Protocol):
    """Starts an operation, waits until it is under way, calls ``then``, and cancels the operation.

    It returns whether the cancellation ended the operation.
    """

    async def __call__(self, operation: _Operation, under_way: Signal, then: _Operation = ...) -> bool: ...


def ways_to_cancel() -> Sequence[Cancels]:
    """Return the ways to cancel a call on the running event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return (_cancel_scope,)
    return (_cancel_scope, _cancel_task)


async def _cancel_scope(operation: _Operation, under_way: Signal, then: _Operation = _nothing) -> bool:
    scope, waiting = anyio.CancelScope(), anyio.CancelScope()
    failures: list[Exception] = []

    async def run() -> None:
        try:
            with scope:
                await operation()
        except Exception as error:
            failures.append(error)
        waiting.cancel()

    with expecting(lambda: _what_cancelling_waits_for(under_way)):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            with waiting:
                await under_way.reached()
            await then()
            scope.cancel()
    if failures:
        raise failures[0]
    return scope.cancelled_caught


async def _cancel_task(operation: _Operation, under_way: Signal, then: _Operation = _nothing) -> bool:
    """Cancel the task once, as ``asyncio.timeout``, ``wait_for``, a ``TaskGroup`` and the end of the loop do."""

    async def run() -> None:
        await operation()

    waiting = anyio.CancelScope()
    task = asyncio.create_task(run())
    task.add_done_callback(lambda _: waiting.cancel())
    with expecting(lambda: _what_cancelling_waits_for(under_way)):
        with waiting:
            await under_way.reached()
        await then()
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return task.cancelled()


def ways_to_be_cancelled() -> Sequence[Callable[[_Operation], Awaitable[None]]]:
    """Return functions that run an operation in a caller that has been cancelled already."""
    return (_in_cancelled_scope,) if len(ways_to_cancel()) == 1 else (_in_cancelled_scope, _in_cancelled_task)


async def _in_cancelled_scope(operation: _Operation) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await operation()


async def _in_cancelled_task(operation: _Operation) -> None:
    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            # The first cancellation has ended the wait above. This one is raised at the operation's first ``await``.
            ending.cancel()
            await operation()

    ending = asyncio.create_task(run())
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.wait([ending])
    if not ending.cancelled():
        ending.result()


def _what_cancelling_waits_for(under_way: Signal) -> str:
    return "a call was cancelled, but goes on" if under_way.is_set else f"it never happened: {under_way}"
