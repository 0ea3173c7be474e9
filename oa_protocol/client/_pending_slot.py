"""One account can have one message waiting for a worker: a new request cancels the others (OA-4.7).

So the chats of a client pass this gate one at a time, when they request an answer, and let the next one through when
theirs is at work, or is over. Answers at work run side by side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.intents import FetchChat, RequestAssistant

_LOOK_EVERY = 1.0

Look = Callable[[Conversation], Awaitable[bool]]


class Gate:
    """Lets one conversation wait at a time. ``look`` asks the server whether a conversation's message still waits.

    Looking is for a holder whose owner has paused, and so does not notice that its answer is at work already.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._holder: Conversation | None = None
        self._queue: deque[tuple[Conversation, anyio.Event]] = deque()

    async def enter(self, conversation: Conversation) -> None:
        """Wait until no other conversation's message waits; then this one holds the gate."""
        if self._holder in (None, conversation):
            self._holder = conversation
            return
        place = (conversation, anyio.Event())
        self._queue.append(place)
        try:
            while not place[1].is_set():
                with anyio.move_on_after(_LOOK_EVERY):
                    await place[1].wait()
                if self._queue and self._queue[0] is place:
                    await self._look_at_holder()
        except BaseException:
            if place in self._queue:
                self._queue.remove(place)
            self.leave(conversation)
            raise

    def leave(self, conversation: Conversation) -> None:
        """Let the next one through, if this conversation holds the gate."""
        if self._holder is not conversation:
            return
        self._holder = None
        if self._queue:
            self._holder, event = self._queue.popleft()
            event.set()

    def note(self, conversation: Conversation) -> None:
        """Take notice that something happened to this conversation."""
        if self._holder is conversation and not conversation.awaits_worker:
            self.leave(conversation)

    async def _look_at_holder(self) -> None:
        holder = self._holder
        if holder is None or _may_be_under_way(holder):
            return
        if not await self._look(holder) and self._holder is holder and not _may_be_under_way(holder):
            self.leave(holder)


def _may_be_under_way(conversation: Conversation) -> bool:
    """Whether the request for the answer is, or was a moment ago: that, no look can see."""
    return isinstance(conversation.outstanding, (RequestAssistant, FetchChat))
