"""The friendly API for programs without an event loop: the same client, for threads.

Each client runs the asynchronous client in an event loop on its own thread, and each call here waits for that
thread. So everything that ``oa_protocol.Client`` promises holds here, too. If Ctrl-C comes during a call, the
``KeyboardInterrupt`` is raised once the request that is under way is settled, and the chat is deleted, or named, before
its ``with`` block ends.

Several threads may share a client if each has its own chat. In a running event loop, these calls block the loop. A
client can't be used in a process that is forked after its first call.
"""

# This module uses private parts of the classes in client.py.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
import warnings
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from oa_protocol.bindings.base import Binding
from oa_protocol.bindings.json import ChatSummary, ModelConfig, SamplingParameters
from oa_protocol.bindings.tree import MessageTree
from oa_protocol.client._loop_thread import LoopThread
from oa_protocol.client.answer import Answer as AsyncAnswer
from oa_protocol.client.answer import streamed_text
from oa_protocol.client.bulk import Bulk as AsyncBulk
from oa_protocol.client.bulk import BulkPrompt, BulkResult, Key, Prompt, _Feed, _Hungry, check_prompts
from oa_protocol.client.chat import Chat as AsyncChat
from oa_protocol.client.client import Api, CookieSource
from oa_protocol.client.client import Client as AsyncClient
from oa_protocol.client.slots import AccountSlot
from oa_protocol.client.sweep import SweepResult
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import LocalProtocolError
from oa_protocol.engine.events import Event, LeakRecord, Message
from oa_protocol.engine.phases import Phase
from oa_protocol.engine.timers import Cleanup, Timeouts
from oa_protocol.transports import TransportFactory

if TYPE_CHECKING:
    from oa_protocol.client.telemetry import Telemetry
    from oa_protocol.tape import TapeFile

# At exit, a client's thread gets this many seconds more than its cleanup may take.
_GRACE = 3.0


class Client:
    """A client of one server. Use it with ``with``, so that its chats are deleted at the end.

    The arguments and the errors are those of ``oa_protocol.Client``. ``transport`` makes asynchronous transports here,
    too.

    The first call that has to wait starts the client's thread. Closing the client ends it. If you don't close the
    client, it is closed when it is garbage collected, or when the program ends.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api: Api | Binding = "website",
        cookies: CookieSource | None = None,
        token: str | None = None,
        proxy: str | None = None,
        transport: TransportFactory | None = None,
        timeouts: Timeouts | None = None,
        retries: int = 2,
        cleanup: Cleanup | None = None,
        journal: str | os.PathLike[str] | None = None,
        telemetry: Telemetry | None = None,
        slot: AccountSlot | None = None,
    ) -> None:
        self._client = AsyncClient(
            base_url,
            api=api,
            cookies=cookies,
            token=token,
            proxy=proxy,
            transport=transport,
            timeouts=timeouts,
            retries=retries,
            cleanup=cleanup,
            journal=journal,
            telemetry=telemetry,
            slot=slot,
        )
        patience = (cleanup or Cleanup()).timeout + _GRACE
        self._thread = LoopThread(self._client.aclose, patience=patience)
        # Not at exit, because _loop_thread stops every thread then, and waits for it.
        weakref.finalize(self, self._thread.stop).atexit = False

    def __repr__(self) -> str:
        return repr(self._client)

    @property
    def leaked(self) -> list[LeakRecord]:
        """Every chat that is, or may be, left on the server."""
        return self._client.leaked

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(error)

    def close(self) -> None:
        """Close the chats that are still open, even those of other threads. The client can't be used after that."""
        self._leave(None)

    def _leave(self, error: BaseException | None) -> None:
        try:
            self._client._is_closed = True  # without a thread, run() below wouldn't call anything that sets it
            with suppress(LocalProtocolError):  # another thread is closing the client, or the client's thread is gone
                self._thread.run(self._client._end_chats, is_leaving=True)
        except BaseException as interruption:
            error = error or interruption
            raise
        finally:
            try:
                if self._thread.has_died:  # no loop is left that could delete them, so they are named
                    self._client._abandon_chats()
                self._client._tell_leaks(error)
            finally:
                self._thread.stop()
                self._thread.join()

    def chat(
        self,
        model: str | None = None,
        *,
        sampling: SamplingParameters | Mapping[str, object] | None = None,
        plugins: Sequence[Mapping[str, object]] = (),
        system_prompt: str | None = None,
        user_profile: str | None = None,
        user_response_instructions: str | None = None,
        keep: bool = False,
        tape: TapeFile | None = None,
    ) -> Chat:
        """Return a chat. Use it with ``with``. It is created on the server by its first prompt.

        The arguments and the errors are those of ``oa_protocol.Client.chat``.
        """
        chat = self._client.chat(
            model,
            sampling=sampling,
            plugins=plugins,
            system_prompt=system_prompt,
            user_profile=user_profile,
            user_response_instructions=user_response_instructions,
            keep=keep,
            tape=tape,
        )
        return Chat(self, self._thread, chat)

    def bulk(self, prompts: Iterable[str | BulkPrompt], *, concurrency: int = 8, retries: int = 2) -> Bulk:
        """Ask many prompts, each in a chat of its own. Iterate over the result for the answers as they are finished.

        The arguments and the errors are those of ``oa_protocol.Client.bulk``. The prompts are taken in the thread that
        iterates over the result.
        """
        check_prompts(prompts)
        feed = _Feed()
        bulk = self._client.bulk(feed, concurrency=concurrency, retries=retries)
        return Bulk(self, self._thread, bulk, feed, prompts)

    def open(
        self,
        chat_id: str,
        model: str | None = None,
        *,
        sampling: SamplingParameters | Mapping[str, object] | None = None,
        plugins: Sequence[Mapping[str, object]] = (),
        system_prompt: str | None = None,
        user_profile: str | None = None,
        user_response_instructions: str | None = None,
        keep: bool = True,
        tape: TapeFile | None = None,
    ) -> Chat:
        """Return a chat that exists already. Use it with ``with``. It is **not** deleted when you leave it.

        The arguments and the errors are those of ``oa_protocol.Client.open``.
        """
        chat = self._thread.run(
            lambda: self._client.open(
                chat_id,
                model,
                sampling=sampling,
                plugins=plugins,
                system_prompt=system_prompt,
                user_profile=user_profile,
                user_response_instructions=user_response_instructions,
                keep=keep,
                tape=tape,
            )
        )
        return Chat(self, self._thread, chat)

    def chats(self, *, include_hidden: bool = False) -> Iterator[ChatSummary]:
        """Iterate over the account's chats, the newest first.

        The argument and the errors are those of ``oa_protocol.Client.chats``.
        """
        found = self._client.chats(include_hidden=include_hidden)
        while (chat := self._thread.run(lambda: _next(found))) is not None:
            yield chat

    def resume(self, conversation: Conversation) -> Chat:
        """Return a chat that goes on with ``conversation``, for example one that you have unpickled.

        The argument and the errors are those of ``oa_protocol.Client.resume``.
        """
        return Chat(self, self._thread, self._thread.run(lambda: self._client.resume(conversation)))

    def models(self) -> list[ModelConfig]:
        """Return the models that the server offers. The errors are those of ``oa_protocol.Client.models``."""
        return self._thread.run(self._client.models)

    def sweep(self, *, grace: float = 60.0) -> SweepResult:
        """Delete the chats of this server that are in the journal, unless a running client still uses them.

        The argument, the result and the errors are those of ``oa_protocol.Client.sweep``.
        """
        return self._thread.run(lambda: self._client.sweep(grace=grace))


class Bulk:
    """The results of many prompts, in the order in which they are finished.

    Iterate over it. If you may leave the loop early, use it with ``with``, or close it with ``close``. Otherwise what
    still runs is ended only when this object is garbage, or when the client is closed.
    """

    def __init__(
        self, client: Client, thread: LoopThread, bulk: AsyncBulk, feed: _Feed, prompts: Iterable[str | BulkPrompt]
    ) -> None:
        self._client = client  # a client that is garbage is closed, so this keeps it alive
        self._thread = thread
        self._bulk = bulk
        self._feed = feed
        self._prompts = iter(prompts)
        # If this thread is interrupted, nothing is lost: what came, and a prompt that isn't fed yet, wait here.
        self._came: deque[BulkResult | _Hungry | None] = deque()
        self._taken: deque[Prompt | Exception] = deque()

    @property
    def waiting(self) -> Sequence[Key]:
        """The keys of the prompts under way whose answers no worker has begun."""
        return self._bulk.waiting

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what still runs, and delete its chats. You may call it again."""
        with suppress(LocalProtocolError):  # the client is closed, and has ended this
            self._thread.run(self._bulk.aclose, is_leaving=True)

    def stop(self) -> None:
        """Take no more prompts. What runs goes on, so the results of that still come."""
        self._thread.soon(self._bulk.stop)

    def __del__(self) -> None:
        self._thread.soon(self._bulk._work.cancel)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BulkResult:
        """Return the next result. The errors are those of ``oa_protocol.Bulk``."""
        while True:
            try:
                came = self._came.popleft()
            except IndexError:
                self._thread.run(self._step)
                continue
            match came:
                case _Hungry():
                    self._satisfy(came)
                case None:
                    raise StopIteration
                case result:
                    return result

    async def _step(self) -> None:
        self._came.append(await self._bulk._step())

    def _satisfy(self, hungry: _Hungry) -> None:
        """Feed one prompt. If this thread is interrupted meanwhile, the next call does it."""
        try:
            if not self._taken:
                self._taken.append(self._next_prompt())
            self._thread.soon(self._feed_taken)
        except BaseException:
            self._came.appendleft(hungry)
            raise

    def _feed_taken(self) -> None:
        if self._taken:
            self._feed.put(self._taken.popleft())

    def _next_prompt(self) -> Prompt | Exception:
        """Take a prompt in this thread, because they belong to it. What that raises comes after the results."""
        try:
            return next(self._prompts)
        except Exception as error:
            return error


async def _next(chats: AsyncIterator[ChatSummary]) -> ChatSummary | None:
    return await anext(chats, None)


class Chat:
    """One chat on the server. However you leave it, it is deleted there, kept if you wish, or named as left behind.

    Only one thread at a time may read an answer. Any thread may close the chat. If another thread is waiting for an
    answer then, ``ClosedError`` is raised there.
    """

    def __init__(self, client: Client, thread: LoopThread, chat: AsyncChat) -> None:
        self._client = client  # a client that is garbage is closed, so its chats keep it alive
        self._thread = thread
        self._chat = chat

    def __repr__(self) -> str:
        return repr(self._chat)

    @property
    def id(self) -> str | None:
        """The chat's id on the server, or None before it is created there."""
        return self._chat.id

    @property
    def phase(self) -> Phase:
        """The phase that the conversation is in."""
        return self._chat.phase

    @property
    def answer(self) -> Answer | None:
        """The answer that was begun last, or None."""
        answer = self._chat.answer
        return None if answer is None else Answer(self, self._thread, answer)

    @property
    def is_kept(self) -> bool:
        """Whether the chat stays on the server when you leave it."""
        return self._chat.is_kept

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(error)

    def close(self) -> None:
        """Leave the chat, as the end of ``with`` does. You may call it again."""
        self._leave(None)

    def _leave(self, error: BaseException | None) -> None:
        try:
            with suppress(LocalProtocolError):  # the client is closed, and has closed its chats
                self._thread.run(self._chat._end, is_leaving=True)
        except BaseException as interruption:
            self._chat._report(error or interruption)
            raise
        self._chat._report(error)

    def __del__(self) -> None:
        if self._chat._needs_closing:
            warnings.warn(f"unclosed {self!r}: use `with client.chat()`", ResourceWarning, stacklevel=2)

    # ---- answers

    def send(self, text: str, *, after: Message | None = None) -> Answer:
        """Return the answer to ``text``. Iterate over it for its events; nothing is sent until you do.

        If you stop iterating half-way, the next answer first reads this one to its end.

        Args:
            text: the prompt.
            after: the complete answer that the prompt follows, from ``messages()``. By default, it is the last answer.

        Returns:
            An iterator of events, up to ``Answered``. Iterating raises the exceptions of ``oa_protocol.engine.errors``.

        Raises:
            TypeError, ValueError: no server can store this text, or ``after`` isn't a complete answer.

        """
        return Answer(self, self._thread, self._chat.send(text, after=after))

    def regenerate(self, message: Message | None = None) -> Answer:
        """Return another answer to the last prompt, or to that of ``message``. See ``oa_protocol.Chat.regenerate``."""
        return Answer(self, self._thread, self._chat.regenerate(message))

    def edit(self, message: Message, text: str) -> Answer:
        """Return the answer to ``text`` in place of an earlier prompt. See ``oa_protocol.Chat.edit``."""
        return Answer(self, self._thread, self._chat.edit(message, text))

    def ask(self, text: str, *, after: Message | None = None) -> str:
        """Return the text of the whole answer to ``text``. Raises what ``send`` and iterating raise."""
        return self._thread.run(lambda: self._chat.ask(text, after=after))

    def stream(self, text: str, *, after: Message | None = None) -> TextStream:
        """Return the answer to ``text`` as pieces of text. Iterate over it; nothing is sent until you do.

        Iterating raises ``AnswerFailed`` if the stream was cut, and the final text doesn't continue the pieces that you
        already have. The whole text is on the exception.

        Args:
            text: the prompt.
            after: as for ``send``.

        Returns:
            An iterator of strings. Iterating raises the exceptions of ``oa_protocol.engine.errors``.

        Raises:
            TypeError, ValueError: as for ``send``.

        """
        return TextStream(self.send(text, after=after))

    # ---- the chat itself

    def messages(self) -> MessageTree:
        """Return the messages of the chat, as they are on the server now. See ``oa_protocol.Chat.messages``."""
        return self._thread.run(self._chat.messages)

    def rename(self, title: str) -> None:
        """Give the chat a title of at most 100 characters. See ``oa_protocol.Chat.rename``."""
        self._thread.run(lambda: self._chat.rename(title))

    def hide(self, hidden: bool = True) -> None:
        """Hide the chat from ``Client.chats``, or show it there again. See ``oa_protocol.Chat.hide``."""
        self._thread.run(lambda: self._chat.hide(hidden))

    def show(self, message: Message) -> None:
        """Let the server remember the branch of ``message`` as the one to show. See ``oa_protocol.Chat.show``."""
        self._thread.run(lambda: self._chat.show(message))

    def keep(self) -> None:
        """Keep the chat on the server when you leave it. See ``oa_protocol.Chat.keep``."""
        self._thread.run(self._chat.keep)

    def delete(self) -> None:
        """Leave the chat and delete it, even if it is kept. See ``oa_protocol.Chat.delete``."""
        self._thread.run(self._chat._driver.stop_keeping)
        self.close()


class Answer:
    """The answer to one prompt, as an iterator of its events, up to ``Answered``."""

    def __init__(self, chat: Chat, thread: LoopThread, answer: AsyncAnswer) -> None:
        self._chat = chat  # a chat that is garbage warns that it is unclosed, so its answers keep it alive
        self._thread = thread
        self._answer = answer

    @property
    def message(self) -> Message | None:
        """The server's final message, or None until it has come."""
        return self._answer.message

    @property
    def text(self) -> str:
        """The whole answer if it is complete. Otherwise the tokens so far, even if you gave it up."""
        return self._answer.text

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        while (event := self._answer._take()) is None:
            if not self._thread.run(self._answer._advance):
                raise StopIteration
        return event


class TextStream:
    """The pieces of an answer's text, as an iterator.

    Attributes:
        answer: the answer itself, which has the final text at the end.

    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        while not (piece := streamed_text(next(self.answer))):
            pass
        return piece
