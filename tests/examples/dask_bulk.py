"""Many prompts on many machines, with Dask. Set OA_URL and OA_COOKIES, and run it.

The workers share one account. Its slot is a semaphore at Dask's scheduler, whose lease ends if its worker dies. Dask
gives the prompts of a dead worker to the others. Each worker process has a journal of its own, from which the chats of
a dead worker are deleted at the end.
"""

# Dask has no types, and is installed only where this runs.
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import anyio
from dask import config
from distributed import Client as Dask
from distributed import LocalCluster, Semaphore, Worker, as_completed, get_worker

import oa_protocol
from oa_protocol import sync


@dataclass(frozen=True)
class Settings:
    """What each worker has to know. ``journals`` is a folder on the worker's own disk."""

    url: str
    cookies: str
    journals: str
    has_slot: bool = True


class LeasedSlot:
    """The slot of an account, for all workers of a scheduler.

    If a worker is cancelled while it enters, the scheduler may have given it a lease already. Nobody renews that lease,
    so it ends by itself (``distributed.scheduler.locks.lease-timeout``).
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._semaphores: dict[str, Semaphore] = {}

    async def enter(self, account: str) -> None:
        """Wait for the account's lease."""
        await self._in_worker(self._acquire(account))

    async def leave(self, account: str) -> None:
        """Give the lease back."""
        await self._in_worker(self._release(account))

    async def _in_worker(self, operation: Coroutine[Any, Any, None]) -> None:
        # The client has an event loop of its own, and the semaphore belongs to that of the worker.
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(operation, self._worker.loop.asyncio_loop))

    async def _acquire(self, account: str) -> None:
        if account not in self._semaphores:
            self._semaphores[account] = await Semaphore(
                max_leases=1, name=account, scheduler_rpc=self._worker.scheduler, loop=self._worker.loop
            )
        await self._semaphores[account].acquire()

    async def _release(self, account: str) -> None:
        await self._semaphores[account].release()


@cache
def client_of_worker(settings: Settings) -> sync.Client:
    """Return the client of this worker process. Its threads share it, and it is closed when the process ends."""
    slot = LeasedSlot(get_worker()) if settings.has_slot else None
    journal = Path(settings.journals, f"{os.getpid()}.sqlite3")
    return sync.Client(settings.url, cookies=settings.cookies, journal=journal, slot=slot)


def ask(settings: Settings, prompt: str) -> str:
    """Return the answer to a prompt. This runs on a worker, in one of its threads."""
    with client_of_worker(settings).chat() as chat:
        return chat.ask(prompt)


def ask_all(cluster: Dask, settings: Settings, prompts: Mapping[str, str]) -> Iterator[tuple[str, str | Exception]]:
    """Yield the key of each prompt and its answer, or why there is none, as soon as it is there."""
    futures = {cluster.submit(ask, settings, prompt, retries=2, pure=False): key for key, prompt in prompts.items()}
    for future in as_completed(futures):
        error = future.exception()
        yield futures.pop(future), error if error is not None else future.result()


async def sweep(settings: Settings) -> int:
    """Delete what dead workers left behind, and return the number of chats. Run it on each machine."""
    swept = 0
    for journal in Path(settings.journals).glob("*.sqlite3"):
        async with oa_protocol.Client(settings.url, cookies=settings.cookies, journal=journal) as client:
            swept += len((await client.sweep(grace=0)).deleted)
    return swept


def main() -> None:
    """Ask the lines of stdin."""
    config.set({"distributed.scheduler.locks.lease-timeout": "10s"})
    settings = Settings(os.environ["OA_URL"], os.environ["OA_COOKIES"], "journals")
    with LocalCluster(n_workers=4, threads_per_worker=4) as machines, Dask(machines) as cluster:
        for key, answer in ask_all(cluster, settings, {line: line for line in map(str.strip, sys.stdin)}):
            print(key, answer, sep="\t")
    anyio.run(sweep, settings)


if __name__ == "__main__":
    main()
