"""The friendly API: a client of one server, its chats, and their answers."""

# These classes are made for one another, and for their twins in sync.py.
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
    """A client of one server.

    ``base_url`` is the server's; None reads the environment's ``OA_URL``. ``api`` is the API that is spoken there: the
    name of one of the two, or a binding of your own, which has the base URL itself (docs/bindings.md).
    ``cookies`` (website) is a mapping, a Cookie header value, the path of a cookies file (cookies.txt, a browser
    extension's JSON, HAR) or ``"browser:NAME"``. ``token`` is a bearer token, and an empty one is none. Where neither
    is given, ``OA_COOKIES`` and ``OA_TOKEN`` are read. ``proxy`` is the URL of a proxy; None takes the environment's.
    ``transport`` makes the transports; None is ``transports.default``'s choice. ``retries`` is how many further tries
    each step has.

    ``journal`` is the path of a file in which each chat is written down before it is made, and crossed out when it is
    gone; ``sweep`` deletes what a process that died has left in it.

    ``leaked`` names every chat that is, or may be, left on the server.

    Raises ValueError or TypeError, naming the argument, for what cannot be used.
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
            raise ValueError("proxy is the default transport's: give it to your own transport")
        self.leaked: list[LeakRecord] = []
        self._binding = _binding(api, base_url)
        takes_cookies = self._binding.api != "inference"
        if token is None and not (takes_cookies and cookies is not None):  # credentials given are all that is shown
            cookies = cookies if cookies is not None else os.environ.get("OA_COOKIES") or None
            token = os.environ.get("OA_TOKEN")
        self._token = token or None
        self._cookies = cookies if takes_cookies else None
        # What is given in so many words is checked now; a file is read when it is needed, and again when refused.
        known = self._cookies is None or isinstance(self._cookies, Mapping)
        given = Credentials(dict(self._cookies) if isinstance(self._cookies, Mapping) else {}, self._token)
        self._credentials = given if known else Credentials()
        timeouts = timeouts or Timeouts()
        self._retries = retries
        self._open_chats: dict[Chat, None] = {}  # in their order, which a set has not
        self._is_closed = False
        if transport is None:
            if proxy is None:
                proxy = proxy_of_environment(self._binding.base_url)
            transport = default_transport_factory(connect_timeout=timeouts.connect, proxy=proxy)
        cleanup = cleanup or Cleanup()
        # Of the time for cleaning up, naming the account may take a quarter before a create, and writing to the
        # journal half each time: so a create that waits for the journal is never given up as one that was sent.
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
            await self._end_chats()  # it may have come before anything had begun
            self._tell_leaks(error or interruption)
            raise
        self._tell_leaks(error)

    async def _end_chats(self) -> None:
        """End the chats that are still open; ``_tell_leaks`` then tells what they left."""
        self._is_closed = True
        try:
            if not all(chat._is_over for chat in self._open_chats):
                # Each chat keeps its own deadline; a second of its own later it is too late.
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
            raise ClosedError("the client is closed, and what it did now nothing would clean up: make another one")

    def _tell_leaks(self, in_flight: BaseException | None) -> None:
        """Have each chat that ended tell what it left, also where warnings are errors, and one of them is raised."""
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
        """Return a chat, to be used with ``async with``; its first prompt creates it on the server.

        No model means the historic default. ``tape`` is a path, or a text file that is open: all that passes is
        written there, with credentials masked (``oa_protocol.tape``). Raises TypeError or ValueError, naming the field,
        for what no server takes.
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
        """Return a chat that goes on with ``conversation``, which was driven elsewhere: an unpickled one, for example.

        Nobody else may go on with it. What was under way there counts as lost, so the server is asked what it did. If
        an answer was asked for, ``Chat.answer`` is the rest of it. The chat is deleted at the latest when the client is
        closed.

        Raises:
            TypeError, ValueError: it's no conversation, or one with another server.
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
        from oa_protocol.tape import Recorder  # most chats need none

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
        """Return the models that the server offers. An inference server tells them without credentials, too.

        Raises AuthenticationError, ApiError, HTTPStatusError, RemoteProtocolError or TransportError.
        """
        self._check_open()
        tells_anybody = self._binding.api == "inference"  # and takes a token, which needs no loading
        credentials = self._credentials if tells_anybody else await self._some_credentials()
        request = self._binding.list_models(credentials)
        status, headers, body = await fetch(self._shared.open_transport, request, self._shared.timeouts.reply)
        reply = Reply.of(self._binding, status, headers, body, credentials)
        if not reply.is_success:
            raise reply.error("listing the models")
        return reply.decode(self._binding.read_models, "a list of models", None)

    async def sweep(self, *, grace: float = 60.0) -> SweepResult:
        """Delete what the journal says was left behind on this server by owners that do not live any more.

        Args:
            grace: in seconds; a chat whose id nobody wrote down is left alone while it is younger.

        Raises:
            ValueError: the client has no journal.
            JournalError: the journal can't be used.
            AuthenticationError: there are no credentials.

        """
        if self._journal is None:
            raise ValueError("there is no journal to sweep: give Client(journal=PATH)")
        credentials = await self._load()  # a file may have newer ones by now
        if credentials is None:
            raise _no_credentials()
        return await Sweeper(self._journal, self._binding, credentials, self._shared, grace).sweep()

    async def _some_credentials(self) -> Credentials:
        self._check_open()
        credentials = self._credentials or await self._load()
        if credentials is None:
            raise _no_credentials()
        return credentials

    async def _is_waiting(self, conversation: Conversation) -> bool:
        """Ask the server whether the answer of a chat whose owner has paused still waits for a worker."""
        try:
            request = conversation.probe_request()
            status, headers, body = await fetch(self._shared.open_transport, request, self._shared.timeouts.reply)
            reply = Reply.of(self._binding, status, headers, body)
            if reply.is_refusal:
                return False  # there is no such chat any more, or it is not ours to read: nothing to wait for
            return conversation.is_waiting_in(reply.decode(self._binding.read_chat, "a chat", None))
        except OAError:
            return True  # ask again later

    async def _load(self) -> Credentials | None:
        """Find the credentials, again where they were refused. Raises AuthenticationError, and ValueError."""
        found: dict[str, str] = {}
        if self._cookies is not None:
            found = await anyio.to_thread.run_sync(cookie_sources.load_cookies, self._cookies, self._binding.base_url)
        credentials = Credentials(found, self._token)
        if not credentials:
            return None
        self._credentials = credentials
        return credentials


class Chat:
    """One chat on the server. Leaving it, by whatever path, deletes it there, or names it in ``client.leaked``."""

    def __init__(self, driver: Driver, client: Client) -> None:
        self._driver = driver
        self._client = client
        self._process = os.getpid()
        self._turns = _Turns(driver, self._note_use)

    def __repr__(self) -> str:
        return f"<Chat {self.id} {self.phase.name}>"

    @property
    def id(self) -> str | None:
        """The chat's id on the server, once it is there."""
        return self._driver.conversation.chat_id

    @property
    def phase(self) -> Phase:
        """Where the conversation stands."""
        return self._driver.conversation.phase

    @property
    def answer(self) -> Answer | None:
        """The answer that was begun last, if any."""
        return self._turns.current

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave(error)

    async def aclose(self) -> None:
        """Leave the chat, as the end of ``async with`` does. May be called again."""
        await self._leave(None)

    async def _leave(self, error: BaseException | None) -> None:
        try:
            await self._end()
        except BaseException as interruption:
            self._report(error or interruption)
            raise
        self._report(error)

    async def _end(self) -> None:
        """End the conversation; ``_report`` then tells what it left."""
        await self._driver.aclose()

    @property
    def _needs_closing(self) -> bool:
        """Whether there was a prompt, and the owner has not left."""
        used = self in self._client._open_chats and self._process == os.getpid()  # after a fork it is the parent's
        return used and not self._driver.conversation.is_over

    @property
    def _is_over(self) -> bool:
        """Whether the owner has left, and the chat is gone, or was given up."""
        return self._driver.is_closed and self._driver.conversation.is_over

    def __del__(self) -> None:
        if self._needs_closing:  # and so does the client, or it would know the chat
            where = f", left on {self._driver.conversation.binding.base_url}" if self.id else ""
            text = f"unclosed {self!r}{where}: use `async with client.chat()`"
            warnings.warn(text, ChatLeakedWarning if self.id else ResourceWarning, stacklevel=2)

    def send(self, text: str) -> Answer:
        """Ask for an answer to ``text``; iterate over it for its events. Nothing is sent before.

        Raises TypeError or ValueError for text that no server can store. Iterating raises the exceptions of
        ``oa_protocol.engine.errors``. An answer that is given up half-way is read to its end by the next one, first.
        """
        check_text("prompt", text)
        return Answer(self._turns, text)

    async def ask(self, text: str) -> str:
        """Return the whole answer to ``text``. Raises what ``send`` raises."""
        answer = self.send(text)
        async for _ in answer:
            pass
        return answer.text

    def stream(self, text: str) -> TextStream:
        """Ask for an answer to ``text``; iterate over it for the pieces of its text.

        Raises what ``send`` raises, and AnswerFailed, with the whole text on it, where the stream was cut and the
        pieces turn out to be wrong: they cannot be taken back.
        """
        return TextStream(self.send(text))

    def _note_use(self) -> None:
        self._client._check_open()
        self._client._open_chats[self] = None

    def _report(self, in_flight: BaseException | None, *, stacklevel: int = _LEAVING) -> None:
        """Name what was left, once: on the client, on the exception in flight, and in a warning.

        ``stacklevel`` is as for ``warnings.warn``. Raises ChatLeakedWarning where warnings are errors and no exception
        is in flight.
        """
        if self not in self._client._open_chats or not self._is_over:
            return  # it was told before, or the client will end it
        records = self._driver.conversation.leaked
        self._client.leaked.extend(records)
        del self._client._open_chats[self]
        if not records:
            return
        named = "; ".join(f"chat {record.chat_id or '(id unknown)'}: {record.reason}" for record in records)
        text = f"left, or maybe left, on {self._driver.conversation.binding.base_url}: {named}"
        if self._client._journal is not None:
            text += f". `oa-protocol sweep --journal {shlex.quote(str(self._client._journal.path))}` deletes it later"
        if in_flight is None or isinstance(in_flight, GeneratorExit):  # which nobody gets to see
            warnings.warn(text, ChatLeakedWarning, stacklevel=stacklevel + 1)
            return
        in_flight.add_note(text)
        # Where warnings are errors, this one must not take the place of the exception that already says it.
        with suppress(ChatLeakedWarning):
            warnings.warn(text, ChatLeakedWarning, stacklevel=stacklevel + 1)


class _Turns:
    """What a chat and its answers share: the driver, and whose turn it is."""

    def __init__(self, driver: Driver, note_use: Callable[[], None]) -> None:
        self.driver = driver
        self.note_use = note_use
        self.current: Answer | None = None

    async def begin(self, answer: Answer, prompt: str) -> None:
        """Make it the turn of ``answer``, once an answer that was given up half-way is complete."""
        self.driver.check_open()
        if self.current is not None:
            await self.current._finish()
        self.note_use()
        self.driver.conversation.handle(Prompt(prompt), anyio.current_time())
        self.current = answer

    def resume(self) -> None:
        """Go on with a conversation from elsewhere, after what was under way there was lost."""
        self.note_use()
        driver, conversation, now = self.driver, self.driver.conversation, anyio.current_time()
        is_asked = not (conversation.awaits_prompt or conversation.error or conversation.is_over)
        if conversation.has_stream:
            driver.undelivered += conversation.handle(StreamEnded(), now)
        if isinstance(conversation.outstanding, Exchange):
            lost = MaybeSent("it was under way where the conversation was driven before")
            driver.undelivered += conversation.handle(ExchangeFailed(lost), now)
        if is_asked:
            self.current = Answer(self, "")
            self.current._begun = True


class Answer:
    """The answer to one prompt: an async iterator of its events, up to ``Answered``.

    ``message`` is the server's final message, once it has come.
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
        """The whole answer once it is complete; until then the tokens so far, also of one that was given up."""
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
        """Return the next event that is here already, or None. Raises what failed the answer."""
        if not self._events:
            return None
        event = self._events.popleft()
        if isinstance(event, Token):  # nearly all are, and a pattern takes its time
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
        """Read on to the end, whatever it is; the events are kept for whoever still iterates."""
        while await self._advance():
            pass
        for event in self._events:
            if isinstance(event, Answered):
                self.message = event.message

    async def _advance(self) -> bool:
        """Begin, or do one thing more; what comes of it is there to ``_take``. Return False where all is done."""
        if self._done:
            return False
        if not self._begun:
            await self._turns.begin(self, self._prompt)
            self._begun = True
        driver = self._turns.driver
        try:
            events = await driver.step()
        except StopAsyncIteration as stop:  # a transport's, or a binding's, and not our end
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
    """The pieces of an answer's text, as an async iterator; ``answer`` has the final text at the end."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        answer = self.answer
        while True:
            event = answer._take()
            if event is None:  # what anext(answer) does, but for one coroutine more, which takes its time
                if not await answer._advance():
                    raise StopAsyncIteration
            elif piece := streamed_text(event):
                return piece


def streamed_text(event: Event) -> str:
    """Return the text that ``event`` adds to what was streamed. Raises AnswerFailed where that was wrong."""
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
            raise ValueError("give base_url to the binding, or the name of an API as api")
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
