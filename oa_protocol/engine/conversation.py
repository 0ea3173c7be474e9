"""The engine: one conversation with the server, as a state machine that does no I/O (specs/protocol.md).

A driver asks for the next intent, carries it out under one timer, and hands in what happened. That returns the events
it caused. ``phases.py`` says where a conversation can stand, ``steps.py`` what each outcome means there, and this file
how inputs and time come in.
"""

from __future__ import annotations

from math import inf
from typing import assert_never, cast

from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials, check_text
from oa_protocol.bindings.json import Chat
from oa_protocol.bindings.replies import UNREADABLE, Reply
from oa_protocol.engine import events as ev
from oa_protocol.engine.errors import LocalProtocolError, MaybeSent, TransportError
from oa_protocol.engine.inputs import (
    Abandon,
    Close,
    CredentialsFound,
    ExchangeFailed,
    Input,
    Interrupted,
    Prompt,
    ReplyReceived,
    StreamData,
    StreamEnded,
    StreamOpened,
    TimePassed,
)
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    Exchange,
    HttpRequest,
    Intent,
    LoadCredentials,
    OpenStream,
    RequestAssistant,
)
from oa_protocol.engine.moves import Outcome, Settings
from oa_protocol.engine.phases import ANSWER_MAY_RUN, AWAITS_ANSWER, LEAVING, TERMINAL, Phase, Trigger
from oa_protocol.engine.state import Leaving, Outstanding, Stream, Turn
from oa_protocol.engine.steps import MAX_ANSWER, MAX_EVENT, MAX_STREAM, Events, Steps
from oa_protocol.engine.timers import Cleanup, Timeouts

# What each token takes, under names that are found at once.
_STREAMING = Phase.STREAMING
_Token = ev.Token

# One of each is enough, because they are frozen.
_OPTIONS, _TIMEOUTS, _CLEANUP, _NO_CREDENTIALS = AnswerOptions(), Timeouts(), Cleanup(), Credentials()


def _excess(stream: Stream, turn: Turn) -> str:
    """Return what is more than there may be, or an empty text."""
    if turn.emitted.tell() > MAX_ANSWER:
        return f"the answer has more than {MAX_ANSWER:,} characters"
    return f"the stream has more than {MAX_STREAM:,} bytes" if stream.size > MAX_STREAM else ""


Settled = tuple[Exchange, Outcome]
"""The exchange that an input settles, and what came of it."""


class Conversation(Steps):
    """One chat on the server, from before its creation until it is confirmed gone, or named as left behind.

    ``now`` is in seconds of any monotonic clock, always the same one. The engine never reads a clock and has no
    randomness: the same inputs give the same outputs. A conversation has one owner at a time. It pickles and copies in
    every phase, with its credentials, and a pickle keeps the remaining times, so that it can go on in another process.

    Args:
        binding: the API spoken.
        credentials: what the server is shown; if there are none, they are asked for (``LoadCredentials``).
        options: what an answer is asked for with.
        retries: how many further tries each step has.
        timeouts: how long to wait for what.
        cleanup: how the chat is cleaned up.

    Attributes:
        phase: where it stands.
        error: what failed it, or None.
        leaked: the chats that it left, or may have left, on the server.

    """

    __slots__ = ()

    def __init__(
        self,
        binding: Binding,
        credentials: Credentials | None = None,
        options: AnswerOptions | None = None,
        *,
        retries: int = 2,
        timeouts: Timeouts | None = None,
        cleanup: Cleanup | None = None,
    ) -> None:
        settings = Settings(binding, options or _OPTIONS, retries, timeouts or _TIMEOUTS, cleanup or _CLEANUP)
        super().__init__(settings, credentials or _NO_CREDENTIALS)

    @classmethod
    def resume(
        cls,
        binding: Binding,
        credentials: Credentials,
        chat_id: str,
        *,
        timeouts: Timeouts | None = None,
        cleanup: Cleanup | None = None,
    ) -> Conversation:
        """Return a conversation whose chat exists, and that can only be closed: for a chat that was left behind.

        Raises:
            ValueError: ``chat_id`` is no id of this API.

        """
        if not binding.is_id(chat_id):
            raise ValueError(f"no id of this API: {chat_id!r}")
        conversation = cls(binding, credentials, timeouts=timeouts, cleanup=cleanup)
        conversation._remote.chat_id = chat_id
        conversation._move(Trigger.CREATED)
        return conversation

    def __repr__(self) -> str:
        return f"<Conversation {self.phase.name} chat_id={self.chat_id} outstanding={self.outstanding!r}>"

    # ---- what anyone may ask

    @property
    def binding(self) -> Binding:
        """The API spoken."""
        return self.settings.binding

    @property
    def chat_id(self) -> str | None:
        """The chat's id, once the server gave it."""
        return self._remote.chat_id or None

    @property
    def credentials(self) -> Credentials:
        """What the server is shown."""
        return self._credentials

    @property
    def outstanding(self) -> Intent | None:
        """The intent that was handed out and is not settled yet. Drop what you do for one that no longer is."""
        return self._outstanding.intent if self._outstanding else None

    @property
    def has_stream(self) -> bool:
        """Whether a stream is open, so that its bytes and its end may be handed in."""
        return self._stream is not None

    @property
    def is_over(self) -> bool:
        """Whether the phase is terminal, so that nothing follows."""
        return self.phase in TERMINAL

    @property
    def is_chat_gone(self) -> bool:
        """Whether the chat was made, and is confirmed gone."""
        return bool(self._remote.chat_id) and self.is_over and all(record.chat_id is None for record in self.leaked)

    @property
    def awaits_prompt(self) -> bool:
        """Whether a ``Prompt`` is possible."""
        idle = self.phase in (Phase.START, Phase.COOKIES, Phase.ANSWERED) and self._turn is None
        return idle and self._leaving is None

    @property
    def awaits_slot(self) -> bool:
        """Whether the next intent asks for an answer. If others share the account, wait for your turn now (OA-4.7)."""
        paused = not self._clock.has_come(self._attempt.not_before)
        return self.phase is Phase.PROMPTED and self._outstanding is None and self._leaving is None and not paused

    @property
    def awaits_worker(self) -> bool:
        """Whether our answer was requested and, as far as is known, no worker has begun with it (OA-4.7)."""
        requested = isinstance(self.outstanding, RequestAssistant) or self.phase in ANSWER_MAY_RUN
        return requested and not self._current.is_at_work

    def is_waiting_in(self, chat: Chat) -> bool:
        """Return whether our answer waits for a worker in ``chat``, as somebody else may have read it (OA-4.7)."""
        return self._turn is not None and self._turn.is_waiting(chat)

    def probe_request(self) -> HttpRequest:
        """Return the request that reads the chat, for ``is_waiting_in``. Raise ``ValueError`` if there is no chat."""
        return self.binding.fetch_chat(self._credentials, self._remote.chat_id)

    # ---- what is to be done, and until when

    def next_intent(self, now: float) -> Intent | None:
        """Return the next thing to do, each once and when it is due.

        None means: one is outstanding, nothing is due yet (``deadline`` says when), or there is nothing to do. If a
        deadline has passed, hand in ``TimePassed`` first.
        """
        self._clock.tell(now)
        if self._outstanding is not None:
            return None
        stream = self._stream
        if stream is not None and self.phase is _STREAMING and not stream.check_due:
            if stream.silent_since is None:
                stream.silent_since = self._clock.elapsed
            return None  # the stream is to be read
        if self._clock.has_come(self._ends):
            return None
        intent = self._decide()
        if intent is not None:
            self._outstanding = Outstanding(intent, self._clock.elapsed, self._ends_of(intent))
        return intent

    def _decide(self) -> Intent | None:
        if self._stream is not None and self.phase is not _STREAMING:
            return CloseStream()
        attempt = self._attempt
        if attempt.refused is not None:
            return LoadCredentials(refused=True)
        if not self._clock.has_come(attempt.not_before):
            return None
        if self.phase is Phase.START and not self._credentials and self._turn is not None:
            return LoadCredentials()
        step = self._next_step()
        if step is None:
            return None
        if step.kind.is_counted:
            attempt.tries += 1
        if self._stream is not None:
            self._stream.check_due = False
            self._stream.silent_since = None
        return step.kind(self._spell(step.kind), shielded=step.kind is CreateChat or self.phase in LEAVING)

    @property
    def deadline(self) -> float | None:
        """When to hand in ``TimePassed`` at the latest, by the caller's clock; None if nothing is waited for."""
        if self.is_over:
            return None
        ends = self._ends
        not_before = self._attempt.not_before
        if self._outstanding is None and not self._clock.has_come(not_before):
            ends = min(ends, not_before)
        return self._clock.to_caller(ends)

    @property
    def _ends(self) -> float:
        """When the first deadline comes, in the engine's count."""
        ends = inf
        if self._outstanding is not None:
            ends = self._outstanding.ends
        elif self.phase is _STREAMING:
            ends = self._silence_ends
        if self._turn is not None and self.phase in AWAITS_ANSWER and self._leaving is None:
            ends = min(ends, self._turn.ends)
        if self._leaving is not None:
            ends = min(ends, self._leaving.ends, self._leaving.drained if self.phase is Phase.DRAINING else inf)
        return ends

    @property
    def _silence_ends(self) -> float:
        since = self._stream.silent_since if self._stream is not None else None
        return inf if since is None else since + self.settings.timeouts.idle

    def _ends_of(self, intent: Intent) -> float:
        """Return when an intent that is handed out now is no longer waited for."""
        if not isinstance(intent, Exchange):
            return inf
        seconds = self.settings.timeouts.reply
        if self._leaving is not None:
            seconds = min(seconds, self.settings.cleanup.attempt_budget)
        return self._clock.elapsed + seconds

    # ---- what happens

    def handle(self, happened: Input, now: float) -> Events:
        """Take what happened at ``now``, and return the events that it caused.

        Nothing that the network or the server does raises.

        Raises:
            LocalProtocolError: the input isn't possible now. Nothing has changed.
            TypeError, ValueError: the input's content can't be used, for example a prompt with a NUL character.
                Nothing has changed.

        """
        if isinstance(happened, StreamData):
            return self.receive_stream_data(happened.data, now)
        settled = self._check(happened)
        self._clock.tell(now)
        events: Events = []
        match happened:
            case ReplyReceived() | ExchangeFailed():
                outstanding, self._outstanding = self._outstanding, None
                try:
                    self._take(*cast("Settled", settled), events)
                except BaseException:  # a binding's own error settles nothing
                    self._outstanding = outstanding
                    raise
            case Prompt(text):
                self._turn = Turn(text, self._remote.parent_id)
                self._begin_step()
            case Close(drain):
                self._leave(drain)
            case Abandon():
                self._abandon(events)
            case Interrupted():
                self._interrupt(events)
            case CredentialsFound(credentials):
                self._outstanding = None
                self._on_credentials(credentials, events)
            case StreamOpened():
                self._open_stream()
            case StreamEnded():
                self._end_stream()
            case TimePassed():
                pass
            case _:
                assert_never(happened)
        self._advance(events)
        self._pass_time(events)
        return events

    def receive_stream_data(self, data: bytes, now: float) -> Events:
        """Take bytes of the open stream, cut anywhere; what follows the stream's last event is ignored.

        It does what ``handle(StreamData(data), now)`` does, and is what each token takes.

        Raises:
            LocalProtocolError: no stream is open. Nothing has changed.

        """
        stream, turn = self._stream, self._turn
        if stream is None:
            raise self._misuse("StreamData")
        events: Events = []
        if turn is None or self.phase is not _STREAMING:
            return events
        stream.silent_since = None
        stream.size += len(data)
        decoder, emitted = stream.decoder, turn.emitted
        read_event = self.settings.binding.read_event
        for payload in decoder.feed(data):
            try:
                event = read_event(payload)
            except UNREADABLE as error:
                self._on_undecodable(payload, error, events)
            else:
                if isinstance(event, _Token):  # nearly all are
                    emitted.write(event.text)
                    turn.is_at_work = True
                    stream.check_due = False
                    events.append(event)
                    continue
                self._clock.tell(now)
                self._on_stream_event(event, stream, turn, events)
            if self.phase is not _STREAMING:
                return events
        if stream.size > MAX_ANSWER and (excess := _excess(stream, turn)):  # no text is longer than its stream
            self._fail(self._broken(excess), events)
        elif not decoder.settled:
            self._look_at_the_rest(stream, events)
        if turn.ends != inf:
            self._clock.tell(now)
            self._pass_time(events)
        return events

    def _check(self, happened: Input) -> Settled | None:
        """Refuse an input that isn't possible now, before anything changes. Return what it settles, and how."""
        match happened:
            case ReplyReceived(status, headers, body):
                exchange = self._exchange("ReplyReceived")
                return exchange, Reply.of(self.settings.binding, status, headers, body, self._credentials)
            case ExchangeFailed(failure):
                exchange = self._exchange("ExchangeFailed")
                if not isinstance(cast("object", failure), TransportError):
                    raise TypeError(f"failure must be NotSent(…) or MaybeSent(…), not {type(failure).__name__}")
                return exchange, failure
            case Prompt(text):
                check_text("prompt", text)
                if not self.awaits_prompt:
                    raise self._misuse("Prompt")
            case CredentialsFound(credentials):
                if not isinstance(self.outstanding, LoadCredentials):
                    raise self._misuse("CredentialsFound")
                if not isinstance(cast("object", credentials), Credentials | None):
                    raise TypeError(f"credentials must be Credentials or None, not {type(credentials).__name__}")
            case StreamOpened():
                if not isinstance(self.outstanding, OpenStream):
                    raise self._misuse("StreamOpened")
            case StreamEnded():
                if self._stream is None:
                    raise self._misuse("StreamEnded")
            case Close() | Abandon() | Interrupted() | StreamData() | TimePassed():
                pass
            case _:
                kind = happened if isinstance(happened, type) else type(happened)  # what is in it may be a secret
                raise TypeError(f"not an input of a conversation: {kind.__name__}")
        return None

    def _exchange(self, name: str) -> Exchange:
        intent = self.outstanding
        if not isinstance(intent, Exchange):
            raise self._misuse(name)
        return intent

    def _misuse(self, name: str) -> LocalProtocolError:
        intent, phase = self.outstanding, self.phase.name
        waits = "nothing is outstanding" if intent is None else f"{type(intent).__name__} is outstanding"
        failed = f"; the conversation failed before: {self.error}" if self.error else ""
        left = "; it is being closed" if self._leaving is not None and not self.is_over else ""
        return LocalProtocolError(f"{name} is not possible in phase {phase}, where {waits}{left}{failed}", phase=phase)

    # ---- what the owner does

    def _leave(self, drain: bool) -> None:
        """Begin to leave, or stop draining. Writes may still come back, because what they did must be known."""
        now, cleanup = self._clock.elapsed, self.settings.cleanup
        if self._leaving is None:
            self._leaving = Leaving(now + cleanup.timeout, now + cleanup.longest_drain)
        leaving = self._leaving
        if not drain:
            leaving.drained = min(leaving.drained, now)
        if self._outstanding is not None and self._is_writing:
            # The chat's id is only in the reply to a create, so that one may take all the time there is.
            ends = leaving.ends if isinstance(self._outstanding.intent, CreateChat) else leaving.drained
            self._outstanding.ends = min(self._outstanding.ends, ends)

    def _abandon(self, events: Events) -> None:
        if self.is_over:
            return
        if isinstance(self.outstanding, CreateChat):
            self._name_leak(None, "the server did not say in time whether it made the chat")
        self._leave(drain=False)
        self._outstanding = None
        self._stream = None
        if self._remote.chat_id:
            why = f": {self._attempt.error}" if self._attempt.error else ""
            self._leak(f"the chat could not be deleted in the time allowed{why}", events)

    def _interrupt(self, events: Events) -> None:
        outstanding = self._outstanding
        if outstanding is None or self._leaving is not None:
            return
        match outstanding.intent:
            case CreateChat():
                outstanding.ends = min(outstanding.ends, self._clock.elapsed + self.settings.cleanup.timeout)
            case Exchange() as exchange:
                self._outstanding = None
                self._give_up(exchange, events)
            case LoadCredentials():
                self._outstanding = None
            case CloseStream():
                pass
            case _:
                assert_never(outstanding.intent)

    # ---- what the driver hands in

    def _take(self, exchange: Exchange, outcome: Outcome, events: Events) -> None:
        if isinstance(outcome, Reply):
            if self.leaked:
                self._end_windows(outcome.date)
            self._settle(exchange, outcome, events)
            self._remote.date = outcome.date or self._remote.date
        else:
            self._settle(exchange, outcome, events)

    def _open_stream(self) -> None:
        self._outstanding = None
        self._attempt.renewed = False
        self._stream = Stream(self.settings.binding.stream_decoder(MAX_EVENT))
        self._move(Trigger.STREAM_OPENED)
        self._begin_step()

    def _end_stream(self) -> None:
        self._stream = None
        if isinstance(self.outstanding, CloseStream):
            self._outstanding = None
        self._lose_stream()

    # ---- what the clock does

    def _pass_time(self, events: Events) -> None:
        """Do what is due: each deadline that has come has its consequence."""
        has_come, leaving = self._clock.has_come, self._leaving
        if self.is_over or not has_come(self._ends):
            return
        if leaving is not None and has_come(leaving.ends):
            self._abandon(events)
            self._advance(events)
            return
        outstanding, turn = self._outstanding, self._turn
        if outstanding is not None and isinstance(outstanding.intent, Exchange) and has_come(outstanding.ends):
            self._expire(outstanding.intent, outstanding.patience, events)
        if leaving is None and turn is not None and self.phase in AWAITS_ANSWER and has_come(turn.ends):
            self._give_up_on_answer(events)
        elif self.phase is _STREAMING and has_come(self._silence_ends):
            self._lose_stream()
        self._advance(events)

    def _expire(self, exchange: Exchange, patience: float, events: Events) -> None:
        """The reply to an exchange has not come in time: it counts as lost, and the driver drops it."""
        self._outstanding = None
        self._settle(exchange, MaybeSent(f"no reply within {patience:.3g} s"), events)

    def _give_up_on_answer(self, events: Events) -> None:
        """The owner's time for the answer is over: the turn fails (OA-6.9)."""
        if isinstance(self.outstanding, RequestAssistant):
            self._remote.may_be_running = True
        self._outstanding = None
        self._fail(self._answer_failed("no answer came in the time allowed"), events)
