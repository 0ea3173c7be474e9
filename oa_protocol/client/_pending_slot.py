"""Lets the chats of a client request their answers one at a time.

An account can have only one message waiting for a worker, because a new request cancels the other waiting ones
(OA-4.7). So the chats of a client share one slot. A chat takes the slot before it requests an answer. It gives the slot
back when a worker has begun with the answer, or the chat is over. Answers that workers have begun run side by side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.intents import FetchChat, RequestAssistant

_PROBE_EVERY = 1.0  # seconds

Probe = Callable[[Conversation], Awaitable[bool]]


class PendingSlot:
    """Lets one conversation at a time wait for a worker.

    ``probe`` asks the server whether a conversation's message is still waiting. We poll the server because the holder's
    owner may have stopped iterating. Then nothing else notices that a worker has begun, and the others would wait for
    no reason.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._holder: Conversation | None = None
        self._queue: deque[tuple[Conversation, anyio.Event]] = deque()

    async def enter(self, conversation: Conversation) -> None:
        """Wait until the slot is free, and take it."""
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
        if self._queue:
            self._holder, event = self._queue.popleft()
            event.set()

    def note(self, conversation: Conversation) -> None:
        """If this conversation holds the slot, but no longer waits for a worker, give it to the next one."""
        if self._holder is conversation and not conversation.awaits_worker:
            self.leave(conversation)

    async def _probe_holder(self) -> None:
        holder = self._holder
        if holder is None or _may_be_under_way(holder):
            return
        # The conversation may have gone on during the probe, so everything is checked again.
        if not await self._probe(holder) and self._holder is holder and not _may_be_under_way(holder):
            self.leave(holder)


def _may_be_under_way(conversation: Conversation) -> bool:
    """Return whether the request for the answer may still be on its way to the server, so that a probe can't see it.

    If its deadline has passed, it isn't. This has to be checked here, because an owner who has stopped iterating
    doesn't hand in ``TimePassed``.
    """
    if conversation.deadline is not None and conversation.deadline <= anyio.current_time():
        return False
    return isinstance(conversation.outstanding, (RequestAssistant, FetchChat))
