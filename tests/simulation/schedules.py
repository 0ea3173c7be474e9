"""Explores in which order the tasks of a client and its server run, and at which awaits its owners are cancelled.

The client and the embedded server are the real ones, over the transport in memory. detangle runs them on an event loop
that makes all its choices from a seed, without sockets, threads or a real clock:

    python -m tests.simulation.schedules --api website --seed 2 --count 20000

If a schedule breaks a promise, it is shortened and printed step by step, with a token. ``DETANGLE_REPLAY=token`` before
the same command runs that schedule again.
"""

from __future__ import annotations

import argparse
import asyncio
import warnings
from collections.abc import Coroutine
from contextlib import nullcontext
from functools import partial
from itertools import count
from typing import Any, get_args

import anyio
import detangle

from oa_protocol import ChatLeakedWarning, Client, TransportError
from oa_protocol.server import Echo, Server
from oa_protocol.transports.memory import MemoryTransport
from tests.driver.site import Api
from tests.faults.awaits import FAILURES, Network

PROMPT = "Hello"

STEP = 0.0001
"""Seconds that each step of a task takes, so that a timeout can come at any await. The client's own are far longer."""
LONGEST = 150
"""Steps after which the last interruption comes. One conversation takes about 100 of them, and two at once 200."""
MOST_CALLS = 40
"""Two conversations make about this many calls of their transports. A failure that is to come later doesn't come."""


def explore(api: Api, *, seed: int | None, count: int) -> detangle.ExploreStats:
    """Try ``count`` schedules. Raise ``detangle.BugFound`` for the first one that breaks a promise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ChatLeakedWarning)
        return detangle.explore(
            partial(visit, api),
            runs=count,
            seed=seed,
            # Other strategies run one task as long as it can. But anyio tries a cancellation again in each turn of the
            # loop, until it has arrived, so it would try forever.
            strategy="random",
            step_cost=STEP,
            max_time=1000.0,
            database=False,
        )


class NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its number. Otherwise a set of tasks, such as a task group's, would have a random order."""

    def __init__(self, number: int, coroutine: Coroutine[Any, Any, Any], **settings: Any) -> None:
        self._number = number
        super().__init__(coroutine, **settings)

    def __hash__(self) -> int:
        return self._number


def number_tasks(loop: asyncio.AbstractEventLoop) -> None:
    numbers = count()

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **settings: Any) -> NumberedTask:
        return NumberedTask(next(numbers), coroutine, loop=loop, **settings)

    loop.set_task_factory(make)


async def visit(api: Api) -> None:
    """Let one or two owners converse, while two other tasks cancel something, and perhaps the network fails once."""
    number_tasks(asyncio.get_running_loop())
    server = Server(Echo())
    network = Network(
        detangle.randint(1, MOST_CALLS), *detangle.choice(FAILURES["asyncio"]), lambda: MemoryTransport(server.app)
    )
    cookies, token = (server.cookies, None) if api == "website" else (None, server.token)
    client = Client("http://localhost", api=api, cookies=cookies, token=token, transport=network)
    victims: list[asyncio.Task[None]] = []
    cancelled: set[asyncio.Task[None]] = set()

    async def work() -> None:
        async with client, asyncio.TaskGroup() as group:
            victims.extend(group.create_task(converse(client, network)) for _ in range(detangle.randint(1, 2)))

    async def interrupt() -> None:
        await asyncio.sleep(some_time())
        victim = detangle.choice(victims)
        if victim.cancel():
            cancelled.add(victim)

    victims.append(asyncio.create_task(work()))
    await asyncio.wait([*victims, asyncio.create_task(interrupt()), asyncio.create_task(interrupt())])
    while server.under_way:
        await asyncio.sleep(1.0)
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a task is left"
    assert all(victim.cancelled() for victim in cancelled), "a cancellation was swallowed"
    for victim in victims:
        if not victim.cancelled():
            victim.result()
    check_chats(server, client, may_name=network.has_failed)


def check_chats(server: Server, client: Client, *, may_name: bool) -> None:
    """Check the guarantee. If the network works, each chat can be deleted, so there is none to name."""
    named = [record.chat_id for record in client.leaked]
    unnamed = {chat.id for chat in server.chats}.difference(named)
    assert len(unnamed) <= named.count(None), f"left {unnamed}, named {named}"
    assert may_name or not named, f"named {named}, though the network works"


async def converse(client: Client, network: Network) -> None:
    """Ask once, and perhaps lose patience. The chat's own context ends it, or else the client's."""
    with anyio.move_on_after(some_time()):
        try:
            chat = client.chat()
            async with chat if detangle.flip() else nullcontext():
                assert await chat.ask(PROMPT) == PROMPT
        except (TransportError, network.error):
            assert network.has_failed


def some_time() -> float:
    return STEP * detangle.randint(1, LONGEST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--api", choices=get_args(Api), default="website")
    parser.add_argument("--seed", type=int, help="by default another one each time")
    parser.add_argument("--count", type=int, default=20_000)
    options = parser.parse_args()
    print(explore(options.api, seed=options.seed, count=options.count).summary())


if __name__ == "__main__":
    main()
