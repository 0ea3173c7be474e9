"""Drives a conversation on anyio, under one timer: the conversation's own ``deadline``.

The engine says what to do, and until when. A ``Carrier`` does it, and what happened is handed in. If the deadline comes
first, ``TimePassed`` is handed in. Then what is in flight is dropped if the engine no longer waits for it.

Leaving runs the same loop, after ``Close``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import anyio
import anyio.lowlevel

from oa_protocol.client._carrier import Carrier, Flight, Shared, clock, log
from oa_protocol.client._shield import run_to_completion, signals_held
from oa_protocol.client._wait_scope import WaitScope, wait_scope
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import ClosedError, LocalProtocolError
from oa_protocol.engine.events import Event
from oa_protocol.engine.inputs import Abandon, Close, Input, Interrupted, Keep, StreamEnded, TimePassed
from oa_protocol.engine.intents import CreateChat, Intent

# A pause is up to this much longer, as a share of its length, so that conversations don't all try again at once.
_JITTER = 0.25
# The engine itself ends a conversation in time. Only if a library blocks the driver, it is stopped this many seconds
# later.
_LAST_RESORT = 0.9


class Driver:
    """Drives one conversation. One task at a time may call ``step``; any task may call ``aclose``."""

    def __init__(self, conversation: Conversation, shared: Shared) -> None:
        self.conversation = conversation
        self._slot = shared.slot
        self._carrier = Carrier(shared, conversation.phase)
        self._last_resort = shared.cleanup.timeout + _LAST_RESORT
        # A step that is interrupted returns nothing, so its events wait here for the next one.
        self.undelivered: list[Event] = []
        self._now = anyio.current_time
        # What bounds the waits for what is in flight, and the reads of the stream.
        self._limit: WaitScope | None = None
        self._is_in_step = False
        # What a step waits in, or waited in last.
        self._waiting: anyio.CancelScope | WaitScope | None = None
        # Set when the step that was running at ``aclose`` has ended.
        self._released: anyio.Event | None = None
        # Which call of ``aclose`` ends the conversation, and the event that is set when it has.
        self._ending: tuple[object, anyio.Event] | None = None
        self.is_closed = False

    async def step(self) -> list[Event] | None:
        """Do one thing: carry out an intent, read what the stream has, or wait until something is due.

        If a step is cancelled, nothing is lost: the next step goes on, and returns its events.

        Returns:
            The events, or None if there is nothing left to do.

        Raises:
            LocalProtocolError: another task is in a step.
            ClosedError: the owner has left, before this step or during it.

        """
        self.check_open()
        if self._is_in_step:
            raise LocalProtocolError("the chat is in use by another task", phase=self.conversation.phase.name)
        self._is_in_step = True
        try:
            events = await self._advance()
        finally:
            self._is_in_step, self._waiting = False, None
            if self._released is not None:
                self._released.set()
        self.check_open("was closed while it was in use")
        return events

    def check_open(self, why: str = "is closed") -> None:
        """Raise ``ClosedError`` if the owner has left."""
        if self.is_closed:
            phase = self.conversation.phase.name
            raise ClosedError(f"the chat {why} (phase {phase})", phase=phase)

    @property
    def is_in_journal(self) -> bool:
        """Whether the journal has the chat's id."""
        return self._carrier.is_in_journal

    async def keep(self) -> None:
        """Let the chat stay on the server. It is crossed out of the journal first, so that no sweep deletes it.

        Raises:
            JournalError: the journal can't be used. Then the chat isn't kept.
            ClosedError: the owner has left.

        """
        self.check_open()
        await self._carrier.note_kept()
        self.check_open()
        self._hand_in(Keep())

    async def stop_keeping(self) -> None:
        """Let the chat be deleted after all. Raises ClosedError if the owner has left."""
        self.check_open()
        if not self.conversation.is_over:
            self._hand_in(Keep(keep=False))

    async def aclose(self) -> None:
        """End the conversation: its chat is deleted, kept, or named in ``leaked``. Then raise what interrupted this.

        It may be called again. If another task is ending the conversation, it waits for that.
        """
        self.is_closed = True
        await run_to_completion(partial(self._end, object()), seconds=self._last_resort, at_last=self.abandon)

    def abandon(self) -> None:
        """Name the chat in ``leaked``, unless it is gone, or named already."""
        self.is_closed = True
        self._hand_in(Abandon())
        if self._ending is not None:
            self._ending[1].set()

    async def _end(self, ender: object) -> None:
        """Run the conversation to its end, from whatever phase it is in. A second call goes on with that."""
        conversation = self.conversation
        self._ending = self._ending or (ender, anyio.Event())
        if self._ending[0] is not ender:
            return None if conversation.is_over else await self._ending[1].wait()
        try:
            self._slot.leave(conversation)  # other chats needn't wait for this one's cleanup
            await self._stop_step()
            self._hand_in(Close())
            self._carrier.change_transport()
            while not conversation.is_over:
                try:
                    await self._advance()
                except Exception as error:
                    # The failure was handed in, so the engine tries again, or names the chat. It isn't raised, because
                    # it would replace the exception that the owner leaves with.
                    log("<- %s", type(error).__name__)
                    await anyio.lowlevel.checkpoint()  # a transport that fails at once must not block the loop
            if conversation.is_chat_gone:
                await self._carrier.note_gone()
        finally:
            if self._limit is not None:
                self._limit.close()
            await self._carrier.close()

    async def _stop_step(self) -> None:
        """Cancel the step of another task, if one is running, and wait until it has ended."""
        if self._released is None:
            self._released = anyio.Event()
            if not self._is_in_step:
                self._released.set()
        if not self._released.is_set():
            if self._waiting is not None:
                self._waiting.cancel()
            await self._released.wait()

    # ---- one thing

    async def _advance(self) -> list[Event] | None:
        conversation, carrier = self.conversation, self._carrier
        if self.undelivered:
            return self._deliver()
        if carrier.flight is None:
            # Taking the slot is a wait under the conversation's deadline, like any other.
            if conversation.awaits_slot and not await self._wait(partial(self._slot.enter, conversation)):
                return self._deliver(TimePassed())
            # If an intent is outstanding, but not in flight, an event loop that shuts down has cancelled its task. Then
            # it is carried out again.
            intent = conversation.next_intent(self._now()) or conversation.outstanding
            if intent is not None:
                self._now = clock()  # from here on the loop is known
                carrier.begin(intent, conversation, self._land)
        if carrier.flight is not None:
            return await self._follow(carrier.flight)
        if conversation.has_stream:
            data = await carrier.receive(self._until_deadline())
            if data:
                # This is the path of each token, so it is short: there is no await, no input object, and no detour
                # through ``undelivered``.
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

    def _until_deadline(self) -> AbstractContextManager[object, bool]:
        """Return a scope for a wait that needs no more than one cancellation. It ends quietly at the deadline."""
        if self._limit is not None and not self._limit.suits_running_loop:  # a conversation may go on in another loop
            self._limit.close()
            self._limit = None
        self._waiting = self._limit = self._limit or wait_scope()
        return self._limit.until(self.conversation.deadline)

    async def _wait(self, operation: Callable[[], Awaitable[object]], *, jitter: float = 0.0) -> bool:
        """Wait for ``operation``, but only until the deadline. Return whether it was done in time."""
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
        # The chat's id is only in the reply to its create. So Ctrl-C must not break the loop now, and is held back.
        with signals_held(self._hurry) if isinstance(flight.intent, CreateChat) else nullcontext():
            is_awaited = flight.has_landed or self.conversation.outstanding is flight.intent
            if is_awaited and not flight.done.is_set():
                with self._until_deadline():
                    await flight.done.wait()
        if flight.done.is_set():
            if not flight.ended.is_set():
                await flight.end()
            self._carrier.flight = None
            if flight.error is not None:
                raise flight.error
            return self._deliver()
        self._hand_in(TimePassed())  # if the deadline hasn't come, this does nothing
        if not flight.has_landed and self.conversation.outstanding is not flight.intent:
            await self._carrier.drop_flight()  # the engine has given it up
        return self._deliver()

    def _hurry(self) -> None:
        """Shorten the wait for the create that is under way, because a Ctrl-C is held back until it ends.

        ``Interrupted`` moves the conversation's deadline, and the scope that waits gets the new one.
        """
        if isinstance(self.conversation.outstanding, CreateChat) and self._limit is not None:
            self._hand_in(Interrupted())
            self._limit.move(self.conversation.deadline)

    # ---- what happened

    def _land(self, intent: Intent, happened: Input) -> None:
        """Hand in the outcome of ``intent``, unless the engine no longer waits for it."""
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
