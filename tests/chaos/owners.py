"""What the owners of conversations do: they ask, leave early, are cancelled, and forget what they began."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

import anyio
import sniffio

from oa_protocol import Chat, Client, LocalProtocolError, OAError, sync

PROMPT = "To be, or not to be, that is the question"


class Boom(Exception):
    """The owner's own."""


class Owner:
    """An owner with a will of its own. ``answers`` are those that were taken for whole."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.answers: list[str] = []

    def soon(self, longest: float = 1.5) -> float:
        """Return a time in seconds, which is often very short."""
        return self.random.choice((0.0, 0.001, 0.05, 1.0)) * self.random.random() * longest

    async def ask(self, chat: Chat) -> None:
        self.answers.append(await chat.ask(PROMPT))

    async def stream(self, chat: Chat, stop: int | None = None) -> None:
        pieces: list[str] = []
        async for piece in (stream := chat.stream(PROMPT)):
            pieces.append(piece)
            if len(pieces) == stop:
                return
        self.answers.append(stream.answer.text)


Behaviour = Callable[[Owner, Client], Awaitable[None]]
SyncBehaviour = Callable[[Owner, sync.Client], None]


async def takes_turns(owner: Owner, client: Client) -> None:
    async with client.chat() as chat:
        for _ in range(owner.random.choice((1, 2, 3))):
            await owner.random.choice((owner.ask, owner.stream))(chat)


async def breaks_and_asks_again(owner: Owner, client: Client) -> None:
    async with client.chat() as chat:
        await owner.stream(chat, stop=owner.random.choice((1, 2)))
        await owner.ask(chat)


async def raises(owner: Owner, client: Client) -> None:
    async with client.chat() as chat:
        async for _ in chat.send(PROMPT):
            if owner.random.random() < 0.3:
                raise Boom


async def has_no_time(owner: Owner, client: Client) -> None:
    with anyio.move_on_after(owner.soon()):
        async with client.chat() as chat:
            for _ in range(3):
                with anyio.move_on_after(owner.soon()):
                    await owner.ask(chat)


async def looks_in(owner: Owner, client: Client) -> None:
    async with client.chat() as chat:
        answer = chat.send(PROMPT)
        while True:
            with anyio.move_on_after(0.02):
                if await anext(answer, None) is None:
                    break
        owner.answers.append(answer.text)


async def is_cancelled_often(owner: Owner, client: Client) -> None:
    async def work() -> None:
        async with client.chat() as chat:
            await owner.ask(chat)
            await owner.stream(chat)

    if sniffio.current_async_library() != "asyncio":
        with anyio.move_on_after(owner.soon()):
            await work()
        return
    task = asyncio.create_task(work())
    for _ in range(owner.random.choice((1, 2, 4))):
        await asyncio.sleep(owner.soon())
        task.cancel()
    await task


async def is_closed_by_another(owner: Owner, client: Client) -> None:
    chat = client.chat()

    async def close() -> None:
        await anyio.sleep(owner.soon())
        await owner.random.choice((chat, client)).aclose()

    async with anyio.create_task_group() as group:
        group.start_soon(close)
        async with chat:
            with suppress(LocalProtocolError):  # it was closed
                await owner.ask(chat)


async def has_several(owner: Owner, client: Client) -> None:
    async def one() -> None:
        try:
            async with client.chat() as chat:
                with anyio.move_on_after(owner.random.choice((0.1, 60))):
                    await owner.ask(chat)
        except OAError:
            pass

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(one)


async def forgets(owner: Owner, client: Client) -> None:
    chat = client.chat()
    with anyio.move_on_after(owner.soon()):
        await owner.stream(chat, stop=1)


BEHAVIOURS: tuple[Behaviour, ...] = (
    takes_turns,
    breaks_and_asks_again,
    raises,
    has_no_time,
    looks_in,
    is_cancelled_often,
    is_closed_by_another,
    has_several,
    forgets,
)


# ---- on threads


class Striker:
    """Raises KeyboardInterrupt in the owner's thread, once or twice: anywhere, or just when the owner leaves."""

    def __init__(self, random: Random) -> None:
        self.leaving = threading.Event()
        self._over = threading.Event()
        self._waits_for_leaving = random.random() < 0.5
        longest = 0.0005 if self._waits_for_leaving else 1.0
        self._pauses = [longest * random.random() for _ in range(random.choice((1, 1, 2)))]
        self._victim = threading.get_ident()
        self._thread = threading.Thread(target=self._strike)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when it raises nothing more, and its last exception has arrived."""
        while self._thread.is_alive() or not self._over.is_set():
            with suppress(KeyboardInterrupt):
                self._over.set()
                self.leaving.set()
                self._thread.join()
        with suppress(KeyboardInterrupt):
            for _ in range(1000):  # what was raised last comes in here
                pass

    def _strike(self) -> None:
        if self._waits_for_leaving:
            self.leaving.wait()
        for pause in self._pauses:
            if self._over.wait(pause):
                return
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._victim), ctypes.py_object(KeyboardInterrupt)
            )


def sync_takes_turns(owner: Owner, client: sync.Client) -> None:
    with client.chat() as chat:
        for _ in range(owner.random.choice((1, 2))):
            owner.answers.append(chat.ask(PROMPT))


def sync_breaks(owner: Owner, client: sync.Client) -> None:
    with client.chat() as chat:
        for _ in chat.stream(PROMPT):
            break
        owner.answers.append(chat.ask(PROMPT))


def sync_raises(owner: Owner, client: sync.Client) -> None:
    with client.chat() as chat:
        for _ in chat.send(PROMPT):
            if owner.random.random() < 0.3:
                raise Boom


def sync_forgets(owner: Owner, client: sync.Client) -> None:
    for _ in client.chat().stream(PROMPT):
        break


SYNC_BEHAVIOURS: tuple[SyncBehaviour, ...] = (sync_takes_turns, sync_breaks, sync_raises, sync_forgets)
