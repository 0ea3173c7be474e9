"""The whole protocol on one screen: the phases of a conversation, and what moves it from one to the next.

A phase says what is established on the server. The outstanding intent says what is being done about it. Both together
are the state of a conversation. specs/phases.md is drawn from this table.

The table is a machine of the ``transitions`` library. The library declares the states and triggers, it refuses a table
with an unknown state, and it draws diagrams. But it doesn't move the conversations, for two reasons. First, its
triggers resolve callbacks, conditions and queues that this table doesn't have, which takes 8 µs. Second, a machine
keeps a reference to each of its models, so conversations would never be freed. So a move is one look-up in the table
that the machine has checked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum
from typing import Protocol

from transitions import Machine, MachineError


class Phase(Enum):
    """What is established on the server. The value says it in words."""

    START = "nothing"
    COOKIES = "credentials in hand"
    OPENING = "the id of an existing chat, but not what is in it"
    CHAT_CREATED = "the chat's id"
    PROMPT_LOST = "whether our prompt arrived is unknown"
    PROMPTED = "the prompter message's id"
    REQUEST_LOST = "whether our request arrived is unknown"
    ASSISTANT_REQUESTED = "the assistant message's id"
    STREAMING = "the stream is open"
    POLLING = "an answer runs, without a usable stream"
    ANSWERED = "the answer is complete"
    FAILED = "the answer failed; the chat is still there"
    DRAINING = "the owner left while an answer was or may be running"
    DELETING = "the chat has to be deleted"
    DELETE_UNCLEAR = "the reply to DELETE was lost or ambiguous"
    DELETED = "the chat is confirmed gone"
    NEVER_CREATED = "the server created no chat"
    LEAKED = "a chat is, or may be, left on the server, and is named"
    KEPT = "the owner left, and the chat stays on the server, as asked"

    # ``Enum.__hash__`` is slow, because it is written in Python. Members are compared by identity, so this one works.
    __hash__ = object.__hash__


class Trigger(Enum):
    """What moves a conversation from one phase to the next. The value says it in words."""

    CREDENTIALS_LOADED = "credentials were found"
    OPENED = "the chat exists already"
    ENTERED = "the shown branch ends in a complete answer"
    ENTERED_EMPTY = "the chat has no complete answer"
    CREATED = "the server created the chat"
    CREATE_FAILED = "there is no chat, and certainly none was created"
    CREATE_UNCLEAR = "there is no chat that we know, but one may have been created"
    PROMPTED = "our prompt is in the chat"
    PROMPT_LOST = "the reply to our prompt was lost"
    FIRST_PROMPT_MISSING = "the chat is still empty"
    NEXT_PROMPT_MISSING = "our prompt does not follow the last answer"
    REGENERATE = "the owner wants another answer to a prompt in the chat"
    REQUESTED = "the assistant's message exists"
    REQUEST_LOST = "the reply to our request was lost"
    REQUEST_MISSING = "no answer runs under our prompt"
    STREAM_OPENED = "the stream's head arrived"
    STREAM_LOST = "the stream broke, ended early, fell silent or was refused"
    ANSWERED = "the final message arrived"
    FAILED = "the turn cannot be finished"
    DRAIN = "the owner left; an answer may still run"
    DELETE = "the owner left, and there is nothing to wait for"
    DELETE_UNCLEAR = "the reply to DELETE was lost or ambiguous"
    STILL_THERE = "the chat may still exist"
    GONE = "the server confirmed that the chat is gone"
    LEAK = "the chat cannot be deleted, or not in time"
    KEEP = "the owner left, and the chat is to stay"
    NOTHING_MADE = "the owner left before there was a chat"

    __hash__ = object.__hash__  # for the same reason as in ``Phase``


_P = Phase
_NO_CHAT = (_P.START, _P.COOKIES)
_IDLE = (_P.CHAT_CREATED, _P.ANSWERED)
_NO_ANSWER_YET = (_P.OPENING, *_IDLE, _P.PROMPT_LOST, _P.PROMPTED)
_RUNNING = (_P.ASSISTANT_REQUESTED, _P.STREAMING, _P.POLLING)
_MAYBE_RUNNING = (_P.REQUEST_LOST, *_RUNNING)
_LEAVING = (_P.DRAINING, _P.DELETING, _P.DELETE_UNCLEAR)
_STAYING = (*_NO_ANSWER_YET, *_MAYBE_RUNNING, _P.FAILED)
_WITH_CHAT = (*_STAYING, *_LEAVING)

TRANSITIONS: tuple[tuple[Trigger, tuple[Phase, ...], Phase], ...] = (
    (Trigger.CREDENTIALS_LOADED, (_P.START,), _P.COOKIES),
    (Trigger.OPENED, (_P.START,), _P.OPENING),
    (Trigger.ENTERED, (_P.OPENING,), _P.ANSWERED),
    (Trigger.ENTERED_EMPTY, (_P.OPENING,), _P.CHAT_CREATED),
    (Trigger.CREATED, _NO_CHAT, _P.CHAT_CREATED),
    (Trigger.CREATE_FAILED, _NO_CHAT, _P.NEVER_CREATED),
    (Trigger.CREATE_UNCLEAR, _NO_CHAT, _P.LEAKED),
    (Trigger.PROMPTED, (*_IDLE, _P.PROMPT_LOST), _P.PROMPTED),
    (Trigger.PROMPT_LOST, _IDLE, _P.PROMPT_LOST),
    (Trigger.FIRST_PROMPT_MISSING, (_P.PROMPT_LOST,), _P.CHAT_CREATED),
    (Trigger.NEXT_PROMPT_MISSING, (_P.PROMPT_LOST,), _P.ANSWERED),
    (Trigger.REGENERATE, _IDLE, _P.PROMPTED),
    (Trigger.REQUESTED, (_P.PROMPTED, _P.REQUEST_LOST), _P.ASSISTANT_REQUESTED),
    (Trigger.REQUEST_LOST, (_P.PROMPTED,), _P.REQUEST_LOST),
    (Trigger.REQUEST_MISSING, (_P.REQUEST_LOST,), _P.PROMPTED),
    (Trigger.STREAM_OPENED, (_P.ASSISTANT_REQUESTED,), _P.STREAMING),
    (Trigger.STREAM_LOST, (_P.ASSISTANT_REQUESTED, _P.STREAMING), _P.POLLING),
    (Trigger.ANSWERED, (_P.STREAMING, _P.POLLING), _P.ANSWERED),
    (Trigger.FAILED, (*_NO_ANSWER_YET, *_MAYBE_RUNNING), _P.FAILED),
    (Trigger.DRAIN, _STAYING, _P.DRAINING),
    (Trigger.DELETE, (*_STAYING, _P.DRAINING), _P.DELETING),
    (Trigger.DELETE_UNCLEAR, (_P.DELETING,), _P.DELETE_UNCLEAR),
    (Trigger.STILL_THERE, (_P.DELETE_UNCLEAR,), _P.DELETING),
    (Trigger.GONE, (_P.DELETING, _P.DELETE_UNCLEAR), _P.DELETED),
    (Trigger.LEAK, _WITH_CHAT, _P.LEAKED),
    (Trigger.KEEP, _STAYING, _P.KEPT),
    (Trigger.NOTHING_MADE, _NO_CHAT, _P.NEVER_CREATED),
)

LEAVING = frozenset(_LEAVING)
"""The phases in which the owner has left, and the chat is being deleted."""

TERMINAL = frozenset({_P.DELETED, _P.NEVER_CREATED, _P.LEAKED, _P.KEPT})
"""The phases in which a conversation is over."""

AWAITS_ANSWER = frozenset({_P.PROMPTED, *_MAYBE_RUNNING})
"""The phases in which the engine waits for the answer to a prompt, so that ``Timeouts.answer`` runs."""

ANSWER_MAY_RUN = frozenset(_MAYBE_RUNNING)
"""The phases in which an answer is, or may be, waiting or running on the server."""


def check_phases(grouped: Collection[Phase], transitions: Iterable[tuple[Trigger, tuple[Phase, ...], Phase]]) -> None:
    """Check that each phase is in a group and can be reached.

    The rows for leaving use the groups, so an owner couldn't leave from a phase that is in none.

    Raises:
        TypeError: a phase is in no group, or no row leads to it. The message names it.

    """
    reached = {Phase.START, *(target for _, _, target in transitions)}
    problems = {
        "is in no group": [phase.name for phase in Phase if phase not in grouped],
        "is never reached": [phase.name for phase in Phase if phase not in reached],
    }
    if any(problems.values()):
        raise TypeError("; ".join(f"{', '.join(names)} {problem}" for problem, names in problems.items() if names))


check_phases({*_NO_CHAT, *_WITH_CHAT, *TERMINAL}, TRANSITIONS)

# All conversations share this machine. It has no models, so it doesn't keep a reference to any of them.
MACHINE = Machine(
    model=None,
    states=Phase,
    initial=Phase.START,
    transitions=[
        {"trigger": trigger.name, "source": list(sources), "dest": dest} for trigger, sources, dest in TRANSITIONS
    ],
    auto_transitions=False,
    model_attribute="phase",
)

_TARGETS = {
    (trigger, Phase[source]): Phase[str(transition.dest)]
    for trigger in Trigger
    for source, transitions in MACHINE.events[trigger.name].transitions.items()
    for transition in transitions
}


class HasPhase(Protocol):
    """Anything with a ``phase`` that the table can move."""

    phase: Phase


def fire(trigger: Trigger, conversation: HasPhase) -> None:
    """Move ``conversation`` to its next phase. No other code sets a phase.

    Raises:
        transitions.MachineError: the table has no such row. That is a bug of the engine.

    """
    target = _TARGETS.get((trigger, conversation.phase))
    if target is None:
        raise MachineError(f"{trigger.name} is not possible in phase {conversation.phase.name}")
    conversation.phase = target
