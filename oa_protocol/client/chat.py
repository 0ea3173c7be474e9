"""A chat on the server, as its owner uses it."""

# A chat, its client and its answers use one another's private parts, and their counterparts in sync.py do so, too.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
import shlex
import warnings
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from oa_protocol.bindings.base import check_text
from oa_protocol.client._driver import Driver
from oa_protocol.client.answer import Answer, TextStream, _Turns
from oa_protocol.engine.errors import ChatLeakedWarning
from oa_protocol.engine.phases import Phase

if TYPE_CHECKING:
    from oa_protocol.client.client import Client

_LEAVING = 3
"""The stack levels from ``_report`` to the caller of ``close`` or the end of a ``with``, for ``warnings.warn``."""


class Chat:
    """One chat on the server. However you leave it, it is deleted there, or named in ``client.leaked``.

    Make one with ``Client.chat``.
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
            warnings.warn(text, ChatLeakedWarning if self.id else ResourceWarning, stacklevel=2)

    def send(self, text: str) -> Answer:
        """Return the answer to ``text``. Iterate over it for its events; nothing is sent until you do.

        If you stop iterating half-way, the next answer first reads this one to its end.

        Args:
            text: the prompt.

        Returns:
            An asynchronous iterator of events, up to ``Answered``. Iterating raises the exceptions of
            ``oa_protocol.engine.errors``.

        Raises:
            TypeError, ValueError: no server can store this text.

        """
        check_text("prompt", text)
        return Answer(self._turns, text)

    async def ask(self, text: str) -> str:
        """Return the text of the whole answer to ``text``. Raises what ``send`` and iterating raise."""
        answer = self.send(text)
        async for _ in answer:
            pass
        return answer.text

    def stream(self, text: str) -> TextStream:
        """Return the answer to ``text`` as pieces of text. Iterate over it; nothing is sent until you do.

        Iterating raises ``AnswerFailed`` if the stream was cut, and the final text doesn't continue the pieces that you
        already have. The whole text is on the exception.

        Args:
            text: the prompt.

        Returns:
            An asynchronous iterator of strings. Iterating raises the exceptions of ``oa_protocol.engine.errors``.

        Raises:
            TypeError, ValueError: no server can store this text.

        """
        return TextStream(self.send(text))

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
        if self._client._journal is not None:
            text += f". `oa-protocol sweep --journal {shlex.quote(str(self._client._journal.path))}` deletes it later"
        if in_flight is None or isinstance(in_flight, GeneratorExit):  # Python swallows this one, and its notes
            warnings.warn(text, ChatLeakedWarning, stacklevel=stacklevel + 1)
            return
        in_flight.add_note(text)
        # If warnings are errors, this one must not replace the exception in flight, which has the same text as a note.
        with suppress(ChatLeakedWarning):
            warnings.warn(text, ChatLeakedWarning, stacklevel=stacklevel + 1)
