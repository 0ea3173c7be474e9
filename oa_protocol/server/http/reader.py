"""One reader of a message's stream: its events, ``pending`` until the first of them, and pings throughout."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from oa_protocol.server.http.live import Live
from oa_protocol.server.state import Event
from oa_protocol.server.work import next_event, pending_event, ping


@dataclass(frozen=True, slots=True)
class Timing:
    """How often a reader gets something while there is nothing to send, in seconds of wall time."""

    pending_interval: float = 1.0
    ping_interval: float = 15.0


class Reader:
    """Reads a message's stream. Once ``finished``, nothing more comes."""

    def __init__(self, live: Live, message_id: str, timing: Timing) -> None:
        self.message_id = message_id
        self.finished = False
        self._live = live
        self._channel = live.channel(message_id)
        self._timing = timing
        self._clock = asyncio.get_running_loop().time
        self._next_ping = self._clock() + timing.ping_interval
        self._next_pending = self._clock() + timing.pending_interval

    async def receive(self) -> Event | bytes:
        """Wait for the next event, or for the bytes of a ping. Not to be called once ``finished``."""
        while True:
            event = self._live.step(next_event, self.message_id)
            if event is not None:
                self._next_pending = math.inf
                self.finished = event.final
                return event
            try:
                async with asyncio.timeout_at(min(self._next_ping, self._next_pending)):
                    await self._channel.news.get()
            except TimeoutError:
                due = self._due()
                if due is not None:
                    return due

    async def drain(self) -> None:
        """Read on to the end and drop what comes, as the website's connection to the inference server does."""
        while not self.finished:
            await self.receive()

    def _due(self) -> Event | bytes | None:
        time = self._clock()
        if time >= self._next_ping:
            self._next_ping = time + self._timing.ping_interval
            return self._live.step(lambda state: (state, ping(state)))
        if time >= self._next_pending:
            self._next_pending = time + self._timing.pending_interval
            return Event(self._live.step(lambda state: (state, pending_event(state, self.message_id))))
        return None
