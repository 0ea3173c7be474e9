"""One prompt and its answer: what is known of them, and how the server's later word is squared with it."""

from __future__ import annotations

from io import StringIO

from oa_protocol.bindings.json import Chat
from oa_protocol.engine import events as ev

_MAY_FINISH = ("pending", "in_progress", "complete")


class Turn:
    """A turn, from the owner's prompt until its answer is complete. Ids are empty until the server gave them."""

    __slots__ = (
        "left_pending",
        "message_id",
        "parent_id",
        "pendings",
        "prompt",
        "prompt_id",
        "started",
        "told",
    )

    def __init__(self, prompt: str, parent_id: str | None) -> None:
        self.prompt = prompt
        self.parent_id = parent_id
        self.prompt_id = ""
        self.message_id = ""
        self.pendings = 0
        self.started = False
        # A request refused with 503 leaves a pending message behind that no worker will take (OA-6.7).
        self.left_pending = 0
        # What tokens have told so far; from Python 3.12 on that takes a fraction of what a list of them would.
        self.told = StringIO()

    @property
    def text(self) -> str:
        """The tokens so far, joined."""
        return self.told.getvalue()

    def reconcile(self, final: str, *, cut: bool) -> list[ev.Event]:
        """Return what is to be told so that the tokens told so far become ``final``, which is the truth (OA-5.6).

        Workers strip white space at the ends; that alone is nothing to tell. ``cut``: the stream did not say it.
        """
        told = self.text
        if final.strip() == told.strip():
            return []
        for said in (told, told.lstrip()):
            if final.startswith(said):
                return [ev.Token(final[len(said) :])]
        return [ev.Corrected(final, cut)]

    def find_prompt(self, chat: Chat) -> str | None:
        """Return the id of our prompt in ``chat``, told by content and parent, or None where it is not there."""
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
        """Tell whether an answer to our prompt still waits or runs in ``chat``."""
        return self.is_waiting(chat) or any(message.state == "in_progress" for message in self._answers(chat))

    def is_waiting(self, chat: Chat) -> bool:
        """Tell whether an answer to our prompt waits for a worker in ``chat``."""
        return sum(message.state == "pending" for message in self._answers(chat)) > self.left_pending

    def _answers(self, chat: Chat) -> list[ev.Message]:
        """The assistant messages under our prompt, oldest first: an id tells the time (OA-3.2)."""
        answers = [m for m in chat.messages if m.role == "assistant" and m.parent_id == self.prompt_id]
        return sorted(answers, key=lambda message: message.id)
