"""One account can have one message waiting for a worker, because a new request cancels the others (OA-4.7).

So the chats of a client share one slot. A chat takes it before it requests an answer, and gives it back when a worker
has begun with the answer, or the chat is over. Answers that workers have begun run side by side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.intents import FetchChat, RequestAssistant

_PROBE_EVERY = 1.0

Probe = Callable[[Conversation], Awaitable[bool]]


class PendingSlot:
    """Lets one conversation wait for a worker at a time.

    ``probe`` asks the server whether a conversation's message still waits. The server is asked because the holder's
    owner may have stopped iterating, so that the holder doesn't notice that a worker has begun.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._holder: Conversation | None = None
        self._queue: deque[tuple[Conversation, anyio.Event]] = deque()

    async def enter(self, conversation: Conversation) -> None:
        """Wait until no other conversation's message waits; then this one holds the slot."""
        if self._holder in (None, conversation):
            self._holder = conversation
            return
        place = (conversation, anyio.Event())
        self._queue.append(place)
        try:
            while not place[1].is_set():
                with anyio.move_on_after(_PROBE_EVERY):
                    await place[1].wait()
                if self._queue and self._queue[0] is place:
                    await self._probe_holder()
        except BaseException:
            if place in self._queue:
                self._queue.remove(place)
            self.leave(conversation)
            raise

    def leave(self, conversation: Conversation) -> None:
        """Give the slot to the next one, if this conversation holds it."""
        if self._holder is not conversation:
            return
        self._holder = None
        if self._queue:
            self._holder, event = self._queue.popleft()
            event.set()

    def note(self, conversation: Conversation) -> None:
        """Give the slot back, if this conversation holds it and no longer waits for a worker."""
        if self._holder is conversation and not conversation.awaits_worker:
            self.leave(conversation)

    async def _probe_holder(self) -> None:
        holder = self._holder
        if holder is None or _may_be_under_way(holder):
            return
        if not await self._probe(holder) and self._holder is holder and not _may_be_under_way(holder):
            self.leave(holder)


def _may_be_under_way(conversation: Conversation) -> bool:
    """Return whether the request for the answer is under way, or was a moment ago; a probe can't see that.

    It no longer is if its deadline has come: if its owner has paused, nobody else notices that.
    """
    if conversation.deadline is not None and conversation.deadline <= anyio.current_time():
        return False
    return isinstance(conversation.outstanding, (RequestAssistant, FetchChat))
