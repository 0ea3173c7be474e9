"""The engine: one conversation with the server, as a state machine that does no I/O (specs/protocol.md).

A driver asks for the next intent, carries it out, and hands in what happened; each such call returns the events it
caused. ``phases.py`` says where a conversation can stand; here is what each happening means there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import ClassVar, TypeVar, assert_never, cast

from msgspec.structs import replace

from oa_protocol.bindings import json as schemas
from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials, check_id, check_text
from oa_protocol.bindings.replies import Reply
from oa_protocol.bindings.sse import SSEDecoder
from oa_protocol.engine import events as ev
from oa_protocol.engine.errors import (
    AnswerFailed,
    ApiError,
    AuthenticationError,
    LocalProtocolError,
    MaybeSent,
    NotSent,
    OAError,
    RemoteProtocolError,
    TransportError,
)
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    DeleteChat,
    Exchange,
    FetchChat,
    FetchMessage,
    HttpRequest,
    Intent,
    ListChats,
    LoadCookies,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import LEAVING, TERMINAL, Phase, Trigger, fire
from oa_protocol.engine.turn import Turn

MAX_EVENT = 8 * 1024 * 1024
"""The most bytes that one event of a stream may have."""

MAX_ANSWER = 64 * 1024 * 1024
"""The most characters that one answer's tokens may have; once it is over, no more are taken."""

_FIRST_BACK_OFF = 0.5
_SLOWEST_POLL = 5.0
_LONGEST_RETRY_AFTER = 60.0
_PENDINGS_PER_CHECK = 10
_KEEPALIVES_PER_CHECK = 3
_PAGES = 50  # of the account's chats, behind the first one
_ALREADY_PROMPTED = "Trying to add first message to non-empty chat"

_DOING: dict[type[Exchange], str] = {
    CreateChat: "creating the chat",
    SendPrompt: "sending the prompt",
    RequestAssistant: "requesting the answer",
    OpenStream: "opening the stream",
    FetchMessage: "reading the answer",
    FetchChat: "reading the chat",
    ListChats: "listing the chats",
    DeleteChat: "deleting the chat",
}

_DEFAULT_OPTIONS = AnswerOptions()

# What changes something on the server: its outcome must be known before a conversation can end well.
_WRITES = (CreateChat, SendPrompt, RequestAssistant)

# What is tried a number of times; the others are reads, which have a count of their own, or polls.
_TRIED = (*_WRITES, OpenStream, DeleteChat)

# What each token takes, under names that are found at once.
_STREAMING = Phase.STREAMING
_Token = ev.Token
_decode_event = schemas.decode_event

_T = TypeVar("_T")
_Judge = Callable[["Conversation", "Reply | TransportError", "list[ev.Event]"], None]
_IntentT = TypeVar("_IntentT", Exchange, LoadCookies)


class _Closing(Enum):
    """How the owner left."""

    DRAIN = "an answer may still finish"
    NOW = "delete at once"


class Conversation:
    """One chat on the server, from before its creation until it is confirmed gone, or named as left behind.

    ``binding`` is the API spoken, ``credentials`` may be empty (then they are asked for), ``retries`` is how many
    further tries each step has, ``attempts`` how many DELETEs are sent at most. A conversation has one owner at a time;
    it has no clock and no randomness, and it pickles and copies in every phase (with its credentials).

    ``phase`` says where it stands, ``error`` what failed it, and ``records`` name what it left on the server.
    """

    __slots__ = (
        "_attempts",
        "_chat_id",
        "_check_due",
        "_closing",
        "_credentials",
        "_date",
        "_decoder",
        "_delay",
        "_last_error",
        "_list_after",
        "_list_next",
        "_outstanding",
        "_parent_id",
        "_reads",
        "_refused",
        "_renewed",
        "_retries",
        "_running",
        "_tries",
        "_turn",
        "binding",
        "error",
        "options",
        "phase",
        "records",
    )

    def __init__(
        self,
        binding: Binding,
        credentials: Credentials | None = None,
        options: AnswerOptions | None = None,
        *,
        retries: int = 2,
        attempts: int = 3,
    ) -> None:
        self.binding = binding
        self.options = options or _DEFAULT_OPTIONS
        self.phase = Phase.START
        self.error: OAError | None = None
        self.records: tuple[ev.LeakRecord, ...] = ()
        self._retries = retries
        self._attempts = attempts
        self._credentials = credentials or Credentials()
        # The rejection for which other credentials are being asked, and whether that has been done for this step.
        self._refused: AuthenticationError | None = None
        self._renewed = False
        self._chat_id = ""
        self._parent_id: str | None = None
        self._turn: Turn | None = None
        self._outstanding: Intent | None = None
        self._decoder: SSEDecoder | None = None
        self._check_due = False
        self._closing: _Closing | None = None
        # Whether an answer waits or runs on the server as far as we know, so that a DELETE would hurt others.
        self._running = False
        self._list_next = False
        self._list_after: str | None = None
        self._tries = 0
        self._reads = 0
        self._delay = 0.0
        self._last_error: OAError | None = None
        self._date: str | None = None

    @classmethod
    def resume(cls, binding: Binding, credentials: Credentials, chat_id: str, *, attempts: int = 3) -> Conversation:
        """Return a conversation whose chat exists, and that can only be closed: for a chat that was left behind.

        Raises ValueError where ``chat_id`` is no id of this protocol.
        """
        conversation = cls(binding, credentials, attempts=attempts)
        conversation._chat_id = check_id(chat_id)
        conversation._move(Trigger.CREATED)
        return conversation

    def __repr__(self) -> str:
        return f"<Conversation {self.phase.name} chat_id={self.chat_id} outstanding={self._outstanding!r}>"

    # ---- what anyone may ask

    @property
    def chat_id(self) -> str | None:
        """The chat's id, once the server gave it."""
        return self._chat_id or None

    @property
    def credentials(self) -> Credentials:
        """What the server is shown."""
        return self._credentials

    @property
    def is_chat_gone(self) -> bool:
        """Whether the chat was made, and is confirmed gone."""
        return bool(self._chat_id) and self.is_over and all(record.chat_id is None for record in self.records)

    @property
    def is_over(self) -> bool:
        """Whether the phase is terminal: nothing follows."""
        return self.phase in TERMINAL

    @property
    def awaits_prompt(self) -> bool:
        """Whether ``prompt`` may be called."""
        idle = self.phase in (Phase.START, Phase.COOKIES, Phase.ANSWERED) and self._turn is None
        return idle and self._closing is None

    @property
    def awaits_worker(self) -> bool:
        """Whether our answer was requested and, as far as is known, no worker has begun with it (OA-4.7)."""
        requested = isinstance(self._outstanding, RequestAssistant) or self.phase in (
            Phase.REQUEST_LOST,
            Phase.ASSISTANT_REQUESTED,
            Phase.STREAMING,
            Phase.POLLING,
        )
        return requested and not self._current.started

    def is_waiting_in(self, chat: schemas.Chat) -> bool:
        """Tell whether our answer waits for a worker in ``chat``, as somebody else may have read it (OA-4.7)."""
        return self._turn is not None and self._turn.is_waiting(chat)

    def look_request(self) -> HttpRequest:
        """Return the request that reads the chat, for ``is_waiting_in``. Raises ValueError where there is no chat."""
        return self.binding.fetch_chat(self._credentials, self._chat_id)

    @property
    def has_stream(self) -> bool:
        """Whether a stream is open, so that its bytes, its silence and its end may be handed in."""
        return self._decoder is not None

    @property
    def outstanding(self) -> Intent | None:
        """The intent that was handed out and is not settled yet."""
        return self._outstanding

    # ---- what the owner may do

    def prompt(self, text: str) -> None:
        """Ask for an answer to ``text``; the next intents lead there (OA-4.4).

        Raises LocalProtocolError where the phase does not allow it, and TypeError or ValueError for text that no
        server can store.
        """
        check_text("prompt", text)
        if not self.awaits_prompt:
            raise self._misuse("prompt()")
        self._turn = Turn(text, self._parent_id)
        self._begin_step()

    def close(self, *, drain: bool = True) -> list[ev.Event]:
        """End the conversation, for whatever reason; legal in every phase, any number of times.

        With ``drain`` an answer that may be running is waited for, since deleting its chat breaks other users'
        answers (OA-7.1). Without it, or called again without it, the chat is deleted at once.
        """
        events: list[ev.Event] = []
        if not drain:
            self._closing = _Closing.NOW
        elif self._closing is None:
            self._closing = _Closing.DRAIN
        self._advance(events)
        return events

    def abandon(self) -> list[ev.Event]:
        """Give up, for there is no more time: what may be left on the server is named, and nothing follows."""
        events: list[ev.Event] = []
        if self.is_over:
            return events
        if isinstance(self._outstanding, CreateChat):
            self._record(None, "the server did not say in time whether it made the chat")
        self._outstanding = None
        self._decoder = None
        self._closing = _Closing.NOW
        if self._chat_id:
            self._leak("the chat could not be deleted in the time allowed", events)
        else:
            self._advance(events)
        return events

    def answer_timed_out(self) -> list[ev.Event]:
        """The owner's patience with the answer is over: the turn fails (OA-6.9).

        Raises LocalProtocolError where no answer is on its way.
        """
        if self.phase not in (Phase.ASSISTANT_REQUESTED, Phase.STREAMING, Phase.POLLING):
            raise self._misuse("answer_timed_out()")
        events: list[ev.Event] = []
        self._fail(self._answer_failed("no answer came in the time allowed"), events)
        return events

    # ---- what a driver is to do next

    def next_intent(self) -> Intent | None:
        """Return the next thing to do, each once; None while one is outstanding, or where there is none."""
        if self._outstanding is not None:
            return None
        self._outstanding = self._decide()
        return self._outstanding

    def _decide(self) -> Intent | None:
        if self._decoder is not None and self.phase is not _STREAMING:
            return CloseStream()
        if self._refused is not None:
            return LoadCookies(refused=True)
        if self._decoder is not None and not self._check_due:
            return None  # the stream is to be read, which is what is asked for each token
        if self.phase is Phase.START and not self._credentials:
            return LoadCookies()
        kind = self._next_exchange()
        if kind is None:
            return None
        if kind in _TRIED:
            self._tries += 1
        delay, self._delay = self._delay, 0.0
        return kind(self._request(kind), delay, shielded=kind is CreateChat or self.phase in LEAVING)

    def _next_exchange(self) -> type[Exchange] | None:
        match self.phase:
            case Phase.START | Phase.COOKIES:
                return CreateChat if self._turn else None
            case Phase.CHAT_CREATED | Phase.ANSWERED:
                return SendPrompt if self._turn else None
            case Phase.PROMPTED:
                return RequestAssistant
            case Phase.PROMPT_LOST | Phase.REQUEST_LOST:
                return FetchChat
            case Phase.ASSISTANT_REQUESTED:
                return OpenStream
            case Phase.STREAMING | Phase.POLLING:
                return FetchMessage
            case Phase.DRAINING:
                return FetchMessage if self._current.message_id else FetchChat
            case Phase.DELETING:
                return DeleteChat
            case Phase.DELETE_UNCLEAR:
                return ListChats if self._list_next else FetchChat
            case Phase.FAILED | Phase.DELETED | Phase.NEVER_CREATED | Phase.LEAKED:
                return None
            case _:
                assert_never(self.phase)

    def _request(self, kind: type[Exchange]) -> HttpRequest:
        api, credentials, chat_id = self.binding, self._credentials, self._chat_id
        if kind is CreateChat:
            return api.create_chat(credentials)
        if kind is FetchChat:
            return api.fetch_chat(credentials, chat_id)
        if kind is ListChats:
            return api.list_chats(credentials, self._list_after)
        if kind is DeleteChat:
            return api.delete_chat(credentials, chat_id)
        turn = self._current
        if kind is SendPrompt:
            return api.send_prompt(credentials, chat_id, turn.parent_id, turn.prompt)
        if kind is RequestAssistant:
            return api.request_assistant(credentials, chat_id, turn.prompt_id, self.options)
        if kind is OpenStream:
            return api.open_stream(credentials, chat_id, turn.message_id)
        return api.fetch_message(credentials, chat_id, turn.message_id)

    # ---- what the driver hands in

    def receive_cookies(self, credentials: Credentials | None) -> list[ev.Event]:
        """Take the credentials that LoadCookies asked for, or None where there are none.

        Raises LocalProtocolError where they were not asked for.
        """
        self._settle(LoadCookies, "receive_cookies()")
        events: list[ev.Event] = []
        refused, self._refused = self._refused, None
        if credentials and credentials != self._credentials:
            self._credentials = credentials
            self._renewed = refused is not None
            if self.phase is Phase.START:
                self._move(Trigger.CREDENTIALS_LOADED)
        elif refused is not None:
            self._step_failed(refused, events)
        elif self.phase is Phase.START:
            self._fail(self._no_credentials(), events)
        return events

    def receive_reply(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> list[ev.Event]:
        """Take the whole reply to the outstanding exchange. Of OpenStream: one with another status than 200.

        Raises LocalProtocolError where no exchange is outstanding.
        """
        exchange = self._settle(Exchange, "receive_reply()")
        reply = Reply.of(status, headers, body)
        events: list[ev.Event] = []
        if self.records:
            self._end_windows(reply.date)
        self._judge(exchange, reply, events)
        self._date = reply.date or self._date
        self._advance(events)
        return events

    def receive_failure(self, failure: TransportError) -> list[ev.Event]:
        """Take the failure of the outstanding exchange: NotSent, or MaybeSent (any other TransportError is that, too).

        Raises LocalProtocolError where no exchange is outstanding.
        """
        exchange = self._settle(Exchange, "receive_failure()")
        events: list[ev.Event] = []
        self._judge(exchange, failure, events)
        self._advance(events)
        return events

    def receive_stream_opened(self) -> list[ev.Event]:
        """Take the head of the reply to OpenStream, where its status is 200.

        Raises LocalProtocolError where OpenStream is not outstanding.
        """
        if not isinstance(self._outstanding, OpenStream):
            raise self._misuse("receive_stream_opened()")
        self._outstanding = None
        self._renewed = False
        self._decoder = SSEDecoder(MAX_EVENT)
        self._check_due = False
        if self.phase is Phase.ASSISTANT_REQUESTED:
            self._move(Trigger.STREAM_OPENED)
            self._begin_step()
        return []

    def receive_stream_data(self, data: bytes) -> list[ev.Event]:
        """Take bytes of the open stream, cut anywhere; what follows the stream's last event is ignored.

        Raises LocalProtocolError where no stream is open.
        """
        decoder, turn = self._decoder, self._turn
        if decoder is None:
            raise self._misuse("receive_stream_data()")
        events: list[ev.Event] = []
        if turn is None or self.phase is not _STREAMING:
            return events
        told = turn.told
        for payload in decoder.feed(data):
            try:
                event = _decode_event(payload)
            except schemas.DecodeErrors as error:
                self._undecodable(payload, error, events)
            else:
                if isinstance(event, _Token):  # nearly all are, and this is what one costs
                    told.write(event.text)
                    turn.started = True
                    self._check_due = False
                    events.append(event)
                    continue
                self._stream_event(event, turn, events)
            if self.phase is not _STREAMING:
                return events
        if told.tell() > MAX_ANSWER:
            self._fail(self._broken(f"the answer has more than {MAX_ANSWER:,} characters"), events)
        elif not decoder.settled:
            self._look_at_the_rest(decoder, events)
        return events

    def receive_silence(self) -> list[ev.Event]:
        """Take that the open stream brought no byte for too long (OA-6.6).

        Raises LocalProtocolError where no stream is open.
        """
        if self._decoder is None:
            raise self._misuse("receive_silence()")
        self._lose_stream()
        return []

    def receive_stream_end(self) -> list[ev.Event]:
        """Take that the open stream has ended, cleanly or not, or that CloseStream is done.

        Only the stream's last event ends an answer (OA-5.7), so how a stream ends makes no difference. Raises
        LocalProtocolError where no stream is open.
        """
        if self._decoder is None:
            raise self._misuse("receive_stream_end()")
        self._decoder = None
        if isinstance(self._outstanding, CloseStream):
            self._outstanding = None
        self._lose_stream()
        return []

    # ---- what each outcome means where we stand

    def _judge(self, exchange: Exchange, outcome: Reply | TransportError, events: list[ev.Event]) -> None:
        judge = self._JUDGES.get((self.phase, type(exchange)))
        if judge is None:
            return  # the owner left, or the answer came, while it was under way: nobody needs it any more
        try:
            if not (isinstance(outcome, Reply) and self._asks_for_credentials(exchange, outcome)):
                judge(self, outcome, events)
        except OAError as error:
            self._step_failed(error, events)

    def _judge_create(self, outcome: Reply | TransportError, events: list[ev.Event]) -> None:
        if isinstance(outcome, Reply) and outcome.is_success:
            try:
                self._chat_id = self._new_id(outcome, "a new chat")
            except OAError as unnamed:
                self._record(None, str(unnamed), outcome.date)
                self._try_again(unnamed)
                return
            self._move(Trigger.CREATED)
            events.append(ev.Created(self._chat_id))
            self._begin_step()
            return
        error = self._problem(CreateChat, outcome)
        if _is_unclear(outcome):
            self._record(None, str(error), outcome.date if isinstance(outcome, Reply) else None)
        self._try_again(error, outcome)

    def _judge_prompt(self, outcome: Reply | TransportError, events: list[ev.Event]) -> None:
        if isinstance(outcome, Reply) and outcome.is_success:
            self._prompted(self._new_id(outcome, "a new prompter message"), events)
            return
        error = self._problem(SendPrompt, outcome)
        resent = self._tries > 1
        if _is_unclear(outcome) or (resent and isinstance(error, ApiError) and error.message == _ALREADY_PROMPTED):
            self._last_error = error
            self._move(Trigger.PROMPT_LOST)
            self._begin_reading(_FIRST_BACK_OFF)
        else:
            self._try_again(error, outcome)

    def _look_for_prompt(self, outcome: Reply | TransportError, events: list[ev.Event]) -> None:
        chat = self._read(FetchChat, outcome, schemas.decode_chat, "a chat")
        if chat is None:
            return
        if found := self._current.find_prompt(chat):
            self._prompted(self._valid_id(found, "a prompter message"), events)
            return
        self._move(Trigger.NEXT_PROMPT_MISSING if self._parent_id else Trigger.FIRST_PROMPT_MISSING)
        self._try_again(cast("OAError", self._last_error))

    def _prompted(self, message_id: str, events: list[ev.Event]) -> None:
        self._current.prompt_id = message_id
        self._move(Trigger.PROMPTED)
        events.append(ev.Prompted(message_id))
        self._begin_step()

    def _judge_request(self, outcome: Reply | TransportError, events: list[ev.Event]) -> None:
        if isinstance(outcome, Reply) and outcome.is_success:
            self._running = True
            self._requested(self._new_id(outcome, "a new assistant message"), events)
            return
        error = self._problem(RequestAssistant, outcome)
        if _is_unclear(outcome):
            self._running = True
            self._last_error = error
            self._move(Trigger.REQUEST_LOST)
            self._begin_reading(_FIRST_BACK_OFF)
            return
        if isinstance(error, ApiError) and error.status == 503:  # the server's own words, not those of a proxy
            self._current.left_pending += 1
        self._try_again(error, outcome)

    def _look_for_answer(self, outcome: Reply | TransportError, events: list[ev.Event]) -> None:
        chat = self._read(FetchChat, outcome, schemas.decode_chat, "a chat")
        if chat is None:
            return
        if found := self._current.find_answer(chat):
            self._requested(self._valid_id(found, "an assistant message"), events)
            return
        self._running = False
        self._move(Trigger.REQUEST_MISSING)
        self._try_again(cast("OAError", self._last_error))

    def _requested(self, message_id: str, events: list[ev.Event]) -> None:
        self._current.message_id = message_id
        self._move(Trigger.REQUESTED)
        events.append(ev.Requested(message_id))
        self._begin_step()

    def _judge_stream_refusal(self, outcome: Reply | TransportError, events: list[ev.Event]) -> None:
        if isinstance(outcome, NotSent):
            self._try_again(self._problem(OpenStream, outcome))
        else:
            # It may have been opened, and a second reader would lose tokens (OA-6.5); or there is nothing to stream.
            self._lose_stream()

    def _look_at_the_rest(self, decoder: SSEDecoder, events: list[ev.Event]) -> None:
        """Mind what a stream has besides whole events: one that is too large, or signs that the server is there."""
        if decoder.too_large:
            self._fail(self._broken(f"the stream has an event of more than {MAX_EVENT:,} bytes"), events)
        if decoder.keepalives >= _KEEPALIVES_PER_CHECK:
            decoder.keepalives = 0
            self._check_due = True

    def _undecodable(self, payload: bytes, error: Exception, events: list[ev.Event]) -> None:
        if not schemas.is_unknown_event(payload):
            self._fail(self._broken(f"the stream has data that is no event of this protocol: {error}"), events)

    def _stream_event(
        self, event: ev.Queued | ev.PluginStep | ev.Answered | ev.WorkerError, turn: Turn, events: list[ev.Event]
    ) -> None:
        match event:
            case ev.Queued():
                turn.pendings += 1
                if turn.pendings % _PENDINGS_PER_CHECK == 0:
                    self._check_due = True
                events.append(event)
            case ev.PluginStep():
                turn.started = True
                events.append(event)
            case ev.Answered():
                try:
                    if not self._message_told(event.message, events, cut=False):
                        raise self._broken(f"the server ended the stream with a message in state {event.message.state}")
                except OAError as error:
                    self._fail(error, events)
            case ev.WorkerError():
                self._running = False
                self._fail(self._answer_failed(f"the server says {event.error!r}"), events)
            case _:
                assert_never(event)

    def _check_stream(self, outcome: Reply | TransportError, events: list[ev.Event]) -> None:
        """Only the message itself tells a cancelled or timed-out answer from a waiting one (OA-5.8).

        Where it cannot be read the stream goes on, and so do its checks. But a stream never says that its chat was
        deleted: where the server keeps answering with errors, the stream is given up for polling, which has an end.
        """
        self._check_due = False
        if not isinstance(outcome, Reply) or outcome.is_away:
            return
        if outcome.is_success:
            self._reads = 0
            message = outcome.decode(schemas.decode_message, "a message", self.phase.name)
            self._message_told(message, events, cut=True)
            return
        self._reads += 1
        if self._reads > self._retries:
            self._lose_stream()

    def _poll(self, outcome: Reply | TransportError, events: list[ev.Event]) -> None:
        if not isinstance(outcome, Reply) or outcome.is_away:
            # The server may come back, and with it the answer: how long to wait for that, the owner says (OA-6.9).
            wait = _retry_after(outcome)
            if wait > _LONGEST_RETRY_AFTER:
                raise self._problem(FetchMessage, outcome)
            self._poll_again()
            self._delay = max(self._delay, wait)
            return
        message = self._read(FetchMessage, outcome, schemas.decode_message, "a message")
        if message is not None and not self._message_told(message, events, cut=True):
            self._poll_again()

    def _message_told(self, message: ev.Message, events: list[ev.Event], *, cut: bool) -> bool:
        """Take what the server says of the answer; return whether that settles it."""
        turn = self._current
        if message.id != turn.message_id:
            raise self._broken(f"the server sent message {message.id!r} instead of {turn.message_id}")
        match message.state:
            case "complete":
                if message.content is None:
                    raise self._broken("the server sent a complete message without content")
                self._running = False
                events.extend(turn.reconcile(message.content, cut=cut))
                self._move(Trigger.ANSWERED)
                events.append(ev.Answered(message))
                self._parent_id = message.id
                self._turn = None
                return True
            case "aborted_by_worker" | "cancelled" | "timeout":
                self._running = False
                raise self._answer_failed(f"the server says that the answer is in state {message.state}")
            case _:
                turn.started = message.state == "in_progress"
                return False

    def _drain_message(self, outcome: Reply | TransportError, events: list[ev.Event]) -> None:
        message = self._read(FetchMessage, outcome, schemas.decode_message, "a message")
        if message is not None:
            self._drain(running=message.state in ("pending", "in_progress"))

    def _drain_chat(self, outcome: Reply | TransportError, events: list[ev.Event]) -> None:
        chat = self._read(FetchChat, outcome, schemas.decode_chat, "a chat")
        if chat is not None:
            self._drain(running=self._current.is_running(chat))

    def _drain(self, *, running: bool) -> None:
        if running:
            self._poll_again()
        else:
            self._delete()

    def _judge_delete(self, outcome: Reply | TransportError, events: list[ev.Event]) -> None:
        if isinstance(outcome, Reply) and self.binding.is_deleted(outcome.status, outcome.body):
            self._gone(events)
            return
        self._last_error = self._problem(DeleteChat, outcome)
        if isinstance(outcome, NotSent):
            self._delete_again(events)
            return
        wait = _retry_after(outcome)
        if wait > _LONGEST_RETRY_AFTER:
            raise self._last_error
        self._move(Trigger.DELETE_UNCLEAR)
        self._list_next, self._list_after, self._reads = False, None, 0
        self._delay = wait

    def _look_for_chat(self, outcome: Reply | TransportError, events: list[ev.Event]) -> None:
        if not isinstance(outcome, Reply) or not self.binding.is_not_found(outcome.status, outcome.body):
            self._still_there(events)
        elif self.binding.list_confirms_gone:
            self._list_next = True
        else:
            self._gone(events)

    def _look_at_list(self, outcome: Reply | TransportError, events: list[ev.Event]) -> None:
        page = _page(outcome)
        if page is None or any(chat.id == self._chat_id for chat in page.chats):
            self._still_there(events)
        elif page.next is None or any(chat.id < self._chat_id for chat in page.chats):
            self._gone(events)  # newest first: ours would be on a page that reaches back beyond it
        elif page.chats and self._reads < _PAGES:
            self._reads += 1
            self._list_after = page.next
        else:
            self._still_there(events)

    def _still_there(self, events: list[ev.Event]) -> None:
        self._move(Trigger.STILL_THERE)
        self._delete_again(events)

    # Which outcome is awaited where; whatever comes elsewhere is late.
    _JUDGES: ClassVar[dict[tuple[Phase, type[Exchange]], _Judge]] = {
        (Phase.START, CreateChat): _judge_create,
        (Phase.COOKIES, CreateChat): _judge_create,
        (Phase.CHAT_CREATED, SendPrompt): _judge_prompt,
        (Phase.ANSWERED, SendPrompt): _judge_prompt,
        (Phase.PROMPT_LOST, FetchChat): _look_for_prompt,
        (Phase.PROMPTED, RequestAssistant): _judge_request,
        (Phase.REQUEST_LOST, FetchChat): _look_for_answer,
        (Phase.ASSISTANT_REQUESTED, OpenStream): _judge_stream_refusal,
        (Phase.STREAMING, FetchMessage): _check_stream,
        (Phase.POLLING, FetchMessage): _poll,
        (Phase.DRAINING, FetchMessage): _drain_message,
        (Phase.DRAINING, FetchChat): _drain_chat,
        (Phase.DELETING, DeleteChat): _judge_delete,
        (Phase.DELETE_UNCLEAR, FetchChat): _look_for_chat,
        (Phase.DELETE_UNCLEAR, ListChats): _look_at_list,
    }

    # ---- the moves that several outcomes share

    def _move(self, trigger: Trigger) -> None:
        fire(trigger, self)
        self._refused = None  # other credentials were wanted for a step that is over

    def _advance(self, events: list[ev.Event]) -> None:
        """Where the owner has left, move on towards the end; what was written must be settled first."""
        if self._closing is None or isinstance(self._outstanding, _WRITES):
            return
        match self.phase:
            case Phase.START | Phase.COOKIES:
                self._end_without_chat(Trigger.NOTHING_MADE, events)
            case Phase.CHAT_CREATED | Phase.PROMPT_LOST | Phase.PROMPTED | Phase.ANSWERED:
                self._delete()
            case (
                Phase.REQUEST_LOST
                | Phase.ASSISTANT_REQUESTED
                | Phase.STREAMING
                | Phase.POLLING
                | Phase.FAILED
                | Phase.DRAINING
            ):
                if self._closing is _Closing.NOW or not self._running:
                    self._delete()
                elif self.phase is not Phase.DRAINING:
                    # A lost request may still be under way, and then its answer is not in the chat yet.
                    pause = _FIRST_BACK_OFF if self.phase is Phase.REQUEST_LOST else 0.0
                    self._move(Trigger.DRAIN)
                    self._begin_step(pause)
            case Phase.DELETING | Phase.DELETE_UNCLEAR | Phase.DELETED | Phase.NEVER_CREATED | Phase.LEAKED:
                pass
            case _:
                assert_never(self.phase)

    def _begin_step(self, delay: float = 0.0) -> None:
        self._tries = 0
        self._begin_reading(delay)

    def _begin_reading(self, delay: float) -> None:
        self._reads = 0
        self._renewed = False
        self._delay = delay

    def _try_again(self, error: OAError, outcome: Reply | TransportError | None = None) -> None:
        """Leave the phase as it is, so that its step is tried again; raise ``error`` where that would not help."""
        wait = _retry_after(outcome)
        refused = isinstance(outcome, Reply) and outcome.is_refusal
        if refused or self._tries > self._retries or wait > _LONGEST_RETRY_AFTER:
            raise error
        self._delay = max(_back_off(self._tries), wait)

    def _read(
        self, kind: type[Exchange], outcome: Reply | TransportError, decoder: Callable[[bytes], _T], what: str
    ) -> _T | None:
        """Return what was read, or None where it is to be read again. Raises where that would not help."""
        if isinstance(outcome, Reply) and outcome.is_success:
            found = outcome.decode(decoder, what, self.phase.name)
            self._reads = 0
            return found
        self._reads += 1
        wait = _retry_after(outcome)
        refused = isinstance(outcome, Reply) and outcome.is_refusal
        if refused or self._reads > self._retries or wait > _LONGEST_RETRY_AFTER:
            raise self._problem(kind, outcome)
        self._delay = max(_back_off(self._reads), wait)
        return None

    def _poll_again(self) -> None:
        self._tries += 1
        self._delay = min(_back_off(self._tries), _SLOWEST_POLL)

    def _lose_stream(self) -> None:
        if self.phase in (Phase.ASSISTANT_REQUESTED, Phase.STREAMING):
            self._move(Trigger.STREAM_LOST)
            self._begin_step()

    def _step_failed(self, error: OAError, events: list[ev.Event]) -> None:
        """Fail the turn, for its step cannot be done; on the way out go on as well as can be."""
        match self.phase:
            case Phase.DRAINING:
                self._delete()
            case Phase.DELETING | Phase.DELETE_UNCLEAR:
                self._leak(str(error), events)
            case _:
                self._fail(error, events)

    def _fail(self, error: OAError, events: list[ev.Event]) -> None:
        self.error = error
        events.append(ev.Failed(error))
        if self._chat_id:
            self._move(Trigger.FAILED)
        else:
            self._end_without_chat(Trigger.CREATE_FAILED, events)

    def _end_without_chat(self, trigger: Trigger, events: list[ev.Event]) -> None:
        if self.records:
            self._move(Trigger.CREATE_UNCLEAR)
            events.append(ev.Leaked(self.records))
        else:
            self._move(trigger)
            events.append(ev.NeverCreated())

    def _delete(self) -> None:
        self._move(Trigger.DELETE)
        self._begin_step()

    def _delete_again(self, events: list[ev.Event]) -> None:
        if self._tries >= self._attempts:
            self._leak(f"the chat could not be deleted in {self._attempts} attempts: {self._last_error}", events)
        else:
            self._delay = _back_off(self._tries)

    def _gone(self, events: list[ev.Event]) -> None:
        events.append(ev.Deleted(self._chat_id))
        if self.records:
            self._move(Trigger.LEAK)
            events.append(ev.Leaked(self.records))
        else:
            self._move(Trigger.GONE)

    def _leak(self, reason: str, events: list[ev.Event]) -> None:
        self._record(self._chat_id, reason)
        self._move(Trigger.LEAK)
        events.append(ev.Leaked(self.records))

    def _record(self, chat_id: str | None, reason: str, not_after: str | None = None) -> None:
        """Name a chat that is or may be left. The window is that of a lost create; an id needs none."""
        not_before = None if chat_id else self._date
        self.records += (ev.LeakRecord(chat_id=chat_id, reason=reason, not_before=not_before, not_after=not_after),)

    def _end_windows(self, date: str | None) -> None:
        """The creates of unknown outcome were sent before ``date``: no later than now."""
        self.records = tuple(
            record if record.chat_id or record.not_after else replace(record, not_after=date) for record in self.records
        )

    def _asks_for_credentials(self, exchange: Exchange, reply: Reply) -> bool:
        """Tell whether other credentials are to be tried before this reply is believed (OA-6.4).

        Raises AuthenticationError where they have been, for this step, and are rejected as well.
        """
        if not reply.rejects_credentials:
            self._renewed = False
            return False
        rejection = cast("AuthenticationError", self._problem(type(exchange), reply))
        if self._renewed:
            raise rejection
        self._refused = rejection
        if isinstance(exchange, _TRIED):
            self._tries -= 1
        return True

    # ---- what goes wrong, in words

    @property
    def _current(self) -> Turn:
        """The turn; there is one in every phase that asks for it."""
        return cast("Turn", self._turn)

    def _settle(self, kind: type[_IntentT], call: str) -> _IntentT:
        intent = self._outstanding
        if not isinstance(intent, kind):
            raise self._misuse(call)
        self._outstanding = None
        return intent

    def _misuse(self, call: str) -> LocalProtocolError:
        waits = (
            "nothing is outstanding"
            if self._outstanding is None
            else f"{type(self._outstanding).__name__} is outstanding"
        )
        failed = f"; the conversation failed before: {self.error}" if self.error else ""
        left = "; it is being closed" if self._closing is not None and not self.is_over else ""
        name = self.phase.name
        return LocalProtocolError(f"{call} is not possible in phase {name}, where {waits}{left}{failed}", phase=name)

    def _problem(self, kind: type[Exchange], outcome: Reply | TransportError) -> OAError:
        if isinstance(outcome, Reply):
            return outcome.error(_DOING[kind], self.phase.name)
        failure = NotSent if isinstance(outcome, NotSent) else MaybeSent  # a transport's own class may need more words
        told = failure(f"{outcome} (while {_DOING[kind]}, phase {self.phase.name})", phase=self.phase.name)
        told.__cause__ = outcome
        return told

    def _broken(self, text: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"{text} (phase {self.phase.name})", phase=self.phase.name)

    def _answer_failed(self, text: str) -> AnswerFailed:
        return AnswerFailed(f"{text} (phase {self.phase.name})", phase=self.phase.name, text=self._current.text)

    def _no_credentials(self) -> AuthenticationError:
        return AuthenticationError(
            "there are no credentials: give cookies= or token=, or set OA_COOKIES (a cookies file, or a Cookie header) "
            "or OA_TOKEN",
            phase=self.phase.name,
        )

    def _new_id(self, reply: Reply, what: str) -> str:
        return self._valid_id(reply.decode(schemas.decode_created, what, self.phase.name).id, what)

    def _valid_id(self, text: str, what: str) -> str:
        if not schemas.is_id(text):
            raise self._broken(f"the server sent {text[:80]!r} as the id of {what}, which is no UUID")
        return text


def _is_unclear(outcome: Reply | TransportError) -> bool:
    """Tell whether the request may have been carried out, for all that came back (OA-6.1)."""
    if isinstance(outcome, Reply):
        return not outcome.is_refusal and not outcome.is_busy
    return not isinstance(outcome, NotSent)


def _page(outcome: Reply | TransportError) -> schemas.ChatList | None:
    """Return the page of chats that was read, or None where there is none."""
    if not isinstance(outcome, Reply) or outcome.status != 200:
        return None
    try:
        return outcome.decode(schemas.decode_chat_list, "a list of chats", None)
    except OAError:
        return None


def _retry_after(outcome: Reply | TransportError | None) -> float:
    return (outcome.retry_after or 0.0) if isinstance(outcome, Reply) else 0.0


def _back_off(tries: int) -> float:
    return _FIRST_BACK_OFF * 2.0 ** min(tries - 1, 10)
