"""The commands of ``chat`` that are about the chat itself: ``/regenerate``, ``/edit``, ``/branch`` and ``/keep``."""

from __future__ import annotations

from oa_protocol.cli._chats import shortened
from oa_protocol.cli._prompts import Command
from oa_protocol.cli._terminal import Terminal
from oa_protocol.client.answer import Answer
from oa_protocol.client.chat import Chat
from oa_protocol.engine.errors import LocalProtocolError
from oa_protocol.engine.events import Message


class Branches:
    """The branches of a chat, and the one that its user has chosen."""

    def __init__(self, chat: Chat, terminal: Terminal) -> None:
        self._chat = chat
        self._terminal = terminal
        self._after: Message | None = None

    async def ask(self, line: str | Command) -> Answer | None:
        """Carry out a line, and return the answer to print, or None if there is nothing to ask for.

        Raises:
            LocalProtocolError, ValueError: It isn't possible. The chat goes on.

        """
        match line:
            case str():
                answer = self._chat.send(line, after=self._after)
            case Command("regenerate"):
                answer = self._chat.regenerate(self._after)
            case Command("edit", ""):
                raise ValueError("/edit needs a text: /edit TEXT")
            case Command("edit", text):
                answer = self._chat.edit(await self._last_prompt(), text)
            case Command("branch", number):
                await self._choose(number)
                return None
            case _:
                await self._chat.keep()
                self._terminal.note(f"The chat stays on the server when you leave{self._named}.")
                return None
        self._after = None  # the new answer is the end of the branch from now on
        return answer

    @property
    def _named(self) -> str:
        return f": {self._chat.id}" if self._chat.id else ""

    async def _last_prompt(self) -> Message:
        tree = await self._chat.messages()
        branch = tree.shown if self._after is None else tree.branch(self._after)
        prompts = [message for message in branch if message.role == "prompter"]
        if not prompts:
            raise LocalProtocolError("there is no prompt to edit yet")
        return prompts[-1]

    async def _choose(self, number: str) -> None:
        """Print the branches, or go to one of them."""
        tree = await self._chat.messages()
        complete = [leaf for leaf in tree.leaves if leaf.role == "assistant" and leaf.state == "complete"]
        at = self._after or tree.answer
        if not number:
            for place, leaf in enumerate(complete, 1):
                mark = "*" if at is not None and leaf.id == at.id else " "
                prompt = tree.find(leaf.parent_id)
                said = f"{shortened(prompt.content or '')} → " if prompt else ""
                self._terminal.complain(f"{mark} {place}  {said}{shortened(leaf.content or '')}")
            return
        if not number.isascii() or not number.isdigit() or not 0 < int(number) <= len(complete):
            raise ValueError(f"there is no branch {number}: /branch lists them")
        self._after = complete[int(number) - 1]
        if self._chat.is_kept:
            await self._chat.show(self._after)
