"""What a conversation remembers.

Each type describes something that begins and ends, for example a stream. The engine makes a new object when it begins,
and drops the object when it ends. So no code has to reset fields.

::

    Outstanding   an intent, from when it is handed out until it is settled
    Attempt       the tries of one step
    Stream        one open event stream
    Turn          one prompt and its answer
    Remote        what is known about the chat on the server
    Leaving       the cleanup, from when the owner leaves until the end

All times are seconds in the engine's count (see ``Clock``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import StringIO
from math import inf

from msgspec import Struct

from oa_protocol.bindings.base import StreamDecoder
from oa_protocol.bindings.json import ChatSnapshot
from oa_protocol.engine import events as ev
from oa_protocol.engine.errors import AuthenticationError, OAError
from oa_protocol.engine.intents import Intent

_MAY_FINISH = ("pending", "in_progress", "complete")


class Outstanding(Struct):
    """An intent that was handed out, the time at which that happened, and its deadline."""

    intent: Intent
    since: float
    ends: float

    @property
    def patience(self) -> float:
        """How many seconds the engine waits for it in total."""
        return self.ends - self.since


class Attempt(Struct):
    """The tries of one step.

    Attributes:
        tries: how often the step's exchange was sent. Interrupted exchanges, and those whose credentials were rejected,
            don't count. While the engine polls, this is how often it has read the message.
        misses: how many reads in a row have failed, or how many DELETEs couldn't be sent.
        not_before: when the next exchange is due.
        refused: the server's rejection, while the engine asks for other credentials because of it.
        renewed: true if the credentials have been renewed for this step already.
        error: why the step has to be tried again.

    """

    not_before: float = 0.0
    tries: int = 0
    error: OAError | None = None
    misses: int = 0
    refused: AuthenticationError | None = None
    renewed: bool = False


NO_ATTEMPT = Attempt()
"""The attempt between two turns. Conversations that wait for a prompt share it, because nothing writes to it then."""


@dataclass(slots=True)
class Stream:
    """One open event stream.

    This is a dataclass because each token changes it, and setting an attribute of a msgspec struct is slower.

    Attributes:
        decoder: cuts the stream's bytes into events.
        silent_since: when the driver began to wait for bytes, or None if it isn't waiting. The time that the owner
            takes between two reads doesn't count as silence.
        size: how many bytes have arrived.
        pendings: how many ``pending`` events have arrived.
        check_due: true if the message has to be read, because the stream has shown no progress for long.
        failed_checks: how many of these reads in a row were answered with an error.

    """

    decoder: StreamDecoder
    silent_since: float | None = None
    size: int = 0
    pendings: int = 0
    check_due: bool = False
    failed_checks: int = 0


class Remote(Struct, gc=False):
    """What is known about the chat on the server.

    Attributes:
        chat_id: the chat's id, or empty until the server has sent it.
        parent_id: the id of the complete answer that the conversation is at. The next prompt follows it.
        prompt_id: the id of the prompt that the conversation is at. ``Regenerate`` asks for another answer to it.
        newest_id: the greatest id of a message that is known. Ids sort by time (OA-3.2), so a message with a greater
            one was made later.
        is_kept: true if the chat is to stay on the server.
        may_be_running: true if an answer may be waiting or running, so that a DELETE would break other users' answers
            (WIRE 25).
        others_may_run: the same for answers that waited or ran when an existing chat was read. They may outlast the
            answers that are asked for here.
        date: the ``date`` header of the server's last reply.

    """

    chat_id: str = ""
    parent_id: str | None = None
    prompt_id: str = ""
    newest_id: str = ""
    is_kept: bool = False
    may_be_running: bool = False
    others_may_run: bool = False
    date: str | None = None

    @property
    def needs_draining(self) -> bool:
        """Whether any answer in the chat may be waiting or running."""
        return self.may_be_running or self.others_may_run

    def enter(self, chat: ChatSnapshot) -> None:
        """Note what is in an existing chat, and go to the last complete answer of the branch that it shows (OA-3.6)."""
        tree = chat.tree
        self.parent_id = tree.answer.id if tree.answer else None
        self.prompt_id = next((message.id for message in reversed(tree.shown) if message.role == "prompter"), "")
        self.newest_id = tree.messages[-1].id if tree.messages else ""
        self.may_be_running, self.others_may_run = False, tree.is_running


class GoneCheck(Struct, frozen=True):
    """How far the engine has checked that the chat is gone. It reads the chat, and then, on a website, the list.

    Attributes:
        listing: true if the chat wasn't found, so that the list has to be read next.
        after: the cursor of the next page of the list, or None for the first page.
        pages: how many further pages have been read.

    """

    listing: bool = False
    after: str | None = None
    pages: int = 0


class Leaving(Struct):
    """The cleanup after the owner has left.

    Attributes:
        ends: when everything must be over.
        drained: when to stop waiting for an answer that may be running.
        check: the check whether the chat is gone, if the outcome of a DELETE is unclear.

    """

    ends: float
    drained: float
    check: GoneCheck = GoneCheck()


@dataclass(slots=True)
class Turn:
    """One prompt and its answer, from the owner's prompt or ``Regenerate`` until the answer is complete.

    This is a dataclass for the same reason as ``Stream``.

    Attributes:
        prompt: the prompt's text.
        parent_id: the id of the message that the prompt follows, or None for the first prompt.
        known_id: the greatest id of a message that was known before. Only later messages can be this turn's (OA-6.14).
        prompt_id: the id of the prompter message, or empty until it is known.
        message_id: the id of the assistant message, or empty until it is known.
        is_at_work: true if a worker has begun the answer.
        left_pending: how many requests were refused with 503. Each of them leaves a pending message behind that no
            worker will take (OA-6.7).
        emitted: the text of the tokens so far. A text buffer needs much less memory than a list of tokens.
        ends: when to stop waiting for the answer.

    """

    prompt: str
    parent_id: str | None
    known_id: str = ""
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
        """Return the events that correct the tokens so far to ``final``, the answer's true text (OA-5.6).

        Workers strip white space from both ends. If only that differs, there is no event.

        Args:
            final: the complete text, according to the server.
            cut: true if the text didn't arrive in the stream, so that tokens may be missing.

        """
        emitted = self.text
        if final.strip() == emitted.strip():
            return []
        for said in (emitted, emitted.lstrip()):
            if final.startswith(said):
                return [ev.Token(final[len(said) :])]
        return [ev.Corrected(final, cut)]

    def find_prompt(self, chat: ChatSnapshot) -> str | None:
        """Return the id of our prompt in ``chat``, or None if it isn't there.

        Its content and its parent identify it, because we don't know its id. An earlier prompt under the same answer
        may have the same content, so only a later message than all that were known can be ours.
        """
        ids = [
            message.id
            for message in chat.messages
            if message.id > self.known_id
            and message.role == "prompter"
            and message.parent_id == self.parent_id
            and message.content == self.prompt
        ]
        return max(ids, default=None)

    def find_answer(self, chat: ChatSnapshot) -> str | None:
        """Return the id of the newest answer under our prompt that may still finish or is complete, or None."""
        ours = self._answers(chat)
        left_behind = [message.id for message in ours if message.state == "pending"][: self.left_pending]
        ids = [message.id for message in ours if message.state in _MAY_FINISH and message.id not in left_behind]
        return ids[-1] if ids else None

    def is_running(self, chat: ChatSnapshot) -> bool:
        """Return whether an answer to our prompt is still waiting or running in ``chat``."""
        return self.is_waiting(chat) or any(message.state == "in_progress" for message in self._answers(chat))

    def is_waiting(self, chat: ChatSnapshot) -> bool:
        """Return whether an answer to our prompt is waiting for a worker in ``chat``."""
        return sum(message.state == "pending" for message in self._answers(chat)) > self.left_pending

    def _answers(self, chat: ChatSnapshot) -> list[ev.Message]:
        """Return the new assistant messages under our prompt, oldest first. Their ids sort by time (OA-3.2)."""
        answers = [
            m for m in chat.messages if m.id > self.known_id and m.role == "assistant" and m.parent_id == self.prompt_id
        ]
        return sorted(answers, key=lambda message: message.id)
