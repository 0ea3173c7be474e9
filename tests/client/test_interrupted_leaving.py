"""A KeyboardInterrupt at any line of leaving: the chat is deleted, or named."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import gc
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest

import oa_protocol.client
from oa_protocol import ChatLeakedWarning, Cleanup, Client, sync
from oa_protocol.client import _shield
from oa_protocol.server import Echo, Server

pytestmark = [
    pytest.mark.clause("OA-7.2"),
    pytest.mark.once,
    pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnraisableExceptionWarning"
    ),  # the interruption may come in a `__del__`
]

FOLDER = str(Path(oa_protocol.client.__file__).parent)
HASTY = Cleanup(drain=0, timeout=3)


@pytest.fixture(autouse=True)
def own_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what an interruption breaks in the bookkeeping of signals, where a signal itself can't strike."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(_shield, "_SIGNALS", _shield._Signals())
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Interruption:
    """Raises KeyboardInterrupt at the line of this number that runs in the client, once it is begun."""

    def __init__(self, number: int) -> None:
        self.remaining = number

    def begin(self) -> None:
        sys.settrace(self._enter)

    def _enter(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._trace if frame.f_code.co_filename.startswith(FOLDER) else None

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self.remaining -= 1
            if self.remaining == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._trace


async def leave(client: Client, interruption: Interruption) -> None:
    async with client, client.chat() as chat:
        async for _ in chat.stream("One two three"):
            break
        interruption.begin()


async def leave_client(client: Client, interruption: Interruption) -> None:
    async with client:
        await client.chat().ask("One two three")
        interruption.begin()


def leave_in_thread(client: sync.Client, interruption: Interruption) -> None:
    with client, client.chat() as chat:
        for _ in chat.stream("One two three"):
            break
        interruption.begin()


def leave_client_in_thread(client: sync.Client, interruption: Interruption) -> None:
    with client:
        client.chat().ask("One two three")
        interruption.begin()


def seen_after(
    left: Callable[[], set[str]], run: Callable[[Any, Interruption], object], client: Any, interruption: Interruption
) -> str:
    """Leave while ``interruption`` interrupts, forget the client, and return every text that names a chat."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # interrupted connections are left to the garbage collector
        try:
            run(client, interruption)
        except BaseException as error:  # an interruption may become another exception on its way
            error.__traceback__ = None
        finally:
            sys.settrace(None)
        named = [str(record.chat_id) for record in client.leaked]
        if left():  # the chat is named when the client is forgotten, or its thread deletes the chat
            thread = getattr(client, "_thread", None)
            del client
            gc.collect()
            if thread is not None:
                thread.join()
    return " ".join(named + [str(each.message) for each in caught if each.category is ChatLeakedWarning])


def at_every_line(run: Callable[[Any, Interruption], object], client: Callable[..., Any]) -> None:
    found: dict[str, int] = {}
    named = ""
    with Server(model=Echo()) as server:

        def left() -> set[str]:
            return {chat.id for chat in server.chats} - found.keys()

        for number in count(1):
            interruption = Interruption(number)
            # The last traceback may keep a client alive until the next interruption.
            named += seen_after(left, run, client(server.url, cookies=server.cookies, cleanup=HASTY), interruption)
            found |= dict.fromkeys(left(), number)
            if interruption.remaining > 0:
                break
        still_there = {chat.id for chat in server.chats}
    assert {number for chat_id, number in found.items() if chat_id in still_there and chat_id not in named} == set()


@pytest.mark.parametrize("run", [leave, leave_client])
def test_leaving_that_is_interrupted_at_any_line(anyio_backend: str, run: Any) -> None:
    at_every_line(partial(anyio.run, run, backend=anyio_backend), Client)


@pytest.mark.parametrize("run", [leave_in_thread, leave_client_in_thread])
def test_leaving_in_a_thread_that_is_interrupted_at_any_line(run: Any) -> None:
    at_every_line(run, sync.Client)
