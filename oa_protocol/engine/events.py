"""The events that the engine emits, in the order in which they happened.

The stream's JSON is decoded straight into ``Token``, ``Queued``, ``PluginStep`` and ``Answered``. The engine makes the
other events itself. All of them are frozen.
"""

from __future__ import annotations

from msgspec import Struct

from oa_protocol.engine.errors import OAError


class Message(Struct, frozen=True, kw_only=True):
    """One message of a chat (OA-3.1).

    The server sends more fields than these; the client doesn't need the others.

    Attributes:
        id: the message's id.
        role: ``prompter`` or ``assistant``.
        state: ``manual`` for a prompt; ``pending``, ``in_progress``, ``complete``, ``aborted_by_worker``, ``cancelled``
            or ``timeout`` for an answer.
        parent_id: the message that this one follows, or None for the first prompt.
        content: the text, or None if the answer isn't complete.

    """

    id: str
    role: str
    state: str
    parent_id: str | None = None
    content: str | None = None


class _StreamEvent(Struct, frozen=True, tag_field="event_type"):
    """An event that arrives in the stream. The JSON field ``event_type`` says which one it is."""


class Token(_StreamEvent, frozen=True, tag="token", gc=False):
    """A piece of the answer. ``text`` may be empty."""

    text: str


class Queued(_StreamEvent, frozen=True, tag="pending", gc=False):
    """The answer is waiting for a worker. Don't rely on the numbers: they are only hints (OA-5.4)."""

    queue_position: int
    queue_size: int


class PluginStep(_StreamEvent, frozen=True, tag="plugin_intermediate"):
    """A plugin is working on the answer. Each field is None if the server didn't send it."""

    current_plugin_thought: str | None = None
    current_plugin_action_taken: str | None = None
    current_plugin_action_input: str | None = None
    current_plugin_action_response: str | None = None


class Answered(_StreamEvent, frozen=True, tag="message"):
    """The answer is complete.

    ``message.content`` is the correct text, even if the tokens said something else (OA-5.6).
    """

    message: Message

    @property
    def text(self) -> str:
        """The whole answer."""
        return self.message.content or ""


class WorkerError(_StreamEvent, frozen=True, tag="error"):
    """The server ended the stream with an error. The engine turns it into ``Failed``."""

    error: str


class Created(Struct, frozen=True):
    """The server created the chat."""

    chat_id: str


class Prompted(Struct, frozen=True):
    """The prompt is in the chat, as a prompter message."""

    message_id: str


class Requested(Struct, frozen=True):
    """The assistant's message exists, so its answer is waiting or running."""

    message_id: str


class Corrected(Struct, frozen=True):
    """The final text contradicts the tokens so far (OA-5.6). Replace what you have shown by ``text``.

    Attributes:
        text: the correct text of the whole answer.
        cut: true if the stream broke before its end, so that tokens may be missing, too.

    """

    text: str
    cut: bool


class Failed(Struct, frozen=True):
    """The turn failed. Raise ``error`` to your caller."""

    error: OAError


class Deleted(Struct, frozen=True):
    """The server confirmed that the chat is gone."""

    chat_id: str


class Kept(Struct, frozen=True):
    """The conversation ended, and the chat stays on the server, as its owner asked."""

    chat_id: str


class NeverCreated(Struct, frozen=True):
    """The conversation ended, and the server created no chat for it."""


class LeakRecord(Struct, frozen=True, kw_only=True):
    """A chat that is, or may be, left on the server.

    Attributes:
        chat_id: the chat's id, or None if the reply to its creation was lost.
        reason: why the chat wasn't deleted.
        not_before: the ``date`` header of the last reply before a lost creation, or None if there was no such reply.
            It is the server's own clock, so that a sweep can compare it with the times of the chats it finds.
        not_after: the ``date`` header of the first reply after that, or None if there was no such reply.

    """

    chat_id: str | None
    reason: str
    not_before: str | None = None
    not_after: str | None = None


class Leaked(Struct, frozen=True):
    """The conversation ended, and these chats are, or may be, left on the server."""

    leaked: tuple[LeakRecord, ...]


Event = (
    Created
    | Prompted
    | Requested
    | Queued
    | Token
    | PluginStep
    | Corrected
    | Answered
    | Failed
    | Deleted
    | Kept
    | NeverCreated
    | Leaked
)
