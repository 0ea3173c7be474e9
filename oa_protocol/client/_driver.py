"""Drives a conversation on anyio, under one timer: the conversation's own ``deadline``.

The engine says what to do and until when. A ``Carrier`` does it, and what happened is handed in. If the deadline comes
first, ``TimePassed`` is handed in, and what is in flight for an intent that is no longer outstanding is dropped.
Leaving is the same loop, after ``Close``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial

import anyio
import anyio.lowlevel

from oa_protocol.client._carrier import Carrier, Flight, Shared, clock, log
from oa_protocol.client._read_timeout import ReadScope
from oa_protocol.client._shield import run_to_completion, signals_held
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import ClosedError, LocalProtocolError
from oa_protocol.engine.events import Event
from oa_protocol.engine.inputs import Abandon, Close, Input, Interrupted, StreamEnded, TimePassed
from oa_protocol.engine.intents import CreateChat, Intent

_JITTER = 0.25
# The engine ends a conversation in time. If a library blocks the driver itself, it is stopped this much later.
_LAST_RESORT = 0.9


class Driver:
    """Drives one conversation. One task at a time may call ``step``; any task may call ``aclose``."""

    def __init__(self, conversation: Conversation, shared: Shared) -> None:
        self.conversation = conversation
        self._slot = shared.slot
        self._carrier = Carrier(shared, conversation.phase)
        self._last_resort = shared.cleanup.timeout + _LAST_RESORT
        self.undelivered: list[Event] = []  # caused while the owner was away, or interrupted
        self._now = anyio.current_time
        self._waiting: anyio.CancelScope | ReadScope | None = None
        self._released: anyio.Event | None = None
        self._ending: tuple[object, anyio.Event] | None = None  # who ends it, and whether that is over
        self.is_closed = False

    async def step(self) -> list[Event] | None:
        """Do one thing: carry out an intent, read what the stream has, or wait until something is due.

        Return its events, or None if there is nothing left to do. Raise ``LocalProtocolError`` if another task is in
        here, ``ClosedError`` if the owner has left.
        """
        self.check_open()
        if self._waiting is not None:
            raise LocalProtocolError("the chat is in use by another task", phase=self.conversation.phase.name)
        try:
            events = await self._advance()
        finally:
            self._waiting = None
            if self._released is not None:
                self._released.set()
        self.check_open("was closed while it was in use")
        return events

    def check_open(self, why: str = "is closed") -> None:
        """Raise ``ClosedError`` if the owner has left."""
        if self.is_closed:
            phase = self.conversation.phase.name
            raise ClosedError(f"the chat {why} (phase {phase})", phase=phase)

    async def aclose(self) -> None:
        """End the conversation: its chat is deleted, or named in ``leaked``. Raise what interrupted that, afterwards.

        May be called again, also while another task is at it; then it waits for the end of that.
        """
        self.is_closed = True
        await run_to_completion(partial(self._end, object()), seconds=self._last_resort, at_last=self.abandon)

    def abandon(self) -> None:
        """Name the chat, unless it is gone, or named."""
        self.is_closed = True
        self._hand_in(Abandon())
        if self._ending is not None:
            self._ending[1].set()

    async def _end(self, ender: object) -> None:
        """Go on from wherever the conversation stands until it is over; called again, go on."""
        conversation = self.conversation
        self._ending = self._ending or (ender, anyio.Event())
        if self._ending[0] is not ender:
            return None if conversation.is_over else await self._ending[1].wait()
        try:
            self._slot.leave(conversation)
            await self._stop_step()
            self._hand_in(Close())
            self._carrier.change_transport()
            while not conversation.is_over:
                try:
                    await self._advance()
                except Exception as error:
                    # The engine knows, and goes on; an owner who leaves has an exception already, or none.
                    log("<- %s", type(error).__name__)
                    await anyio.lowlevel.checkpoint()
            if conversation.is_chat_gone:
                await self._carrier.note_gone()
        finally:
            await self._carrier.close()

    async def _stop_step(self) -> None:
        """Have the step of another task end, if one is running."""
        if self._released is None:
            self._released = anyio.Event()
            if self._waiting is None:
                self._released.set()
        if self._waiting is not None and not self._released.is_set():
            self._waiting.cancel()
            await self._released.wait()

    # ---- one thing

    async def _advance(self) -> list[Event] | None:
        conversation, carrier = self.conversation, self._carrier
        if self.undelivered:
            return self._deliver()
        if carrier.flight is None:
            if conversation.awaits_slot and not await self._wait(partial(self._slot.enter, conversation)):
                return self._deliver(TimePassed())
            # If something is outstanding and not in flight, a loop that shuts down has cancelled its task.
            intent = conversation.next_intent(self._now()) or conversation.outstanding
            if intent is not None:
                self._now = clock()
                carrier.begin(intent, conversation, self._land)
        if carrier.flight is not None:
            return await self._follow(carrier.flight)
        if conversation.has_stream:
            self._waiting = carrier.reads
            data = await carrier.receive(conversation.deadline)
            if data:
                events = conversation.receive_stream_data(data, self._now())
                carrier.note(conversation)
                return events
            if data is None:
                return self._deliver(TimePassed())
            self._hand_in(StreamEnded())
            await carrier.close_stream()
            return self._deliver()
        if conversation.deadline is None:
            return None
        await self._wait(anyio.sleep_forever, jitter=0.0 if self.is_closed else _JITTER)
        return self._deliver(TimePassed())

    async def _wait(self, operation: Callable[[], Awaitable[object]], *, jitter: float = 0.0) -> bool:
        """Wait for ``operation``, but only until the deadline; return whether it was done."""
        deadline = self.conversation.deadline
        if deadline is None:
            deadline = math.inf
        elif jitter:  # conversations that were interrupted together shouldn't all try again together
            deadline += random.uniform(0.0, jitter) * (deadline - self._now())  # noqa: S311  # no secret
        with anyio.CancelScope(deadline=deadline) as self._waiting:
            await operation()
            return True
        return False

    async def _follow(self, flight: Flight) -> list[Event]:
        """Wait for what is in flight, but only until the deadline."""
        with signals_held(self._hurry) if isinstance(flight.intent, CreateChat) else nullcontext():
            if flight.has_landed or self.conversation.outstanding is flight.intent:
                await self._wait(flight.done.wait)
        self._hand_in(TimePassed())
        if flight.done.is_set():
            self._carrier.flight = None
            if flight.error is not None:
                raise flight.error
        elif not flight.has_landed and self.conversation.outstanding is not flight.intent:
            await self._carrier.drop_flight()
        return self._deliver()

    def _hurry(self) -> None:
        """Bound the create that is under way, because its owner is to be interrupted."""
        if isinstance(self.conversation.outstanding, CreateChat) and isinstance(self._waiting, anyio.CancelScope):
            self._hand_in(Interrupted())
            self._waiting.deadline = self.conversation.deadline or self._waiting.deadline

    # ---- what happened

    def _land(self, intent: Intent, happened: Input) -> None:
        """Hand in what came of ``intent``, unless the engine no longer waits for it."""
        if self.conversation.outstanding is intent:
            self._hand_in(happened)

    def _hand_in(self, happened: Input) -> None:
        self.undelivered += self.conversation.handle(happened, self._now())
        self._carrier.note(self.conversation)

    def _deliver(self, *happened: Input) -> list[Event]:
        for each in happened:
            self._hand_in(each)
        events, self.undelivered = self.undelivered, []
        return events
