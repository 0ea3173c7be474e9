"""Runs each example on a conversation, and can interrupt it as its own runtime does."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, Literal

from oa_protocol import Conversation, Credentials, InferenceServer, Website
from oa_protocol.engine.events import Event
from oa_protocol.engine.timers import Cleanup
from oa_protocol.server import Scripted, Server
from tests.examples import asyncio_aiohttp, http_client

Api = Literal["website", "inference"]
Tell = Callable[[Event], object]

PATIENT = Cleanup(drain=0.05, timeout=60.0)
"""Short where something is waited for in vain, and long where only a busy machine can be the reason."""


class Site:
    """A running server, and how to reach one of its APIs. ``left`` names the chats that a test expects to be left."""

    def __init__(self, server: Server, api: Api) -> None:
        self.server = server
        self.api = api
        self.left: set[str] = set()
        self.endless = False

    def conversation(self, make: type[Conversation] = Conversation, **settings: Any) -> Conversation:
        settings = {"cleanup": PATIENT, **settings}
        if self.api == "website":
            return make(Website(self.server.url), Credentials(self.server.cookies), **settings)
        return make(InferenceServer(self.server.url), Credentials(token=self.server.token), **settings)

    def script(self, *scripted: Scripted) -> None:
        self.server.script(*scripted)

    @property
    def chats(self) -> tuple[str, ...]:
        return tuple(chat.id for chat in self.server.chats)

    @property
    def steps(self) -> list[str]:
        return [request.step for request in self.server.requests]


class Example:
    """One example.

    ``converse`` runs it to its end. ``interrupt`` may be called from any thread meanwhile, and ``interruption`` is what
    ``converse`` then raises.
    """

    module: ModuleType
    interruption: type[BaseException]

    def __repr__(self) -> str:
        return type(self).__name__

    def converse(self, conversation: Conversation, prompts: Sequence[str], tell: Tell) -> None:
        raise NotImplementedError

    def interrupt(self) -> None:
        raise NotImplementedError


class HttpClient(Example):
    module = http_client
    interruption = KeyboardInterrupt

    def converse(self, conversation: Conversation, prompts: Sequence[str], tell: Tell) -> None:
        http_client.converse(conversation, prompts, tell)

    def interrupt(self) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


class Aiohttp(Example):
    module = asyncio_aiohttp
    interruption = asyncio.CancelledError

    def converse(self, conversation: Conversation, prompts: Sequence[str], tell: Tell) -> None:
        async def main() -> None:
            task = asyncio.current_task()
            assert task
            self.cancel = partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel)
            await asyncio_aiohttp.converse(conversation, prompts, tell)

        asyncio.run(main())

    def interrupt(self) -> None:
        self.cancel()


ENGINE: list[Example] = [HttpClient(), Aiohttp()]
