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

import math
from io import StringIO

from oa_protocol.bindings.base import StreamDecoder
from oa_protocol.bindings.json import Chat
from oa_protocol.engine import events as ev
from oa_protocol.engine.errors import AuthenticationError, OAError
from oa_protocol.engine.intents import Intent

_MAY_FINISH = ("pending", "in_progress", "complete")


class Outstanding:
    """An intent that was handed out: since when, and until when it is waited for."""

    __slots__ = ("ends", "intent", "since")

    def __init__(self, intent: Intent, since: float, ends: float) -> None:
        self.intent = intent
        self.since = since
        self.ends = ends

    @property
    def patience(self) -> float:
        """The seconds for which it is waited for in all."""
        return self.ends - self.since


class Attempt:
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

    __slots__ = ("error", "misses", "not_before", "refused", "renewed", "tries")

    def __init__(self, not_before: float = 0.0, tries: int = 0, error: OAError | None = None) -> None:
        self.tries = tries
        self.misses = 0
        self.not_before = not_before
        self.refused: AuthenticationError | None = None
        self.renewed = False
        self.error = error


class Stream:
    """One open event stream.

    Attributes:
        decoder: cuts its bytes into events.
        silent_since: when the driver began to wait for bytes; None if it isn't waiting. What the owner does in between
            is no silence.
        pendings: how many ``pending`` events have come.
        check_due: the message is to be read, because the stream has shown for long that the answer waits.
        failed_checks: how many of these reads in a row were answered with an error.

    """

    __slots__ = ("check_due", "decoder", "failed_checks", "pendings", "silent_since")

    def __init__(self, decoder: StreamDecoder) -> None:
        self.decoder = decoder
        self.silent_since: float | None = None
        self.pendings = 0
        self.check_due = False
        self.failed_checks = 0


class Remote:
    """What is known of the chat on the server.

    Attributes:
        chat_id: empty until the server gave it.
        parent_id: the last complete answer, which the next prompt follows.
        may_be_running: an answer waits or runs, as far as is known, so that a DELETE would hurt others (WIRE 25).
        date: the server's own time of its last reply.

    """

    __slots__ = ("chat_id", "date", "may_be_running", "parent_id")

    def __init__(self, chat_id: str = "") -> None:
        self.chat_id = chat_id
        self.parent_id: str | None = None
        self.may_be_running = False
        self.date: str | None = None


class Leaving:
    """The way out.

    Attributes:
        ends: when everything must be over.
        drained: when an answer that may be running is no longer waited for.
        check: how far the question is whether the chat is gone, while a DELETE's outcome is unclear.

    """

    __slots__ = ("check", "drained", "ends")

    def __init__(self, ends: float, drained: float) -> None:
        self.ends = ends
        self.drained = drained
        self.check = GoneCheck()


class GoneCheck:
    """The question whether the chat is gone: read the chat, and then, at a website, its lists, page by page.

    Attributes:
        listing: the chat was not found, so the list is next.
        after: the cursor of the page that is to be read.
        pages: how many pages have been read.

    """

    __slots__ = ("after", "listing", "pages")

    def __init__(self, *, listing: bool = False, after: str | None = None, pages: int = 0) -> None:
        self.listing = listing
        self.after = after
        self.pages = pages


class Turn:
    """One prompt and its answer, from the owner's prompt until the answer is complete. Ids are empty until known.

    Attributes:
        parent_id: the message that the prompt follows.
        is_at_work: a worker has begun with the answer.
        left_pending: how many requests were refused with 503. Each leaves a pending message behind that no worker will
            take (OA-6.7).
        emitted: what the tokens have said so far. A text buffer takes a fraction of what a list of tokens would.
        ends: when the answer is no longer waited for.

    """

    __slots__ = ("emitted", "ends", "is_at_work", "left_pending", "message_id", "parent_id", "prompt", "prompt_id")

    def __init__(self, prompt: str, parent_id: str | None) -> None:
        self.prompt = prompt
        self.parent_id = parent_id
        self.prompt_id = ""
        self.message_id = ""
        self.is_at_work = False
        self.left_pending = 0
        self.emitted = StringIO()
        self.ends = math.inf

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
