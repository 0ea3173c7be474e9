"""The state of a running server, and the notifications about its changes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Concatenate, ParamSpec, TypeVar

from oa_protocol.server.state import UNREAD_LIMIT, ServerState

P = ParamSpec("P")
T = TypeVar("T")


class Channel:
    """Wakes the readers of a message's stream, in the order in which they wait, and the message's worker."""

    def __init__(self) -> None:
        self._news: asyncio.Queue[None] = asyncio.Queue(UNREAD_LIMIT)
        self.claimed = asyncio.Event()
        """Is set when a client has asked for the message or its stream."""

    def wake(self) -> None:
        """Wake one reader. If the queue is full, no reader is waiting."""
        with suppress(asyncio.QueueFull):
            self._news.put_nowait(None)

    async def wait(self) -> None:
        """Wait until there may be an event to read."""
        await self._news.get()


class Live:
    """Holds the state. Each step replaces it under a lock, so any thread can do a step."""

    def __init__(self, state: ServerState) -> None:
        self.changed = threading.Condition()
        self.state = state
        self._channels: dict[str, Channel] = {}

    def step(
        self, change: Callable[Concatenate[ServerState, P], tuple[ServerState, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Replace the state by the first value that ``change`` returns. Return the second one."""
        with self.changed:
            before = self.state
            self.state, result = change(before._replace(now=time.time_ns()), *args, **kwargs)
            # The waiting threads look at chats and messages, so a step that changes only streams doesn't wake them.
            if self.state.chats is not before.chats:
                self.changed.notify_all()
            if len(self.state.streams) < len(before.streams):
                for message_id in before.streams.keys() - self.state.streams.keys():
                    # The readers that are left keep the channel themselves.
                    self._channels.pop(message_id, Channel()).claimed.set()
            return result

    def apply(
        self, change: Callable[Concatenate[ServerState, P], ServerState], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Replace the state by the one that ``change`` returns."""
        self.step(lambda state: (change(state, *args, **kwargs), None))

    def notify(self) -> None:
        """Wake the threads that wait for a change."""
        with self.changed:
            self.changed.notify_all()

    def channel(self, message_id: str) -> Channel:
        """Return the channel of the message's stream. Call it only in the event loop."""
        if message_id not in self.state.streams:
            return Channel()
        return self._channels.setdefault(message_id, Channel())

    def is_alive(self, message_id: str) -> bool:
        """Tell whether the message's stream may still get an event, or has one."""
        state = self.state
        return message_id in state.streams and (message_id in state.owners or message_id in state.running)

    def release(self) -> None:
        """Don't let the workers of deleted messages wait for a reader."""
        for message_id, channel in self._channels.items():
            if message_id not in self.state.owners:
                channel.claimed.set()
