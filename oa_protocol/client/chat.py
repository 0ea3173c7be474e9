"""A chat on the server, as its owner uses it."""

# A chat, its client and its answers use one another's private parts, and their counterparts in sync.py do so, too.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
import shlex
import warnings
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from msgspec.structs import replace

from oa_protocol.bindings.base import check_text
from oa_protocol.bindings.json import ChatUpdate
from oa_protocol.bindings.tree import MessageTree
from oa_protocol.client._driver import Driver
from oa_protocol.client.answer import Answer, TextStream, _Turns
from oa_protocol.engine.errors import ChatLeakedWarning, LocalProtocolError
from oa_protocol.engine.events import Message
from oa_protocol.engine.inputs import Prompt, Regenerate
from oa_protocol.engine.phases import Phase

if TYPE_CHECKING:
    from oa_protocol.client.client import Client

_LEAVING = 3
"""The stack levels from ``_report`` to the caller of ``close`` or the end of a ``with``, for ``warnings.warn``."""


class Chat:
    """One chat on the server. However you leave it, it is deleted there, kept if you wish, or named as left behind.

    Make one with ``Client.chat``, or open an existing one with ``Client.open``.
    """

    def __init__(self, driver: Driver, client: Client) -> None:
        self._driver = driver
        self._client = client
        self._process = os.getpid()
        self._turns = _Turns(driver, self._note_use)

    def __repr__(self) -> str:
        return f"<Chat {self.id} {self.phase.name}>"

    @property
    def id(self) -> str | None:
        """The chat's id on the server, or None before it is created there."""
        return self._driver.conversation.chat_id

    @property
    def phase(self) -> Phase:
        """The phase that the conversation is in."""
        return self._driver.conversation.phase

    @property
    def answer(self) -> Answer | None:
        """The answer that was begun last, or None."""
        return self._turns.current

    @property
    def is_kept(self) -> bool:
        """Whether the chat stays on the server when you leave it."""
        return self._driver.conversation.is_kept

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave(error)

    async def aclose(self) -> None:
        """Leave the chat, as the end of ``async with`` does. You may call it again."""
        await self._leave(None)

    async def _leave(self, error: BaseException | None) -> None:
        try:
            await self._end()
        except BaseException as interruption:
            self._report(error or interruption)
            raise
        self._report(error)

    async def _end(self) -> None:
        """End the conversation. Call ``_report`` afterwards, which names what it left."""
        await self._driver.aclose()

    @property
    def _needs_closing(self) -> bool:
        """Whether there was a prompt, and the owner has not left."""
        # In a forked child the chat still belongs to the parent, which deletes it.
        used = self in self._client._open_chats and self._process == os.getpid()
        return used and not self._driver.conversation.is_over

    @property
    def _is_over(self) -> bool:
        """Whether the owner has left, and the chat is either gone or given up."""
        return self._driver.is_closed and self._driver.conversation.is_over

    def __del__(self) -> None:
        # An open client refers to its chats. So if this one is garbage, its client is garbage and unclosed, too.
        if self._needs_closing:
            where = f", left on {self._driver.conversation.binding.base_url}" if self.id else ""
            text = f"unclosed {self!r}{where}: use `async with client.chat()`"
            is_left = self.id and not self.is_kept
            warnings.warn(text, ChatLeakedWarning if is_left else ResourceWarning, stacklevel=2)

    # ---- answers

    def send(self, text: str, *, after: Message | None = None) -> Answer:
        """Return the answer to ``text``. Iterate over it for its events; nothing is sent until you do.

        If you stop iterating half-way, the next answer first reads this one to its end.

        Args:
            text: the prompt.
            after: the complete answer that the prompt follows, from ``messages()``. By default, it is the last answer.

        Returns:
            An asynchronous iterator of events, up to ``Answered``. Iterating raises the exceptions of
            ``oa_protocol.engine.errors``.

        Raises:
            TypeError, ValueError: no server can store this text, or ``after`` isn't a complete answer.

        """
        check_text("prompt", text)
        return Answer(self._turns, Prompt(text, after=None if after is None else _complete_answer(after)))

    def regenerate(self, message: Message | None = None) -> Answer:
        """Return another answer to the last prompt. The earlier answers stay in the chat (OA-3.5).

        The next prompt follows the new answer. Nothing is sent until you iterate.

        Args:
            message: the prompt to answer again, or one of its answers, from ``messages()``. By default, it is the last
                prompt.

        Returns:
            An asynchronous iterator of events, as from ``send``. Iterating raises ``LocalProtocolError`` if there is no
            prompt yet, or if the API has no branches.

        """
        return Answer(self._turns, Regenerate(None if message is None else _prompt_of(message)))

    def edit(self, message: Message, text: str) -> Answer:
        """Return the answer to ``text`` in place of an earlier prompt. The earlier branch stays in the chat (OA-3.4).

        Args:
            message: the prompt to replace, from ``messages()``. It can't be the first prompt of a chat, because servers
                refuse a second one.
            text: the new prompt.

        Returns:
            An asynchronous iterator of events, as from ``send``.

        Raises:
            TypeError, ValueError: no server can store this text, or ``message`` isn't a prompt.
            LocalProtocolError: ``message`` is the first prompt.

        """
        check_text("prompt", text)
        if message.role != "prompter":
            raise ValueError(f"only a prompt can be edited, and {message.id} is an answer")
        if message.parent_id is None:
            phase = self.phase.name
            raise LocalProtocolError(
                f"the first prompt of a chat can't be edited: begin another chat (phase {phase})", phase=phase
            )
        return Answer(self._turns, Prompt(text, after=message.parent_id))

    async def ask(self, text: str, *, after: Message | None = None) -> str:
        """Return the text of the whole answer to ``text``. Raises what ``send`` and iterating raise."""
        answer = self.send(text, after=after)
        async for _ in answer:
            pass
        return answer.text

    def stream(self, text: str, *, after: Message | None = None) -> TextStream:
        """Return the answer to ``text`` as pieces of text. Iterate over it; nothing is sent until you do.

        Iterating raises ``AnswerFailed`` if the stream was cut, and the final text doesn't continue the pieces that you
        already have. The whole text is on the exception.

        Args:
            text: the prompt.
            after: as for ``send``.

        Returns:
            An asynchronous iterator of strings. Iterating raises the exceptions of ``oa_protocol.engine.errors``.

        Raises:
            TypeError, ValueError: as for ``send``.

        """
        return TextStream(self.send(text, after=after))

    # ---- the chat itself

    async def messages(self) -> MessageTree:
        """Return the messages of the chat, as they are on the server now. A chat that isn't created yet has none.

        Its ``shown`` branch is the one that this chat is at.

        Raises:
            ApiError, HTTPStatusError: the server refused.
            AuthenticationError: there are no credentials, or the server refuses them.
            RemoteProtocolError: the reply isn't a chat.
            TransportError: the network failed, or there was no reply within ``Timeouts.reply``.
            ClosedError: the client is closed.

        """
        conversation = self._driver.conversation
        if conversation.chat_id is None:
            return MessageTree()
        request = partial(conversation.binding.fetch_chat, chat_id=conversation.chat_id)
        found = await self._client._request(request, "reading the chat", conversation.binding.read_chat, "a chat")
        return replace(found.tree, tail_id=conversation.answer_id or found.tree.tail_id)

    async def rename(self, title: str) -> None:
        """Give the chat a title of at most 100 characters. It replaces the first prompt in ``Client.chats``.

        Raises:
            TypeError, ValueError: no server takes this title.
            LocalProtocolError: the chat isn't created yet, or the API has no titles.
            OAError: as for ``messages``.

        """
        check_text("title", title)
        await self._update(ChatUpdate(title=title))

    async def hide(self, hidden: bool = True) -> None:
        """Hide the chat from ``Client.chats``, or with ``hidden=False`` show it there again.

        Raises:
            LocalProtocolError: the chat isn't created yet, or the API can't hide chats.
            OAError: as for ``messages``.

        """
        await self._update(ChatUpdate(hidden=hidden))

    async def show(self, message: Message) -> None:
        """Let the server remember the branch of ``message`` as the one to show (OA-3.6).

        ``Client.open`` goes on there. It doesn't matter for the prompts that you send now.

        Args:
            message: the last message of the branch, from ``messages()``.

        Raises:
            LocalProtocolError: the chat isn't created yet, or the API can't remember a branch.
            OAError: as for ``messages``.

        """
        await self._update(ChatUpdate(active_thread_tail_message_id=message.id))

    async def _update(self, update: ChatUpdate) -> None:
        conversation = self._driver.conversation
        if conversation.chat_id is None:
            phase = conversation.phase.name
            raise LocalProtocolError(f"there is no chat yet: send a prompt first (phase {phase})", phase=phase)
        request = partial(conversation.binding.update_chat, chat_id=conversation.chat_id, update=update)
        await self._client._request(request, "changing the chat", _read_nothing, "the end of a change")

    async def keep(self) -> None:
        """Keep the chat on the server when you leave it, as with ``Client.chat(keep=True)``.

        Raises:
            JournalError: the chat can't be crossed out of the journal. Then it isn't kept.
            ClosedError: you have left the chat.
            LocalProtocolError: the chat couldn't be created, or its create was lost.

        """
        await self._driver.keep()

    async def delete(self) -> None:
        """Leave the chat and delete it, even if it is kept. An answer that is running is waited for (OA-7.1).

        Otherwise it is the same as ``aclose``. If the chat can't be deleted, it is named in ``client.leaked``.

        Raises:
            ClosedError: you have left the chat.

        """
        await self._driver.stop_keeping()
        await self.aclose()

    async def _enter(self) -> None:
        """Read an existing chat. If that fails, the chat stays as it is."""
        self._note_use()
        conversation = self._driver.conversation
        try:
            while conversation.phase is Phase.OPENING:
                await self._driver.step()
            if conversation.error is not None:
                raise conversation.error
        except BaseException:
            if not self._driver.is_closed:
                await self._driver.keep()
            await self.aclose()
            raise

    def _note_use(self) -> None:
        self._client._check_open()
        self._client._open_chats[self] = None

    def _report(self, in_flight: BaseException | None, *, stacklevel: int = _LEAVING) -> None:
        """Name what was left, once: on the client, on the exception in flight, and in a warning.

        ``stacklevel`` is as for ``warnings.warn``. Raises ``ChatLeakedWarning`` if warnings are errors and no exception
        is in flight.
        """
        if self not in self._client._open_chats or not self._is_over:
            return  # it was named before, or the client will end it
        records = self._driver.conversation.leaked
        self._client.leaked.extend(records)
        del self._client._open_chats[self]
        if not records:
            return
        named = "; ".join(f"chat {record.chat_id or '(id unknown)'}: {record.reason}" for record in records)
        text = f"left, or maybe left, on {self._driver.conversation.binding.base_url}: {named}"
        # A lost create is in the journal, but an existing chat isn't, nor one that was kept once.
        if self._client._journal is not None and (self._driver.is_in_journal or records[0].chat_id is None):
            text += f". `oa-protocol sweep --journal {shlex.quote(str(self._client._journal.path))}` deletes it later"
        if in_flight is None or isinstance(in_flight, GeneratorExit):  # Python swallows this one, and its notes
            warnings.warn(text, ChatLeakedWarning, stacklevel=stacklevel + 1)
            return
        in_flight.add_note(text)
        # If warnings are errors, this one must not replace the exception in flight, which has the same text as a note.
        with suppress(ChatLeakedWarning):
            warnings.warn(text, ChatLeakedWarning, stacklevel=stacklevel + 1)


def _complete_answer(message: Message) -> str:
    if message.role != "assistant" or message.state != "complete":
        raise ValueError(f"after must be a complete answer, and {message.id} is {message.role}, {message.state}")
    return message.id


def _prompt_of(message: Message) -> str:
    return message.id if message.role == "prompter" else message.parent_id or ""


def _read_nothing(body: bytes) -> None:
    """Check that a change was confirmed. A page of a proxy confirms nothing."""
    if body not in (b"", b"null"):
        raise ValueError("the reply isn't empty")
