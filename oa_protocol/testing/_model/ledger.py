"""An observer's notes about one conversation, which the invariants use."""

from __future__ import annotations

import math
from typing import NamedTuple

from oa_protocol.engine import events as ev
from oa_protocol.engine.errors import NotSent, TransportError
from oa_protocol.engine.intents import (
    CreateChat,
    DeleteChat,
    Exchange,
    FetchChat,
    Intent,
    ListChats,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import TERMINAL, Phase
from oa_protocol.engine.steps import STEPS
from oa_protocol.engine.timers import Cleanup, Timeouts
from oa_protocol.testing._model.network import Fate
from oa_protocol.testing._model.server import Asked

CLEANING = frozenset({Phase.DELETING, Phase.DELETE_UNCLEAR})

_NEVER = math.inf

COUNTED: dict[type[Intent], str] = {
    CreateChat: "creates",
    SendPrompt: "prompts",
    RequestAssistant: "requests",
    DeleteChat: "deletes",
}
"""The ledger's field that counts the exchanges of a kind, for each kind that changes something on the server."""

# The exchanges that are tried again in each phase. Others came too late, or are reads that don't have to be repeated.
_LOOKS = (Phase.STREAMING, Phase.DELETE_UNCLEAR)
_TRIED_AGAIN = {phase: () if phase in _LOOKS else tuple(step.kind for step in steps) for phase, steps in STEPS.items()}


class FarReply(NamedTuple):
    """A reply as the far end sent it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Pause(NamedTuple):
    """A pause after an exchange that wasn't carried out.

    Attributes:
        kind: the kind of the exchange.
        phase: the phase in which it was sent.
        since: when the pause began.
        seconds: how many seconds ``Retry-After`` asks for, or 0.

    """

    kind: type[Exchange]
    phase: Phase
    since: float
    seconds: float


class Ledger(NamedTuple):
    """An observer's notes about one conversation.

    The four counts are for the current turn, except for creates and deletes. Exchanges that the owner interrupted, or
    whose credentials were rejected, don't count. A DELETE that wasn't sent doesn't count either.

    Attributes:
        creates: how many creates were sent.
        prompts: how many prompts were sent.
        requests: how many requests for an answer were sent.
        deletes: how many DELETEs were sent.
        opened: the messages whose stream may have been opened.
        unlooked: true if a prompt or a request was lost, and the chat hasn't been read since.
        unclear: true if a DELETE was sent, and the chat hasn't been read since.
        blind: true if the last read of a drain has failed, so that the client can't see whether an answer runs.
        waited: true if the stream has shown no progress for long, and the message hasn't been read since.
        emitted: the text of the tokens so far.
        parent: the id of the answer that the turn's prompt must follow, or None for the first prompt.
        prompted: the id of the turn's prompt.
        adopted: the id of the answer's message.
        history: the ids of the prompt and the answer of each turn that is complete.
        keeps: true if the owner wants the chat to stay.
        pause: the pause that must be over before the next exchange.
        at_once: how many exchanges of the cleanup were handed out since the last time that time passed.
        is_over: true if nothing may be sent any more.
        is_troubled: true if anything has gone wrong so far that isn't the engine's fault.
        silent_since: when the driver began to wait for bytes of the stream.
        answer_by: the deadline of the answer.
        drained_by: the deadline of draining, after the owner has left.
        over_by: the deadline of everything, after the owner has left.

    """

    creates: int = 0
    prompts: int = 0
    requests: int = 0
    deletes: int = 0
    opened: tuple[str, ...] = ()
    unlooked: bool = False
    unclear: bool = False
    blind: bool = False
    waited: bool = False
    emitted: str = ""
    parent: str | None = None
    prompted: str = ""
    adopted: str = ""
    history: tuple[tuple[str, str], ...] = ()
    keeps: bool = False
    pause: Pause | None = None
    at_once: int = 0
    is_over: bool = False
    is_troubled: bool = False
    silent_since: float = _NEVER
    answer_by: float = _NEVER
    drained_by: float = _NEVER
    over_by: float = _NEVER

    @property
    def has_left(self) -> bool:
        """Whether the owner has left."""
        return self.over_by < _NEVER

    def with_intent(self, intent: Intent | None, phase: Phase, now: float) -> Ledger:
        """Note the intent that the driver got, or that there was none."""
        if not isinstance(intent, Exchange):
            listens = intent is None and phase is Phase.STREAMING and self.silent_since is _NEVER
            return self._replace(silent_since=now) if listens else self
        ledger = self._counted(intent, 1)._replace(waited=False, pause=None, silent_since=_NEVER)
        # Further pages of the list don't count, because their number depends only on the account.
        further_page = isinstance(intent, ListChats) and "after=" in intent.request.url
        cleans = phase in CLEANING and not further_page
        return ledger._replace(at_once=ledger.at_once + 1) if cleans else ledger

    @property
    def known(self) -> frozenset[str]:
        """The ids of the messages that were known before the turn."""
        return frozenset(message_id for turn in self.history for message_id in turn)

    @property
    def earlier_answers(self) -> tuple[str, ...]:
        """The ids of the answers that the conversation isn't at, the oldest first."""
        at = self.history[-1][1] if self.history else ""
        return tuple(sorted({answer for _, answer in self.history} - {at}))

    def with_prompt(self, after: str | None = None) -> Ledger:
        """Note that a turn begins, with a prompt after the last answer, or after another one."""
        parent = after or (self.history[-1][1] if self.history else None)
        return self._with_turn()._replace(parent=parent, prompted="")

    def with_regenerate(self, now: float, timeouts: Timeouts) -> Ledger:
        """Note that a turn begins, for another answer to the last prompt."""
        answer_by = _NEVER if timeouts.answer is None else now + timeouts.answer
        return self._with_turn()._replace(prompted=self.history[-1][0], answer_by=answer_by)

    def _with_turn(self) -> Ledger:
        return self._replace(
            prompts=0, requests=0, unlooked=False, waited=False, emitted="", adopted="", answer_by=_NEVER
        )

    def with_fate(self, exchange: Exchange, asked: Asked, phase: Phase, fate: Fate) -> Ledger:
        """Note what becomes of an exchange."""
        ledger = self._replace(blind=fate.is_fault) if phase is Phase.DRAINING else self
        if fate.rejects_credentials:
            return ledger._counted(exchange, -1)
        match exchange:
            case SendPrompt() | RequestAssistant() if fate.is_lost:
                return ledger._replace(unlooked=True)
            case OpenStream() if fate.failure is None or fate.is_lost:
                return ledger._replace(opened=(*ledger.opened, asked.message_id))
            case FetchChat() if phase in CLEANING:
                return ledger._replace(unclear=False)
            case FetchChat() if not fate.is_fault:
                return ledger._replace(unlooked=False)
            case DeleteChat() if fate.failure is NotSent:
                return ledger._counted(exchange, -1)
            case DeleteChat():
                return ledger._replace(unclear=True)
            case _:
                return ledger

    def with_outcome(self, exchange: Exchange, phase: Phase, outcome: FarReply | TransportError, now: float) -> Ledger:
        """Note the pause that must follow if ``outcome`` says that the exchange wasn't carried out (OA-6.3)."""
        if not isinstance(exchange, _TRIED_AGAIN[phase]):
            return self
        if isinstance(outcome, NotSent):
            return self._replace(pause=Pause(type(exchange), phase, now, 0.0))
        if isinstance(outcome, TransportError) or outcome.status not in (429, 503) or isinstance(exchange, OpenStream):
            return self
        seconds = float(dict(outcome.headers).get("retry-after", 0))
        return self._replace(pause=Pause(type(exchange), phase, now, seconds))

    def with_interruption(self, intent: Intent | None) -> Ledger:
        """Note that the interrupted exchange doesn't count as a try."""
        if isinstance(intent, (SendPrompt, RequestAssistant)) and not self.has_left:
            return self._counted(intent, -1)
        return self

    def with_end(self, now: float, cleanup: Cleanup, *, drain: bool) -> Ledger:
        """Note that the owner leaves."""
        drained_by = now + cleanup.longest_drain if drain else now
        return self._replace(
            over_by=min(self.over_by, now + cleanup.timeout), drained_by=min(self.drained_by, drained_by)
        )

    def with_events(
        self, events: list[ev.Event], before: Phase, after: Phase, now: float, timeouts: Timeouts
    ) -> Ledger:
        """Note the conversation's events, and its phases before and after them."""
        ledger = self
        for event in events:
            match event:
                case ev.Prompted():
                    answer_by = _NEVER if timeouts.answer is None else now + timeouts.answer
                    ledger = ledger._replace(prompted=event.message_id, answer_by=answer_by)
                case ev.Token():
                    ledger = ledger._replace(emitted=ledger.emitted + event.text)
                case ev.Deleted():
                    ledger = ledger._replace(is_over=True)
                case ev.Requested():
                    ledger = ledger._replace(adopted=event.message_id)
                case ev.Answered():
                    ledger = ledger._replace(history=(*ledger.history, (ledger.prompted, ledger.adopted)))
                case _:
                    pass
        if after in TERMINAL:
            return ledger._replace(is_over=True)
        if after is Phase.POLLING and before is not Phase.POLLING:
            return ledger._replace(answer_by=min(ledger.answer_by, now + timeouts.poll))
        return ledger

    def _counted(self, exchange: Intent, by: int) -> Ledger:
        name = COUNTED.get(type(exchange))
        return self._replace(**{name: getattr(self, name) + by}) if name else self
