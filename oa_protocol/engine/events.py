"""What the engine tells: typed events, in the order in which they happened.

Token, Queued, PluginStep and Answered are the structs that the stream's JSON is decoded into; the others are the
engine's own. All are frozen.
"""

from __future__ import annotations

from msgspec import Struct

from oa_protocol.engine.errors import OAError


class Message(Struct, frozen=True, kw_only=True):
    """One message of a chat, as the server tells it (OA-3.1). Fields the client has no use for are left out."""

    id: str
    role: str
    state: str
    parent_id: str | None = None
    content: str | None = None


class _StreamEvent(Struct, frozen=True, tag_field="event_type"):
    """An event that comes over the stream; the JSON field ``event_type`` names it."""


class Token(_StreamEvent, frozen=True, tag="token", gc=False):
    """A piece of the answer. ``text`` may be empty."""

    text: str


class Queued(_StreamEvent, frozen=True, tag="pending", gc=False):
    """The answer waits for a worker. The numbers are hints at best (OA-5.4)."""

    queue_position: int
    queue_size: int


class PluginStep(_StreamEvent, frozen=True, tag="plugin_intermediate"):
    """A plugin is at work on the answer."""

    current_plugin_thought: str | None = None
    current_plugin_action_taken: str | None = None
    current_plugin_action_input: str | None = None
    current_plugin_action_response: str | None = None


class Answered(_StreamEvent, frozen=True, tag="message"):
    """The answer is complete. ``message.content`` is the truth, whatever the tokens were (OA-5.6)."""

    message: Message

    @property
    def text(self) -> str:
        """The whole answer."""
        return self.message.content or ""


class WorkerError(_StreamEvent, frozen=True, tag="error"):
    """The stream's bad end, in the server's words. The engine turns it into ``Failed``."""

    error: str


class Created(Struct, frozen=True):
    """The server made the chat."""

    chat_id: str


class Prompted(Struct, frozen=True):
    """The prompt is in the chat, as a prompter message."""

    message_id: str


class Requested(Struct, frozen=True):
    """The assistant's message exists; its answer waits or runs."""

    message_id: str


class Corrected(Struct, frozen=True):
    """The final text contradicts the tokens told so far: ``text`` is right, they were not (OA-5.6).

    ``cut`` tells whether the stream broke before its end, so that tokens may be missing as well.
    """

    text: str
    cut: bool


class Failed(Struct, frozen=True):
    """The turn failed. ``error`` is what a caller is to be raised."""

    error: OAError


class Deleted(Struct, frozen=True):
    """The chat is confirmed gone."""

    chat_id: str


class NeverCreated(Struct, frozen=True):
    """The conversation ended, and the server made no chat for it."""


class LeakRecord(Struct, frozen=True, kw_only=True):
    """A chat that is, or may be, left on the server.

    ``chat_id`` is None where a create's reply was lost. ``not_before`` and ``not_after`` bound the time of that create
    by the server's own clock: the ``date`` headers of the replies around it, or None where there was none.
    """

    chat_id: str | None
    reason: str
    not_before: str | None = None
    not_after: str | None = None


class Leaked(Struct, frozen=True):
    """The conversation ended, and these chats are, or may be, left."""

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
    | NeverCreated
    | Leaked
)
