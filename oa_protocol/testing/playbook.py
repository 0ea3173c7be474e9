r"""Playbooks: a conversation, step by step. ``>>`` is what happens to it, ``<<`` what it emits or asks for then.

>>> CHAT, PROMPT, ANSWER = (f"06b02a54-89e8-7932-8000-00000000000{number}" for number in range(3))
>>> conversation = Conversation(Website("http://oa.test"), Credentials({"session": "secret"}))
>>> assert (
...     play(conversation)
...     >> Prompt("Hello") << CreateChat
...     >> Unsent() << Pause(0.5) << Sends(CreateChat, method="POST", path="/api/chat", body={})
...     >> Reply(200, {"id": CHAT}) << Created(CHAT) << SendPrompt
...     >> Reply(200, {"id": PROMPT}) << Prompted(PROMPT) << RequestAssistant
...     >> Lost() << Phase.REQUEST_LOST << Pause(0.5) << FetchChat
...     >> Reply(200, {"id": CHAT, "messages": []}) << Pause() << RequestAssistant
...     >> Reply(200, {"id": ANSWER}) << Requested(ANSWER) << OpenStream
...     >> StreamOpened() << Phase.STREAMING << None
...     >> Data({"event_type": "token", "text": "Hi"}) << Token("Hi")
...     >> StreamData(b": ping\r\n\r\n") << None << Deadline(45)
...     >> Wait() << CloseStream
...     >> StreamEnded() << Phase.POLLING << FetchMessage
...     >> Reply(404) << Fails(HTTPStatusError, "404")
...     >> Close() << Phase.DRAINING << FetchMessage
...     >> Wait(4) << Phase.DRAINING
...     >> Wait(1) << Phase.DELETING << DeleteChat
...     >> Abandon() << Leaks(CHAT)
... )

What happens is one of the engine's inputs, as it is. ``Reply``, ``Lost``, ``Unsent`` and ``Data`` spell the long ones,
and ``Wait`` lets time pass. Each event must be expected, in its order, as it is or by its class. An intent is asked for
only if the playbook expects one, by its class or, in detail, by ``Sends``.

The clock is the playbook's own: it begins at 0.0, and nothing but ``Wait`` and ``Pause`` moves it. So an intent that is
expected without a pause before it is due at once.

A wrong step fails with the steps so far. After them come what was expected (``-``) and what was found (``+``), as in a
diff, or why a step is not possible (``!``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType, UnionType
from typing import NoReturn

from oa_protocol.bindings.base import Headers
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import AnswerFailed, MaybeSent, NotSent, OAError
from oa_protocol.engine.events import Event, Failed, Leaked
from oa_protocol.engine.inputs import ExchangeFailed, Input, ReplyReceived, StreamData, TimePassed
from oa_protocol.engine.intents import CloseStream, Exchange, Intent, LoadCredentials
from oa_protocol.engine.phases import Phase

__tracebackhide__ = True  # pytest shows a user's frames, and none of these

__all__ = [
    "Data",
    "Deadline",
    "Fails",
    "Leaks",
    "Lost",
    "Pause",
    "Play",
    "Reply",
    "Sends",
    "Unsent",
    "Wait",
    "play",
]

Json = Mapping[str, object] | list[object]


# ---- what happens to a conversation


def Reply(status: int, body: Json | str | bytes = b"", headers: Headers = ()) -> ReplyReceived:  # noqa: N802 - reads as an input
    """Return the whole reply to an exchange. Its body may be spelled as JSON, as text or as bytes."""
    return ReplyReceived(status, headers, _encode(body))


def Lost() -> ExchangeFailed:  # noqa: N802
    """Return the failure of a connection after the request may have left."""
    return ExchangeFailed(MaybeSent("connection reset"))


def Unsent() -> ExchangeFailed:  # noqa: N802
    """Return the failure of a connection before the request left."""
    return ExchangeFailed(NotSent("connection refused"))


def Data(*payloads: Json) -> StreamData:  # noqa: N802
    """Return events of the stream, each spelled as servers do."""
    return StreamData(b"".join(b"data: %s\r\n\r\n" % _encode(payload) for payload in payloads))


_BUILDERS = (Reply, Lost, Unsent, Data)


def _encode(body: Json | str | bytes) -> bytes:
    match body:
        case bytes():
            return body
        case str():
            return body.encode()
        case _:
            return json.dumps(body).encode()


@dataclass(frozen=True)
class Wait:
    """So many seconds pass. Without a number: until the conversation's deadline.

    ``TimePassed`` is handed in at the end, so ``Wait(30)`` jumps over the deadlines before that.
    """

    seconds: float | None = None

    def __repr__(self) -> str:
        return f"Wait({_number(self.seconds)})"


# ---- what a playbook may expect

IntentKind = type[Exchange] | type[LoadCredentials] | type[CloseStream]


@dataclass(frozen=True)
class Pause:
    """Nothing is due for so many seconds, and then something is. The playbook's clock goes on to the pause's end.

    None may be any number. It does what ``<< None << Deadline(seconds) >> Wait()`` would do, but ``<< None`` fails if a
    pause runs, because something is still to come. Seconds are compared to the millisecond.
    """

    seconds: float | None = None

    def __repr__(self) -> str:
        return f"Pause({_number(self.seconds)})"

    def fits(self, found: object) -> bool:
        """Return whether ``found`` is a pause of this length."""
        return isinstance(found, Pause) and (self.seconds is None or _number(found.seconds) == _number(self.seconds))


@dataclass(frozen=True)
class Deadline:
    """``TimePassed`` is to be handed in after so many seconds at the latest; None says that there is no deadline.

    Seconds are compared to the millisecond.
    """

    seconds: float | None

    def __repr__(self) -> str:
        return f"Deadline({_number(self.seconds) or None})"

    def fits(self, found: object) -> bool:
        """Return whether ``found`` is this deadline."""
        return isinstance(found, Deadline) and _number(found.seconds) == _number(self.seconds)


@dataclass(frozen=True)
class Sends:
    """An exchange with these details; what is None may be anything.

    ``path`` is the request's target (with its query), ``body`` its JSON.

    Raises:
        TypeError: ``kind`` is no class of exchanges.

    """

    kind: type[Exchange]
    shielded: bool | None = None
    method: str | None = None
    path: str | None = None
    body: Json | None = None

    def __post_init__(self) -> None:
        if not _is_class(self.kind, Exchange):
            raise TypeError(f"Sends takes a class of exchanges, such as CreateChat, not {_words(self.kind)}")

    def __repr__(self) -> str:
        details = {
            "shielded": self.shielded,
            "method": self.method,
            "path": self.path,
            # Sorted, so that two bodies part where they differ.
            "body": dict(sorted(self.body.items())) if isinstance(self.body, Mapping) else self.body,
        }
        shown = [f"{name}={value!r}" for name, value in details.items() if value is not None]
        return f"Sends({', '.join([self.kind.__name__, *shown])})"

    def found(self, intent: Exchange) -> Sends:
        """Return what ``intent`` is, in the details that are expected here."""
        request = intent.request
        return Sends(
            type(intent),
            shielded=None if self.shielded is None else intent.shielded,
            method=None if self.method is None else request.method,
            path=None if self.path is None else request.target,
            body=None if self.body is None or not request.body else json.loads(request.body),
        )


@dataclass(frozen=True)
class Fails:
    """A Failed event whose error is of this class and says all these words; ``text`` is that of an AnswerFailed."""

    error: type[OAError]
    words: tuple[str, ...] = ()
    text: str | None = None

    def __init__(self, error: type[OAError], *words: str, text: str | None = None) -> None:
        object.__setattr__(self, "error", error)
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "text", text)

    def __repr__(self) -> str:
        shown = [self.error.__name__, *map(repr, self.words)]
        return f"Fails({', '.join(shown if self.text is None else [*shown, f'text={self.text!r}'])})"

    def fits(self, event: object) -> bool:
        """Return whether ``event`` is such a failure."""
        if not isinstance(event, Failed) or type(event.error) is not self.error:
            return False
        return all(word in str(event.error) for word in self.words) and self.found(event).text == self.text

    def found(self, event: Failed) -> Fails:
        """Return what ``event`` is, with its text if one is expected here."""
        text = event.error.text if self.text is not None and isinstance(event.error, AnswerFailed) else None
        return Fails(type(event.error), str(event.error), text=text)


@dataclass(frozen=True)
class Leaks:
    """A Leaked event that names these chats; None is one whose id is unknown."""

    chat_ids: tuple[str | None, ...]

    def __init__(self, *chat_ids: str | None) -> None:
        object.__setattr__(self, "chat_ids", chat_ids)

    def fits(self, event: object) -> bool:
        """Return whether ``event`` names these and no others."""
        return isinstance(event, Leaked) and tuple(record.chat_id for record in event.leaked) == self.chat_ids


Expected = IntentKind | type[Event] | Sends | Pause | Deadline | Fails | Leaks | Phase | Event | None
"""An intent's class: the next intent is of it. An event's class: the next event is of it. A Phase: there it stands.
An event: it comes next. None: there is nothing to do until something happens."""


# ---- the play


class Play:
    """A conversation with the steps so far.

    A wrong step raises AssertionError. So does a playbook that ends, or goes on, while an event was not expected; ask
    for its truth (``assert play(…) …``) to have its end checked as well. A value that is no step raises TypeError.

    Attributes:
        conversation: the conversation that is played.
        now: the time, in seconds since the playbook began.
        intent: the last one that the conversation handed out.

    >>> script = Play(Conversation(Website("http://oa.test"))) >> Prompt("Hello") << LoadCredentials
    >>> script.intent
    LoadCredentials(refused=False)
    >>> script << DeleteChat
    Traceback (most recent call last):
    AssertionError: the conversation leaves the playbook (- expected, + found):
      >> Prompt(text='Hello')
      << LoadCredentials
    - << DeleteChat
    + << None

    """

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.now = 0.0
        self.intent: Intent | None = None
        self._events: list[Event] = []
        self._steps: list[str] = []

    def __rshift__(self, happens: Input | Wait) -> Play:
        _check_happens(happens)
        self._check_no_event_is_left()
        self._steps.append(f">> {_cut(_words(happens))}")
        if isinstance(happens, Wait):
            self.now = self._after(happens)
        self._handle(TimePassed() if isinstance(happens, Wait) else happens)
        return self

    def __lshift__(self, expected: Expected) -> Play:
        _check_expected(expected)
        match expected:
            case Phase():
                self._check(expected, self.conversation.phase)
            case Deadline():
                self._check(expected, Deadline(self._seconds_left()))
            case _ if _is_about_intents(expected):
                self._check_no_event_is_left()
                self._check(expected, self._ask())
            case _ if self._events:
                self._check(expected, self._events.pop(0))
            case _:
                self._differs([f"- << {_cut(_words(expected))}"])
        if isinstance(expected, Pause):
            self.now = self._after(Wait())
            self._handle(TimePassed())
        return self

    def __bool__(self) -> bool:
        self._check_no_event_is_left()
        return True

    def drop_events(self) -> Play:
        """Go on without the events of the last step."""
        self._events = []
        return self

    def _handle(self, happens: Input) -> None:
        try:
            self._events = self.conversation.handle(happens, self.now)
        except Exception as error:
            self._impossible(f"{type(error).__name__}: {error}", error)

    def _ask(self) -> Intent | Pause | None:
        """Return what the conversation asks for now, which may be to wait."""
        conversation = self.conversation
        intent = conversation.next_intent(self.now)
        if intent is not None:
            self.intent = intent
            return intent
        waits_for_the_driver = conversation.outstanding is not None or conversation.has_stream
        left = self._seconds_left()
        return None if waits_for_the_driver or left is None else Pause(left)

    def _after(self, wait: Wait) -> float:
        if wait.seconds is not None:
            return self.now + wait.seconds
        deadline = self.conversation.deadline
        if deadline is None:
            self._impossible("the conversation has no deadline to wait for")
        return max(self.now, deadline)

    def _seconds_left(self) -> float | None:
        deadline = self.conversation.deadline
        return None if deadline is None else deadline - self.now

    def _check_no_event_is_left(self) -> None:
        if self._events:
            self._differs([f"+ << {_cut(_words(event))}" for event in self._events])

    def _check(self, expected: Expected, found: Found) -> None:
        words = _words(expected)
        if not _fits(expected, found):
            others = _words(_in_terms_of(expected, found))
            alike = next((place for place, (a, b) in enumerate(zip(words, others, strict=False)) if a != b), 0)
            self._differs([f"- << {_cut(words, alike)}", f"+ << {_cut(others, alike)}"])
        self._steps.append(f"<< {_cut(words)}")

    def _differs(self, lines: list[str]) -> NoReturn:
        self._fail("- expected, + found", lines)

    def _impossible(self, reason: str, cause: Exception | None = None) -> NoReturn:
        self._fail("! what is not possible", [f"! {reason}"], cause)

    def _fail(self, signs: str, lines: list[str], cause: Exception | None = None) -> NoReturn:
        steps = [f"  {step}" for step in self._steps]
        raise AssertionError("\n".join([f"the conversation leaves the playbook ({signs}):", *steps, *lines])) from cause


def play(conversation: Conversation) -> Play:
    """Begin a playbook.

    >>> assert play(Conversation(Website("http://oa.test"))) >> Close() << NeverCreated()
    """
    return Play(conversation)


# ---- what is what

Found = Phase | Deadline | Pause | Intent | Event | None


def _fits(expected: Expected, found: Found) -> bool:
    match expected, found:
        case Sends(), Exchange():
            return expected.found(found) == expected
        case ((Pause() | Deadline() | Fails() | Leaks()), _):
            return expected.fits(found)
        case type(), _:
            return type(found) is expected
        case _:
            return type(expected) is type(found) and expected == found


def _in_terms_of(expected: Expected, found: Found) -> object:
    """Return what was found, in words that can be compared with what was expected."""
    match expected, found:
        case Sends(), Exchange():
            return expected.found(found)
        case Fails(), Failed():
            return expected.found(found)
        case _:
            return found


def _check_happens(value: object) -> None:
    """Refuse what doesn't happen to a conversation."""
    if _is_output(value) and value is not None:
        raise TypeError(f"a conversation emits or asks for {_cut(_words(value))}: it takes <<")
    if _is_class(value, Input | Wait) or value in _BUILDERS:
        raise TypeError(f">> takes an instance: {_words(value)}(…)")
    if not isinstance(value, Input | Wait):
        raise TypeError(
            f">> takes what happens to a conversation, such as Prompt('Hello') or Reply(200), not {_cut(_words(value))}"
        )


def _check_expected(value: object) -> None:
    """Refuse what a conversation neither emits nor asks for."""
    if _is_output(value):
        return
    if isinstance(value, Input | Wait) or _is_class(value, Input | Wait) or value in _BUILDERS:
        raise TypeError(f"{_cut(_words(value))} happens to a conversation: it takes >>")
    if isinstance(value, Intent):
        raise TypeError(
            f"an intent is expected by its class (<< {type(value).__name__}), an exchange's details by Sends"
        )
    raise TypeError(
        "<< takes what a conversation emits or asks for, such as CreateChat, Created(chat_id), Phase.START or None, "
        f"not {_cut(_words(value))}"
    )


def _is_output(value: object) -> bool:
    return (
        isinstance(value, Phase | Deadline | Fails | Leaks | Event)
        or _is_class(value, Event)
        or _is_about_intents(value)
    )


def _is_about_intents(value: object) -> bool:
    return value is None or isinstance(value, Sends | Pause) or _is_class(value, Intent)


def _is_class(value: object, kinds: type | UnionType) -> bool:
    return isinstance(value, type) and issubclass(value, kinds)


def _words(value: object) -> str:
    match value:
        case type() | FunctionType():
            return value.__name__
        case Phase():
            return str(value)
        case _:
            return repr(value)


def _number(seconds: float | None) -> str:
    return "" if seconds is None else f"{round(seconds, 3):.12g}"


_LINE, _AROUND = 300, 100


def _cut(text: str, place: int = 0) -> str:
    """Return a step in one line: its beginning, and what is at ``place``, because bodies can be long."""
    if len(text) <= _LINE:
        return text
    if place + _AROUND <= _LINE:
        return f"{text[:_LINE]}…"
    begin, end = place - _AROUND, place + _AROUND
    return f"{text[: _LINE - 2 * _AROUND]}…{text[begin:end]}{'…' if end < len(text) else ''}"
