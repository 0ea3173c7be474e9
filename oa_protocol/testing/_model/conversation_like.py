"""What an engine must have so that the simulation can play with it."""

from __future__ import annotations

from typing import Protocol

from oa_protocol.bindings.base import Binding, Credentials
from oa_protocol.engine import events as ev
from oa_protocol.engine.inputs import Input
from oa_protocol.engine.intents import Intent
from oa_protocol.engine.phases import Phase


class ConversationLike(Protocol):
    """What an owner and a driver use of a ``Conversation``, and all that an engine of your own needs.

    Each member means what it means there. Nothing that the network or the server does may raise.
    """

    @property
    def binding(self) -> Binding:
        """The API spoken."""
        ...

    @property
    def phase(self) -> Phase:
        """Where the conversation stands."""
        ...

    @property
    def credentials(self) -> Credentials:
        """What the server is shown; empty if there are none."""
        ...

    @property
    def chat_id(self) -> str | None:
        """The chat's id, once the server gave it."""
        ...

    @property
    def leaked(self) -> tuple[ev.LeakRecord, ...]:
        """The chats that are, or may be, left on the server."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the phase is terminal: nothing follows."""
        ...

    @property
    def awaits_prompt(self) -> bool:
        """Whether a ``Prompt`` is possible."""
        ...

    @property
    def has_stream(self) -> bool:
        """Whether a stream is open."""
        ...

    @property
    def outstanding(self) -> Intent | None:
        """The intent that was handed out and is not settled yet."""
        ...

    @property
    def deadline(self) -> float | None:
        """When ``TimePassed`` is handed in at the latest; None if nothing is waited for."""
        ...

    def next_intent(self, now: float) -> Intent | None:
        """Return the next thing to do, each once and when it is due."""
        ...

    def handle(self, happened: Input, now: float, /) -> list[ev.Event]:
        """Take what happened at ``now``, and return the events that it caused."""
        ...
