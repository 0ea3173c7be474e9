"""The state of a running server, and the notifications about its changes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from oa_protocol.server.state import ServerState

P = ParamSpec("P")
T = TypeVar("T")


class Channel:
    """Wakes the readers of a message's stream, in the order in which they wait, and the message's worker."""

    def __init__(self) -> None:
        self.news: asyncio.Queue[None] = asyncio.Queue()
        self.claimed = asyncio.Event()
        """Is set when a client has asked for the message or its stream."""


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
            chats = self.state.chats
            self.state, result = change(self.state._replace(now=time.time_ns()), *args, **kwargs)
            # The waiting threads look at chats and messages, so a step that changes only streams doesn't wake them.
            if self.state.chats is not chats:
                self.changed.notify_all()
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
        return self._channels.setdefault(message_id, Channel())

    def tidy(self) -> None:
        """Forget the channels of streams that are over. Don't let the workers of deleted messages wait for a reader."""
        state = self.state
        self._channels = {key: channel for key, channel in self._channels.items() if key in state.streams}
        for message_id, channel in self._channels.items():
            if message_id not in state.owners:
                channel.claimed.set()
