"""The messages of a chat as a tree (OA-3.2)."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from oa_protocol.engine.events import Message

_RUNNING = ("pending", "in_progress")


class MessageTree(Struct, frozen=True):
    """The messages of a chat. Several answers may follow one prompt, and several prompts may follow one answer.

    Iterate over it to get all messages, the oldest first.

    Attributes:
        messages: all messages, the oldest first.
        tail_id: the id of the message at which the shown branch ends, or None if the server doesn't say. Then the
            newest message counts.
        title: the title of the chat, or None if it is empty.

    """

    messages: tuple[Message, ...] = ()
    tail_id: str | None = None
    title: str | None = None

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)

    def find(self, message_id: str | None) -> Message | None:
        """Return the message with this id, or None if there is none."""
        return next((message for message in self.messages if message.id == message_id), None)

    def children(self, parent: Message | None) -> tuple[Message, ...]:
        """Return the messages that follow ``parent``, the oldest first. Without a parent, return the first prompts."""
        parent_id = parent and parent.id
        return tuple(message for message in self.messages if message.parent_id == parent_id)

    def branch(self, message: Message) -> tuple[Message, ...]:
        """Return the messages from the first prompt to ``message``."""
        by_id = {each.id: each for each in self.messages}
        found = [message]
        # A parent is always older. The comparison also ends the loop if a server sends a circle.
        while (parent := by_id.get(found[-1].parent_id or "")) is not None and parent.id < found[-1].id:
            found.append(parent)
        return tuple(reversed(found))

    @property
    def shown(self) -> tuple[Message, ...]:
        """The branch that the server shows, from the first prompt to its end (OA-3.6)."""
        newest = {message.parent_id: message for message in self.messages}  # later ones replace earlier ones
        tail = self.find(self.tail_id) or (self.messages[-1] if self.messages else None)
        if tail is None:
            return ()
        while (child := newest.get(tail.id)) is not None and child.id > tail.id:
            tail = child
        return self.branch(tail)

    @property
    def answer(self) -> Message | None:
        """The last complete answer of the shown branch, or None.

        If the newest answer to a prompt isn't complete, another answer to the same prompt counts.
        """
        for message in reversed(self.shown):
            answers = (message,) if message.role == "assistant" else self.children(message)
            if complete := [answer for answer in answers if answer.role == "assistant" and answer.state == "complete"]:
                return complete[-1]
        return None

    @property
    def leaves(self) -> tuple[Message, ...]:
        """The last message of each branch, the oldest first."""
        parents = {message.parent_id for message in self.messages}
        return tuple(message for message in self.messages if message.id not in parents)

    @property
    def is_running(self) -> bool:
        """Whether an answer waits for a worker, or is being written."""
        return any(message.state in _RUNNING for message in self.messages)
