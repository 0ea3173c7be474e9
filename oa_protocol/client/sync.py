"""The friendly API for programs without an event loop: the same client, for threads.

The one driver there is runs in an event loop on a thread of the client's own, and what is here waits for it. So all
that ``oa_protocol.Client`` promises holds: a KeyboardInterrupt while anything is under way is raised once that is
settled, and the chat is deleted, or named, before a ``with`` block ends. Several threads may share a client, each with
chats of its own. Inside a running event loop these calls block it. Nothing here survives a fork.
"""

# It uses what the classes of client.py keep for one another.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from oa_protocol.bindings.base import Binding
from oa_protocol.bindings.json import ModelConfig, SamplingParameters
from oa_protocol.client import client as asynchronous
from oa_protocol.client._loop_thread import LoopThread
from oa_protocol.client.client import Api, CookieSource, streamed_text
from oa_protocol.client.sweep import SweepResult
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import LocalProtocolError
from oa_protocol.engine.events import Event, LeakRecord, Message
from oa_protocol.engine.phases import Phase
from oa_protocol.engine.timers import Cleanup, Timeouts
from oa_protocol.transports import TransportFactory

if TYPE_CHECKING:
    from oa_protocol.tape import TapeFile

# The thread is waited for a little longer than its cleanup may take.
_GRACE = 3.0


class Client:
    """A client of one server. Its arguments are those of ``oa_protocol.Client``, whose ``transport`` it takes as well.

    Its thread is started by the first call that has to wait, and has ended when the client is closed. A client that
    nobody closes is closed when it is garbage, or when the program ends.

    ``leaked`` names every chat that is, or may be, left on the server.
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
    ) -> None:
        self._client = asynchronous.Client(
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
        )
        patience = (cleanup or Cleanup()).timeout + _GRACE
        self._thread = LoopThread(self._client.aclose, patience=patience)
        weakref.finalize(self, self._thread.stop).atexit = False  # then each thread is stopped anyway

    def __repr__(self) -> str:
        return repr(self._client)

    @property
    def leaked(self) -> list[LeakRecord]:
        """What is, or may be, left on the server."""
        return self._client.leaked

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(error)

    def close(self) -> None:
        """Close the chats that are still open, also those of other threads. Nothing can be asked after that."""
        self._leave(None)

    def _leave(self, error: BaseException | None) -> None:
        try:
            self._client._is_closed = True  # also if there is no thread yet, and nothing to end
            with suppress(LocalProtocolError):  # another thread closes it, or its own is gone
                self._thread.run(self._client._end_chats, is_leaving=True)
        except BaseException as interruption:
            error = error or interruption
            raise
        finally:
            try:
                if self._thread.has_died:
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
        tape: TapeFile | None = None,
    ) -> Chat:
        """Return a chat, to be used with ``with``; its first prompt creates it on the server.

        The arguments, and what is raised, are as for ``oa_protocol.Client.chat``.
        """
        chat = self._client.chat(
            model,
            sampling=sampling,
            plugins=plugins,
            system_prompt=system_prompt,
            user_profile=user_profile,
            user_response_instructions=user_response_instructions,
            tape=tape,
        )
        return Chat(self, self._thread, chat)

    def resume(self, conversation: Conversation) -> Chat:
        """Return a chat that goes on with ``conversation``, which was driven elsewhere: an unpickled one, for example.

        All is as for ``oa_protocol.Client.resume``.
        """
        return Chat(self, self._thread, self._thread.run(lambda: self._client.resume(conversation)))

    def models(self) -> list[ModelConfig]:
        """Return the models that the server offers.

        Raises AuthenticationError, ApiError, HTTPStatusError, RemoteProtocolError or TransportError.
        """
        return self._thread.run(self._client.models)

    def sweep(self, *, grace: float = 60.0) -> SweepResult:
        """Delete what the journal says was left behind on this server by owners that do not live any more.

        ``grace``, and what is raised, are as for ``oa_protocol.Client.sweep``.
        """
        return self._thread.run(lambda: self._client.sweep(grace=grace))


class Chat:
    """One chat on the server. Leaving it, by whatever path, deletes it there, or names it in ``client.leaked``.

    One thread at a time may ask; any thread may close it, and a thread that waits for an answer is raised
    LocalProtocolError then.
    """

    def __init__(self, client: Client, thread: LoopThread, chat: asynchronous.Chat) -> None:
        self._client = client  # it lives as long as its chats do
        self._thread = thread
        self._chat = chat

    def __repr__(self) -> str:
        return repr(self._chat)

    @property
    def id(self) -> str | None:
        """The chat's id on the server, once it is there."""
        return self._chat.id

    @property
    def phase(self) -> Phase:
        """Where the conversation stands."""
        return self._chat.phase

    @property
    def answer(self) -> Answer | None:
        """The answer that was begun last, if any."""
        answer = self._chat.answer
        return None if answer is None else Answer(self, self._thread, answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(error)

    def close(self) -> None:
        """Leave the chat, as the end of ``with`` does. May be called again."""
        self._leave(None)

    def _leave(self, error: BaseException | None) -> None:
        try:
            with suppress(LocalProtocolError):  # the client is closed, and its chats with it
                self._thread.run(self._chat._end, is_leaving=True)
        except BaseException as interruption:
            self._chat._report(error or interruption)
            raise
        self._chat._report(error)

    def __del__(self) -> None:
        if self._chat._needs_closing:
            warnings.warn(f"unclosed {self!r}: use `with client.chat()`", ResourceWarning, stacklevel=2)

    def send(self, text: str) -> Answer:
        """Ask for an answer to ``text``; iterate over it for its events. Nothing is sent before.

        Raises TypeError or ValueError for text that no server can store. Iterating raises the exceptions of
        ``oa_protocol.engine.errors``. An answer that is given up half-way is read to its end by the next one, first.
        """
        return Answer(self, self._thread, self._chat.send(text))

    def ask(self, text: str) -> str:
        """Return the whole answer to ``text``. Raises what ``send`` raises."""
        return self._thread.run(lambda: self._chat.ask(text))

    def stream(self, text: str) -> TextStream:
        """Ask for an answer to ``text``; iterate over it for the pieces of its text.

        Raises what ``send`` raises, and AnswerFailed, with the whole text on it, where the stream was cut and the
        pieces turn out to be wrong: they cannot be taken back.
        """
        return TextStream(self.send(text))


class Answer:
    """The answer to one prompt: an iterator of its events, up to ``Answered``."""

    def __init__(self, chat: Chat, thread: LoopThread, answer: asynchronous.Answer) -> None:
        self._chat = chat  # it lives as long as anybody iterates
        self._thread = thread
        self._answer = answer

    @property
    def message(self) -> Message | None:
        """The server's final message, once it has come."""
        return self._answer.message

    @property
    def text(self) -> str:
        """The whole answer once it is complete; until then the tokens so far."""
        return self._answer.text

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        while (event := self._answer._take()) is None:
            if not self._thread.run(self._answer._advance):
                raise StopIteration
        return event


class TextStream:
    """The pieces of an answer's text, as an iterator; ``answer`` has the final text at the end."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        while not (piece := streamed_text(next(self.answer))):
            pass
        return piece
