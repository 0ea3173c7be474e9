"""What must hold after every step: each invariant is one small function that returns what is wrong, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from oa_protocol.engine import events as ev
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    DeleteChat,
    Exchange,
    Intent,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import TERMINAL, Phase
from oa_protocol.testing._model.conversation_like import ConversationLike
from oa_protocol.testing._model.server_model import Asked, Message, Server

CLEANING = frozenset({Phase.DELETING, Phase.DELETE_UNCLEAR})

LONGEST_RETRY_AFTER = 60.0
"""Seconds; after more than that nothing is tried again (OA-6.3)."""


class Limits(NamedTuple):
    """How often a conversation may try: ``retries`` further times, and ``attempts`` DELETEs in all."""

    retries: int
    attempts: int

    @property
    def last_exchanges(self) -> int:
        """How many exchanges may follow once nothing is waited for any more.

        DELETE, read, list for each attempt, each of them once more with other credentials; further pages of the list
        are not counted.
        """
        return 6 * self.attempts


class Pause(NamedTuple):
    """What was not carried out, in which phase, and how many seconds its Retry-After says: 0 where there is none."""

    kind: type[Exchange]
    phase: Phase
    seconds: float


class Ledger(NamedTuple):
    """What an observer notes of one conversation; the counts are those of the turn, but for creates and deletes.

    Tries whose credentials were rejected do not count. ``opened`` are the streams that may have been opened.
    ``unlooked``: a prompt or request was lost, and the chat was not read since. ``blind``: the drain's last attempt to
    see whether an answer runs has failed. ``waited``: the stream has shown for long that the answer waits, or nothing
    but pings, and nobody has looked at the message since. ``told`` is the text told so far, ``adopted`` the message of
    the answer. ``leaving``: the owner closed (1), and lost patience with the drain (2). ``last`` counts the exchanges
    since nothing is waited for, and ``over`` says that there must be none any more. ``pause`` is what must be waited
    for before the next exchange. ``silent``: the stream fell silent, and the driver has not asked since. ``unclear``: a
    DELETE was sent, and the chat not read since.
    """

    creates: int = 0
    prompts: int = 0
    requests: int = 0
    deletes: int = 0
    opened: tuple[str, ...] = ()
    unlooked: bool = False
    blind: bool = False
    waited: bool = False
    told: str = ""
    adopted: str = ""
    leaving: int = 0
    last: int = 0
    over: bool = False
    pause: Pause | None = None
    silent: bool = False
    unclear: bool = False


class Moment(NamedTuple):
    """One step, as the invariants see it: what was done, and how things stand after it.

    ``what`` was done, in the words of its action; ``phase_before`` and ``ledger_before`` are from before it. ``asked``
    is the exchange that was just handed out, read as the server reads it; ``idle`` says that there was nothing to hand
    out. ``late`` are the requests that the server may still carry out, by their makers.
    """

    conversation: ConversationLike
    number: int
    what: str
    phase_before: Phase
    ledger_before: Ledger
    events: list[ev.Event]
    intent: Intent | None
    asked: Asked | None
    idle: bool
    ledger: Ledger
    server: Server
    late: tuple[tuple[int, Asked], ...]
    limits: Limits


def guarantee(moment: Moment) -> str:
    """However a conversation ends, its chats are gone or named (OA-6.8, OA-7.2)."""
    conversation = moment.conversation
    if conversation.phase not in TERMINAL:
        return ""
    named = {record.chat_id for record in conversation.records}
    unnamed = [chat.id for chat in moment.server.chats if chat.maker == moment.number and chat.id not in named]
    to_come = sum(number == moment.number and asked.step == "create" for number, asked in moment.late)
    nameless = sum(record.chat_id is None for record in conversation.records)
    if len(unnamed) + to_come > nameless:
        what = ", ".join([f"chat {chat_id}" for chat_id in unnamed] + ["a chat still to be made"] * to_come)
        return f"{conversation.phase.name}, and left behind without being named: {what}"
    if (conversation.phase is Phase.LEAKED) != bool(conversation.records):
        return f"{conversation.phase.name} with {len(conversation.records)} records"
    return ""


def nothing_after_the_end(moment: Moment) -> str:
    """Nothing is sent after the chat is confirmed gone, nor in a terminal phase (OA-7.7)."""
    if moment.ledger.over and moment.intent is not None:
        return f"{_name(moment.intent)} after the end"
    return ""


def gone_is_gone(moment: Moment) -> str:
    """A chat that the server still has is never told to be deleted (OA-7.3, OA-7.5)."""
    for event in moment.events:
        if isinstance(event, ev.Deleted) and moment.server.chat(event.chat_id):
            return f"told as deleted, and still there: chat {event.chat_id}"
    if moment.conversation.phase is Phase.DELETED:
        left = [chat.id for chat in moment.server.chats if chat.maker == moment.number]
        return f"DELETED, and still there: {left}" if left else ""
    return ""


def bounded_tries(moment: Moment) -> str:
    """No step is tried more often than is allowed (OA-6.3, OA-7.6)."""
    ledger, limits = moment.ledger, moment.limits
    for what, count, most in (
        ("creates", ledger.creates, limits.retries + 1),
        ("prompts", ledger.prompts, limits.retries + 1),
        ("requests", ledger.requests, limits.retries + 1),
        ("DELETEs", ledger.deletes, limits.attempts),
    ):
        if count > most:
            return f"{count} {what}, and at most {most} are allowed"
    return ""


def one_reader(moment: Moment) -> str:
    """A stream that may have been opened is never opened again (OA-6.5)."""
    if isinstance(moment.intent, OpenStream) and moment.asked and moment.asked.message_id in moment.ledger.opened:
        return f"a second OpenStream for {moment.asked.message_id}, which may have been opened"
    return ""


def looks_before_sending_again(moment: Moment) -> str:
    """A lost prompt or request is not sent again before the chat was read (OA-6.1)."""
    if isinstance(moment.intent, (SendPrompt, RequestAssistant)) and moment.ledger.unlooked:
        return f"{_name(moment.intent)} again, without a look at the chat"
    return ""


def looks_before_deleting_again(moment: Moment) -> str:
    """After an unclear reply to DELETE the chat is read, before it is deleted again (OA-7.4)."""
    if isinstance(moment.intent, DeleteChat) and moment.ledger_before.unclear:
        return "DeleteChat again, without a look at the chat"
    return ""


def waits_before_trying_again(moment: Moment) -> str:
    """What was not carried out is tried again later, not before Retry-After, and never after more than a minute.

    (OA-6.3.) Only DELETE is not tried again at once, but looked for: the look has to wait as well.
    """
    pause, intent, phase = moment.ledger_before.pause, moment.intent, moment.conversation.phase
    if pause is None or not isinstance(intent, Exchange):
        return ""
    looks = pause.phase is Phase.DELETING and phase is Phase.DELETE_UNCLEAR
    tries_again = isinstance(intent, pause.kind) and phase is pause.phase
    if not looks and not tries_again:
        return ""
    if pause.seconds > LONGEST_RETRY_AFTER:
        return f"{_name(intent)}, though Retry-After says {pause.seconds:.0f} seconds"
    if intent.delay < pause.seconds:
        return f"{_name(intent)} after {intent.delay} seconds, and Retry-After says {pause.seconds:.0f}"
    return f"{_name(intent)} again at once" if tries_again and intent.delay <= 0 else ""


def polls_a_silent_stream(moment: Moment) -> str:
    """A stream that has fallen silent is given up: it is closed, and the answer polled (OA-6.6)."""
    conversation = moment.conversation
    if moment.what == "falls silent" and conversation.phase is not Phase.POLLING:
        return f"the stream has fallen silent, and the answer is not polled, in {conversation.phase.name}"
    asked = moment.what == "asks" and moment.ledger_before.silent
    if asked and not isinstance(moment.intent, CloseStream) and not conversation.is_over:
        return "the stream has fallen silent, and is not closed"
    return ""


def fails_when_patience_ends(moment: Moment) -> str:
    """An answer for which the owner waits no longer fails (OA-6.9)."""
    if moment.what == "loses patience with the answer" and not any(isinstance(e, ev.Failed) for e in moment.events):
        return "the owner waits no longer, and the answer does not fail"
    return ""


def adopts_what_is_there(moment: Moment) -> str:
    """No second answer is asked for where one runs or is complete, and none is adopted that never runs (OA-6.7)."""
    if isinstance(moment.intent, RequestAssistant) and moment.asked:
        for answer in _answers(moment, moment.asked.parent_id):
            if answer.is_running or answer.state == "complete":
                return f"RequestAssistant, and {answer.id} is {answer.state} already"
    for event in moment.events:
        if isinstance(event, ev.Requested):
            message = moment.server.message(event.message_id)
            if message is not None and message.stuck:
                return f"adopted {event.message_id}, which no worker will ever take"
    return ""


def ends(moment: Moment) -> str:
    """Once nothing is waited for the end comes, and nobody stands still without a reason (OA-7.1, OA-7.6)."""
    conversation, ledger = moment.conversation, moment.ledger
    if ledger.last > moment.limits.last_exchanges:
        return f"{ledger.last} exchanges since nothing is waited for, and no end"
    if moment.intent is not None and ledger.leaving == 2 and conversation.phase is Phase.DRAINING:
        return "still draining, and the owner's patience with that is over"
    waits = conversation.is_over or conversation.has_stream or conversation.awaits_prompt
    may_rest = conversation.phase is Phase.FAILED and not ledger.leaving
    if moment.idle and not waits and not may_rest:
        return f"nothing to do in {conversation.phase.name}"
    return ""


def looks_while_it_waits(moment: Moment) -> str:
    """A stream that only shows that the answer waits is not believed for long: the answer may be dead (OA-5.8)."""
    if moment.idle and moment.ledger.waited and moment.conversation.phase is Phase.STREAMING:
        return "the stream has been showing the same for long, and nobody looks at the message"
    return ""


def success_is_the_truth(moment: Moment) -> str:
    """An answer is told as complete only with the server's own final text, all of it (OA-5.6, OA-5.7)."""
    for event in moment.events:
        if not isinstance(event, ev.Answered):
            continue
        message = moment.server.message(event.message.id)
        if message is None or message.state != "complete":
            return f"Answered, and {event.message.id} is not complete"
        if event.text != message.content:
            return f"Answered {event.text!r}, and the server has {message.content!r}"
        corrected = any(isinstance(told, ev.Corrected) and told.text == event.text for told in moment.events)
        if not corrected and moment.ledger.told.strip() != event.text.strip():
            return f"told {moment.ledger.told!r}, and the answer is {event.text!r}"
    return ""


def drains_first(moment: Moment) -> str:
    """A chat is not deleted while its answer runs, unless patience is over or nobody can tell (OA-7.1).

    What the server carried out late nobody can know of; where there are two answers for it, one is waited for.
    """
    ledger = moment.ledger
    entered = moment.conversation.phase is Phase.DELETING and moment.phase_before is not Phase.DELETING
    if not entered or ledger.leaving == 2 or ledger.blind:
        return ""
    chat = moment.server.chat(moment.conversation.chat_id or "")
    messages = chat.messages if chat else ()
    several = any(message.late for message in messages)
    for message in messages:
        if message.is_running and not message.late and (not several or message.id == ledger.adopted):
            return f"about to delete the chat while {message.id} is {message.state}"
    return ""


def shields(moment: Moment) -> str:
    """What may leave a chat behind when interrupted is shielded: the create, and all of cleanup (OA-4.3)."""
    intent = moment.intent
    cleaning = moment.conversation.phase in (*CLEANING, Phase.DRAINING)
    if (
        isinstance(intent, Exchange)
        and not intent.shielded
        and (isinstance(intent, (CreateChat, DeleteChat)) or cleaning)
    ):
        return f"{_name(intent)} is not shielded in {moment.conversation.phase.name}"
    return ""


Invariant = Callable[[Moment], str]

INVARIANTS: tuple[Invariant, ...] = (
    gone_is_gone,
    guarantee,
    nothing_after_the_end,
    bounded_tries,
    one_reader,
    looks_before_sending_again,
    looks_before_deleting_again,
    waits_before_trying_again,
    polls_a_silent_stream,
    fails_when_patience_ends,
    adopts_what_is_there,
    ends,
    looks_while_it_waits,
    success_is_the_truth,
    drains_first,
    shields,
)


def first_violation(moment: Moment) -> tuple[str, str] | None:
    """Return the name of the first invariant that does not hold, and what is wrong; None where all hold."""
    for invariant in INVARIANTS:
        if problem := invariant(moment):
            return invariant.__name__, problem
    return None


def _answers(moment: Moment, parent_id: str | None) -> list[Message]:
    chat = moment.server.chat(moment.conversation.chat_id or "")
    messages = chat.messages if chat else ()
    return [m for m in messages if m.role == "assistant" and m.parent_id == parent_id and not m.late]


def _name(intent: Intent) -> str:
    return type(intent).__name__
