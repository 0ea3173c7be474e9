"""What an engine must have so that the state machine can play with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from oa_protocol.bindings.base import Binding, Credentials
from oa_protocol.engine import events as ev
from oa_protocol.engine.errors import TransportError
from oa_protocol.engine.intents import Intent
from oa_protocol.engine.phases import Phase


class ConversationLike(Protocol):
    """What owner and driver use of a ``Conversation``: an engine of your own needs all of it, and no more.

    Each means what it means there. Nothing that network or server do may raise.
    """

    # ---- what anyone may ask

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
        """What the server is shown; empty where there are none."""
        ...

    @property
    def chat_id(self) -> str | None:
        """The chat's id, once the server gave it."""
        ...

    @property
    def records(self) -> tuple[ev.LeakRecord, ...]:
        """What is, or may be, left on the server."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the phase is terminal: nothing follows."""
        ...

    @property
    def awaits_prompt(self) -> bool:
        """Whether ``prompt`` may be called."""
        ...

    @property
    def has_stream(self) -> bool:
        """Whether a stream is open."""
        ...

    @property
    def outstanding(self) -> Intent | None:
        """The intent that was handed out and is not settled yet."""
        ...

    # ---- what the owner does

    def prompt(self, text: str) -> None:
        """Ask for an answer to ``text``."""
        ...

    def close(self, *, drain: bool = True) -> list[ev.Event]:
        """End the conversation; with ``drain`` an answer that may be running is waited for."""
        ...

    def abandon(self) -> list[ev.Event]:
        """Give up at once, and name what may be left."""
        ...

    def answer_timed_out(self) -> list[ev.Event]:
        """Fail the answer, which is waited for no longer."""
        ...

    # ---- what the driver does

    def next_intent(self) -> Intent | None:
        """Return the next thing to do, each once; None while one is outstanding, or where there is none."""
        ...

    def receive_cookies(self, credentials: Credentials | None) -> list[ev.Event]:
        """Take the credentials that were asked for, or None."""
        ...

    def receive_reply(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> list[ev.Event]:
        """Take the reply to the outstanding exchange."""
        ...

    def receive_failure(self, failure: TransportError) -> list[ev.Event]:
        """Take the failure of the outstanding exchange."""
        ...

    def receive_stream_opened(self) -> list[ev.Event]:
        """Take that OpenStream was answered with 200."""
        ...

    def receive_stream_data(self, data: bytes) -> list[ev.Event]:
        """Take bytes of the open stream, cut anywhere."""
        ...

    def receive_silence(self) -> list[ev.Event]:
        """Take that the open stream brought no byte for too long."""
        ...

    def receive_stream_end(self) -> list[ev.Event]:
        """Take that the open stream has ended, in whatever way, or is closed."""
        ...
