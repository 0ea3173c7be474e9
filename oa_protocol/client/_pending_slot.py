"""Lets the chats of a client request their answers one at a time.

An account can have only one message waiting for a worker, because a new request cancels the other waiting ones
(OA-4.7). So the chats of a client share one slot. A chat takes the slot before it requests an answer. It gives the slot
back when a worker has begun with the answer, or the chat is over. Answers that workers have begun run side by side.

Other clients may use the same account. So a client can be given the account's slot, which they share. Then a chat
needs both: first its turn among the chats of its client, and then the account's slot.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import anyio.lowlevel

from oa_protocol.client._background import spawn
from oa_protocol.client.slots import AccountSlot
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import SlotError
from oa_protocol.engine.intents import FetchChat, RequestAssistant

logger = logging.getLogger("oa_protocol")

# All in seconds.
_PROBE_EVERY = 1.0
_WATCH_EVERY = 3.0
_LEAVE_TIMEOUT = 5.0

Probe = Callable[[Conversation], Awaitable[bool]]
Name = Callable[[Conversation], Awaitable[str]]


class PendingSlot:
    """Lets one conversation at a time wait for a worker.

    ``probe`` asks the server whether a conversation's message is still waiting. We poll the server because the holder's
    owner may have stopped iterating. Then nothing else notices that a worker has begun, and the others would wait for
    no reason.

    ``account`` is the account's slot, and ``name`` finds out which account a conversation belongs to.
    """

    def __init__(self, probe: Probe, account: AccountSlot | None = None, name: Name | None = None) -> None:
        self._probe = probe
        self._account = None if account is None or name is None else _AccountTurn(account, name, self._watch)
        self._has_noted = False
        self._holder: Conversation | None = None
        self._queue: deque[tuple[Conversation, anyio.Event]] = deque()

    async def enter(self, conversation: Conversation) -> None:
        """Wait until the slot is free, and take it. Raises SlotError."""
        await self._take_turn(conversation)
        if self._account is not None and not self._account.is_held:
            try:
                await self._account.enter(conversation)
            except BaseException:
                self.leave(conversation)
                raise
            if self._holder is not conversation:
                # The chat was closed meanwhile, which also cancels this, so nothing is requested.
                self._account.leave()
                await anyio.lowlevel.checkpoint()

    async def _take_turn(self, conversation: Conversation) -> None:
        if self._holder in (None, conversation):
            self._holder = conversation
            return
        place = (conversation, anyio.Event())
        self._queue.append(place)
        try:
            while not place[1].is_set():
                with anyio.move_on_after(_PROBE_EVERY):
                    await place[1].wait()
                if self._queue and self._queue[0] is place:  # only the first in the queue polls
                    await self._probe_holder()
        except BaseException:
            # The slot may have been handed over just before this was cancelled. Then it goes on to the next one.
            if place in self._queue:
                self._queue.remove(place)
            self.leave(conversation)
            raise

    def leave(self, conversation: Conversation) -> None:
        """If this conversation holds the slot, give it to the next one in the queue."""
        if self._holder is not conversation:
            return
        self._holder = None
        if self._account is not None:
            self._account.leave()
        if self._queue:
            self._holder, event = self._queue.popleft()
            event.set()

    def note(self, conversation: Conversation) -> None:
        """If this conversation holds the slot, but no longer waits for a worker, give it to the next one."""
        if self._holder is conversation:
            self._has_noted = True
            if not conversation.awaits_worker:
                self.leave(conversation)

    async def aclose(self) -> None:
        """Wait until the account's slot is left. The chats are over by now."""
        if self._account is not None:
            await self._account.settled()

    async def _watch(self) -> None:
        """Look for those who wait elsewhere, unless the holder has gone on since the last call."""
        has_noted, self._has_noted = self._has_noted, False
        if not has_noted:
            await self._probe_holder()

    async def _probe_holder(self) -> None:
        holder = self._holder
        if holder is None or self._may_be_under_way(holder):
            return
        # The conversation may have gone on during the probe, so everything is checked again.
        if not await self._probe(holder) and self._holder is holder and not self._may_be_under_way(holder):
            self.leave(holder)

    def _may_be_under_way(self, holder: Conversation) -> bool:
        """Return whether a probe can't see the holder's message yet, because its request may still be on its way."""
        if self._account is not None and not self._account.is_held:
            return True
        return _may_be_under_way(holder)


class _AccountTurn:
    """A client's use of the account's slot, which its chats have one after the other."""

    def __init__(self, slot: AccountSlot, name: Name, watch: Callable[[], Awaitable[None]]) -> None:
        self._slot = slot
        self._name = name
        self._watch = watch
        # Set when no chat enters, holds or leaves the slot any more. From then on it is None.
        self._free: anyio.Event | None = None
        # Set when the slot is no longer needed, for the task below. None if no chat holds it.
        self._left: anyio.Event | None = None

    async def enter(self, conversation: Conversation) -> None:
        while self._free is not None:  # the chat before may still be leaving, or giving up to enter
            await self._free.wait()
        free = self._free = anyio.Event()
        try:
            account = await self._name(conversation)
            await self._slot.enter(account)
        except BaseException as error:
            self._release(free)
            if not isinstance(error, Exception):
                raise
            raise SlotError(
                f"the slot of this account can't be entered: {type(error).__name__}: {error}. The answer wasn't"
                " requested, because that could cancel another one of this account.",
                phase=conversation.phase.name,
            ) from error
        self._left = anyio.Event()
        spawn(self._hold(account, self._left, free), partial(self._release, free))

    @property
    def is_held(self) -> bool:
        return self._left is not None

    def leave(self) -> None:
        """Leave the slot, if it is held. A task does the work, so this can be called anywhere."""
        left, self._left = self._left, None
        if left is not None:
            left.set()

    async def settled(self) -> None:
        """Wait until the slot is left."""
        if self._free is not None:
            with anyio.move_on_after(_LEAVE_TIMEOUT, shield=True):
                await self._free.wait()

    async def _hold(self, account: str, left: anyio.Event, free: anyio.Event) -> None:
        """Hold the slot until ``left`` is set, and look now and then whether it is still needed."""
        try:
            while not left.is_set():
                with anyio.move_on_after(_WATCH_EVERY):
                    await left.wait()
                if not left.is_set():
                    try:
                        await self._watch()
                    except Exception as error:  # of a transport or a binding; no caller could catch it
                        logger.warning("looking for the holder of the slot failed: %s", error)
        finally:
            try:
                with anyio.fail_after(_LEAVE_TIMEOUT, shield=True):
                    await self._slot.leave(account)
            except Exception as error:
                logger.warning("the slot of an account can't be left: %s: %s", type(error).__name__, error)
            self._release(free)

    def _release(self, free: anyio.Event) -> None:
        """Let the client's next chat enter. It may be called again for the same ``free``."""
        if self._free is free:
            self._free = None
        free.set()


def _may_be_under_way(conversation: Conversation) -> bool:
    """Return whether the request for the answer may still be on its way to the server, so that a probe can't see it.

    If its deadline has passed, it isn't. This has to be checked here, because an owner who has stopped iterating
    doesn't hand in ``TimePassed``.
    """
    if conversation.deadline is not None and conversation.deadline <= anyio.current_time():
        return False
    return isinstance(conversation.outstanding, (RequestAssistant, FetchChat))
