"""When two engines are in the same state, and how one is copied."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from io import StringIO
from operator import attrgetter
from typing import Any, TypeVar, cast

from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.sse import SSEDecoder
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import OAError
from oa_protocol.engine.intents import OpenStream
from oa_protocol.engine.phases import Phase
from oa_protocol.engine.turn import Turn
from oa_protocol.testing._model.conversation_like import ConversationLike
from oa_protocol.testing._model.invariants import CLEANING, LONGEST_RETRY_AFTER, Ledger, Pause
from oa_protocol.testing._model.server_model import Chat

STREAM_MATTERS = frozenset({Phase.ASSISTANT_REQUESTED, Phase.STREAMING})
"""Where it makes a difference how far a stream was read."""

NO_MORE_TURNS = frozenset({Phase.FAILED, Phase.DRAINING, *CLEANING})
"""Where it makes no difference how many prompts the owner would have had."""

_T = TypeVar("_T")

# ---- copying

_FROZEN = frozenset({str, int, float, bool, tuple, type(None), Phase})


def copy_engine(thing: _T) -> _T:
    """Return a copy of an engine, or of one of its parts that change. All else that an engine holds is frozen.

    It is as good as pickling, and several times as fast.
    """
    kind = type(thing)
    twin = kind.__new__(kind)
    names: tuple[str, ...] = getattr(kind, "__slots__")  # noqa: B009 - not every type has them
    for name in names:
        value: object = getattr(thing, name)
        if type(value) not in _FROZEN:
            if isinstance(value, list):
                value = cast("list[object]", value).copy()
            elif isinstance(value, StringIO):
                text = value.getvalue()
                value = StringIO()
                value.write(text)
            elif isinstance(value, (Turn, SSEDecoder)):
                value = copy_engine(value)
            elif isinstance(value, OAError):
                value = value.with_traceback(None)  # it would keep every engine alive that raised it
        setattr(twin, name, value)
    return twin


# ---- what makes a state

_BY_THE_WAY = ("binding", "options", "phase", "error", "records", "_date", "_delay", "_retries", "_attempts", "_turn")
# What a step counts on is set anew when the next one begins.
_OF_A_STEP = ("_tries", "_check_due", "_list_next", "_last_error", "_parent_id")
_OF_A_TURN = ("_running", "_closing", "_reads", "_check_due", "_parent_id")


def _values_without(*names: str) -> Callable[[object], tuple[Any, ...]]:
    return attrgetter(*(name for name in Conversation.__slots__ if name not in {*_BY_THE_WAY, *names}))


_values = _values_without()
_values_polling = _values_without("_tries")
_values_leaving = _values_without(*_OF_A_STEP)
_values_cleaning = _values_without(*_OF_A_TURN)

_turn_of = attrgetter("_turn")
_delay_of = attrgetter("_delay")


def is_settled(conversation: ConversationLike) -> bool:
    """Whether at most the deletion is left, so that it makes no difference what the chat holds."""
    deleting = conversation.phase in CLEANING and not isinstance(conversation.outstanding, OpenStream)
    return deleting or conversation.is_over


def engine_key(conversation: ConversationLike, ledger: Ledger) -> tuple[object, ...]:
    """What makes two conversations, and what was noted of them, the same state, phase by phase."""
    phase = conversation.phase
    records = tuple([record.chat_id for record in conversation.records])
    turn: Turn | None = _turn_of(conversation)
    noted: tuple[object, ...]
    match phase:
        case Phase.DELETED | Phase.NEVER_CREATED | Phase.LEAKED:
            return phase.name, records
        case Phase.DELETING | Phase.DELETE_UNCLEAR:
            values, noted = _values_cleaning(conversation), (ledger.deletes, ledger.last, ledger.unclear)
        case Phase.FAILED | Phase.DRAINING:
            values = _values_leaving(conversation)
            noted = (ledger.blind, ledger.leaving, ledger.last, ledger.adopted, turn and _turn_ids(turn))
        case Phase.START | Phase.COOKIES:
            values, noted = _values(conversation), (ledger._replace(pause=None), turn is None)
        case _:
            values = _values_polling(conversation) if phase is Phase.POLLING else _values(conversation)
            noted = (_ledger_key(ledger, phase), turn and (*_turn_ids(turn), turn.text, turn.pendings % 10))
    hurries = ledger.pause is not None and _hurries(conversation, ledger.pause)
    return phase.name, tuple([_essence(value) for value in values]), noted, hurries, records


def _hurries(conversation: ConversationLike, pause: Pause) -> bool:
    """Whether the engine is about to try again too early: that, of all delays, makes a difference (OA-6.3)."""
    phase = conversation.phase
    delay: float = _delay_of(conversation)
    too_early = delay < pause.seconds or pause.seconds > LONGEST_RETRY_AFTER
    if phase is pause.phase:
        return too_early or delay <= 0
    return phase is Phase.DELETE_UNCLEAR and too_early


def messages_key(chat: Chat, streams: set[str]) -> tuple[object, ...]:
    """How far a stream was read makes a difference only while it is open, and how an answer died makes none."""
    return tuple(
        [
            (m.id, m.role, _DEAD.get(m.state, m.state), m.parent_id, m.stuck, m.late, m.id in streams and m[-4:])
            for m in chat.messages
        ]
    )


_DEAD = {"timeout": "cancelled"}


def _ledger_key(ledger: Ledger, phase: Phase) -> tuple[object, ...]:
    counts: tuple[object, ...] = ()
    if phase in (Phase.CHAT_CREATED, Phase.PROMPT_LOST, Phase.ANSWERED):
        counts = ledger.prompts, ledger.unlooked
    elif phase in (Phase.PROMPTED, Phase.REQUEST_LOST):
        counts = ledger.requests, ledger.unlooked
    opened = ledger.adopted in ledger.opened
    return counts, ledger.leaving, ledger.last, ledger.adopted, opened, ledger.told, ledger.waited, ledger.silent


def _turn_ids(turn: Turn) -> tuple[object, ...]:
    return turn.prompt_id, turn.message_id, turn.parent_id, turn.left_pending


_AS_THEY_ARE = frozenset({str, int, bool, type(None)})


def _essence(value: object) -> object:
    if type(value) in _AS_THEY_ARE:
        return value
    match value:
        case Enum():
            return value.name
        case SSEDecoder():
            return value.keepalives
        case Credentials():
            return bool(value)
        case _:
            return type(value).__name__
