"""The members that an engine needs so that the simulation can test it."""

from __future__ import annotations

from typing import Protocol

from oa_protocol.bindings.base import Binding, Credentials
from oa_protocol.engine import events as ev
from oa_protocol.engine.inputs import Input
from oa_protocol.engine.intents import Intent
from oa_protocol.engine.phases import Phase


class ConversationLike(Protocol):
    """The members of a ``Conversation`` that an owner and a driver use. An engine of your own needs all of them.

    Each member has the same meaning as in ``Conversation``. Errors of the network or the server mustn't raise.
    """

    @property
    def binding(self) -> Binding:
        """The API."""
        ...

    @property
    def phase(self) -> Phase:
        """The current phase."""
        ...

    @property
    def credentials(self) -> Credentials:
        """The credentials that are sent to the server. They are empty if there are none."""
        ...

    @property
    def chat_id(self) -> str | None:
        """The chat's id, or None until the server has sent it."""
        ...

    @property
    def leaked(self) -> tuple[ev.LeakRecord, ...]:
        """The chats that are, or may be, left on the server."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the conversation has ended."""
        ...

    @property
    def awaits_prompt(self) -> bool:
        """Whether a ``Prompt`` may be handed in."""
        ...

    @property
    def has_stream(self) -> bool:
        """Whether a stream is open."""
        ...

    @property
    def outstanding(self) -> Intent | None:
        """The intent that was handed out and isn't settled yet, or None."""
        ...

    @property
    def deadline(self) -> float | None:
        """The time at which to hand in ``TimePassed``, or None if there is no deadline."""
        ...

    def next_intent(self, now: float) -> Intent | None:
        """Return the next thing to do. Each intent is returned once, when it is due."""
        ...

    def handle(self, happened: Input, now: float, /) -> list[ev.Event]:
        """Handle an input, and return the events that it caused."""
        ...
