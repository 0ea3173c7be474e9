r"""Playbooks: a conversation, step by step. After ``>>`` comes what happens to it, and after ``<<`` what it does then.

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

After ``>>``, write any of the engine's inputs. ``Reply``, ``Lost``, ``Unsent`` and ``Data`` are short forms for the
long ones, and ``Wait`` lets time pass.

After ``<<``, write what you expect: an event, its class, or the class of an intent. Expect every event, in the right
order. The playbook calls ``next_intent`` only if you expect an intent. To check an intent's details, use ``Sends``.

A playbook has its own clock. It begins at 0.0, and only ``Wait`` and ``Pause`` move it. So if you expect an intent
without a pause before it, it must be due at once.

If a step is wrong, the error shows all steps so far. After them, it shows what was expected (``-``) and what was found
(``+``), as in a diff, or why the step isn't possible (``!``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import FunctionType, UnionType
from typing import NoReturn

from oa_protocol.bindings.base import Headers
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import AnswerFailed, MaybeSent, NotSent, OAError
from oa_protocol.engine.events import Event, Failed, Leaked
from oa_protocol.engine.inputs import ExchangeFailed, Input, ReplyReceived, StreamData, TimePassed
from oa_protocol.engine.intents import CloseStream, Exchange, Intent, LoadCredentials
from oa_protocol.engine.phases import Phase
from oa_protocol.tape._page import Diagram, Row, render
from oa_protocol.testing._pages import ends_of, note

__tracebackhide__ = True  # pytest leaves the frames of this module out of its tracebacks.

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
    """Return the input for a whole reply to an exchange.

    Args:
        status: the HTTP status.
        body: the body, as JSON, text or bytes.
        headers: the header fields.

    """
    return ReplyReceived(status, headers, _encode(body))


def Lost() -> ExchangeFailed:  # noqa: N802
    """Return the input for a connection that failed after the request may have been sent."""
    return ExchangeFailed(MaybeSent("connection reset"))


def Unsent() -> ExchangeFailed:  # noqa: N802
    """Return the input for a connection that failed before the request was sent."""
    return ExchangeFailed(NotSent("connection refused"))


def Data(*payloads: Json) -> StreamData:  # noqa: N802
    """Return the input for bytes of the stream: these events, in the form in which servers send them."""
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
    """Time passes, and ``TimePassed`` is handed in at the end.

    There is no input in between, so ``Wait(30)`` skips the deadlines before that.

    Attributes:
        seconds: how many seconds pass, or None to wait until the conversation's deadline.

    """

    seconds: float | None = None

    def __repr__(self) -> str:
        return f"Wait({_number(self.seconds)})"


# ---- what a playbook may expect

IntentKind = type[Exchange] | type[LoadCredentials] | type[CloseStream]


@dataclass(frozen=True)
class Pause:
    """Expect that the next intent is due after a pause. The playbook's clock moves to the end of the pause.

    Don't write ``<< None`` for a pause. That fails, because the conversation still has something to do.

    Attributes:
        seconds: how long the pause is, compared to the millisecond, or None if it may be of any length.

    """

    seconds: float | None = None

    def __repr__(self) -> str:
        return f"Pause({_number(self.seconds)})"

    def fits(self, found: object) -> bool:
        """Return whether ``found`` is a pause of this length."""
        return isinstance(found, Pause) and (self.seconds is None or _number(found.seconds) == _number(self.seconds))


@dataclass(frozen=True)
class Deadline:
    """Expect that the conversation's deadline is this far away.

    Attributes:
        seconds: how many seconds from now, compared to the millisecond, or None if there must be no deadline.

    """

    seconds: float | None

    def __repr__(self) -> str:
        return f"Deadline({_number(self.seconds) or None})"

    def fits(self, found: object) -> bool:
        """Return whether ``found`` is this deadline."""
        return isinstance(found, Deadline) and _number(found.seconds) == _number(self.seconds)


@dataclass(frozen=True)
class Sends:
    """Expect an exchange with these details. A detail that is None isn't checked.

    Attributes:
        kind: the class of the exchange, for example ``CreateChat``.
        shielded: whether the exchange is shielded.
        method: the request's HTTP method.
        path: the request's path and query.
        body: the request's body, as JSON.

    Raises:
        TypeError: ``kind`` isn't a class of exchanges.

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
            # The fields are sorted so that a difference between two bodies is at the same place in both.
            "body": dict(sorted(self.body.items())) if isinstance(self.body, Mapping) else self.body,
        }
        shown = [f"{name}={value!r}" for name, value in details.items() if value is not None]
        return f"Sends({', '.join([self.kind.__name__, *shown])})"

    def found(self, intent: Exchange) -> Sends:
        """Return the details of ``intent`` that are expected here."""
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
    """Expect a ``Failed`` event.

    Args:
        error: the class of the event's error.
        words: parts of the error's message. All of them must be in it.
        text: the ``text`` of an ``AnswerFailed``, or None if it isn't checked.

    """

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
        """Return the details of ``event``, with its text if a text is expected here."""
        text = event.error.text if self.text is not None and isinstance(event.error, AnswerFailed) else None
        return Fails(type(event.error), str(event.error), text=text)


@dataclass(frozen=True)
class Leaks:
    """Expect a ``Leaked`` event that names these chats. None is a chat whose id is unknown."""

    chat_ids: tuple[str | None, ...]

    def __init__(self, *chat_ids: str | None) -> None:
        object.__setattr__(self, "chat_ids", chat_ids)

    def fits(self, event: object) -> bool:
        """Return whether ``event`` names these chats and no others."""
        return isinstance(event, Leaked) and tuple(record.chat_id for record in event.leaked) == self.chat_ids


Expected = IntentKind | type[Event] | Sends | Pause | Deadline | Fails | Leaks | Phase | Event | None
"""What may follow ``<<``.

An intent's class means that this intent is next, and an event or its class that this event is next. A ``Phase`` means
that the conversation is in it, and None that there is nothing to do until something happens.
"""


# ---- the play


@dataclass(frozen=True, slots=True)
class _Step:
    """A step that was right, with the time before it, and the phase when it was written down."""

    sign: str
    value: object
    now: float
    phase: Phase

    def __str__(self) -> str:
        return f"{self.sign} {_cut(_words(self.value))}"


class Play:
    """A conversation with the steps so far.

    ``>>`` and ``<<`` raise ``AssertionError`` if the step is wrong, or if an event of the step before wasn't expected.
    To check that there is no such event after the last step, use the playbook as a truth value: ``assert play(…) …``.
    Both raise ``TypeError`` for a value that can't be a step.

    Attributes:
        conversation: the conversation that is played.
        now: the time, in seconds since the playbook began.
        intent: the last intent that the conversation returned.

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
        self._steps: list[_Step] = []

    def __rshift__(self, happens: Input | Wait) -> Play:
        _check_happens(happens)
        self._check_no_event_is_left()
        self._add(">>", happens)
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
        """Ignore the events of the last step that weren't expected, and return the playbook."""
        self._events = []
        return self

    def _handle(self, happens: Input) -> None:
        try:
            self._events = self.conversation.handle(happens, self.now)
        except Exception as error:
            self._impossible(f"{type(error).__name__}: {error}", error)

    def _ask(self) -> Intent | Pause | None:
        """Return the next intent, a pause if the intent isn't due yet, or None."""
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
            self._impossible("the conversation has no deadline, so Wait() needs a number of seconds")
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
        self._add("<<", expected)

    def _add(self, sign: str, value: object) -> None:
        self._steps.append(_Step(sign, value, self.now, self.conversation.phase))

    def _differs(self, lines: list[str]) -> NoReturn:
        self._fail("- expected, + found", lines)

    def _impossible(self, reason: str, cause: Exception | None = None) -> NoReturn:
        self._fail("! not possible", [f"! {reason}"], cause)

    def _fail(self, signs: str, lines: list[str], cause: Exception | None = None) -> NoReturn:
        title = f"the conversation leaves the playbook ({signs}):"
        note(lines[0], partial(self._to_html, "\n".join([title, *lines])))
        steps = [f"  {step}" for step in self._steps]
        raise AssertionError("\n".join([title, *steps, *lines])) from cause

    def _to_html(self, problem: str) -> str:
        rows: list[Row] = []
        way = [Phase.START]
        for number, step in enumerate(self._steps, 1):
            moved = step.phase is not way[-1]
            way += [step.phase] if moved else []
            phase = step.phase.name if moved else None
            is_fault = isinstance(step.value, ExchangeFailed)
            rows.append(Row(number, *ends_of(step.value), str(step), phase=phase, now=step.now, is_fault=is_fault))
        return render("A playbook", [Diagram("The conversation leaves the playbook", rows, way, problem)])


def play(conversation: Conversation) -> Play:
    """Return a new playbook for ``conversation``.

    >>> assert play(Conversation(Website("http://oa.test"))) >> Close() << NeverCreated()
    """
    return Play(conversation)


# ---- the kinds of steps

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
    """Return what was found, in the form of what was expected, so that their texts can be compared."""
    match expected, found:
        case Sends(), Exchange():
            return expected.found(found)
        case Fails(), Failed():
            return expected.found(found)
        case _:
            return found


def _check_happens(value: object) -> None:
    """Raise ``TypeError`` for a value that can't follow ``>>``."""
    if _is_output(value) and value is not None:
        raise TypeError(f"{_cut(_words(value))} is what you expect from a conversation: write it after <<")
    if _is_class(value, Input | Wait) or value in _BUILDERS:
        raise TypeError(f">> takes an instance: {_words(value)}(…)")
    if not isinstance(value, Input | Wait):
        raise TypeError(
            f">> takes what happens to a conversation, such as Prompt('Hello') or Reply(200), not {_cut(_words(value))}"
        )


def _check_expected(value: object) -> None:
    """Raise ``TypeError`` for a value that can't follow ``<<``."""
    if _is_output(value):
        return
    if isinstance(value, Input | Wait) or _is_class(value, Input | Wait) or value in _BUILDERS:
        raise TypeError(f"{_cut(_words(value))} is what happens to a conversation: write it after >>")
    if isinstance(value, Intent):
        raise TypeError(f"expect an intent by its class (<< {type(value).__name__}), or an exchange's details by Sends")
    raise TypeError(
        "<< takes what you expect from a conversation, such as CreateChat, Created(chat_id), Phase.START or None, "
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
    """Return a step's text on one line, shortened to its beginning and what is around ``place``."""
    if len(text) <= _LINE:
        return text
    if place + _AROUND <= _LINE:
        return f"{text[:_LINE]}…"
    begin, end = place - _AROUND, place + _AROUND
    return f"{text[: _LINE - 2 * _AROUND]}…{text[begin:end]}{'…' if end < len(text) else ''}"
