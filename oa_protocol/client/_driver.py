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

from oa_protocol.client._carrier import Carrier, Flight, Shared, clock, logger
from oa_protocol.client._read_timeout import ReadScope
from oa_protocol.client._shield import run_to_completion, signals_held
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import LocalProtocolError
from oa_protocol.engine.events import Event
from oa_protocol.engine.inputs import Abandon, Close, Input, StreamEnded, TimePassed
from oa_protocol.engine.intents import CreateChat, Intent

_JITTER = 0.25

# The engine ends a conversation in time. If a library blocks the driver itself, it is stopped this much later.
_LAST_RESORT = 0.9


class Driver:
    """Drives one conversation. One task at a time may call ``step``; any task may call ``aclose``."""

    def __init__(self, conversation: Conversation, shared: Shared) -> None:
        self.conversation = conversation
        self._slot = shared.slot
        self._carrier = Carrier(shared)
        self._last_resort = shared.cleanup.timeout + _LAST_RESORT
        self._phase = conversation.phase
        # Events that were caused while the owner was away, or interrupted.
        self._undelivered: list[Event] = []
        self._now = anyio.current_time
        self._waiting: anyio.CancelScope | ReadScope | None = None
        self._released: anyio.Event | None = None
        self._over: anyio.Event | None = None

    @property
    def is_closed(self) -> bool:
        """Whether ``aclose`` was called."""
        return self._over is not None

    async def step(self) -> list[Event] | None:
        """Do one thing: carry out an intent, read what the stream has, or wait until something is due.

        Return its events, or None if there is nothing left to do. Raise ``LocalProtocolError`` if another task is in
        here, or the conversation was closed meanwhile.
        """
        if self.is_closed or self._waiting is not None:
            why = "is closed" if self.is_closed else "is in use by another task"
            raise LocalProtocolError(f"the chat {why} (phase {self._phase.name})", phase=self._phase.name)
        try:
            events = await self._advance()
        finally:
            self._waiting = None
            if self._released is not None:
                self._released.set()
        if self.is_closed:
            raise LocalProtocolError("the chat was closed while it was in use", phase=self._phase.name)
        return events

    async def aclose(self) -> None:
        """End the conversation: its chat is deleted, or named in ``conversation.leaked``.

        May be called again, also while another task is at it; then it waits for the end of that. Raises what
        interrupted it, afterwards.
        """
        if self._over is None:
            end, self._over = self._end, anyio.Event()
            self._slot.leave(self.conversation)
            if self._waiting is not None:
                self._released = anyio.Event()
                self._waiting.cancel()
        else:
            end = self._over.wait
        try:
            await run_to_completion(end, seconds=self._last_resort)
        finally:
            self._hand_in(Abandon())
            self._over.set()

    async def _end(self) -> None:
        """Go on from wherever the conversation stands until it is over; called again, go on."""
        conversation = self.conversation
        try:
            if self._released is not None:
                await self._released.wait()
            self._hand_in(Close())
            self._carrier.change_transport()
            while not conversation.is_over:
                try:
                    await self._advance()
                except Exception as error:
                    # The engine knows, and goes on; an owner who leaves has an exception already, or none.
                    logger.debug("<- %s", type(error).__name__)
                    await anyio.lowlevel.checkpoint()
            if conversation.is_chat_gone:
                await self._carrier.note_gone()
        finally:
            await self._carrier.close()

    # ---- one thing

    async def _advance(self) -> list[Event] | None:
        conversation, carrier = self.conversation, self._carrier
        if self._undelivered:
            return self._deliver()
        if carrier.flight is None:
            if conversation.awaits_slot and not await self._wait(partial(self._slot.enter, conversation)):
                return self._pass_time()
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
                self._note()
                return events
            return self._pass_time() if data is None else await self._end_stream()
        if conversation.deadline is None:
            return None
        await self._wait(anyio.sleep_forever, jitter=0.0 if self.is_closed else _JITTER)
        return self._pass_time()

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
        with signals_held() if isinstance(flight.intent, CreateChat) else nullcontext():
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

    async def _end_stream(self) -> list[Event]:
        logger.debug("<- the stream ended")
        self._hand_in(StreamEnded())
        await self._carrier.close_stream()
        return self._deliver()

    # ---- what happened

    def _land(self, intent: Intent, happened: Input) -> None:
        """Hand in what came of ``intent``, unless the engine no longer waits for it."""
        if self.conversation.outstanding is intent:
            self._hand_in(happened)

    def _hand_in(self, happened: Input) -> None:
        self._undelivered += self.conversation.handle(happened, self._now())
        self._note()

    def _pass_time(self) -> list[Event]:
        self._hand_in(TimePassed())
        return self._deliver()

    def _deliver(self) -> list[Event]:
        events, self._undelivered = self._undelivered, []
        return events

    def _note(self) -> None:
        """Tell the slot and the log how things stand."""
        self._slot.note(self.conversation)
        phase = self.conversation.phase
        if phase is not self._phase:
            logger.debug("%s -> %s", self._phase.name, phase.name)
            self._phase = phase
