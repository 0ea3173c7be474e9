"""What a conversation remembers, in types that live as long as what they describe.

Each is made anew when what it describes begins, and dropped when that ends. So nothing has to be reset by hand.

::

    Outstanding   an intent, from when it is handed out until it is settled
    Attempt       the tries of one step
    Stream        one open event stream
    Turn          one prompt and its answer
    Remote        what is known of the chat on the server
    Leaving       the way out, from when the owner left until the end
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import StringIO
from math import inf

from msgspec import Struct

from oa_protocol.bindings.base import StreamDecoder
from oa_protocol.bindings.json import Chat
from oa_protocol.engine import events as ev
from oa_protocol.engine.errors import AuthenticationError, OAError
from oa_protocol.engine.intents import Intent

_MAY_FINISH = ("pending", "in_progress", "complete")


class Outstanding(Struct):
    """An intent that was handed out: since when, and until when it is waited for."""

    intent: Intent
    since: float
    ends: float

    @property
    def patience(self) -> float:
        """The seconds for which it is waited for in all."""
        return self.ends - self.since


class Attempt(Struct):
    """The tries of one step.

    Attributes:
        tries: how often the step's exchange was sent, interrupted and rejected ones excluded. While the engine polls,
            how often it has read the message.
        misses: how many reads in a row have failed, or DELETEs were not sent.
        not_before: when the next exchange is due.
        refused: the rejection for which other credentials are asked for now.
        renewed: the credentials have been renewed for this step already.
        error: why the step has to be tried again.

    """

    not_before: float = 0.0
    tries: int = 0
    error: OAError | None = None
    misses: int = 0
    refused: AuthenticationError | None = None
    renewed: bool = False


NO_ATTEMPT = Attempt()
"""Between two turns there is none. Conversations that wait for a prompt share this one, because nothing writes it."""


@dataclass(slots=True)
class Stream:
    """One open event stream. Each token writes to it, and a dataclass is written to faster than a msgspec struct.

    Attributes:
        decoder: cuts its bytes into events.
        silent_since: when the driver began to wait for bytes; None if it isn't waiting. What the owner does in between
            is no silence.
        size: how many bytes have come.
        pendings: how many ``pending`` events have come.
        check_due: the message is to be read, because the stream has shown for long that the answer waits.
        failed_checks: how many of these reads in a row were answered with an error.

    """

    decoder: StreamDecoder
    silent_since: float | None = None
    size: int = 0
    pendings: int = 0
    check_due: bool = False
    failed_checks: int = 0


class Remote(Struct, gc=False):
    """What is known of the chat on the server.

    Attributes:
        chat_id: empty until the server gave it.
        parent_id: the last complete answer, which the next prompt follows.
        may_be_running: an answer waits or runs, as far as is known, so that a DELETE would hurt others (WIRE 25).
        date: the server's own time of its last reply.

    """

    chat_id: str = ""
    parent_id: str | None = None
    may_be_running: bool = False
    date: str | None = None


class GoneCheck(Struct, frozen=True):
    """The question whether the chat is gone: read the chat, and then, at a website, its lists, page by page.

    Attributes:
        listing: the chat was not found, so the list is next.
        after: the cursor of the page that is to be read.
        pages: how many pages have been read.

    """

    listing: bool = False
    after: str | None = None
    pages: int = 0


class Leaving(Struct):
    """The way out.

    Attributes:
        ends: when everything must be over.
        drained: when an answer that may be running is no longer waited for.
        check: how far the question is whether the chat is gone, while a DELETE's outcome is unclear.

    """

    ends: float
    drained: float
    check: GoneCheck = GoneCheck()


@dataclass(slots=True)
class Turn:
    """One prompt and its answer, from the owner's prompt until the answer is complete. Ids are empty until known.

    Each token writes to it, as to ``Stream``.

    Attributes:
        parent_id: the message that the prompt follows.
        is_at_work: a worker has begun with the answer.
        left_pending: how many requests were refused with 503. Each leaves a pending message behind that no worker will
            take (OA-6.7).
        emitted: what the tokens have said so far. A text buffer takes a fraction of what a list of tokens would.
        ends: when the answer is no longer waited for.

    """

    prompt: str
    parent_id: str | None
    prompt_id: str = ""
    message_id: str = ""
    is_at_work: bool = False
    left_pending: int = 0
    emitted: StringIO = field(default_factory=StringIO)
    ends: float = inf

    @property
    def text(self) -> str:
        """The tokens so far, joined."""
        return self.emitted.getvalue()

    def reconcile(self, final: str, *, cut: bool) -> list[ev.Event]:
        """Return the events after which the tokens so far amount to ``final``, which is the truth (OA-5.6).

        Workers strip white space at the ends, and that alone needs no event. ``cut``: the stream did not bring the
        final text, so tokens may be missing.
        """
        emitted = self.text
        if final.strip() == emitted.strip():
            return []
        for said in (emitted, emitted.lstrip()):
            if final.startswith(said):
                return [ev.Token(final[len(said) :])]
        return [ev.Corrected(final, cut)]

    def find_prompt(self, chat: Chat) -> str | None:
        """Return the id of our prompt in ``chat``, found by content and parent, or None if it isn't there."""
        ids = [
            message.id
            for message in chat.messages
            if message.role == "prompter" and message.parent_id == self.parent_id and message.content == self.prompt
        ]
        return max(ids, default=None)

    def find_answer(self, chat: Chat) -> str | None:
        """Return the id of the newest message under our prompt that runs or is complete, or None."""
        ours = self._answers(chat)
        left_behind = [message.id for message in ours if message.state == "pending"][: self.left_pending]
        ids = [message.id for message in ours if message.state in _MAY_FINISH and message.id not in left_behind]
        return ids[-1] if ids else None

    def is_running(self, chat: Chat) -> bool:
        """Return whether an answer to our prompt still waits or runs in ``chat``."""
        return self.is_waiting(chat) or any(message.state == "in_progress" for message in self._answers(chat))

    def is_waiting(self, chat: Chat) -> bool:
        """Return whether an answer to our prompt waits for a worker in ``chat``."""
        return sum(message.state == "pending" for message in self._answers(chat)) > self.left_pending

    def _answers(self, chat: Chat) -> list[ev.Message]:
        """Return the assistant messages under our prompt, oldest first, because ids are in order of time (OA-3.2)."""
        answers = [m for m in chat.messages if m.role == "assistant" and m.parent_id == self.prompt_id]
        return sorted(answers, key=lambda message: message.id)
