"""Holds one conversation through each example, and records it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor, threads
from twisted.internet.defer import Deferred

from oa_protocol import Conversation, Credentials, InferenceServer, Website, sync
from oa_protocol.engine.events import Event
from oa_protocol.tape import Recorder
from tests.driver.site import HASTY, Site
from tests.examples import asyncio_aiohttp, http_client, thread_pool, twisted_agent

Tell = Callable[[Event], object]
Hold = Callable[[Site, Sequence[str], Tell, Path], None]
"""Holds a conversation with these prompts, tells each event, and records it."""

REACTOR: Any = reactor


def conversation(site: Site, tape: Path) -> Conversation:
    if site.api == "website":
        return Recorder(Website(site.server.url), Credentials(site.server.cookies), tape=tape)
    return Recorder(InferenceServer(site.server.url), Credentials(token=site.server.token), tape=tape)


class TapingClient(sync.Client):
    """A client whose chats are recorded."""

    def __init__(self, site: Site, tape: Path) -> None:
        super().__init__(site.server.url, api=site.api, cleanup=HASTY, **site.credentials)
        self._tape = tape

    def chat(self, *arguments: Any, **settings: Any) -> sync.Chat:
        return super().chat(*arguments, **settings, tape=self._tape)


def through_http_client(site: Site, prompts: Sequence[str], tell: Tell, tape: Path) -> None:
    http_client.converse(conversation(site, tape), prompts, tell)


def through_aiohttp(site: Site, prompts: Sequence[str], tell: Tell, tape: Path) -> None:
    asyncio.run(asyncio_aiohttp.converse(conversation(site, tape), prompts, tell))


def through_twisted(site: Site, prompts: Sequence[str], tell: Tell, tape: Path) -> None:
    in_reactor(lambda: Deferred.fromCoroutine(twisted_agent.converse(conversation(site, tape), prompts, tell)))


def in_reactor(call: Callable[[], object]) -> object:
    """Call this where the reactor runs, and wait for its Deferred. It runs once in a process: in a thread, for ever."""
    if not REACTOR.running:
        running = threading.Event()
        REACTOR.callWhenRunning(running.set)
        threading.Thread(target=REACTOR.run, args=(False,), daemon=True).start()
        assert running.wait(10)
    return threads.blockingCallFromThread(REACTOR, call)


def through_thread_pool(site: Site, prompts: Sequence[str], tell: Tell, tape: Path) -> None:
    thread_pool.converse_all(TapingClient(site, tape), [prompts], tell)


ENGINE: list[Hold] = [through_http_client, through_aiohttp, through_twisted]
ALL: list[Hold] = [*ENGINE, through_thread_pool]
