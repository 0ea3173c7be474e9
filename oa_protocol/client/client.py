"""The friendly API: a client of one server, its chats, and their answers."""

# These classes use one another's private parts, and their counterparts in sync.py do so, too.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
import shlex
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, cast

import anyio
import anyio.to_thread

from oa_protocol.bindings import json as schemas
from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials, check_text
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.json import ModelConfig, SamplingParameters
from oa_protocol.bindings.replies import Reply
from oa_protocol.bindings.website import Website
from oa_protocol.client import cookies as cookie_sources
from oa_protocol.client._accounts import Accounts
from oa_protocol.client._carrier import Shared, fetch
from oa_protocol.client._driver import Driver
from oa_protocol.client._pending_slot import PendingSlot
from oa_protocol.client._shield import run_to_completion
from oa_protocol.client.journal import Journal
from oa_protocol.client.sweep import Sweeper, SweepResult
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import (
    AnswerFailed,
    AuthenticationError,
    ChatLeakedWarning,
    ClosedError,
    MaybeSent,
    OAError,
)
from oa_protocol.engine.events import Answered, Corrected, Event, Failed, LeakRecord, Message, Token
from oa_protocol.engine.inputs import ExchangeFailed, Prompt, StreamEnded
from oa_protocol.engine.intents import Exchange
from oa_protocol.engine.phases import Phase
from oa_protocol.engine.timers import Cleanup, Timeouts, check_count
from oa_protocol.transports import TransportFactory
from oa_protocol.transports.default import default_transport_factory, proxy_of_environment

if TYPE_CHECKING:
    from oa_protocol.tape import TapeFile

# The stack levels from ``_report`` to the caller of ``close`` or the end of a ``with``, for ``warnings.warn``.
_LEAVING = 3

Api = Literal["website", "inference"]
CookieSource = Mapping[str, str] | str | os.PathLike[str]


class Client:
    """A client of one server. Use it with ``async with``, so that its chats are deleted at the end.

    Credentials are taken from the environment (``OA_COOKIES``, ``OA_TOKEN``) only if you pass neither ``cookies`` nor
    ``token``.

    Args:
        base_url: the server's URL. If it is None or empty, ``OA_URL`` is read from the environment.
        api: which API the server speaks: ``"website"``, ``"inference"``, or a binding of your own. A binding has its
            own base URL, so you can't pass ``base_url`` as well (see docs/bindings.md).
        cookies: for the website API: a mapping, the value of a Cookie header, the path of a cookies file (cookies.txt,
            a browser extension's JSON, HAR), or ``"browser:NAME"``. See ``load_cookies``.
        token: a bearer token. An empty one counts as none.
        proxy: the URL of a proxy for the default transport. By default it is the one that the environment names.
        transport: makes a transport each time it is called (see docs/transports.md). By default it is the choice of
            ``oa_protocol.transports.default``.
        timeouts: how long to wait for connections, replies and answers, in seconds (see ``Timeouts``).
        retries: how often each step is tried again after a failure.
        cleanup: how long cleaning up may take, in seconds, and how often a DELETE is sent (see ``Cleanup``).
        journal: the path of a file that lists the chats still to be deleted. A chat is written down before it is
            created, and crossed out when it is gone. ``sweep`` deletes what a killed process left in it.

    Attributes:
        leaked: every chat that is, or may be, left on the server.

    Raises:
        TypeError, ValueError: an argument can't be used. The error names it.

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
        check_count("retries", retries, 0)
        _check_type("timeouts", timeouts, Timeouts)
        _check_type("cleanup", cleanup, Cleanup)
        if proxy is not None and transport is not None:
            raise ValueError("proxy works only with the default transport: pass it to your own transport instead")
        self.leaked: list[LeakRecord] = []
        self._binding = _binding(api, base_url)
        takes_cookies = self._binding.api != "inference"
        # If credentials are given, the server sees no others, so those of the environment are left out.
        if token is None and not (takes_cookies and cookies is not None):
            cookies = cookies if cookies is not None else os.environ.get("OA_COOKIES") or None
            token = os.environ.get("OA_TOKEN")
        self._token = token or None
        self._cookies = cookies if takes_cookies else None
        # Cookies in a mapping are checked now. A file is read when it is needed, and again if its cookies are refused.
        known = self._cookies is None or isinstance(self._cookies, Mapping)
        given = Credentials(dict(self._cookies) if isinstance(self._cookies, Mapping) else {}, self._token)
        self._credentials = given if known else Credentials()
        timeouts = timeouts or Timeouts()
        self._retries = retries
        self._open_chats: dict[Chat, None] = {}  # not a set, because a set has no order
        self._is_closed = False
        if transport is None:
            if proxy is None:
                proxy = proxy_of_environment(self._binding.base_url)
            transport = default_transport_factory(connect_timeout=timeouts.connect, proxy=proxy)
        cleanup = cleanup or Cleanup()
        # Before a create is sent, naming the account takes at most a quarter of the time for cleaning up, and writing
        # to the journal at most half of it. Together that is less than the time after which an interrupted create is
        # given up. So a create that still waits for the journal is never mistaken for one that was sent.
        self._journal = Journal(journal, patience=cleanup.timeout / 2) if journal is not None else None
        self._shared = Shared(
            open_transport=transport,
            load_credentials=self._load,
            timeouts=timeouts,
            cleanup=cleanup,
            slot=PendingSlot(self._is_waiting),
            accounts=Accounts(transport, cleanup.timeout / 4),
            journal=self._journal,
        )

    def __repr__(self) -> str:
        return f"<Client {self._binding.api} {self._binding.base_url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave(error)

    async def aclose(self) -> None:
        """Close the chats that are still open."""
        await self._leave(None)

    async def _leave(self, error: BaseException | None) -> None:
        try:
            await self._end_chats()
        except BaseException as interruption:
            # The interruption may have come before anything had begun. If it came later, there is nothing left to do.
            await self._end_chats()
            self._tell_leaks(error or interruption)
            raise
        self._tell_leaks(error)

    async def _end_chats(self) -> None:
        """End the chats that are still open. Call ``_tell_leaks`` afterwards, which names what they left."""
        self._is_closed = True
        try:
            if not all(chat._is_over for chat in self._open_chats):
                # Each chat ends itself in time, or else its driver stops it 0.9 s later. This limit is only for a loop
                # that is blocked even longer.
                seconds = self._shared.cleanup.timeout + 2.0
                await run_to_completion(self._end_each, seconds=seconds, at_last=self._abandon_chats)
        finally:
            if self._journal is not None:
                self._journal.close()

    async def _end_each(self) -> None:
        async with anyio.create_task_group() as group:
            for chat in list(self._open_chats):
                group.start_soon(chat._end)

    def _abandon_chats(self) -> None:
        for chat in self._open_chats:
            chat._driver.abandon()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError("the client is closed, so nothing would clean up after this call: make another client")

    def _tell_leaks(self, in_flight: BaseException | None) -> None:
        """Name what each chat left.

        If warnings are errors, the first ``ChatLeakedWarning`` is raised, and the others are added to it as notes, so
        that no chat goes unnamed.
        """
        ended = [chat for chat in list(self._open_chats) if chat._is_over]
        try:
            while ended:
                ended.pop(0)._report(in_flight, stacklevel=_LEAVING + 1)
        except ChatLeakedWarning as warning:
            for chat in ended:
                chat._report(in_flight or warning, stacklevel=_LEAVING + 1)
            raise

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
        """Return a chat. Use it with ``async with``. It is created on the server by its first prompt.

        Args:
            model: the model's name, as in ``models()``. By default it is that of the historic client.
            sampling: ``SamplingParameters``, or a mapping of their fields. Fields that you leave out are as in the
                historic client.
            plugins: the plugins to use, as the API spells them.
            system_prompt: what the model is to know before the chat begins.
            user_profile: what the model is to know about you.
            user_response_instructions: how the model is to answer.
            tape: a path, or an open text file. Everything that passes is recorded there, with credentials masked (see
                docs/tapes.md).

        Raises:
            TypeError, ValueError: a value that no server takes. The error names the field.
            ClosedError: the client is closed.

        """
        self._check_open()
        options = AnswerOptions(
            model=model or schemas.DEFAULT_MODEL,
            sampling=SamplingParameters.of(sampling),
            plugins=tuple(plugins),
            system_prompt=system_prompt,
            user_profile=user_profile,
            user_response_instructions=user_response_instructions,
        )
        driver = Driver(self._conversation(options, tape), self._shared)
        return Chat(driver, self)

    async def resume(self, conversation: Conversation) -> Chat:
        """Return a chat that goes on with ``conversation``, for example one that you have unpickled.

        From now on only this chat may drive it. What was in flight before counts as lost, so the server is asked what
        it did. If an answer was requested, ``Chat.answer`` is the rest of it. The chat is deleted when you leave it, or
        at the latest when the client is closed.

        Args:
            conversation: a conversation with the same API at the same base URL as this client's.

        Raises:
            TypeError: it isn't a ``Conversation``.
            ValueError: it is with another server.
            ClosedError: the client is closed.

        """
        self._check_open()
        if not isinstance(cast("object", conversation), Conversation):
            raise TypeError(f"conversation must be a Conversation, not {conversation!r}")
        theirs, ours = conversation.binding, self._binding
        if (theirs.api, theirs.base_url) != (ours.api, ours.base_url):
            raise ValueError(f"the conversation is with {theirs.base_url} ({theirs.api}), and the client with {self!r}")
        chat = Chat(Driver(conversation, self._shared), self)
        chat._turns.resume()
        return chat

    def _conversation(self, options: AnswerOptions, tape: TapeFile | None) -> Conversation:
        shared = self._shared
        if tape is None:
            return Conversation(
                self._binding,
                self._credentials,
                options,
                retries=self._retries,
                timeouts=shared.timeouts,
                cleanup=shared.cleanup,
            )
        from oa_protocol.tape import Recorder  # imported only here, because most chats aren't recorded

        return Recorder(
            self._binding,
            self._credentials,
            options,
            retries=self._retries,
            timeouts=shared.timeouts,
            cleanup=shared.cleanup,
            tape=tape,
        )

    async def models(self) -> list[ModelConfig]:
        """Return the models that the server offers. An inference server lists them without credentials, too.

        Raises:
            AuthenticationError: there are no credentials, or the server refuses them.
            ApiError, HTTPStatusError: the server refused to list its models.
            RemoteProtocolError: the reply isn't a list of models.
            TransportError: the network failed, or there was no reply within ``Timeouts.reply``.
            ClosedError: the client is closed.

        """
        self._check_open()
        tells_anybody = self._binding.api == "inference"  # credentials there are a token, which is loaded already
        credentials = self._credentials if tells_anybody else await self._some_credentials()
        request = self._binding.list_models(credentials)
        status, headers, body = await fetch(self._shared.open_transport, request, self._shared.timeouts.reply)
        reply = Reply.of(self._binding, status, headers, body, credentials)
        if not reply.is_success:
            raise reply.error("listing the models")
        return reply.decode(self._binding.read_models, "a list of models", None)

    async def sweep(self, *, grace: float = 60.0) -> SweepResult:
        """Delete the chats of this server that are in the journal, unless a running client still uses them.

        Args:
            grace: how old a chat must be, in seconds, if its id isn't in the journal. A younger one is left alone,
                because somebody may be about to use it.

        Returns:
            What was deleted, what may be left, and what was left alone.

        Raises:
            ValueError: the client has no journal.
            JournalError: the journal can't be used.
            AuthenticationError: there are no credentials.

        """
        if self._journal is None:
            raise ValueError("there is no journal to sweep: give Client(journal=PATH)")
        credentials = await self._load()  # read again, because a file may have newer ones by now
        if credentials is None:
            raise _no_credentials()
        return await Sweeper(self._journal, self._binding, credentials, self._shared, grace).sweep()

    async def _some_credentials(self) -> Credentials:
        credentials = self._credentials or await self._load()
        if credentials is None:
            raise _no_credentials()
        return credentials

    async def _is_waiting(self, conversation: Conversation) -> bool:
        """Ask the server whether a chat's answer still waits for a worker. Its owner may have stopped iterating."""
        try:
            request = conversation.probe_request()
            status, headers, body = await fetch(self._shared.open_transport, request, self._shared.timeouts.reply)
            reply = Reply.of(self._binding, status, headers, body)
            if reply.is_refusal:
                return False  # the chat is gone, or isn't ours to read, so there is nothing to wait for
            return conversation.is_waiting_in(reply.decode(self._binding.read_chat, "a chat", None))
        except OAError:
            return True  # the slot asks again later

    async def _load(self) -> Credentials | None:
        """Find the credentials, or find them again after they were refused. Raises AuthenticationError, ValueError."""
        found: dict[str, str] = {}
        if self._cookies is not None:
            found = await anyio.to_thread.run_sync(cookie_sources.load_cookies, self._cookies, self._binding.base_url)
        credentials = Credentials(found, self._token)
        if not credentials:
            return None
        self._credentials = credentials
        return credentials


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


class _Turns:
    """What a chat and its answers share: the driver, and which answer is being read."""

    def __init__(self, driver: Driver, note_use: Callable[[], None]) -> None:
        self.driver = driver
        self.note_use = note_use
        self.current: Answer | None = None

    async def begin(self, answer: Answer, prompt: str) -> None:
        """Hand in the prompt of ``answer``. If an earlier answer was given up half-way, read it to its end first."""
        self.driver.check_open()
        if self.current is not None:
            await self.current._finish()
        self.note_use()
        self.driver.conversation.handle(Prompt(prompt), anyio.current_time())
        self.current = answer

    def resume(self) -> None:
        """Go on with a conversation that was driven elsewhere. What was in flight there is lost."""
        self.note_use()
        driver, conversation, now = self.driver, self.driver.conversation, anyio.current_time()
        is_asked = not (conversation.awaits_prompt or conversation.error or conversation.is_over)
        if conversation.has_stream:
            driver.undelivered += conversation.handle(StreamEnded(), now)
        if isinstance(conversation.outstanding, Exchange):
            lost = MaybeSent("it was in flight when the conversation was handed over")
            driver.undelivered += conversation.handle(ExchangeFailed(lost), now)
        if is_asked:
            self.current = Answer(self, "")
            self.current._begun = True


class Answer:
    """The answer to one prompt, as an asynchronous iterator of its events, up to ``Answered``.

    Attributes:
        message: the server's final message, or None until it has come.

    """

    def __init__(self, turns: _Turns, prompt: str) -> None:
        self.message: Message | None = None
        self._turns = turns
        self._prompt = prompt
        self._events: deque[Event] = deque()
        self._tokens: list[str] = []
        self._begun = False
        self._done = False

    @property
    def text(self) -> str:
        """The whole answer if it is complete. Otherwise the tokens so far, even if you gave it up."""
        if self.message is not None:
            return self.message.content or ""
        unread = [event.text for event in self._events if isinstance(event, Token)] if self._done else []
        return "".join(self._tokens + unread)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while (event := self._take()) is None:
            if not await self._advance():
                raise StopAsyncIteration
        return event

    def _take(self) -> Event | None:
        """Return the next event that is here already, or None. If the answer failed, raise its error."""
        if not self._events:
            return None
        event = self._events.popleft()
        if isinstance(event, Token):  # nearly all events are tokens, and this is faster than the match below
            self._tokens.append(event.text)
            return event
        match event:
            case Answered(message=message):
                self.message = message
            case Failed(error=error):
                self._done = True
                self._events.clear()
                raise error
            case _:
                pass
        return event

    async def _finish(self) -> None:
        """Read to the end, even of a failed answer. Keep the events, in case somebody still iterates over it."""
        while await self._advance():
            pass
        for event in self._events:
            if isinstance(event, Answered):
                self.message = event.message

    async def _advance(self) -> bool:
        """Begin, or do one more thing, and keep its events for ``_take``. Return False if there is nothing left to do.

        The events are kept, and not returned, so that a cancellation between two calls loses none.
        """
        if self._done:
            return False
        if not self._begun:
            await self._turns.begin(self, self._prompt)
            self._begun = True
        driver = self._turns.driver
        try:
            events = await driver.step()
        except StopAsyncIteration as stop:
            # It comes from a transport or a binding. Passed on, it would look like the end of the answer.
            raise RuntimeError(f"StopAsyncIteration was raised in phase {driver.conversation.phase.name}") from stop
        if events is not None:
            self._events.extend(events)
            return True
        self._done = True
        error = driver.conversation.error
        if error is not None and self.message is None and not self._events:
            self._events.append(Failed(error))
        return True


class TextStream:
    """The pieces of an answer's text, as an asynchronous iterator.

    Attributes:
        answer: the answer itself, which has the final text at the end.

    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        answer = self.answer
        while True:
            event = answer._take()
            if event is None:  # the same as anext(answer), but without one more coroutine for each token
                if not await answer._advance():
                    raise StopAsyncIteration
            elif piece := streamed_text(event):
                return piece


def streamed_text(event: Event) -> str:
    """Return the text that ``event`` adds to the stream. Raise AnswerFailed if what was streamed turns out wrong."""
    if isinstance(event, Token):
        return event.text
    if isinstance(event, Corrected) and event.cut:
        raise AnswerFailed(
            "the stream was cut, and the final text does not continue what was streamed; "
            "the exception's text is the whole answer",
            text=event.text,
        )
    return ""


def _no_credentials() -> AuthenticationError:
    return AuthenticationError("there are no credentials: give cookies= or token=")


def _check_type(name: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} must be {kind.__name__}(…), not {value!r}")


def _binding(api: Api | Binding, base_url: str | None) -> Binding:
    if not isinstance(cast("object", api), str):
        if base_url is not None:
            raise ValueError("base_url can't go with a binding: give it to the binding, or name an API in api")
        return cast("Binding", api)
    base_url = base_url or os.environ.get("OA_URL")
    if not base_url:
        raise ValueError("give base_url, or set OA_URL: the server's URL (the public site closed in 2023)")
    match api:
        case "website":
            return Website(base_url)
        case "inference":
            return InferenceServer(base_url)
        case _:
            raise ValueError(f"api must be 'website' or 'inference', or a binding, not {api!r}")
