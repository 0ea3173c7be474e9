"""Everything that can happen to a conversation: a breadth-first walk over all its states.

A state is what the engine keeps, but for what only counts on without end (polls, tokens, dates and the wording of
errors), and the phases and intents that exist are whatever the walk meets.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from io import StringIO
from typing import Any, cast

from oa_protocol.engine.turn import Turn

from oa_protocol.bindings.base import Credentials
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import LocalProtocolError
from oa_protocol.engine.events import Event
from oa_protocol.engine.intents import CreateChat, Intent, SendPrompt
from oa_protocol.engine.phases import Phase
from oa_protocol.testing.playbook import (
    Abandon,
    Bytes,
    Close,
    Cookies,
    Data,
    Ended,
    Happening,
    Json,
    Lost,
    Opened,
    Prompt,
    Reply,
    Silence,
    TimedOut,
    Unsent,
)

from .stories import (
    ANSWER,
    CHAT,
    COMMENT,
    COOKIES,
    GARBAGE,
    NEWER_COOKIES,
    Story,
    assistant,
    chat,
    chats,
    complete,
    final,
    pending,
    prompter,
    token,
    worker_error,
)


@dataclass(frozen=True)
class NextIntent:
    """The driver asks what to do."""

    def happen(self, conversation: Conversation) -> list[Event]:
        conversation.next_intent()
        return []


@dataclass(frozen=True)
class SameCookies:
    """The credentials found are those in use, if there are any."""

    def happen(self, conversation: Conversation) -> list[Event]:
        return conversation.receive_cookies(credentials_of(conversation))


@dataclass(frozen=True)
class OtherCookies:
    """The credentials found are not those in use."""

    def happen(self, conversation: Conversation) -> list[Event]:
        other = COOKIES if credentials_of(conversation) == NEWER_COOKIES else NEWER_COOKIES
        return conversation.receive_cookies(other)


def credentials_of(conversation: Conversation) -> Credentials:
    """The credentials in use."""
    credentials: Credentials = contents(conversation)["_credentials"]
    return credentials


@dataclass(frozen=True)
class Answers:
    """A reply that fits what was asked: made of ``body`` with the ids that this conversation has."""

    name: str
    body: Callable[[Conversation], Json]

    def happen(self, conversation: Conversation) -> list[Event]:
        return Reply(200, self.body(conversation), DATED).happen(conversation)


DATED = {"date": "Sun, 22 Nov 2026 08:18:16 GMT"}


def _made(conversation: Conversation) -> Json:
    match conversation.outstanding:
        case CreateChat():
            return {"id": CHAT}
        case SendPrompt():
            return prompter()
        case _:
            return assistant()


def _first_prompt_or_next(_conversation: Conversation) -> Json:
    return chat(prompter(), prompter(parent_id=ANSWER))


def _list_with_us(conversation: Conversation) -> Json:
    return chats(conversation.chat_id or CHAT)


def alphabet(story: Story) -> list[Happening]:
    """One happening of each kind that makes a difference."""
    replies: list[Happening] = [
        Answers("what was to be made", _made),
        Reply(200, complete()),
        Reply(200, assistant(state="in_progress")),
        Reply(200, assistant(state="cancelled")),
        Reply(200, {"id": "../account/"}),
        Reply(200, story.words("odd, but told")),
        Reply(200, GARBAGE),
        Reply(200),
        Reply(204),
        Reply(302, headers={"location": "http://elsewhere.test"}),
        Reply(400, story.words("Trying to add first message to non-empty chat")),
        Reply(401, story.words("Invalid token")),
        story.not_found,
        Reply(404, GARBAGE),
        Reply(413, story.words("Message content exceeds max length")),
        Reply(422, story.words([{"loc": ["body"], "msg": "field required", "type": "value_error.missing"}])),
        Reply(429, headers={"retry-after": "61"}),
        Reply(500, headers=DATED),
        Reply(503, story.words("The server is currently busy. Please try again later.")),
        Reply(200, chat()),
        Answers("our prompt", _first_prompt_or_next),
        Reply(200, chat(prompter(), assistant())),
        Reply(200, chat(prompter(), assistant(state="aborted_by_worker"))),
        Reply(200, chats()),
        Answers("a list with our chat", _list_with_us),
    ]
    stream: list[Happening] = [
        Opened(),
        Data(token("Hi")),
        Data(*[pending()] * 10),
        Bytes(COMMENT * 3),
        Data(final(complete("Hi there"))),
        Data(final(assistant(state="timeout"))),
        Data(final(assistant())),
        Data(worker_error("Aborted due to worker error.")),
        Bytes(b"data: no JSON\n\n"),
        Silence(),
        Ended(),
    ]
    owner: list[Happening] = [Prompt(), Close(), Close(drain=False), Abandon(), TimedOut()]
    credentials: list[Happening] = [Cookies(None), SameCookies(), OtherCookies()]
    return [NextIntent(), *replies, Unsent(), Lost(), *stream, *owner, *credentials]


def contents(conversation: Conversation) -> dict[str, Any]:
    """Everything the conversation keeps, as plain comparable values."""
    return {name: _plain(getattr(conversation, name)) for name in Conversation.__slots__}


def _plain(value: object) -> Any:
    slots: Any = getattr(type(value), "__slots__", None)
    match value:
        case BaseException():
            return (type(value), str(value), sorted(vars(value).items()))
        case Enum() | str() | bytes() | int() | float() | None:
            return value
        case StringIO():
            return value.getvalue()
        case tuple() | list():
            return [_plain(item) for item in cast("list[object]", value)]
        case _ if slots and value.__class__.__eq__ is object.__eq__:
            return {name: _plain(getattr(value, name)) for name in slots}
        case _:
            return value


def essence(conversation: Conversation) -> str:
    """What makes two conversations the same state: the contents, without what only counts on or is but wording.

    An id is there or is not; which one it is makes no difference, for the happenings answer with this conversation's.
    """
    kept = {name: _essence(getattr(conversation, name)) for name in Conversation.__slots__ if name not in _BY_THE_WAY}
    outstanding = kept["_outstanding"]
    if conversation.is_over:
        return repr([conversation.phase, outstanding, kept["_refused"], kept["_decoder"]])
    if conversation.phase in (Phase.POLLING, Phase.DRAINING):
        kept["_tries"] = 0
    if conversation.phase in (Phase.DELETING, Phase.DELETE_UNCLEAR):
        for name in _OF_A_TURN:
            kept[name] = None
    if conversation.phase is not Phase.STREAMING:
        kept["_check_due"] = None
    return repr(kept)


_BY_THE_WAY = frozenset({"binding", "options", "error", "_date", "_delay", "_retries", "_attempts"})
_OF_A_TURN = frozenset({"_turn", "_parent_id", "_running", "_reads", "_closing"})


def _essence(value: object) -> Any:
    match value:
        case Turn():
            had_prompt, had_answer = bool(value.prompt_id), bool(value.message_id)
            return had_prompt, had_answer, bool(value.parent_id), value.left_pending > 0, value.pendings % 10
        case Enum() | int() | None:
            return value
        case str() | tuple() | Credentials():
            return bool(value)  # pyright: ignore[reportUnknownArgumentType]
        case _:
            return type(value).__name__


@dataclass
class State:
    """A state of the walk: how to make it again, and the steps that led there."""

    frozen: bytes
    phase: Phase
    outstanding: str
    start: bytes = field(repr=False)
    path: tuple[Happening, ...] = field(repr=False)

    def thaw(self) -> Conversation:
        """Another conversation in this state."""
        conversation: Conversation = pickle.loads(self.frozen)
        return conversation


@dataclass
class Step:
    """One happening in one state, and what came of it.

    ``refusal`` where the engine refused the call, and ``changed`` where it changed something nevertheless.
    """

    before: State
    happening: Happening
    after: Conversation
    told: list[Event]
    refusal: LocalProtocolError | None = None
    changed: bool = False


def outstanding_name(intent: Intent | None) -> str:
    """The kind of the outstanding intent, or a dash."""
    return "-" if intent is None else type(intent).__name__


def explore(starts: list[Conversation], happenings: list[Happening]) -> Iterator[Step]:
    """Take every happening in every state that can be reached, each state once."""
    todo = deque(_state(start, pickle.dumps(start), ()) for start in starts)
    seen = {essence(start) for start in starts}
    while todo:
        before = todo.popleft()
        current = before.thaw()
        held = _held(current)
        for happening in happenings:
            try:
                told = happening.happen(current)
            except LocalProtocolError as refusal:
                changed = any(old is not new for old, new in zip(held, _held(current), strict=True))
                yield Step(before, happening, current, [], refusal, changed)
                continue
            yield Step(before, happening, current, told)
            key = essence(current)
            if key not in seen:
                seen.add(key)
                todo.append(_state(current, before.start, (*before.path, happening)))
            current = before.thaw()
            held = _held(current)


def _held(conversation: Conversation) -> list[object]:
    """Every value that the conversation and its parts hold: a call that changes nothing leaves the very same ones."""
    held: list[object] = []
    parts: list[object] = [conversation, *(getattr(conversation, name) for name in ("_turn", "_decoder"))]
    for part in parts:
        for name in cast("tuple[str, ...]", getattr(type(part), "__slots__", ())):
            value: object = getattr(part, name)
            held += [value, *cast("list[object]", value)] if isinstance(value, list) else [value]
    return held


def _state(conversation: Conversation, start: bytes, path: tuple[Happening, ...]) -> State:
    outstanding = outstanding_name(conversation.outstanding)
    return State(pickle.dumps(conversation), conversation.phase, outstanding, start, path)
