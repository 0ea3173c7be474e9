"""The state of a conversation, and the moves that several outcomes share: go on, try again, leave, or end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, assert_never, cast

from msgspec import Struct
from msgspec.structs import replace

from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials
from oa_protocol.bindings.replies import Reply
from oa_protocol.engine import events as ev
from oa_protocol.engine.errors import (
    AnswerFailed,
    AuthenticationError,
    MaybeSent,
    NotSent,
    OAError,
    RemoteProtocolError,
    TransportError,
)
from oa_protocol.engine.intents import CloseStream, Exchange
from oa_protocol.engine.phases import LEAVING, Phase, Trigger, fire
from oa_protocol.engine.state import Attempt, Leaving, Outstanding, Remote, Stream, Turn
from oa_protocol.engine.timers import Cleanup, Clock, Timeouts

Outcome = Reply | TransportError
"""The outcome of an exchange: its reply, or the error of the transport."""

_FIRST_BACK_OFF = 0.5
_SLOWEST_POLL = 5.0
LONGEST_RETRY_AFTER = 60.0
"""The longest ``Retry-After`` that the engine waits for, in seconds. If it is longer, the step fails (OA-6.3)."""

_T = TypeVar("_T")


class Settings(Struct, frozen=True):
    """The arguments that a conversation was made with. They never change."""

    binding: Binding
    options: AnswerOptions
    chat_id: str | None
    keep: bool
    retries: int
    timeouts: Timeouts
    cleanup: Cleanup


class Moves:
    """A conversation's state and its moves. ``steps.py`` decides which move to make."""

    __slots__ = (
        "_attempt",
        "_clock",
        "_credentials",
        "_leaving",
        "_outstanding",
        "_remote",
        "_stream",
        "_turn",
        "error",
        "leaked",
        "phase",
        "settings",
    )

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self.settings = settings
        self.phase = Phase.START
        self.error: OAError | None = None
        self.leaked: tuple[ev.LeakRecord, ...] = ()
        self._credentials = credentials
        self._clock = Clock()
        self._outstanding: Outstanding | None = None
        self._attempt = Attempt()
        self._stream: Stream | None = None
        self._turn: Turn | None = None
        self._remote = Remote(is_kept=settings.keep)
        self._leaving: Leaving | None = None

    @property
    def _current(self) -> Turn:
        """The turn. Use it only in phases that have one."""
        return cast("Turn", self._turn)

    @property
    def _way_out(self) -> Leaving:
        """The state of leaving. Use it only in phases that have it."""
        return cast("Leaving", self._leaving)

    # ---- go on

    def _move(self, trigger: Trigger) -> None:
        fire(trigger, self)
        if self._attempt.refused is not None:
            self._attempt.refused = None  # The step that needed other credentials is over.

    def _begin_step(self, pause: float = 0.0) -> None:
        self._attempt = Attempt(self._clock.elapsed + pause)

    def _begin_looking(self, error: OAError) -> None:
        """Begin to look whether a lost request arrived, before its step is tried again. The tries so far still count.

        The pause gives the server time, because the request may still be on its way.
        """
        self._attempt = Attempt(self._clock.elapsed + _FIRST_BACK_OFF, self._attempt.tries, error)

    def _lose_stream(self) -> None:
        if self.phase in (Phase.ASSISTANT_REQUESTED, Phase.STREAMING):
            self._move(Trigger.STREAM_LOST)
            self._begin_step()
            turn = self._current
            turn.ends = min(turn.ends, self._clock.elapsed + self.settings.timeouts.poll)

    # ---- try again

    def _pause(self, seconds: float) -> None:
        self._attempt.not_before = self._clock.elapsed + seconds

    def _try_again(self, error: OAError, outcome: Outcome | None = None) -> None:
        """Stay in the phase, so that its step is tried again. Raise ``error`` if another try can't help."""
        wait = retry_after(outcome)
        if _is_refusal(outcome) or self._attempt.tries > self.settings.retries or wait > LONGEST_RETRY_AFTER:
            raise error
        self._pause(max(_back_off(self._attempt.tries), wait))

    def _read(self, kind: type[Exchange], outcome: Outcome, reader: Callable[[bytes], _T], what: str) -> _T | None:
        """Return what ``reader`` found, or None if it has to be read again. Raise if another try can't help."""
        if isinstance(outcome, Reply) and outcome.is_success:
            found = outcome.decode(reader, what, self.phase.name)
            self._attempt.misses = 0
            return found
        self._attempt.misses += 1
        wait = retry_after(outcome)
        if _is_refusal(outcome) or self._attempt.misses > self.settings.retries or wait > LONGEST_RETRY_AFTER:
            raise self._problem(kind, outcome)
        self._pause(max(_back_off(self._attempt.misses), wait))
        return None

    def _poll_again(self, wait: float = 0.0) -> None:
        self._attempt.tries += 1
        self._pause(max(min(_back_off(self._attempt.tries), _SLOWEST_POLL), wait))

    # ---- leave

    def _advance(self, events: list[ev.Event]) -> None:
        """If the owner has left, move towards the end. It waits for an outstanding write to be settled."""
        leaving = self._leaving
        if leaving is None or self._is_writing:
            return
        match self.phase:
            case Phase.START | Phase.COOKIES:
                self._outstanding = None
                self._end_without_chat(Trigger.NOTHING_MADE, events)
            case (
                Phase.OPENING
                | Phase.CHAT_CREATED
                | Phase.PROMPT_LOST
                | Phase.PROMPTED
                | Phase.ANSWERED
                | Phase.REQUEST_LOST
                | Phase.ASSISTANT_REQUESTED
                | Phase.STREAMING
                | Phase.POLLING
                | Phase.FAILED
                | Phase.DRAINING
            ):
                if self._remote.is_kept:
                    self._keep(events)
                elif not self._remote.needs_draining or self._clock.has_come(leaving.drained):
                    self._delete()
                elif self.phase is not Phase.DRAINING:
                    # The server may receive a lost request later, and until then its answer isn't in the chat.
                    pause = _FIRST_BACK_OFF if self.phase is Phase.REQUEST_LOST else 0.0
                    self._drop_read()
                    self._move(Trigger.DRAIN)
                    self._begin_step(pause)
            case (
                Phase.DELETING | Phase.DELETE_UNCLEAR | Phase.DELETED | Phase.NEVER_CREATED | Phase.LEAKED | Phase.KEPT
            ):
                pass
            case _:
                assert_never(self.phase)

    @property
    def _is_writing(self) -> bool:
        intent = self._outstanding.intent if self._outstanding else None
        return isinstance(intent, Exchange) and intent.is_write

    def _drop_read(self) -> None:
        """Forget the outstanding intent, because its outcome no longer matters. A ``CloseStream`` stays."""
        if self._outstanding is not None and not isinstance(self._outstanding.intent, CloseStream):
            self._outstanding = None

    def _delete(self) -> None:
        self._drop_read()
        self._move(Trigger.DELETE)
        self._begin_step()

    def _delete_again(self, events: list[ev.Event]) -> None:
        attempt = self._attempt
        if attempt.tries >= self.settings.cleanup.attempts:
            self._leak(f"the chat could not be deleted in {attempt.tries} attempts: {attempt.error}", events)
        else:
            self._pause(_back_off(attempt.tries + attempt.misses))

    # ---- end

    def _step_failed(self, error: OAError, events: list[ev.Event]) -> None:
        """Fail the turn, because its step can't be done. If the owner has left, go on to the next best step."""
        if self.phase is Phase.DRAINING:
            self._delete()
        elif self.phase in LEAVING:
            self._leak(str(error), events)
        else:
            self._fail(error, events)

    def _fail(self, error: OAError, events: list[ev.Event]) -> None:
        self.error = error
        events.append(ev.Failed(error))
        if self._remote.chat_id:
            self._move(Trigger.FAILED)
            self._begin_step()  # This drops the pause before the next try, if one was running.
        else:
            self._end_without_chat(Trigger.CREATE_FAILED, events)

    def _end_without_chat(self, trigger: Trigger, events: list[ev.Event]) -> None:
        if self.leaked:
            self._move(Trigger.CREATE_UNCLEAR)
            events.append(ev.Leaked(self.leaked))
        else:
            self._move(trigger)
            events.append(ev.NeverCreated())

    def _gone(self, events: list[ev.Event]) -> None:
        events.append(ev.Deleted(self._remote.chat_id))
        self._end_with_chat(Trigger.GONE, events)

    def _keep(self, events: list[ev.Event]) -> None:
        """End, and leave the chat and its running answer alone. A stream that is open is closed first."""
        self._drop_read()
        if self._stream is not None:
            self._lose_stream()
            return
        events.append(ev.Kept(self._remote.chat_id))
        self._end_with_chat(Trigger.KEEP, events)

    def _end_with_chat(self, trigger: Trigger, events: list[ev.Event]) -> None:
        """End. Creates with an unknown outcome may have made other chats, so those are named (OA-6.8)."""
        if self.leaked:
            self._move(Trigger.LEAK)
            events.append(ev.Leaked(self.leaked))
        else:
            self._move(trigger)

    def _leak(self, reason: str, events: list[ev.Event]) -> None:
        self._name_leak(self._remote.chat_id, reason)
        self._move(Trigger.LEAK)
        events.append(ev.Leaked(self.leaked))

    def _name_leak(self, chat_id: str | None, reason: str, not_after: str | None = None) -> None:
        """Record a chat that is or may be left.

        The time window is only for a lost create. A sweep needs no window to find a chat whose id is known.
        """
        not_before = None if chat_id else self._remote.date
        self.leaked += (ev.LeakRecord(chat_id=chat_id, reason=reason, not_before=not_before, not_after=not_after),)

    def _end_windows(self, date: str | None) -> None:
        """Record that the creates with an unknown outcome were sent before ``date``, the time of a later reply."""
        self.leaked = tuple(
            record if record.chat_id or record.not_after else replace(record, not_after=date) for record in self.leaked
        )

    # ---- errors

    def _problem(self, kind: type[Exchange], outcome: Outcome) -> OAError:
        if isinstance(outcome, Reply):
            return outcome.error(kind.doing, self.phase.name)
        # We don't use the class of ``outcome``, because a transport's own subclass may need other arguments.
        failure = NotSent if isinstance(outcome, NotSent) else MaybeSent
        error = failure(f"{outcome} (while {kind.doing}, phase {self.phase.name})", phase=self.phase.name)
        error.__cause__ = outcome
        return error

    def _broken(self, text: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"{self._hide(text)} (phase {self.phase.name})", phase=self.phase.name)

    def _answer_failed(self, text: str) -> AnswerFailed:
        return AnswerFailed(
            f"{self._hide(text)} (phase {self.phase.name})", phase=self.phase.name, text=self._current.text
        )

    def _hide(self, text: str) -> str:
        """Return the server's text without our credentials, which it may repeat (OA-2.5)."""
        return self._credentials.hide_in(text, self.settings.binding.base_url)

    def _no_credentials(self) -> AuthenticationError:
        return AuthenticationError(
            "there are no credentials: give cookies= or token=, or set OA_COOKIES (a cookies file, or a Cookie header) "
            "or OA_TOKEN",
            phase=self.phase.name,
        )

    def _valid_id(self, text: str, what: str) -> str:
        if not self.settings.binding.is_id(text):
            raise self._broken(
                f"the server sent {self._hide(text)[:80]!r} as the id of {what}, which is not an id of this API"
            )
        return text


def _is_refusal(outcome: Outcome | None) -> bool:
    return isinstance(outcome, Reply) and outcome.is_refusal


def retry_after(outcome: Outcome | None) -> float:
    """Return how many seconds the server asks us to wait, or 0."""
    return (outcome.retry_after or 0.0) if isinstance(outcome, Reply) else 0.0


def _back_off(tries: int) -> float:
    return _FIRST_BACK_OFF * 2.0 ** min(max(tries, 1) - 1, 10)
