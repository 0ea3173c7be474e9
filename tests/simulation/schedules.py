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
from contextlib import nullcontext
from functools import partial
from typing import get_args

import anyio
import detangle

from oa_protocol import Client
from oa_protocol.server import Echo, Server
from oa_protocol.transports.memory import MemoryTransport
from tests.driver.site import Api

PROMPT = "Hello"

STEP = 0.0001
"""Seconds that each step of a task takes, so that a timeout can come at any await. The client's own are far longer."""
LONGEST = 150
"""Steps after which the last interruption comes. One conversation takes about 100 of them, and two at once 200."""


def explore(api: Api, *, seed: int | None, count: int) -> detangle.ExploreStats:
    """Try ``count`` schedules. Raise ``detangle.BugFound`` for the first one that breaks a promise."""
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


async def visit(api: Api) -> None:
    """Let one or two owners converse while two other tasks cancel something. Check what is left after them."""
    server = Server(Echo())
    credentials = {"cookies": server.cookies} if api == "website" else {"token": server.token}
    client = Client("http://localhost", api=api, transport=lambda: MemoryTransport(server.app), **credentials)
    victims: list[asyncio.Task[None]] = []
    cancelled: set[asyncio.Task[None]] = set()

    async def work() -> None:
        async with client, asyncio.TaskGroup() as group:
            victims.extend(group.create_task(converse(client)) for _ in range(detangle.randint(1, 2)))

    async def interrupt() -> None:
        await asyncio.sleep(some_time())
        victim = detangle.choice(victims)
        if victim.cancel():
            cancelled.add(victim)

    victims.append(asyncio.create_task(work()))
    await asyncio.wait([*victims, asyncio.create_task(interrupt()), asyncio.create_task(interrupt())])
    while server.under_way:
        await asyncio.sleep(1.0)

    assert all(victim.cancelled() for victim in cancelled), "a cancellation was swallowed"
    for victim in victims:
        if not victim.cancelled():
            victim.result()
    # The server works, so there is time to delete each chat, and no reason to name one instead.
    assert server.chats == ()
    assert client.leaked == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def converse(client: Client) -> None:
    """Ask once, and perhaps lose patience. The chat's own context ends it, or else the client's."""
    with anyio.move_on_after(some_time()):
        chat = client.chat()
        async with chat if detangle.flip() else nullcontext():
            assert await chat.ask(PROMPT) == PROMPT


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
