"""A reader of a message's stream. It gets ``pending`` events until the first real one, and pings all the time."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from oa_protocol.server.http.live import Live
from oa_protocol.server.state import Event
from oa_protocol.server.work import next_event, pending_event, ping


@dataclass(frozen=True, slots=True)
class Timing:
    """How often an idle reader gets ``pending`` events and pings, in seconds."""

    pending_interval: float = 1.0
    ping_interval: float = 15.0


class Reader:
    """Reads a message's stream. When ``finished`` is true, the final event was read."""

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
        """Wait for the next event, or for the bytes of a ping. Don't call it when ``finished`` is true."""
        while True:
            event = self._live.step(next_event, self.message_id)
            if event is not None:
                # After the first event, the message is no longer in the queue.
                self._next_pending = math.inf
                self.finished = event.final
                return event
            try:
                async with asyncio.timeout_at(min(self._next_ping, self._next_pending)):
                    await self._channel.wait()
            except TimeoutError:
                due = self._due()
                if due is not None:
                    return due

    async def drain(self) -> None:
        """Read to the end and drop the events, as the website does after its client has left."""
        while not self.finished and self._live.is_alive(self.message_id):
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
