r"""Playbooks: a conversation told step by step. ``>>`` is what happens to it, ``<<`` what it then says or asks for.

>>> CHAT, PROMPT, ANSWER = (f"06b02a54-89e8-7932-8000-00000000000{number}" for number in range(3))
>>> conversation = Conversation(Website("http://oa.test"), Credentials({"session": "secret"}))
>>> assert (
...     play(conversation)
...     >> Prompt("Hello") << CreateChat
...     >> Unsent() << Sends(CreateChat, delay=0.5, method="POST", path="/api/chat", body={})
...     >> Reply(200, {"id": CHAT}) << Created(CHAT) << SendPrompt
...     >> Reply(200, {"id": PROMPT}) << Prompted(PROMPT) << RequestAssistant
...     >> Lost() << Phase.REQUEST_LOST << FetchChat
...     >> Reply(200, {"id": CHAT, "messages": []}) << RequestAssistant
...     >> Reply(200, {"id": ANSWER}) << Requested(ANSWER) << OpenStream
...     >> Opened() << Phase.STREAMING << None
...     >> Data({"event_type": "token", "text": "Hi"}) << Token("Hi")
...     >> Bytes(b": ping\r\n\r\n") << None
...     >> Silence() << CloseStream
...     >> Ended() << Phase.POLLING << FetchMessage
...     >> Broken(MaybeSent("the proxy is gone")) << FetchMessage
...     >> TimedOut() << Fails(AnswerFailed, "time allowed", text="Hi")
...     >> Reply(401)
...     >> Close() << FetchMessage
...     >> Reply(401) << LoadCookies
...     >> Cookies(None) << DeleteChat
...     >> Abandon() << Leaks(CHAT)
... )

Every event must be told, in its order, as it is or by its class; an intent is asked for only where the playbook expects
one, by its class or, in detail, by Sends. A wrong step fails with the steps so far, and at their end what was expected
(``-``) and what was found (``+``), as in a diff, or why a step is not possible (``!``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import NoReturn, Protocol

from oa_protocol.bindings.base import Credentials
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import AnswerFailed, MaybeSent, NotSent, OAError, TransportError
from oa_protocol.engine.events import Event, Failed, Leaked
from oa_protocol.engine.intents import CloseStream, Exchange, Intent, LoadCookies
from oa_protocol.engine.phases import Phase

__all__ = [
    "Abandon",
    "Broken",
    "Bytes",
    "Close",
    "Cookies",
    "Data",
    "Ended",
    "Fails",
    "Happening",
    "Leaks",
    "Lost",
    "Opened",
    "Play",
    "Prompt",
    "Reply",
    "Sends",
    "Silence",
    "TimedOut",
    "Unsent",
    "play",
]

Json = Mapping[str, object] | list[object]


def encode(body: Json | str | bytes) -> bytes:
    """Return the bytes of a body, which a playbook may spell as JSON, as text or as they are."""
    match body:
        case bytes():
            return body
        case str():
            return body.encode()
        case _:
            return json.dumps(body).encode()


# ---- what happens to a conversation


class Happening(Protocol):
    """One call of the conversation's interface. Whatever has this method can be told in a playbook.

    >>> class Impatience:  # a Happening of one's own
    ...     def happen(self, conversation):
    ...         return conversation.close() + conversation.close(drain=False)
    >>> assert play(Conversation(Website("http://oa.test"))) >> Impatience() << NeverCreated() << None
    """

    def happen(self, conversation: Conversation) -> list[Event]:
        """Make the call, and return the events that it caused."""
        ...


@dataclass(frozen=True)
class Prompt:
    """The owner asks for an answer to ``text``."""

    text: str = "Hello"

    def happen(self, conversation: Conversation) -> list[Event]:
        """Call ``prompt``."""
        conversation.prompt(self.text)
        return []


@dataclass(frozen=True)
class Close:
    """The owner leaves; without ``drain``, an answer that runs is not waited for."""

    drain: bool = True

    def happen(self, conversation: Conversation) -> list[Event]:
        """Call ``close``."""
        return conversation.close(drain=self.drain)


@dataclass(frozen=True)
class Abandon:
    """The owner gives up: there is no more time."""

    def happen(self, conversation: Conversation) -> list[Event]:
        """Call ``abandon``."""
        return conversation.abandon()


@dataclass(frozen=True)
class TimedOut:
    """The owner's patience with the answer is over."""

    def happen(self, conversation: Conversation) -> list[Event]:
        """Call ``answer_timed_out``."""
        return conversation.answer_timed_out()


@dataclass(frozen=True)
class Reply:
    """The whole reply to an exchange."""

    status: int
    body: Json | str | bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def happen(self, conversation: Conversation) -> list[Event]:
        """Call ``receive_reply``."""
        return conversation.receive_reply(self.status, self.headers.items(), encode(self.body))


@dataclass(frozen=True)
class Lost:
    """The connection failed after the request may have left."""

    def happen(self, conversation: Conversation) -> list[Event]:
        """Call ``receive_failure`` with MaybeSent."""
        return conversation.receive_failure(MaybeSent("connection reset"))


@dataclass(frozen=True)
class Unsent:
    """The connection failed before the request left."""

    def happen(self, conversation: Conversation) -> list[Event]:
        """Call ``receive_failure`` with NotSent."""
        return conversation.receive_failure(NotSent("connection refused"))


@dataclass(frozen=True)
class Broken:
    """A failure of a transport's own making."""

    failure: TransportError

    def happen(self, conversation: Conversation) -> list[Event]:
        """Call ``receive_failure`` with it."""
        return conversation.receive_failure(self.failure)


@dataclass(frozen=True)
class Cookies:
    """The credentials that were looked for, or None where there are none."""

    credentials: Credentials | None

    def happen(self, conversation: Conversation) -> list[Event]:
        """Call ``receive_cookies``."""
        return conversation.receive_cookies(self.credentials)


@dataclass(frozen=True)
class Opened:
    """The stream's head has arrived, with status 200."""

    def happen(self, conversation: Conversation) -> list[Event]:
        """Call ``receive_stream_opened``."""
        return conversation.receive_stream_opened()


@dataclass(frozen=True)
class Bytes:
    """Bytes of the stream, as they are."""

    data: bytes

    def happen(self, conversation: Conversation) -> list[Event]:
        """Call ``receive_stream_data``."""
        return conversation.receive_stream_data(self.data)


class Data(Bytes):
    """Events of the stream, each spelled as servers do."""

    def __init__(self, *payloads: Json) -> None:
        super().__init__(b"".join(b"data: %s\r\n\r\n" % encode(payload) for payload in payloads))


@dataclass(frozen=True)
class Silence:
    """The stream has brought no byte for too long."""

    def happen(self, conversation: Conversation) -> list[Event]:
        """Call ``receive_silence``."""
        return conversation.receive_silence()


@dataclass(frozen=True)
class Ended:
    """The stream has ended, cleanly or not, or was closed as CloseStream asked."""

    def happen(self, conversation: Conversation) -> list[Event]:
        """Call ``receive_stream_end``."""
        return conversation.receive_stream_end()


# ---- what a playbook may expect

IntentKind = type[Exchange] | type[LoadCookies] | type[CloseStream]


@dataclass(frozen=True)
class Sends:
    """An exchange with these details; what is None may be anything.

    ``delay`` is in seconds, ``path`` is the request's target (with its query), ``body`` its JSON. Raises TypeError
    where ``kind`` is no class of exchanges.
    """

    kind: type[Exchange]
    delay: float | None = None
    shielded: bool | None = None
    method: str | None = None
    path: str | None = None
    body: Json | None = None

    def __post_init__(self) -> None:
        if not _is_class(self.kind, Exchange):
            raise TypeError(f"Sends takes a class of exchanges, such as CreateChat, not {_words(self.kind)}")

    def __repr__(self) -> str:
        details = {
            "delay": self.delay,
            "shielded": self.shielded,
            "method": self.method,
            "path": self.path,
            # In an order of its own, so that two bodies part where they differ.
            "body": dict(sorted(self.body.items())) if isinstance(self.body, Mapping) else self.body,
        }
        shown = [f"{name}={value!r}" for name, value in details.items() if value is not None]
        return f"Sends({', '.join([self.kind.__name__, *shown])})"

    def fits(self, intent: Intent | None) -> bool:
        """Tell whether ``intent`` is such an exchange."""
        return isinstance(intent, Exchange) and self.found(intent) == self

    def found(self, intent: Exchange) -> Sends:
        """Return what ``intent`` is, in the details that are expected here."""
        request = intent.request
        return Sends(
            type(intent),
            delay=None if self.delay is None else intent.delay,
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

    def fits(self, event: Event) -> bool:
        """Tell whether ``event`` is such a failure."""
        if not isinstance(event, Failed) or type(event.error) is not self.error:
            return False
        return all(word in str(event.error) for word in self.words) and self.found(event).text == self.text

    def found(self, event: Failed) -> Fails:
        """Return what ``event`` is, with its text where one is expected here."""
        text = event.error.text if self.text is not None and isinstance(event.error, AnswerFailed) else None
        return Fails(type(event.error), str(event.error), text=text)


@dataclass(frozen=True)
class Leaks:
    """A Leaked event that names these chats; None is one whose id is unknown."""

    chat_ids: tuple[str | None, ...]

    def __init__(self, *chat_ids: str | None) -> None:
        object.__setattr__(self, "chat_ids", chat_ids)

    def fits(self, event: Event) -> bool:
        """Tell whether ``event`` names just these."""
        return isinstance(event, Leaked) and tuple(record.chat_id for record in event.records) == self.chat_ids


Expected = IntentKind | type[Event] | Sends | Fails | Leaks | Phase | Event | None
"""An intent's type: the next intent is of it. An event's type: the next one told is of it. A Phase: there it stands.
An event: that is told next. None: nothing is to do."""


def _is_class(value: object, kinds: type | UnionType) -> bool:
    return isinstance(value, type) and issubclass(value, kinds)


def _is_about_intents(value: object) -> bool:
    return value is None or isinstance(value, Sends) or _is_class(value, Intent)


def _is_about_events(value: object) -> bool:
    return isinstance(value, Fails | Leaks | Event) or _is_class(value, Event)


def _words(value: object) -> str:
    match value:
        case type():
            return value.__name__
        case Phase():
            return str(value)
        case _:
            return repr(value)


def _cut(text: str, place: int = 0) -> str:
    """A step in one line, for bodies can be long: where it begins, and what is at ``place``."""
    if len(text) <= _LINE:
        return text
    if place + _AROUND <= _LINE:
        return f"{text[:_LINE]}…"
    begin, end = place - _AROUND, place + _AROUND
    return f"{text[: _LINE - 2 * _AROUND]}…{text[begin:end]}{'…' if end < len(text) else ''}"


_LINE, _AROUND = 300, 100


class Play:
    """A conversation with the steps so far. ``intent`` is the last one it handed out.

    A wrong step raises AssertionError. So does a playbook that ends, or goes on, while an event was not expected; ask
    for its truth (``assert play(…) …``) to have its end checked as well. What is no step at all raises TypeError.

    >>> told = Play(Conversation(Website("http://oa.test"))) << LoadCookies
    >>> told.intent
    LoadCookies(refused=False)
    >>> told << DeleteChat
    Traceback (most recent call last):
    AssertionError: the conversation leaves the playbook (- expected, + found):
      << LoadCookies
    - << DeleteChat
    + << None
    """

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.intent: Intent | None = None
        self._untold: list[Event] = []
        self._steps: list[str] = []

    def __rshift__(self, happening: Happening) -> Play:
        _check_happening(happening)
        self._all_told()
        self._steps.append(f">> {_cut(_words(happening))}")
        try:
            self._untold = happening.happen(self.conversation)
        except Exception as error:
            self._fail("! what is not possible", [f"! {type(error).__name__}: {error}"], error)
        return self

    def __lshift__(self, expected: Expected) -> Play:
        _check_expected(expected)
        if isinstance(expected, Phase):
            self._check(self.conversation.phase is expected, expected, self.conversation.phase)
        elif _is_about_intents(expected):
            self._all_told()
            self.intent = self.conversation.next_intent()
            self._check(_is_intent(expected, self.intent), expected, self.intent)
        elif self._untold:
            told = self._untold.pop(0)
            self._check(_is_event(expected, told), expected, told)
        else:
            self._differs([f"- << {_cut(_words(expected))}"])
        return self

    def __bool__(self) -> bool:
        self._all_told()
        return True

    def drop_events(self) -> Play:
        """Go on without telling what the last step said."""
        self._untold = []
        return self

    def _all_told(self) -> None:
        if self._untold:
            self._differs([f"+ << {_cut(_words(event))}" for event in self._untold])

    def _check(self, right: bool, expected: Expected, found: Phase | Intent | Event | None) -> None:
        words = _words(expected)
        if not right:
            others = _words(_in_terms_of(expected, found))
            alike = next(
                (place for place, (one, other) in enumerate(zip(words, others, strict=False)) if one != other), 0
            )
            self._differs([f"- << {_cut(words, alike)}", f"+ << {_cut(others, alike)}"])
        self._steps.append(f"<< {_cut(words)}")

    def _differs(self, lines: list[str]) -> NoReturn:
        self._fail("- expected, + found", lines)

    def _fail(self, signs: str, lines: list[str], cause: Exception | None = None) -> NoReturn:
        steps = [f"  {step}" for step in self._steps]
        raise AssertionError("\n".join([f"the conversation leaves the playbook ({signs}):", *steps, *lines])) from cause


def _check_happening(value: object) -> None:
    """Raise TypeError where ``value`` is nothing that happens to a conversation."""
    if isinstance(value, Phase) or (value is not None and (_is_about_intents(value) or _is_about_events(value))):
        raise TypeError(f"a conversation says or asks for {_cut(_words(value))}: it takes <<")
    if not hasattr(value, "happen"):
        raise TypeError(
            f">> takes what happens to a conversation, such as Prompt('Hello') or Reply(200), not {_cut(_words(value))}"
        )
    if isinstance(value, type):
        raise TypeError(f">> takes an instance: {value.__name__}(…)")


def _check_expected(value: object) -> None:
    """Raise TypeError where ``value`` is nothing that a conversation says or asks for."""
    if isinstance(value, Phase) or _is_about_intents(value) or _is_about_events(value):
        return
    if hasattr(value, "happen"):
        raise TypeError(f"{_cut(_words(value))} happens to a conversation: it takes >>")
    if isinstance(value, Intent):
        raise TypeError(
            f"an intent is expected by its class (<< {type(value).__name__}), an exchange's details by Sends"
        )
    raise TypeError(
        "<< takes what a conversation says or asks for, such as CreateChat, Created(chat_id), Phase.START or None, "
        f"not {_cut(_words(value))}"
    )


def _in_terms_of(expected: Expected, found: Phase | Intent | Event | None) -> object:
    """What was found, told so that it can be compared with what was expected."""
    match expected, found:
        case Sends(), Exchange():
            return expected.found(found)
        case Fails(), Failed():
            return expected.found(found)
        case _:
            return found


def _is_intent(expected: Expected, intent: Intent | None) -> bool:
    match expected:
        case None:
            return intent is None
        case Sends():
            return expected.fits(intent)
        case _:
            return type(intent) is expected


def _is_event(expected: Expected, event: Event) -> bool:
    match expected:
        case Fails() | Leaks():
            return expected.fits(event)
        case type():
            return type(event) is expected
        case _:
            return type(expected) is type(event) and expected == event


def play(conversation: Conversation) -> Play:
    """Begin a playbook.

    >>> assert play(Conversation(Website("http://oa.test"))) >> Close() << NeverCreated()
    """
    return Play(conversation)
