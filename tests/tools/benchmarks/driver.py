"""The driver beside the historic client's loop, each in a process of its own, as is the server.

``python -m tests.tools.benchmarks.driver [--runs 3] [--only WORD]`` prints a table of medians.
CPU is the contender's own.
"""

import argparse
import asyncio
import gc
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import anyio

from .driver_contenders import CONTENDERS, Converse
from .driver_server import Plan, served

WARM_UP = Plan(tokens=10)


@dataclass(frozen=True)
class Case:
    """A figure for each contender. ``measure`` gets a contender's ``converse`` and this case, in a process of its own.

    A case without the historic client has a target of its own; for the others it is a ratio.
    """

    what: str
    target: str
    measure: "Callable[[Converse, Case], Awaitable[float]]"
    plan: Plan
    conversations: int
    rounds: int = 1
    contenders: tuple[str, ...] = ("httptools", "httpx", "historic")
    backend: str = "asyncio"


class Tokens:
    """Counts tokens, and tells when all that are wanted were seen."""

    def __init__(self, wanted: int) -> None:
        self.seen = 0
        self.all_seen = anyio.Event()
        self._wanted = wanted

    def note(self) -> None:
        self.seen += 1
        if self.seen == self._wanted:
            self.all_seen.set()


# ---- what is measured


async def cpu_of_a_token(converse: Converse, case: Case) -> float:
    """µs."""
    return await _cpu(converse, case) / (case.conversations * case.plan.tokens) * 1e6


async def cpu_of_a_conversation(converse: Converse, case: Case) -> float:
    """ms."""
    return await _cpu(converse, case) / case.conversations * 1e3


async def _cpu(converse: Converse, case: Case) -> float:
    tokens = Tokens(case.conversations * case.plan.tokens)
    began = time.process_time()
    async with anyio.create_task_group() as group:
        for _ in range(case.conversations):
            group.start_soon(converse, tokens.note)
    took = time.process_time() - began
    assert tokens.all_seen.is_set()
    return took


async def cancelling(converse: Converse, case: Case) -> float:
    """Seconds of wall time, from the cancellation of all streams to the last DELETE's reply."""
    tokens = Tokens(case.conversations)
    cancelled = 0.0
    async with anyio.create_task_group() as group:
        for _ in range(case.conversations):
            group.start_soon(converse, tokens.note)
        await tokens.all_seen.wait()
        gc.collect()
        cancelled = time.perf_counter()
        group.cancel_scope.cancel()
    return time.perf_counter() - cancelled


async def memory_of_a_conversation(converse: Converse, case: Case) -> float:
    """KB of resident memory, with the socket's objects and the task, once they were started one after the other."""
    gc.collect()
    used = 0
    before = _resident()
    async with anyio.create_task_group() as group:
        for _ in range(case.conversations):
            streams = Tokens(1)
            group.start_soon(converse, streams.note)
            await streams.all_seen.wait()
        gc.collect()
        used = _resident() - before
        group.cancel_scope.cancel()
    return used / case.conversations / 1024


async def resident_growth(converse: Converse, case: Case) -> float:
    """KB of resident memory. It rises until the allocator has found its places, which takes some two minutes."""
    return await _growth(converse, case, _resident) / 1024


async def block_growth(converse: Converse, case: Case) -> float:
    """Blocks of memory that are in use: what is kept for good, whatever the allocator does."""
    return float(await _growth(converse, case, sys.getallocatedblocks))


async def _growth(converse: Converse, case: Case, used: Callable[[], int]) -> int:
    """Return what the second half of the conversations gained. No descriptor and no task may be left of them."""

    async def converse_on() -> None:
        for _ in range(case.rounds // 2):
            await converse(lambda: None)

    readings: list[int] = []
    descriptors, tasks = _open_descriptors(), len(asyncio.all_tasks())
    for _ in range(2):
        async with anyio.create_task_group() as group:
            for _ in range(case.conversations):
                group.start_soon(converse_on)
        gc.collect()
        readings.append(used())
    assert (_open_descriptors(), len(asyncio.all_tasks())) == (descriptors, tasks)
    return readings[1] - readings[0]


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# The historic client dies of a final event over 512 KiB.
BULK = 50_000
OURS = ("httptools", "httpx")
HANGING = Plan(tokens=1, hangs=True)
STEADY = Plan(100, interval=0.01)
CASES = [
    Case("bulk, one event a chunk: CPU µs a token", "≤ 0.20", cpu_of_a_token, Plan(BULK), 4),
    Case("bulk, chunks of 4 KiB: CPU µs a token", "≤ 0.20", cpu_of_a_token, Plan(BULK, chunk=4096), 4),
    Case("1,000 conversations at once: CPU ms each", "≤ 1.0", cpu_of_a_conversation, Plan(100), 1000),
    Case("a paced stream: CPU µs a token", "≤ 1.0", cpu_of_a_token, Plan(2000, interval=0.005), 1),
    Case("100 paced streams: CPU µs a token", "≤ 1.0", cpu_of_a_token, Plan(400, interval=0.025), 100),
    Case("5,000 conversations at once: CPU ms each", "≤ 1.0", cpu_of_a_conversation, Plan(100), 5000),
    Case("1,000 live conversations: KB each", "≤ 25", memory_of_a_conversation, HANGING, 1000),
    Case("5,000 live conversations: KB each", "≤ 12", memory_of_a_conversation, HANGING, 5000, 1, OURS),
    Case("1,000 streams cancelled, asyncio: s", "≤ 1.0", cancelling, HANGING, 1000, 1, OURS),
    Case("1,000 streams cancelled, trio: s", "≤ 1.0", cancelling, HANGING, 1000, 1, OURS, "trio"),
    Case("60 s at 10,000 tokens/s: blocks gained", "0", block_growth, STEADY, 100, 60, ("httptools",)),
    Case("60 s at 10,000 tokens/s: KB gained", "0", resident_growth, STEADY, 100, 60, ("httptools",)),
]


# ---- running it


def contend(case: Case, contender: str, warm_up_url: str, url: str, pipe: Connection) -> None:
    """In a process of its own: measure one contender, and say what was measured."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    async def run() -> float:
        async with CONTENDERS[contender](warm_up_url) as converse:
            await converse(lambda: None)
        async with CONTENDERS[contender](url) as converse:
            return await case.measure(converse, case)

    pipe.send(anyio.run(run, backend=case.backend))


def figure(case: Case, contender: str, warm_up_url: str) -> float:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    with served(case.plan) as site:
        process = context.Process(target=contend, args=(case, contender, warm_up_url, site.url, there))
        process.start()
        there.close()
        measured = here.recv()
        process.join()
        assert contender == "historic" or site.deleted() == case.conversations * case.rounds
    assert isinstance(measured, float)
    return measured


def row(case: Case, runs: int) -> str:
    figures: dict[str, list[float]] = {contender: [] for contender in case.contenders}
    with served(WARM_UP) as warm_up:
        for _ in range(runs):
            for contender in case.contenders:  # side by side, for the machine may have other things to do
                figures[contender].append(figure(case, contender, warm_up.url))
    cells = [f"{statistics.median(figures[name]):.3g}" if name in figures else "-" for name in CONTENDERS]
    ratios = ["-", "-"]
    if "historic" in figures:
        pairs = [zip(figures[name], figures["historic"], strict=True) for name in ("httptools", "httpx")]
        ratios = [f"{statistics.median(mine / theirs for mine, theirs in pair):.2f}" for pair in pairs]
    return "| " + " | ".join([case.what, case.target, *cells, *ratios]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how many, of which the median counts")
    parser.add_argument("--only", default="", metavar="WORD", help="only the rows with this word in them")
    arguments = parser.parse_args()
    print("| what | target | httptools | httpx | historic loop | httptools ÷ historic | httpx ÷ historic |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for case in CASES:
        if arguments.only in case.what:
            print(row(case, arguments.runs), flush=True)


if __name__ == "__main__":
    main()
