"""Event streams: a destructive queue for each assistant message, and what a reader of it gets to see."""

import asyncio
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from oa_protocol.server.identifiers import now

Event = Mapping[str, Any]


def encode_event(event: Event) -> bytes:
    """One event as it is sent: one ``data:`` line of ASCII JSON, with CRLF."""
    return f"data: {json.dumps(event)}\r\n\r\n".encode()


def is_final(event: Event) -> bool:
    """Whether the stream ends after this event."""
    return event["event_type"] in {"message", "error"}


class EventQueue:
    """What has not yet been sent of one message's stream. An event goes to one reader and is gone."""

    __slots__ = ("_events", "_lost", "claimed")

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._lost = 0
        self.claimed = asyncio.Event()
        """Set once somebody has asked for the message or its stream."""

    def put(self, event: Event) -> None:
        """Adds an event, unless a reader that has left takes it along."""
        if self._lost and not is_final(event):
            self._lost -= 1
        else:
            self._events.put_nowait(event)

    def lose_one(self) -> None:
        """A reader has left; its last fetch takes the next token along, but not the end."""
        if self._events.empty():
            self._lost += 1
        else:
            event = self._events.get_nowait()
            if is_final(event):
                self._events.put_nowait(event)

    async def get(self, deadline: float) -> Event:
        """The next event, or TimeoutError at `deadline` (the loop's clock, seconds)."""
        try:
            return self._events.get_nowait()
        except asyncio.QueueEmpty:
            async with asyncio.timeout_at(deadline):
                return await self._events.get()


@dataclass(frozen=True, slots=True)
class Timing:
    """What a reader gets while there is nothing to send; intervals in seconds of wall time."""

    pending_interval: float = 1.0
    ping_interval: float = 15.0
    ping_comment: bool = False


class Reader:
    """One reader of a message's stream: its events, ``pending`` until the first of them, and pings throughout."""

    def __init__(self, queue: EventQueue, timing: Timing, position: Callable[[], tuple[int, int]]) -> None:
        clock = asyncio.get_running_loop().time
        self.queue = queue
        self.finished = False
        self._timing = timing
        self._position = position
        self._clock = clock
        self._next_ping = clock() + timing.ping_interval
        self._next_pending = clock() + timing.pending_interval

    async def receive(self) -> Event | bytes:
        """The next event, or the bytes of a ping; not to be called once `finished`."""
        while True:
            try:
                event = await self.queue.get(min(self._next_ping, self._next_pending))
            except TimeoutError:
                time = self._clock()
                if time >= self._next_ping:
                    self._next_ping = time + self._timing.ping_interval
                    return self._ping()
                if time >= self._next_pending:
                    self._next_pending = time + self._timing.pending_interval
                    position, size = self._position()
                    return {"event_type": "pending", "queue_position": position, "queue_size": size}
            else:
                self._next_pending = math.inf
                self.finished = is_final(event)
                return event

    async def drain(self) -> None:
        """Reads on to the end for nobody, as the website's connection to the inference server does."""
        while not self.finished:
            await self.receive()

    def _ping(self) -> bytes:
        time = now().replace("T", " ")
        return (
            f": ping - {time}\r\n\r\n" if self._timing.ping_comment else f"event: ping\r\ndata: {time}\r\n\r\n"
        ).encode()
