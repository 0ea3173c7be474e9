"""Runs tasks that belong to the event loop itself, so a cancellation of the current task doesn't reach them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

# asyncio itself keeps only weak references to its tasks, so they could be garbage collected while they run.
_TASKS: set[asyncio.Task[None]] = set()


def spawn(operation: Coroutine[Any, Any, None], at_end: Callable[[], None]) -> None:
    """Run ``operation`` as a task of the event loop itself, which is no child of the current task. It mustn't raise.

    An asyncio task that is cancelled before it begins runs none of its code, not even a ``finally``. So ``at_end`` is a
    callback there. A trio task always begins.
    """
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        task = asyncio.get_running_loop().create_task(operation)
        _TASKS.add(task)

        def end(ended: asyncio.Task[None]) -> None:
            _TASKS.discard(ended)
            at_end()

        task.add_done_callback(end)
    else:
        import trio

        async def run() -> None:
            await operation

        trio.lowlevel.spawn_system_task(run, context=contextvars.copy_context())
