"""The invariants, which must hold after every step. Each one is a function that returns what is wrong, or ""."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from oa_protocol.engine import events as ev
from oa_protocol.engine.intents import (
    CreateChat,
    DeleteChat,
    Exchange,
    Intent,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import AWAITS_ANSWER, LEAVING, TERMINAL, Phase
from oa_protocol.engine.timers import Cleanup, Timeouts
from oa_protocol.testing._model.conversation_like import ConversationLike
from oa_protocol.testing._model.ledger import CLEANING, COUNTED, Ledger
from oa_protocol.testing._model.server import Asked, Message, Server

TIME_PASSES = frozenset({"time passes", "falls silent"})
"""The actions that hand in ``TimePassed``."""

LONGEST_RETRY_AFTER = 60.0
"""The longest ``Retry-After`` that an engine may wait for, in seconds (OA-6.3)."""

_ROUNDING = 1e-6

_MOST_AT_ONCE = 6
"""The most exchanges of the cleanup that may be sent at the same time.

They are a DELETE, a read and a list, each of them again with other credentials. Further pages of a list don't count.
"""


class Limits(NamedTuple):
    """How often a conversation may try, and how long it may wait."""

    retries: int
    timeouts: Timeouts
    cleanup: Cleanup


class Moment(NamedTuple):
    """One step, with all that the invariants check: what was done, and the state after it.

    Attributes:
        conversation: the engine.
        number: the conversation's number.
        what: what was done (``Action.what``).
        now: the time.
        phase_before: the phase before the step.
        ledger_before: the ledger before the step.
        events: the events that the step caused.
        intent: the intent that was handed out by the step, or None.
        asked: the request of that intent, as the server reads it.
        idle: true if the driver has asked for an intent, and there was none.
        is_streaming: true if the driver has an open stream.
        ledger: the ledger after the step.
        server: the server after the step.
        late: the requests that the server may still carry out, with the numbers of their conversations.
        limits: how often the engine may try, and how long it may wait.

    """

    conversation: ConversationLike
    number: int
    what: str
    now: float
    phase_before: Phase
    ledger_before: Ledger
    events: list[ev.Event]
    intent: Intent | None
    asked: Asked | None
    idle: bool
    is_streaming: bool
    ledger: Ledger
    server: Server
    late: tuple[tuple[int, Asked], ...]
    limits: Limits

    def has_come(self, time: float) -> bool:
        """Return whether ``time`` has come."""
        return self.now >= time - _ROUNDING


def guarantee(moment: Moment) -> str:
    """When a conversation has ended, all its chats are gone or named (OA-6.8, OA-7.2)."""
    conversation = moment.conversation
    if conversation.phase not in TERMINAL:
        return ""
    named = {record.chat_id for record in conversation.leaked}
    if moment.ledger.keeps:
        named.add(conversation.chat_id)
    unnamed = [chat.id for chat in moment.server.chats if chat.maker == moment.number and chat.id not in named]
    to_come = sum(number == moment.number and asked.step == "create" for number, asked in moment.late)
    nameless = sum(record.chat_id is None for record in conversation.leaked)
    if len(unnamed) + to_come > nameless:
        what = ", ".join([f"chat {chat_id}" for chat_id in unnamed] + ["a chat still to be made"] * to_come)
        return f"{conversation.phase.name}, and left behind without being named: {what}"
    if (conversation.phase is Phase.LEAKED) != bool(conversation.leaked):
        return f"{conversation.phase.name} with {len(conversation.leaked)} leaks"
    return ""


def keeps_what_is_kept(moment: Moment) -> str:
    """A chat that its owner keeps isn't deleted, and isn't named as left behind (OA-7.9)."""
    conversation = moment.conversation
    if not moment.ledger.keeps:
        return (
            f"{conversation.phase.name}, though the owner does not keep it" if conversation.phase is Phase.KEPT else ""
        )
    if isinstance(moment.intent, DeleteChat):
        return "DeleteChat, though the chat is kept"
    if conversation.chat_id in [record.chat_id for record in conversation.leaked if record.chat_id]:
        return f"chat {conversation.chat_id} is kept, and named as left behind"
    ends = conversation.is_over and conversation.chat_id and not conversation.leaked
    return (
        f"{conversation.phase.name}, though the chat is kept" if ends and conversation.phase is not Phase.KEPT else ""
    )


def nothing_after_the_end(moment: Moment) -> str:
    """Nothing is sent after the chat is confirmed gone, nor in a terminal phase (OA-7.7)."""
    if moment.ledger.is_over and moment.intent is not None:
        return f"{_name(moment.intent)} after the end"
    return ""


def gone_is_gone(moment: Moment) -> str:
    """No chat that the server still has is reported as deleted (OA-7.3, OA-7.5)."""
    for event in moment.events:
        if isinstance(event, ev.Deleted) and moment.server.chat(event.chat_id):
            return f"reported as deleted, and still there: chat {event.chat_id}"
    if moment.conversation.phase is Phase.DELETED:
        left = [chat.id for chat in moment.server.chats if chat.maker == moment.number]
        return f"DELETED, and still there: {left}" if left else ""
    return ""


def bounded_tries(moment: Moment) -> str:
    """No step is tried more often than allowed (OA-6.3, OA-7.6)."""
    ledger, limits = moment.ledger, moment.limits
    for kind, what in COUNTED.items():
        count: int = getattr(ledger, what)
        most = limits.cleanup.attempts if kind is DeleteChat else limits.retries + 1
        if count > most:
            return f"{count} {what}, and at most {most} are allowed"
    return ""


def one_reader(moment: Moment) -> str:
    """A stream that may have been opened is never opened again (OA-6.5)."""
    if isinstance(moment.intent, OpenStream) and moment.asked and moment.asked.message_id in moment.ledger.opened:
        return f"a second OpenStream for {moment.asked.message_id}, which may have been opened"
    return ""


def looks_before_sending_again(moment: Moment) -> str:
    """After a prompt or request was lost, the chat is read before it is sent again (OA-6.1)."""
    if isinstance(moment.intent, (SendPrompt, RequestAssistant)) and moment.ledger.unlooked:
        return f"{_name(moment.intent)} again, without a look at the chat"
    return ""


def looks_before_deleting_again(moment: Moment) -> str:
    """After an unclear reply to DELETE the chat is read, before it is deleted again (OA-7.4)."""
    if isinstance(moment.intent, DeleteChat) and moment.ledger_before.unclear:
        return "DeleteChat again, without a look at the chat"
    return ""


def waits_before_trying_again(moment: Moment) -> str:
    """A request that wasn't carried out is tried again later, and not before ``Retry-After`` (OA-6.3, OA-6.12).

    If ``Retry-After`` is more than a minute, the request isn't tried again at all. After a DELETE, the next exchange is
    a read of the chat, so that read has to wait, too.
    """
    pause, intent, phase = moment.ledger_before.pause, moment.intent, moment.conversation.phase
    if pause is None or not isinstance(intent, Exchange):
        return ""
    looks = pause.phase is Phase.DELETING and phase is Phase.DELETE_UNCLEAR
    tries_again = isinstance(intent, pause.kind) and phase is pause.phase
    if not looks and not tries_again:
        return ""
    if pause.seconds > LONGEST_RETRY_AFTER:
        return f"{_name(intent)}, although Retry-After says {pause.seconds:.0f} seconds"
    if not moment.has_come(pause.since + pause.seconds):
        waited = moment.now - pause.since
        return f"{_name(intent)} after {waited:g} seconds, although Retry-After says {pause.seconds:.0f}"
    at_once = tries_again and moment.now <= pause.since
    return f"{_name(intent)} again at once" if at_once else ""


def polls_a_silent_stream(moment: Moment) -> str:
    """A stream that has fallen silent is given up, and closed before anything else is sent (OA-6.6)."""
    phase = moment.conversation.phase
    if moment.what == "falls silent" and phase is Phase.STREAMING:
        return "the stream has fallen silent, and is read on"
    if moment.is_streaming and isinstance(moment.intent, Exchange) and phase is not Phase.STREAMING:
        return f"{_name(moment.intent)}, and the stream is still open"
    return ""


def fails_when_its_time_is_over(moment: Moment) -> str:
    """An answer fails if it doesn't arrive in the time allowed (OA-6.9)."""
    ledger, phase = moment.ledger, moment.conversation.phase
    waits = phase in AWAITS_ANSWER and not ledger.has_left
    if moment.what in TIME_PASSES and waits and moment.has_come(ledger.answer_by):
        return f"the time for the answer is over, and it is still waited for in {phase.name}"
    return ""


def over_in_time(moment: Moment) -> str:
    """The conversation ends at most ``Cleanup.timeout`` after the owner left, with any network (OA-7.8)."""
    conversation, ledger = moment.conversation, moment.ledger
    if conversation.is_over or not ledger.has_left:
        return ""
    deadline = conversation.deadline
    if deadline is None or deadline > ledger.over_by + _ROUNDING:
        return "the owner has left, and no deadline is set for the end"
    if moment.what in TIME_PASSES and moment.has_come(ledger.over_by):
        return f"the time to clean up is over, and the conversation is still {conversation.phase.name}"
    stands_still = moment.idle and conversation.phase not in LEAVING
    return f"the owner has left, and there is nothing to do in {conversation.phase.name}" if stands_still else ""


def gives_control_back(moment: Moment) -> str:
    """If the owner is interrupted, only a create goes on, for at most ``Cleanup.timeout`` (OA-6.13)."""
    outstanding, ledger = moment.conversation.outstanding, moment.ledger
    if moment.what != "interrupts" or ledger.has_left or not isinstance(outstanding, Exchange):
        return ""
    if not isinstance(outstanding, CreateChat):
        return f"{_name(outstanding)} is still waited for"
    deadline = moment.conversation.deadline
    in_time = deadline is not None and deadline <= moment.now + moment.limits.cleanup.timeout + _ROUNDING
    return "" if in_time else "the create is waited for as long as before"


def has_a_deadline(moment: Moment) -> str:
    """There is a deadline if, and only if, the engine waits for anything but the owner, so nothing hangs (OA-6.12)."""
    conversation = moment.conversation
    if conversation.is_over:
        return ""
    outstanding = conversation.outstanding
    rests = conversation.awaits_prompt or (conversation.phase is Phase.FAILED and not moment.ledger.has_left)
    if conversation.deadline is not None:
        return "a deadline, and only the owner is waited for" if rests and outstanding is None else ""
    if isinstance(outstanding, Exchange):
        return f"{_name(outstanding)} is outstanding, without a deadline"
    return f"nothing to do in {conversation.phase.name}, and no deadline" if moment.idle and not rests else ""


def leaves_time_for_others(moment: Moment) -> str:
    """If an attempt to delete hangs, the other attempts still have their share of the time (OA-7.8)."""
    deadline, budget = moment.conversation.deadline, moment.limits.cleanup.attempt_budget
    if not isinstance(moment.intent, DeleteChat) or deadline is None:
        return ""
    return "DeleteChat may take more than its share" if deadline > moment.now + budget + _ROUNDING else ""


def never_busy(moment: Moment) -> str:
    """Time passes between tries. No deadline stays in the past, and cleanup doesn't loop without a pause (OA-6.12)."""
    deadline = moment.conversation.deadline
    if moment.what in TIME_PASSES and deadline is not None and deadline <= moment.now:
        return "the deadline has come, and the next one isn't later"
    if moment.ledger.at_once > _MOST_AT_ONCE:
        return f"{moment.ledger.at_once} exchanges of the cleanup at the same time"
    return ""


def adopts_what_is_there(moment: Moment) -> str:
    """If an answer runs or is complete, no other is requested. A message without a worker isn't adopted (OA-6.7)."""
    if isinstance(moment.intent, RequestAssistant) and moment.asked:
        for answer in _answers(moment, moment.asked.parent_id):
            if answer.id in moment.ledger.known:
                continue
            if answer.is_running or answer.state == "complete":
                return f"RequestAssistant, and {answer.id} is {answer.state} already"
    for event in moment.events:
        if isinstance(event, ev.Requested):
            message = moment.server.message(event.message_id)
            if message is not None and message.stuck:
                return f"adopted {event.message_id}, which no worker will ever take"
    return ""


def stays_in_its_branch(moment: Moment) -> str:
    """Only a new message is adopted, and only in the branch that the owner has chosen (OA-3.3, OA-3.5, OA-6.14)."""
    for event in moment.events:
        if not isinstance(event, (ev.Prompted, ev.Requested)):
            continue
        message, ledger = moment.server.message(event.message_id), moment.ledger
        if event.message_id in moment.ledger_before.known:
            return f"adopted {event.message_id}, which was known before"
        parent = ledger.parent if isinstance(event, ev.Prompted) else ledger.prompted
        if message is not None and message.parent_id != parent:
            return f"adopted {event.message_id}, which follows {message.parent_id} and not {parent}"
    return ""


def stops_draining(moment: Moment) -> str:
    """Draining stops if its time is over, or if the owner says so (OA-7.1)."""
    drains = moment.conversation.phase is Phase.DRAINING and isinstance(moment.intent, Exchange)
    return "still draining, although the time for that is over" if drains and _drain_is_over(moment) else ""


def looks_while_it_waits(moment: Moment) -> str:
    """If a stream only shows that the answer is waiting, the message is read, because it may be dead (OA-5.8)."""
    if moment.idle and moment.ledger.waited and moment.conversation.phase is Phase.STREAMING:
        return "the stream has been showing the same for long, and the message isn't read"
    return ""


def success_is_the_truth(moment: Moment) -> str:
    """An answer is reported as complete only with the server's own and whole final text (OA-5.6, OA-5.7)."""
    for event in moment.events:
        if not isinstance(event, ev.Answered):
            continue
        message = moment.server.message(event.message.id)
        if message is None or message.state != "complete":
            return f"Answered, and {event.message.id} is not complete"
        if event.text != message.content:
            return f"Answered {event.text!r}, and the server has {message.content!r}"
        corrected = any(isinstance(other, ev.Corrected) and other.text == event.text for other in moment.events)
        if not corrected and moment.ledger.emitted.strip() != event.text.strip():
            return f"emitted {moment.ledger.emitted!r}, and the answer is {event.text!r}"
    return ""


def answers_if_all_goes_well(moment: Moment) -> str:
    """If nothing goes wrong, no turn fails, because the server understands each request (OA-1.2, OA-3.3)."""
    failed = next((event for event in moment.events if isinstance(event, ev.Failed)), None)
    if failed is None or moment.ledger.is_troubled or moment.ledger.has_left:
        return ""
    return f"nothing went wrong, and the prompt gets no answer: {failed.error}"


def drains_first(moment: Moment) -> str:
    """A chat isn't deleted while its answer runs, unless the time for draining is over, or reads fail (OA-7.1).

    A client can't know what the server carried out late. If there are two answers because of that, the client has to
    wait for one of them.
    """
    ledger = moment.ledger
    entered = moment.conversation.phase is Phase.DELETING and moment.phase_before is not Phase.DELETING
    if not entered or ledger.blind or _drain_is_over(moment):
        return ""
    chat = moment.server.chat(moment.conversation.chat_id or "")
    messages = chat.messages if chat else ()
    several = any(message.late for message in messages)
    for message in messages:
        if message.is_running and not message.late and (not several or message.id == ledger.adopted):
            return f"about to delete the chat while {message.id} is {message.state}"
    return ""


def shields(moment: Moment) -> str:
    """The create and all of cleanup are shielded, because an interruption could leave a chat behind (OA-4.3)."""
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
    keeps_what_is_kept,
    nothing_after_the_end,
    bounded_tries,
    one_reader,
    looks_before_sending_again,
    looks_before_deleting_again,
    waits_before_trying_again,
    polls_a_silent_stream,
    fails_when_its_time_is_over,
    adopts_what_is_there,
    stays_in_its_branch,
    gives_control_back,
    has_a_deadline,
    over_in_time,
    leaves_time_for_others,
    never_busy,
    stops_draining,
    looks_while_it_waits,
    success_is_the_truth,
    answers_if_all_goes_well,
    drains_first,
    shields,
)


def first_violation(moment: Moment) -> tuple[str, str] | None:
    """Return the name of the first invariant that doesn't hold, and what is wrong, or None if all hold.

    What is wrong ends with the invariant's clauses, which are in its docstring.
    """
    for invariant in INVARIANTS:
        if problem := invariant(moment):
            clauses = re.findall(r"OA-\d+\.\d+", invariant.__doc__ or "")
            return invariant.__name__, f"{problem} ({', '.join(clauses)})"
    return None


def _answers(moment: Moment, parent_id: str | None) -> list[Message]:
    chat = moment.server.chat(moment.conversation.chat_id or "")
    messages = chat.messages if chat else ()
    return [m for m in messages if m.role == "assistant" and m.parent_id == parent_id and not m.late]


def _drain_is_over(moment: Moment) -> bool:
    return moment.has_come(moment.ledger.drained_by)


def _name(intent: Intent) -> str:
    return type(intent).__name__
