"""The engine: one conversation with the server, as a state machine that does no I/O (specs/protocol.md).

A driver asks for the next intent, carries it out under one timer, and hands in what happened. In return, it gets the
events that this caused. ``phases.py`` has the phases of a conversation, ``steps.py`` says what each outcome means in
each phase, and this file handles inputs and time.
"""

from __future__ import annotations

from math import inf
from typing import assert_never, cast

from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials, check_text
from oa_protocol.bindings.json import ChatSnapshot
from oa_protocol.bindings.replies import MAX_NESTING, TOO_DEEP, UNREADABLE, Reply, is_nested_too_deeply
from oa_protocol.engine import events as ev
from oa_protocol.engine.errors import LocalProtocolError, MaybeSent, TransportError
from oa_protocol.engine.inputs import (
    Abandon,
    Close,
    CredentialsFound,
    ExchangeFailed,
    Input,
    Interrupted,
    Keep,
    Prompt,
    Regenerate,
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

# Each token needs these two. A module's global is looked up faster than an attribute of another object.
_STREAMING = Phase.STREAMING
_AWAIT_PROMPT = (Phase.START, Phase.COOKIES, Phase.CHAT_CREATED, Phase.ANSWERED)
_Token = ev.Token

# All conversations share these defaults, because they are frozen.
_OPTIONS, _TIMEOUTS, _CLEANUP, _NO_CREDENTIALS = AnswerOptions(), Timeouts(), Cleanup(), Credentials()


def _excess(stream: Stream, turn: Turn) -> str:
    """Return which size limit is exceeded, in words, or an empty text."""
    if turn.emitted.tell() > MAX_ANSWER:
        return f"the answer has more than {MAX_ANSWER:,} characters"
    return f"the stream has more than {MAX_STREAM:,} bytes" if stream.size > MAX_STREAM else ""


Settled = tuple[Exchange, Outcome]
"""The exchange that an input settles, and what came of it."""


class Conversation(Steps):
    """One chat on the server, from before its creation until it is confirmed gone, or named as left behind.

    Pass the time as ``now``, in seconds, by any monotonic clock. Always use the same clock. The engine itself never
    reads a clock and has no randomness, so the same inputs give the same outputs.

    A conversation has one owner at a time: it isn't thread-safe. You can pickle and copy it in every phase. A pickle
    contains the credentials and the *remaining* times, so that another process can go on with it.

    Args:
        binding: the API to use, for example ``Website("https://oa.example.org")``.
        credentials: the cookies or the token to send. Without them, the first intent is ``LoadCredentials``.
        options: the model, sampling parameters and so on for the answers. By default, those of ``AnswerOptions()``.
        chat_id: the id of an existing chat to go on with. By default, the first prompt creates a chat. An existing chat
            is read first, and the conversation goes on at the end of the branch that it shows (OA-3.6).
        keep: true to keep the chat after ``Close`` (OA-7.9). ``Keep`` changes it later.
        retries: how many times each step is tried again.
        timeouts: how long to wait for replies and answers. By default, ``Timeouts()``.
        cleanup: how long and how often to try to delete the chat. By default, ``Cleanup()``.

    Attributes:
        phase: the current ``Phase``.
        error: the error that made a turn fail, or None.
        leaked: a ``LeakRecord`` for each chat that is, or may be, left on the server.

    Raises:
        ValueError: ``chat_id`` isn't an id of this API.

    """

    __slots__ = ()

    def __init__(
        self,
        binding: Binding,
        credentials: Credentials | None = None,
        options: AnswerOptions | None = None,
        *,
        chat_id: str | None = None,
        keep: bool = False,
        retries: int = 2,
        timeouts: Timeouts | None = None,
        cleanup: Cleanup | None = None,
    ) -> None:
        if chat_id is not None and not binding.is_id(chat_id):
            raise ValueError(f"not an id of this API: {chat_id!r}")
        super().__init__(
            Settings(binding, options or _OPTIONS, chat_id, keep, retries, timeouts or _TIMEOUTS, cleanup or _CLEANUP),
            credentials or _NO_CREDENTIALS,
        )
        if chat_id is not None:
            self._remote.chat_id = chat_id
            self._remote.may_be_running = True  # Nothing is known about the chat yet.
            self._move(Trigger.OPENED)

    def __repr__(self) -> str:
        return f"<Conversation {self.phase.name} chat_id={self.chat_id} outstanding={self.outstanding!r}>"

    # ---- the public state

    @property
    def binding(self) -> Binding:
        """The API that this conversation uses."""
        return self.settings.binding

    @property
    def chat_id(self) -> str | None:
        """The chat's id, or None until the server has sent it."""
        return self._remote.chat_id or None

    @property
    def answer_id(self) -> str | None:
        """The id of the complete answer that the conversation is at, which the next prompt follows, or None."""
        return self._remote.parent_id

    @property
    def prompt_id(self) -> str | None:
        """The id of the prompt that the conversation is at, which ``Regenerate`` answers again, or None."""
        return self._remote.prompt_id or None

    @property
    def is_kept(self) -> bool:
        """Whether the chat stays on the server after ``Close`` (OA-7.9)."""
        return self._remote.is_kept

    @property
    def credentials(self) -> Credentials:
        """The credentials that are sent to the server."""
        return self._credentials

    @property
    def outstanding(self) -> Intent | None:
        """The intent that was handed out and isn't settled yet, or None.

        Check it after you hand in an input of another kind, for example ``TimePassed``. If it isn't the intent that you
        are carrying out any more, stop carrying that one out and drop its outcome.
        """
        return self._outstanding.intent if self._outstanding else None

    @property
    def has_stream(self) -> bool:
        """Whether a stream is open, so that you may hand in its bytes and its end."""
        return self._stream is not None

    @property
    def is_over(self) -> bool:
        """Whether the conversation has ended. Its phase is terminal, and there are no further intents or events."""
        return self.phase in TERMINAL

    @property
    def is_chat_gone(self) -> bool:
        """Whether the chat existed, and the server confirmed that it is gone."""
        remote = self._remote
        deleted = bool(remote.chat_id) and self.is_over and not remote.is_kept
        return deleted and all(record.chat_id is None for record in self.leaked)

    @property
    def awaits_prompt(self) -> bool:
        """Whether you may hand in a ``Prompt``, or a ``Regenerate`` if there is a prompt in the chat."""
        return self.phase in _AWAIT_PROMPT and self._turn is None and self._leaving is None

    @property
    def awaits_slot(self) -> bool:
        """Whether the next intent will request an answer.

        The account's *pending slot* is needed for that: a request cancels every other answer of the account that still
        waits for a worker (OA-4.7). So if other conversations use the same account, wait before you call
        ``next_intent`` until no answer of theirs is waiting.
        """
        is_next = self.phase is Phase.PROMPTED and self._outstanding is None and self._leaving is None
        return is_next and self._clock.has_come(self._attempt.not_before)

    @property
    def awaits_worker(self) -> bool:
        """Whether our answer was requested, and no worker is known to have begun it. It holds the slot (OA-4.7)."""
        requested = isinstance(self.outstanding, RequestAssistant) or self.phase in ANSWER_MAY_RUN
        return requested and not self._current.is_at_work

    def is_waiting_in(self, chat: ChatSnapshot) -> bool:
        """Return whether our answer waits for a worker, according to ``chat`` (OA-4.7).

        Args:
            chat: the decoded reply to ``probe_request``. Another conversation that waits for the slot may have read it.

        """
        return self._turn is not None and self._turn.is_waiting(chat)

    def probe_request(self) -> HttpRequest:
        """Return the request that reads the chat, for ``is_waiting_in``.

        Raises:
            ValueError: there is no chat yet.

        """
        return self.binding.fetch_chat(self._credentials, self._remote.chat_id)

    # ---- what to do, and until when

    def next_intent(self, now: float) -> Intent | None:
        """Return the next thing to do. Each intent is returned once, when it is due.

        If a deadline has passed, hand in ``TimePassed`` first.

        Args:
            now: the time in seconds, by your monotonic clock.

        Returns:
            The intent, or None if one is outstanding, if a stream is to be read, if nothing is due before ``deadline``,
            or if there is nothing to do.

        """
        self._clock.tell(now)
        if self._outstanding is not None:
            return None
        stream = self._stream
        if stream is not None and self.phase is _STREAMING and not stream.check_due:
            if stream.silent_since is None:
                stream.silent_since = self._clock.elapsed
            return None  # Now the driver reads the stream.
        if self._clock.has_come(self._ends):
            # A deadline has passed. Nothing new may begin until ``TimePassed`` has acted on it.
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
        step = self._next_step()
        if step is None:
            return None
        if self.phase in (Phase.START, Phase.OPENING) and not self._credentials:
            return LoadCredentials()
        if step.kind.is_counted:
            attempt.tries += 1
        if self._stream is not None:
            self._stream.check_due = False
            self._stream.silent_since = None
        return step.kind(self._spell(step.kind), shielded=step.kind is CreateChat or self.phase in LEAVING)

    @property
    def deadline(self) -> float | None:
        """The time at which to hand in ``TimePassed``, in seconds by your clock, or None if there is no deadline.

        It can change with every call of ``next_intent``, ``handle`` and ``receive_stream_data``. After a pause, it is
        the time at which ``next_intent`` returns the next intent.
        """
        if self.is_over:
            return None
        ends = self._ends
        not_before = self._attempt.not_before
        if self._outstanding is None and not self._clock.has_come(not_before):
            ends = min(ends, not_before)
        return self._clock.to_caller(ends)

    @property
    def _ends(self) -> float:
        """The first of the deadlines that apply now, in the engine's count."""
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
        """Return the deadline of an intent that is handed out now, in the engine's count."""
        if not isinstance(intent, Exchange):
            return inf
        seconds = self.settings.timeouts.reply
        if self._leaving is not None:
            seconds = min(seconds, self.settings.cleanup.attempt_budget)
        return self._clock.elapsed + seconds

    # ---- what happens

    def handle(self, happened: Input, now: float) -> Events:
        """Handle an input, and return the events that it caused.

        Errors of the network and the server don't raise: the engine recovers from them, or emits ``Failed``. If this
        method raises, the conversation hasn't changed.

        Args:
            happened: what happened.
            now: the time in seconds, by your monotonic clock.

        Returns:
            The events in their order. The list may be empty.

        Raises:
            LocalProtocolError: the input isn't possible now.
            TypeError, ValueError: the input's content can't be used, for example a prompt with a NUL character.

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
            case Prompt(text, after):
                self._turn = Turn(text, after or self._remote.parent_id, self._remote.newest_id)
                self._begin_step()
            case Regenerate(prompt_id):
                prompt_id = prompt_id or self._remote.prompt_id
                self._turn = Turn("", None, self._remote.newest_id, prompt_id)
                self._move(Trigger.REGENERATE)
                self._begin_request()
            case Keep(keep):
                self._remote.is_kept = keep
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
        """Handle bytes of the open stream. They may be cut anywhere.

        This does the same as ``handle(StreamData(data), now)``, but faster. Bytes after the stream's last event are
        ignored.

        Args:
            data: the bytes as they arrived.
            now: the time in seconds, by your monotonic clock.

        Returns:
            The events in their order. The list may be empty, because ``data`` may end in the middle of an event.

        Raises:
            LocalProtocolError: no stream is open. The conversation hasn't changed.

        """
        # This loop runs for every token, so it avoids calls and attribute look-ups. In particular, it doesn't set the
        # clock for a token: only an event that moves the conversation, or a deadline for the answer, needs the time.
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
            if len(payload) > MAX_NESTING and is_nested_too_deeply(payload):
                self._on_bad_event(TOO_DEEP, events)
                return events
            try:
                event = read_event(payload)
            except UNREADABLE as error:
                self._on_undecodable(payload, error, events)
            else:
                if isinstance(event, _Token):  # Nearly all events are tokens, so they are handled right here.
                    emitted.write(event.text)
                    turn.is_at_work = True
                    stream.check_due = False
                    events.append(event)
                    continue
                self._clock.tell(now)
                self._on_stream_event(event, stream, turn, events)
            if self.phase is not _STREAMING:
                return events
        # A text can't be longer than its stream, so most streams need only the first, cheap comparison.
        if stream.size > MAX_ANSWER and (excess := _excess(stream, turn)):
            self._fail(self._broken(excess), events)
        elif not decoder.settled:
            self._look_at_the_rest(stream, events)
        if turn.ends != inf:
            self._clock.tell(now)
            self._pass_time(events)
        return events

    def _check(self, happened: Input) -> Settled | None:
        """Raise if an input isn't possible now, before anything changes. Return the exchange that it settles, and how.

        A reply is parsed here and not later, because a reply with an impossible status or header must change nothing.
        """
        match happened:
            case ReplyReceived(status, headers, body):
                exchange = self._exchange("ReplyReceived")
                return exchange, Reply.of(self.settings.binding, status, headers, body, self._credentials)
            case ExchangeFailed(failure):
                exchange = self._exchange("ExchangeFailed")
                if not isinstance(cast("object", failure), TransportError):
                    raise TypeError(f"failure must be NotSent(…) or MaybeSent(…), not {type(failure).__name__}")
                return exchange, failure
            case Prompt(text, after):
                check_text("prompt", text)
                if not self.awaits_prompt:
                    raise self._misuse("Prompt")
                self._check_prompt(after)
            case Regenerate(prompt_id):
                if not self.awaits_prompt:
                    raise self._misuse("Regenerate")
                if not (prompt_id or self._remote.prompt_id):
                    raise self._misuse("Regenerate", "there is no prompt in the chat")
                self._check_branch(prompt_id or self._remote.prompt_id, "Regenerate")
            case Keep():
                if self._leaving is not None or self.is_over:
                    raise self._misuse("Keep")
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
                kind = happened if isinstance(happened, type) else type(happened)  # The object may contain a secret.
                raise TypeError(f"not an input of a conversation: {kind.__name__}")
        return None

    def _check_prompt(self, after: str | None) -> None:
        """Raise if a prompt can't follow this answer."""
        remote = self._remote
        if after is not None and after != remote.parent_id:
            self._check_branch(after, "Prompt")
        elif remote.parent_id is None and remote.newest_id:
            raise self._misuse("Prompt", "the chat has a first prompt already, and no complete answer to go on from")

    def _check_branch(self, message_id: str, name: str) -> None:
        """Raise if the conversation can't go on from this message."""
        if not self.binding.is_id(message_id):
            raise ValueError(f"not an id of this API: {message_id!r}")
        if not self.binding.has_branches:
            raise self._misuse(name, f"the API {self.binding.api!r} has no branches")
        if not self._remote.chat_id:
            raise self._misuse(name, "there is no chat yet")

    def _exchange(self, name: str) -> Exchange:
        intent = self.outstanding
        if not isinstance(intent, Exchange):
            raise self._misuse(name)
        return intent

    def _misuse(self, name: str, why: str = "") -> LocalProtocolError:
        intent, phase = self.outstanding, self.phase.name
        waits = why or ("nothing is outstanding" if intent is None else f"{type(intent).__name__} is outstanding")
        failed = f"; the conversation failed before: {self.error}" if self.error else ""
        left = "; it is being closed" if self._leaving is not None and not self.is_over else ""
        return LocalProtocolError(f"{name} is not possible in phase {phase} ({waits}{left}{failed})", phase=phase)

    # ---- what the owner does

    def _leave(self, drain: bool) -> None:
        """Begin to leave, or stop draining.

        An outstanding write isn't dropped, because its reply says what is on the server now. It only gets less time.
        """
        now, cleanup = self._clock.elapsed, self.settings.cleanup
        if self._leaving is None:
            self._leaving = Leaving(now + cleanup.timeout, now + cleanup.longest_drain)
        leaving = self._leaving
        if not drain:
            leaving.drained = min(leaving.drained, now)
        if self._outstanding is not None and self._is_writing:
            # Without the reply to a create, we don't know the chat's id and can't delete it. So a create may use the
            # whole time for cleaning up, other writes only the time for draining.
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
        if self._remote.is_kept and self._remote.chat_id:
            self._keep(events)
        elif self._remote.chat_id:
            why = f": {self._attempt.error}" if self._attempt.error else ""
            self._leak(f"the chat could not be deleted in the time allowed{why}", events)

    def _interrupt(self, events: Events) -> None:
        outstanding = self._outstanding
        # After the owner has left, only cleaning up is under way, and an interruption must not stop that.
        if outstanding is None or self._leaving is not None:
            return
        match outstanding.intent:
            case CreateChat():
                # The chat's id is only in the reply, so the create goes on, but the owner doesn't wait forever.
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

    # ---- what the driver does

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
        """Act on each deadline that has passed."""
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
        """Treat the reply to an exchange as lost, because it didn't arrive in time. The driver drops the exchange."""
        self._outstanding = None
        self._settle(exchange, MaybeSent(f"no reply within {patience:.3g} s"), events)

    def _give_up_on_answer(self, events: Events) -> None:
        """Fail the turn, because the owner's time for the answer is over (OA-6.9)."""
        if isinstance(self.outstanding, RequestAssistant):
            # The server may have received the request, so an answer may be running that has to be drained later.
            self._remote.may_be_running = True
        self._outstanding = None
        self._fail(self._answer_failed("no answer came in the time allowed"), events)
