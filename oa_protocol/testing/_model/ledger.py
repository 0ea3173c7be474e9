"""What an observer notes of one conversation, for the invariants to judge by."""

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
"""The field of a ledger that counts the exchanges of this kind: that of each one that changes something."""

# What is tried again in which phase. Anything else that comes there is late, or a look that can wait.
_LOOKS = (Phase.STREAMING, Phase.DELETE_UNCLEAR)
_TRIED_AGAIN = {phase: () if phase in _LOOKS else tuple(step.kind for step in steps) for phase, steps in STEPS.items()}


class FarReply(NamedTuple):
    """A reply, as it left the far end."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Pause(NamedTuple):
    """What was not carried out, in which phase, since when, and for how many seconds its Retry-After asks (or 0)."""

    kind: type[Exchange]
    phase: Phase
    since: float
    seconds: float


class Ledger(NamedTuple):
    """What an observer notes of one conversation. The counts are those of the turn, except for creates and deletes.

    Attributes:
        creates, prompts, requests, deletes: how many were sent. Those that the owner interrupted don't count, nor do
            those whose credentials were rejected. A DELETE that was not sent doesn't count either.
        opened: the messages whose stream may have been opened.
        unlooked: a prompt or a request was lost, and the chat has not been read since.
        unclear: a DELETE was sent, and the chat has not been read since.
        blind: the drain's last attempt to see whether an answer runs has failed.
        waited: the stream has shown for long that the answer waits, or nothing but pings, and the message has not been
            read since.
        emitted: the text of the tokens so far.
        adopted: the message of the answer.
        pause: what must be waited for before the next exchange.
        at_once: how many exchanges of the cleanup were handed out since time has passed.
        is_over: nothing may be sent any more.
        silent_since: when the driver began to wait for bytes of the stream.
        answer_by: when the answer is no longer waited for.
        drained_by: when an answer that may be running is no longer waited for after the owner has left.
        over_by: when everything must be over after the owner has left.

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
    adopted: str = ""
    pause: Pause | None = None
    at_once: int = 0
    is_over: bool = False
    silent_since: float = _NEVER
    answer_by: float = _NEVER
    drained_by: float = _NEVER
    over_by: float = _NEVER

    @property
    def has_left(self) -> bool:
        """Whether the owner has left."""
        return self.over_by < _NEVER

    def with_intent(self, intent: Intent | None, phase: Phase, now: float) -> Ledger:
        """Note what the driver was handed out when it asked."""
        if not isinstance(intent, Exchange):
            listens = intent is None and phase is Phase.STREAMING and self.silent_since is _NEVER
            return self._replace(silent_since=now) if listens else self
        ledger = self._counted(intent, 1)._replace(waited=False, pause=None, silent_since=_NEVER)
        further_page = (
            isinstance(intent, ListChats) and "after=" in intent.request.url
        )  # there are as many as there are
        cleans = phase in CLEANING and not further_page
        return ledger._replace(at_once=ledger.at_once + 1) if cleans else ledger

    def with_prompt(self) -> Ledger:
        """Note that a turn begins."""
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
        """Note what must be waited for, because ``outcome`` says that the exchange was not carried out (OA-6.3)."""
        if not isinstance(exchange, _TRIED_AGAIN[phase]):
            return self
        if isinstance(outcome, NotSent):
            return self._replace(pause=Pause(type(exchange), phase, now, 0.0))
        if isinstance(outcome, TransportError) or outcome.status not in (429, 503) or isinstance(exchange, OpenStream):
            return self
        seconds = float(dict(outcome.headers).get("retry-after", 0))
        return self._replace(pause=Pause(type(exchange), phase, now, seconds))

    def with_interruption(self, intent: Intent | None) -> Ledger:
        """Note that what is under way costs no try."""
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
        """Note what the conversation says, and where it came from and stands now."""
        ledger = self
        for event in events:
            match event:
                case ev.Prompted() if timeouts.answer is not None:
                    ledger = ledger._replace(answer_by=now + timeouts.answer)
                case ev.Token():
                    ledger = ledger._replace(emitted=ledger.emitted + event.text)
                case ev.Deleted():
                    ledger = ledger._replace(is_over=True)
                case ev.Requested():
                    ledger = ledger._replace(adopted=event.message_id)
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
