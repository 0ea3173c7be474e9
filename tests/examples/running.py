"""Runs each example on a conversation, and can interrupt it as its own runtime does."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Literal, cast

import gevent
from twisted.internet import defer, reactor, threads
from twisted.internet.defer import Deferred
from twisted.python import threadable

from oa_protocol import Cleanup, Conversation, Credentials, InferenceServer, Website
from oa_protocol.bindings.base import Binding
from oa_protocol.engine.events import Event
from oa_protocol.server import Scripted, Server
from tests.examples import asyncio_aiohttp, gevent_pool, http_client, pyside_network, twisted_agent

Api = Literal["website", "inference"]
REACTOR: Any = reactor
Tell = Callable[[Event], object]

PATIENT = Cleanup(drain=0.05, timeout=60.0)
"""The drain is short, because it waits in vain. The timeout is long, because only a busy machine can exceed it."""


class Site:
    """A running server, and how to reach one of its APIs. ``left`` names the chats that a test expects to be left."""

    def __init__(self, server: Server, api: Api) -> None:
        self.server = server
        self.api = api
        self.left: set[str] = set()
        self.endless = False

    @property
    def binding(self) -> Binding:
        return Website(self.server.url) if self.api == "website" else InferenceServer(self.server.url)

    @property
    def credentials(self) -> Credentials:
        return Credentials(self.server.cookies) if self.api == "website" else Credentials(token=self.server.token)

    @property
    def access(self) -> dict[str, Any]:
        """What a client is made with, besides the URL."""
        if self.api == "website":
            return {"api": self.api, "cookies": self.server.cookies}
        return {"api": self.api, "token": self.server.token}

    def conversation(self, make: Callable[..., Conversation] = Conversation, **settings: Any) -> Conversation:
        return make(self.binding, self.credentials, **{"cleanup": PATIENT, **settings})

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
    cancel: Callable[[], object]

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
            loop = asyncio.get_running_loop()
            self.cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            await asyncio_aiohttp.converse(conversation, prompts, tell)

        asyncio.run(main())

    def interrupt(self) -> None:
        self.cancel()


class Twisted(Example):
    module = twisted_agent
    interruption = defer.CancelledError

    def converse(self, conversation: Conversation, prompts: Sequence[str], tell: Tell) -> None:
        def begin() -> Deferred[None]:
            running = Deferred.fromCoroutine(twisted_agent.converse(conversation, prompts, tell))
            self.cancel = running.cancel
            return running

        in_reactor(begin)

    def interrupt(self) -> None:
        if cast("Any", threadable).isInIOThread():  # from within an event, so that it takes effect after that
            REACTOR.callFromThread(lambda: self.cancel())
        else:  # and wait until it has, so that nothing that comes later overtakes it
            threads.blockingCallFromThread(REACTOR, lambda: self.cancel())


class Gevent(Example):
    module = gevent_pool
    interruption = gevent.GreenletExit

    def converse(self, conversation: Conversation, prompts: Sequence[str], tell: Tell) -> None:
        running = cast("Any", gevent.spawn(gevent_pool.converse, conversation, prompts, tell))
        self.greenlet, self.loop = running, cast("Any", gevent.get_hub().loop)
        result = running.get()
        if isinstance(result, gevent.GreenletExit):  # gevent returns it
            raise result

    def interrupt(self) -> None:
        """Return when it was raised; otherwise a reply that comes next could overtake it."""
        raised = threading.Event()

        def kill() -> None:
            self.greenlet.kill(block=False)
            self.loop.run_callback(raised.set)

        self.loop.run_callback_threadsafe(kill)
        raised.wait(1.0)  # the program may be over, and its hub with it


def in_reactor(call: Callable[[], object]) -> object:
    """Call this in the reactor's thread, and wait for its Deferred.

    A reactor can't be started twice in a process, so it runs in a thread until the process ends.
    """
    if not REACTOR.running:
        running = threading.Event()
        REACTOR.callWhenRunning(running.set)
        threading.Thread(target=REACTOR.run, args=(False,), daemon=True).start()
        assert running.wait(10)
    return threads.blockingCallFromThread(REACTOR, call)


class PySide(HttpClient):
    """Is interrupted by Ctrl-C, like the blocking example."""

    module = pyside_network

    def converse(self, conversation: Conversation, prompts: Sequence[str], tell: Tell) -> None:
        pyside_network.converse(conversation, prompts, tell)


ENGINE: list[Example] = [HttpClient(), Aiohttp(), Twisted(), Gevent(), PySide()]
