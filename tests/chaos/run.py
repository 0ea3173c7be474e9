"""Random conversations of random owners with a server that misbehaves at random, each from a seed.

``python -m tests.chaos.run --backend trio --transport httpx --seed 1 --count 1000`` prints what broke a promise,
with its seed. A seed fixes what owner and server choose; the times are the machine's.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Literal, cast, get_args

import anyio

from oa_protocol import ChatLeakedWarning, Cleanup, Client, LeakRecord, OAError, Timeouts, TransportFactory, sync
from oa_protocol.server import Echo, Server
from oa_protocol.transports.fast.httptools import HttptoolsTransport
from oa_protocol.transports.httpx import HttpxTransport
from tests.chaos.faults import draw_faults
from tests.chaos.owners import (
    BEHAVIOURS,
    PROMPT,
    SYNC_BEHAVIOURS,
    Behaviour,
    Boom,
    Owner,
    Striker,
    SyncBehaviour,
)

Backend = Literal["asyncio", "trio", "sync"]

TRANSPORTS: dict[str, Callable[..., Any]] = {"httptools": HttptoolsTransport, "httpx": HttpxTransport}
AT_ONCE = 16
LAST_RESORT = 0.9
"""How much longer than ``Cleanup.timeout`` leaving may take if a library blocks (docs/architecture.md)."""


@dataclass
class Story:
    """One owner and one server. ``broken`` says which promises were broken."""

    seed: int
    behaviour: str = ""
    broken: list[str] = field(default_factory=list[str])


def tell(seed: int, run: Callable[[Story, Random, Server, dict[str, Any]], None]) -> Story:
    """Draw a server and a client's settings, and let an owner loose on them."""
    random = Random(seed)
    story = Story(seed)
    cleanup = Cleanup(
        drain=random.choice((0, 0.1)), timeout=random.choice((0.5, 1.5)), attempts=random.choice((1, 2, 3))
    )
    api = random.choice(("website", "inference"))
    with Server(model=Echo(), token_delay=random.choice((0, 0.005)), reader_grace=0.2) as server:
        server.script(*draw_faults(random))
        settings = {
            "api": api,
            "cleanup": cleanup,
            "retries": random.choice((0, 1, 2)),
            "timeouts": Timeouts(
                connect=1.0, reply=random.choice((0.3, 1.0)), idle=0.5, poll=0.5, answer=random.choice((0.5, 3.0))
            ),
            **({"cookies": server.cookies} if api == "website" else {"token": server.token}),
        }
        run(story, random, server, settings)
        deletes = Counter(request.target for request in server.requests if request.step == "delete")
        if deletes and max(deletes.values()) > cleanup.attempts:
            story.broken.append(f"{max(deletes.values())} DELETEs of one chat, and {cleanup.attempts} are allowed")
    return story


def hold_conversation(
    backend: Backend, transport: TransportFactory, slack: float, story: Story, random: Random, server: Server,
    settings: dict[str, Any],
) -> None:  # fmt: skip
    """Let an owner be, and judge what came of it."""
    owner = Owner(random)
    left: list[float] = []
    striker = None
    if backend == "sync":
        behave = random.choice(SYNC_BEHAVIOURS)
        threaded = sync.Client(server.url, transport=transport, **settings)
        # CPython may raise what is for this thread in one that only begins, so it is to have begun. Whether the server
        # replies in time on a busy machine doesn't matter.
        with suppress(OAError):
            threaded.models()
        striker = Striker(random) if random.random() < 0.5 else None
        story.behaviour = f"{behave.__name__}{', interrupted' if striker else ''}"
        if striker:
            striker.start()
        error = _caught(partial(_run_sync, behave, owner, threaded, left, striker))
        if striker:
            striker.stop()
        leaked = threaded.leaked
    else:
        behaviour = random.choice(BEHAVIOURS)
        story.behaviour = behaviour.__name__
        client = Client(server.url, transport=transport, **settings)
        error = _caught(lambda: anyio.run(_run_async, behaviour, owner, client, left, backend=backend))
        leaked = client.leaked
    took = time.monotonic() - left[0] if left else 0.0
    story.broken += [f"raised {raised!r}" for raised in _flat(error) if not _is_expected(raised, striker)]
    story.broken += [f"took {answer!r} for the whole answer" for answer in owner.answers if answer != PROMPT]
    story.broken += _unnamed(server, leaked)
    if took > settings["cleanup"].timeout + LAST_RESORT + slack:
        story.broken.append(f"leaving took {took:.1f} s")
    server.wait_until(lambda: not server.connections)


def _run_sync(
    behave: SyncBehaviour, owner: Owner, client: sync.Client, left: list[float], striker: Striker | None
) -> None:
    with client:
        try:
            behave(owner, client)
        finally:
            left.append(time.monotonic())
            if striker:
                striker.leaving.set()


async def _run_async(behave: Behaviour, owner: Owner, client: Client, left: list[float]) -> None:
    async with client:
        try:
            await behave(owner, client)
        finally:
            left.append(time.monotonic())


def _caught(run: Callable[[], object]) -> BaseException | None:
    try:
        run()
    except BaseException as error:
        return error
    return None


def _flat(error: BaseException | None) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _flat(one)
    elif error is not None:
        yield error


def _is_expected(error: BaseException, striker: Striker | None) -> bool:
    if isinstance(error, KeyboardInterrupt):
        return striker is not None
    return isinstance(error, OAError | Boom) or type(error).__name__ in ("Cancelled", "CancelledError")


def _unnamed(server: Server, leaked: list[LeakRecord]) -> list[str]:
    named = {record.chat_id for record in leaked}
    without_id = sum(record.chat_id is None for record in leaked)
    left = [chat.id for chat in server.chats if chat.id not in named]
    return [f"{len(left)} chats are left, and only {without_id} of them named"] if len(left) > without_id else []


def run(backend: Backend, transport: str, seeds: range, *, slack: float) -> list[Story]:
    """Tell the stories, several at once, each in a thread with an event loop of its own. Return the broken ones."""
    before = threading.active_count()
    hold = partial(hold_conversation, backend, TRANSPORTS[transport], slack)

    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(max_workers=AT_ONCE) as threads,
    ):
        warnings.simplefilter("ignore", ChatLeakedWarning)
        warnings.filterwarnings("ignore", "unclosed <Chat", ResourceWarning)  # an owner may forget his chat
        stories = list(threads.map(partial(tell, run=hold), seeds))
    broken = [story for story in stories if story.broken]
    if threading.active_count() > before:
        broken.append(Story(-1, "all", [f"threads are left: {threading.enumerate()}"]))
    return broken


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=get_args(Backend), default="asyncio")
    parser.add_argument("--transport", choices=TRANSPORTS, default="httptools")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--slack", type=float, default=2.0, help="seconds by which a busy machine may be late")
    options = parser.parse_args(arguments)
    seeds = range(options.seed, options.seed + options.count)
    broken = run(options.backend, options.transport, seeds, slack=options.slack)
    for story in broken:
        print(f"seed {story.seed}, {story.behaviour}: {'; '.join(story.broken)}")
    print(f"{len(seeds)} conversations, {len(broken)} broke a promise")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
