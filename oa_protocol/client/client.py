"""The friendly API: a client of one server."""

# These classes use one another's private parts, and their counterparts in sync.py do so, too.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeVar, cast

import anyio
import anyio.to_thread

from oa_protocol.bindings import json as schemas
from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.json import ChatSummary, ModelConfig, SamplingParameters
from oa_protocol.bindings.replies import MAX_BODY, MAX_LIST, Reply
from oa_protocol.bindings.website import Website
from oa_protocol.client import cookies as cookie_sources
from oa_protocol.client._accounts import Accounts
from oa_protocol.client._carrier import Shared, fetch
from oa_protocol.client._driver import Driver
from oa_protocol.client._pending_slot import PendingSlot
from oa_protocol.client._shield import run_to_completion
from oa_protocol.client.bulk import Bulk, BulkPrompt, _Work
from oa_protocol.client.chat import _LEAVING, Chat
from oa_protocol.client.journal import Journal
from oa_protocol.client.slots import AccountSlot
from oa_protocol.client.sweep import Sweeper, SweepResult
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import (
    AuthenticationError,
    ChatLeakedWarning,
    ClosedError,
    OAError,
)
from oa_protocol.engine.events import LeakRecord
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.engine.phases import Phase
from oa_protocol.engine.timers import Cleanup, Timeouts, check_count
from oa_protocol.transports import TransportFactory
from oa_protocol.transports.default import default_transport_factory, proxy_of_environment

if TYPE_CHECKING:
    from oa_protocol.client.telemetry import Telemetry
    from oa_protocol.tape import TapeFile

Api = Literal["website", "inference"]
CookieSource = Mapping[str, str] | str | os.PathLike[str]

_T = TypeVar("_T")


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
        telemetry: where the spans and metrics of OpenTelemetry go. By default, there are none.
        slot: the account's slot, if other clients or processes use the same account at the same time (see docs/bulk.md
            and ``oa_protocol.client.slots``). By default only the chats of this client take turns.

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
        telemetry: Telemetry | None = None,
        slot: AccountSlot | None = None,
    ) -> None:
        check_count("retries", retries, 0)
        _check_type("timeouts", timeouts, Timeouts)
        _check_type("cleanup", cleanup, Cleanup)
        if proxy is not None and transport is not None:
            raise ValueError("proxy works only with the default transport: pass it to your own transport instead")
        self.leaked: list[LeakRecord] = []
        self._binding = _binding(api, base_url)
        takes_cookies = self._binding.takes_cookies
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
        self._telemetry = telemetry
        self._open_chats: dict[Chat, None] = {}  # not a set, because a set has no order
        self._works: set[_Work] = set()
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
            slot=PendingSlot(self._is_waiting, slot, self._account),
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
        for work in list(self._works):
            work.fail(ClosedError("the client was closed before all prompts were asked"))
        try:
            if not all(chat._is_over for chat in self._open_chats):
                # Each chat ends itself in time, or else its driver stops it 0.9 s later. This limit is only for a loop
                # that is blocked even longer.
                seconds = self._shared.cleanup.timeout + 2.0
                await run_to_completion(self._end_each, seconds=seconds, at_last=self._abandon_chats)
            await self._shared.slot.aclose()
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
        keep: bool = False,
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
            keep: true to keep the chat on the server when you leave it (OA-7.9). The guarantee then says nothing about
                this chat: it isn't deleted, isn't named in ``leaked``, and isn't in the journal. But if the reply to
                its creation is lost, its id is unknown, and it is named.
            tape: a path, or an open text file. Everything that passes is recorded there, with credentials masked (see
                docs/tapes.md). A file that exists is overwritten, so each chat needs its own path.

        Raises:
            TypeError, ValueError: a value that no server takes. The error names the field.
            ClosedError: the client is closed.

        """
        self._check_open()
        options = _options(model, sampling, plugins, system_prompt, user_profile, user_response_instructions)
        return self._chat(options, tape, keep=keep)

    async def open(
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
        """Return a chat that exists already. Use it with ``async with await client.open(chat_id)``.

        It goes on at the end of the branch that the server shows (OA-3.6). It is **not** deleted when you leave it,
        unless you pass ``keep=False``, or call ``Chat.delete``.

        Args:
            chat_id: the chat's id, for example from ``chats()``.
            model: as for ``chat``, and so are the other arguments, except for ``keep``.
            sampling: see ``chat``.
            plugins: see ``chat``.
            system_prompt: see ``chat``.
            user_profile: see ``chat``.
            user_response_instructions: see ``chat``.
            keep: false to delete the chat when you leave it.
            tape: see ``chat``.

        Raises:
            TypeError, ValueError: a value that no server takes, or ``chat_id`` isn't an id.
            ApiError, HTTPStatusError: there is no such chat, or the server refused to show it. The chat stays as it is.
            OAError: as for ``models``. The chat stays as it is.
            ClosedError: the client is closed.

        """
        self._check_open()
        options = _options(model, sampling, plugins, system_prompt, user_profile, user_response_instructions)
        chat = self._chat(options, tape, keep=keep, chat_id=chat_id)
        await chat._enter()
        return chat

    def bulk(
        self,
        prompts: Iterable[str | BulkPrompt] | AsyncIterable[str | BulkPrompt],
        *,
        concurrency: int = 8,
        retries: int = 2,
    ) -> Bulk:
        """Ask many prompts, each in a chat of its own. Iterate over the result for the answers as they are finished.

        A prompt that fails is a result with an error. If the credentials are refused, that is raised at once, because
        the other prompts would fail, too.

        Args:
            prompts: texts, or ``BulkPrompt`` for a prompt with a key and settings of its own. They are taken only when
                they can be asked, so there may be any number of them. An asynchronous generator is closed at the end.
            concurrency: how many are asked at a time. A result counts until it is used.
            retries: how often a prompt is asked again if it failed for a reason that may pass. The pause before that
                is 1 s at first, and doubles each time.

        Raises:
            TypeError, ValueError: an argument can't be used. The error names it.

        """
        return Bulk(_Work(self, prompts, concurrency, retries))

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
        if conversation.phase is Phase.OPENING:
            await chat._enter()
        return chat

    def _chat(self, options: AnswerOptions, tape: TapeFile | None, *, keep: bool, chat_id: str | None = None) -> Chat:
        make: Callable[..., Conversation] = Conversation
        # What most chats don't need is imported only here.
        if self._telemetry is not None:
            from oa_protocol.client._observed import observed

            make = observed(self._telemetry._observer(self._binding, options), tape)
        elif tape is not None:
            from oa_protocol.tape import Recorder

            make = partial(Recorder, tape=tape)
        shared = self._shared
        conversation = make(
            self._binding,
            self._credentials,
            options,
            chat_id=chat_id,
            keep=keep,
            retries=self._retries,
            timeouts=shared.timeouts,
            cleanup=shared.cleanup,
        )
        return Chat(Driver(conversation, shared), self)

    async def chats(self, *, include_hidden: bool = False) -> AsyncIterator[ChatSummary]:
        """Iterate over the account's chats, the newest first. Pages of the list are read as you go on.

        A chat that is made or deleted meanwhile may be missing, but none occurs twice.

        Args:
            include_hidden: true to list hidden chats, too.

        Raises:
            OAError: as for ``models``. Iterating raises it.

        """
        seen: set[str | None] = set()
        cursor: str | None = None
        while cursor not in seen:
            seen.add(cursor)
            request = partial(self._binding.list_chats, after=cursor, include_hidden=include_hidden)
            page = await self._request(
                request, "listing the chats", self._binding.read_chat_list, "a list of chats", most=MAX_LIST
            )
            for chat in page.chats:
                if chat.id not in seen:
                    seen.add(chat.id)
                    yield chat
            cursor = page.next
            if cursor is None:
                return

    async def models(self) -> list[ModelConfig]:
        """Return the models that the server offers. An inference server lists them without credentials, too.

        Raises:
            AuthenticationError: there are no credentials, or the server refuses them.
            ApiError, HTTPStatusError: the server refused to list its models.
            RemoteProtocolError: the reply isn't a list of models.
            TransportError: the network failed, or there was no reply within ``Timeouts.reply``.
            ClosedError: the client is closed.

        """
        needed = self._binding.models_need_credentials
        binding = self._binding
        return await self._request(
            binding.list_models, "listing the models", binding.read_models, "a list of models", anonymous=not needed
        )

    async def _request(
        self,
        spell: Callable[[Credentials], HttpRequest],
        doing: str,
        reader: Callable[[bytes], _T],
        what: str,
        *,
        most: int = MAX_BODY,
        anonymous: bool = False,
    ) -> _T:
        """Send a request that belongs to no conversation, once, and return what ``reader`` finds in the reply."""
        self._check_open()
        credentials = self._credentials if anonymous else await self._some_credentials()
        seconds = self._shared.timeouts.reply
        status, headers, body = await fetch(self._shared.open_transport, spell(credentials), seconds, most=most)
        reply = Reply.of(self._binding, status, headers, body, credentials, most)
        if not reply.is_success:
            raise reply.error(doing)
        return reply.decode(reader, what, None)

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

    async def _account(self, conversation: Conversation) -> str:
        """Return the name of the conversation's account on its server, for a slot."""
        binding = conversation.binding
        return f"{binding.base_url} {await self._shared.accounts.name(binding, conversation.credentials)}"

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


def _options(
    model: str | None,
    sampling: SamplingParameters | Mapping[str, object] | None,
    plugins: Sequence[Mapping[str, object]],
    system_prompt: str | None,
    user_profile: str | None,
    user_response_instructions: str | None,
) -> AnswerOptions:
    return AnswerOptions(
        model=model or schemas.DEFAULT_MODEL,
        sampling=SamplingParameters.of(sampling),
        plugins=tuple(plugins),
        system_prompt=system_prompt,
        user_profile=user_profile,
        user_response_instructions=user_response_instructions,
    )


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
