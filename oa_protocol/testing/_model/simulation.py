"""Conversations, their owners and drivers, the network and the server, all in one place: what can happen next, and how.

The conversations are the real engine, or another one; everything around them is a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.json import encode
from oa_protocol.engine import events as ev
from oa_protocol.engine.errors import NotSent, TransportError
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    DeleteChat,
    Exchange,
    FetchChat,
    FetchMessage,
    HttpRequest,
    Intent,
    ListChats,
    LoadCookies,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.testing._model.conversation_like import ConversationLike
from oa_protocol.testing._model.invariants import CLEANING, Ledger, Limits, Moment, Pause
from oa_protocol.testing._model.network import GARBAGE, Effect, Fate, fates
from oa_protocol.testing._model.server_model import Asked, Server, read_request
from oa_protocol.testing._model.state_key import (
    NO_MORE_TURNS,
    STREAM_MATTERS,
    copy_engine,
    engine_key,
    is_settled,
    messages_key,
)
from oa_protocol.testing._model.trace import Line

PROMPT = "Hello"
"""Every turn asks the same: only the parent tells one prompt from another."""

CREDENTIALS = Credentials(token="first")  # noqa: S106  # no secret: there is no such server - nobody's
OTHER_CREDENTIALS = Credentials(token="second")  # noqa: S106

_TEN_PENDINGS = 10 * (b"data: " + encode({"event_type": "pending", "queue_position": 1, "queue_size": 1}) + b"\r\n\r\n")
_THREE_PINGS = 3 * b": ping\r\n\r\n"

_COUNTED: dict[type[Exchange], str] = {
    CreateChat: "creates",
    SendPrompt: "prompts",
    RequestAssistant: "requests",
    DeleteChat: "deletes",
}
_ANSWER_RUNS = (Phase.ASSISTANT_REQUESTED, Phase.STREAMING, Phase.POLLING)

# What is tried again in which phase; whatever else comes there is late, or a look that can wait for the next occasion.
_TRIED_AGAIN: dict[Phase, tuple[type[Exchange], ...]] = {
    Phase.START: (CreateChat,),
    Phase.COOKIES: (CreateChat,),
    Phase.CHAT_CREATED: (SendPrompt,),
    Phase.ANSWERED: (SendPrompt,),
    Phase.PROMPT_LOST: (FetchChat,),
    Phase.PROMPTED: (RequestAssistant,),
    Phase.REQUEST_LOST: (FetchChat,),
    Phase.ASSISTANT_REQUESTED: (OpenStream,),
    Phase.POLLING: (FetchMessage,),
    Phase.DRAINING: (FetchMessage, FetchChat),
    Phase.DELETING: (DeleteChat,),
}

_BEHIND_THE_NETWORK = frozenset(
    {
        ("worker", "starts"),
        ("worker", "finishes"),
        ("worker", "aborts"),
        ("server", "cancels"),
        ("server", "times out"),
        ("server", "carries out late"),
    }
)


class Action(NamedTuple):
    """One thing that can happen: who does it, what, to which conversation.

    ``target`` is the message and its new state, or the late request; ``cost`` how many faults of the network it is.
    """

    who: str
    what: str
    number: int = 0
    target: tuple[str, ...] = ()
    fate: Fate | None = None
    cost: int = 0


class FarReply(NamedTuple):
    """A reply, as it left the far end."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(slots=True)
class Peer:
    """One conversation, with its owner and driver.

    ``idle``: the driver asked, and there was nothing to do. ``turns`` are those the owner still wants. ``stream`` is
    the message whose stream is open, if it is that of one.
    """

    conversation: ConversationLike
    ledger: Ledger
    turns: int
    idle: bool = False
    stream: str = ""


class World:
    """Everything, at one moment. ``after`` moves on."""

    __slots__ = ("faults", "late", "limits", "peers", "server")

    stream_ends: ClassVar[tuple[str, ...]] = ("ends the stream, cleanly",)
    """How the network can end a stream. That it breaks off is the same for an engine, and not for a transport."""

    def __init__(
        self, server: Server, late: tuple[tuple[int, Asked], ...], faults: int, peers: list[Peer], limits: Limits
    ) -> None:
        self.server = server
        self.late = late
        self.faults = faults
        self.peers = peers
        self.limits = limits

    @classmethod
    def new(
        cls,
        make: Callable[[Credentials | None], ConversationLike],
        limits: Limits,
        *,
        faults: int,
        turns: int,
        conversations: int = 1,
        page: int = 20,
        credentials: bool,
    ) -> Self:
        """Return a world in which nothing has happened yet; ``make`` makes a conversation with such credentials."""
        made = [make(CREDENTIALS if credentials else None) for _ in range(conversations)]
        peers = [Peer(conversation, Ledger(), turns) for conversation in made]
        return cls(Server(made[0].binding.api, page), (), faults, peers, limits)

    def after(self, action: Action) -> tuple[World, Moment]:
        """Another world, in which ``action`` has happened, and what the invariants are to see of it.

        What is frozen is shared, and so is an engine that is not concerned. Only the shipped engine can be copied.
        """
        peers = [Peer(p.conversation, p.ledger, p.turns, p.idle, p.stream) for p in self.peers]
        if (action.who, action.what) not in _BEHIND_THE_NETWORK:
            peers[action.number].conversation = copy_engine(peers[action.number].conversation)
        world = World(self.server, self.late, self.faults, peers, self.limits)
        return world, world.take(action)

    def key(self) -> tuple[object, ...]:
        """What makes two worlds the same state, where the engine is the shipped one.

        Left out is what makes no difference to what can follow: wordings, dates and delays, how often was polled, how
        a step went that is over, and about a chat that is being deleted everything but whether it is there.
        """
        settled = {number for number, peer in enumerate(self.peers) if is_settled(peer.conversation)}
        streams = {peer.stream for peer in self.peers if peer.conversation.phase in STREAM_MATTERS}
        chats = [c.id if c.maker in settled else (c.id, messages_key(c, streams)) for c in self.server.chats]
        late = [late for late in self.late if late[0] not in settled or late[1].step in ("create", "delete")]
        faults = -1 if len(settled) == len(self.peers) else self.faults
        peers = [(*engine_key(p.conversation, p.ledger), p.idle, _wishes(p)) for p in self.peers]
        return self.server.made, tuple(chats), tuple(late), faults, *peers

    # ---- what can happen

    def actions(self) -> Iterator[Action]:
        """Everything that can happen next."""
        busy = False
        for number, peer in enumerate(self.peers):
            conversation = peer.conversation
            if conversation.is_over:
                if conversation.outstanding is None and not peer.idle:
                    yield Action("driver", "asks", number)
                continue
            intent = conversation.outstanding
            if intent is None and not peer.idle:
                yield Action("driver", "asks", number)
            elif intent is None and conversation.has_stream:
                busy = True
                yield from self._stream(number, peer)
            elif isinstance(intent, Exchange):
                busy = True
                free = conversation.phase in CLEANING
                for fate in fates(self.server.api, type(intent)):
                    cost = 1 if fate.is_fault and not free else 0
                    if cost <= self.faults:
                        yield Action("network", "exchange", number, fate=fate, cost=cost)
            elif isinstance(intent, LoadCookies):
                yield Action("owner", "has other credentials" if intent.refused else "has credentials", number)
                yield Action("owner", "has no other credentials" if intent.refused else "has no credentials", number)
            elif isinstance(intent, CloseStream):
                yield Action("driver", "closes the stream", number)
            yield from self._owner(number, peer)
        if busy:
            # In between, what the server does cannot be told from what it does a moment later.
            yield from self._server()

    def _owner(self, number: int, peer: Peer) -> Iterator[Action]:
        conversation, leaving = peer.conversation, peer.ledger.leaving
        if peer.idle and peer.turns and conversation.awaits_prompt:
            yield Action("owner", "prompts", number)
        if not leaving:
            yield Action("owner", "closes", number)
            if conversation.phase in _ANSWER_RUNS:
                yield Action("owner", "loses patience with the answer", number)
            return
        if leaving == 1 and conversation.phase not in CLEANING:
            yield Action("owner", "closes without draining", number)
        yield Action("owner", "abandons", number)

    def _stream(self, number: int, peer: Peer) -> Iterator[Action]:
        if self.server.next_event(peer.stream):
            yield Action("server", "streams the next event", number)
        elif self.server.waits(peer.stream):
            yield Action("server", "streams ten pending events", number)
        elif self.server.is_over(peer.stream):
            yield Action("server", "ends the stream", number)
        else:
            yield Action("server", "streams three pings", number)
        if self.faults:
            for how in self.stream_ends:
                yield Action("network", how, number, cost=1)
            yield Action("network", "falls silent", number, cost=1)
            yield Action("network", "puts garbage into the stream", number, cost=1)

    def _server(self) -> Iterator[Action]:
        settled = {number for number, peer in enumerate(self.peers) if is_settled(peer.conversation)}
        for chat in self.server.chats:
            for message in chat.messages:
                if not message.is_running or chat.maker in settled:
                    continue
                if message.state == "pending":
                    yield Action("worker", "starts", chat.maker, (message.id, "in_progress"))
                    yield Action("server", "cancels", chat.maker, (message.id, "cancelled"))
                    yield Action("server", "times out", chat.maker, (message.id, "timeout"))
                else:
                    yield Action("worker", "finishes", chat.maker, (message.id, "complete"))
                    yield Action("worker", "aborts", chat.maker, (message.id, "aborted_by_worker"))
        for number, asked in dict.fromkeys(self.late):
            yield Action("server", "carries out late", number, (asked.step,))

    # ---- how it happens

    def take(self, action: Action) -> Moment:
        """Let ``action`` happen in this world, and return what the invariants are to see of it."""
        peer = self.peers[action.number]
        conversation = peer.conversation
        phase, ledger = conversation.phase, peer.ledger
        self.faults -= action.cost
        intent: Intent | None = None
        asked: Asked | None = None
        match action.who, action.what:
            case "driver", "asks":
                intent = conversation.next_intent()
                peer.idle = intent is None
                if ledger.silent:
                    peer.ledger = ledger._replace(silent=False)
                if isinstance(intent, Exchange):
                    asked = read_request(self.server.api, intent.request)
                    peer.ledger = _asked(peer, intent)
                events: list[ev.Event] = []
            case "server", "carries out late":
                self._carry_out_late(action)
                events = []
            case who_what if who_what in _BEHIND_THE_NETWORK:
                message_id, state = action.target
                message = self.server.message(message_id)
                assert message is not None  # noqa: S101 - it was found a moment ago
                self.server = self.server.work(message, state)
                events = []
            case _:
                peer.idle = False
                events = self._happen(action, peer)
                peer.ledger = _told(peer.ledger, conversation, events)
        return Moment(
            conversation,
            action.number,
            action.what,
            phase,
            ledger,
            events,
            intent,
            asked,
            peer.idle,
            peer.ledger,
            self.server,
            self.late,
            self.limits,
        )

    def _happen(self, action: Action, peer: Peer) -> list[ev.Event]:
        conversation = peer.conversation
        match action.what:
            case "exchange":
                assert action.fate is not None  # noqa: S101 - an exchange has one
                return self._exchange(peer, action.number, action.fate)
            case "prompts":
                conversation.prompt(PROMPT)
                peer.turns -= 1
                peer.ledger = peer.ledger._replace(
                    prompts=0, requests=0, unlooked=False, waited=False, told="", adopted=""
                )
                return []
            case "closes":
                peer.ledger = peer.ledger._replace(leaving=1)
                return conversation.close()
            case "closes without draining":
                peer.ledger = peer.ledger._replace(leaving=2)
                return conversation.close(drain=False)
            case "abandons":
                if isinstance(conversation.outstanding, CreateChat):
                    self.late += ((action.number, Asked("create")),)
                return conversation.abandon()
            case "loses patience with the answer":
                return conversation.answer_timed_out()
            case "has credentials" | "has other credentials":
                return conversation.receive_cookies(_other(conversation))
            case "has no credentials" | "has no other credentials":
                return conversation.receive_cookies(None)
            case "closes the stream" | "ends the stream" | "ends the stream, cleanly" | "breaks the stream":
                return self.end_stream(peer, action.what)
            case "falls silent":
                peer.ledger = peer.ledger._replace(silent=True)
                return conversation.receive_silence()
            case "puts garbage into the stream":
                return self.stream(peer, b"data: " + GARBAGE + b"\r\n\r\n")
            case "streams ten pending events":
                peer.ledger = peer.ledger._replace(waited=True)
                return self.stream(peer, _TEN_PENDINGS)
            case "streams three pings":
                peer.ledger = peer.ledger._replace(waited=True)
                return self.stream(peer, _THREE_PINGS)
            case "streams the next event":
                found = self.server.next_event(peer.stream)
                assert found is not None  # noqa: S101 - it was there a moment ago
                self.server, data = found
                return self.stream(peer, data)
            case _:
                raise ValueError(f"no such action: {action.what}")

    def _exchange(self, peer: Peer, number: int, fate: Fate) -> list[ev.Event]:
        conversation = peer.conversation
        exchange = conversation.outstanding
        assert isinstance(exchange, Exchange)  # noqa: S101 - actions() has seen it
        asked = read_request(self.server.api, exchange.request)
        peer.ledger = _fated(peer.ledger, conversation.phase, exchange, asked, fate)
        outcome = self.send(exchange.request, number, fate)
        if pause := _pause(exchange, conversation.phase, outcome):
            peer.ledger = peer.ledger._replace(pause=pause)
        if isinstance(outcome, TransportError):
            return conversation.receive_failure(outcome)
        if isinstance(exchange, OpenStream) and outcome.status == 200:
            peer.stream = asked.message_id
            return conversation.receive_stream_opened()
        return conversation.receive_reply(*outcome)

    def send(self, request: HttpRequest, number: int, fate: Fate) -> FarReply | TransportError:
        """Send ``request`` for the conversation ``number``, and return what comes of it."""
        return self.answer(request, number, fate)

    def answer(self, request: HttpRequest, number: int, fate: Fate) -> FarReply | TransportError:
        """Let the network and the server do to ``request`` what ``fate`` says, and return what is seen of it."""
        asked = read_request(self.server.api, request)
        status, body = fate.status, fate.body
        match fate.effect:
            case Effect.DONE if asked.step == "events":
                self.server, status = self.server.open_stream(asked)
            case Effect.DONE:
                self.server, true_status, true_body = self.server.carry_out(asked, number)
                if not status:
                    status, body = true_status, true_body
            case Effect.LEFT_BEHIND:
                self.server, status, body = self.server.leave_behind(asked)
            case Effect.LATER:
                self.late += ((number, asked),)
            case Effect.NONE:
                pass
        if fate.failure is not None:
            return fate.failure(fate.words)
        return FarReply(status, fate.headers, body)

    def stream(self, peer: Peer, data: bytes) -> list[ev.Event]:
        """Let bytes of the open stream arrive."""
        return peer.conversation.receive_stream_data(data)

    def end_stream(self, peer: Peer, how: str) -> list[ev.Event]:
        """Let the open stream end, or be closed; ``how`` is what happens, and makes no difference to an engine."""
        peer.stream = ""
        return peer.conversation.receive_stream_end()

    def _carry_out_late(self, action: Action) -> None:
        found = next(late for late in self.late if late[0] == action.number and late[1].step == action.target[0])
        rest = list(self.late)
        rest.remove(found)
        self.late = tuple(rest)
        self.server, _, _ = self.server.carry_out(found[1], found[0], late=True)


# ---- what the observer notes


def _asked(peer: Peer, intent: Exchange) -> Ledger:
    ledger, phase = peer.ledger._replace(waited=False, pause=None), peer.conversation.phase
    name = _COUNTED.get(type(intent))
    if name is not None:
        ledger = ledger._replace(**{name: getattr(ledger, name) + 1})
    further_page = isinstance(intent, ListChats) and "after=" in intent.request.url  # there are as many as there are
    if (ledger.leaving == 2 or phase in CLEANING) and not further_page:
        ledger = ledger._replace(last=ledger.last + 1)
    return ledger


def _fated(ledger: Ledger, phase: Phase, exchange: Exchange, asked: Asked, fate: Fate) -> Ledger:
    name = _COUNTED.get(type(exchange))
    if phase is Phase.DRAINING:
        ledger = ledger._replace(blind=fate.is_fault)
    if fate.rejects_credentials:
        return ledger._replace(**{name: getattr(ledger, name) - 1}) if name else ledger
    match exchange:
        case SendPrompt() | RequestAssistant() if fate.is_lost:
            return ledger._replace(unlooked=True)
        case OpenStream() if fate.failure is None or fate.is_lost:
            return ledger._replace(opened=(*ledger.opened, asked.message_id))
        case FetchChat() if phase in CLEANING:
            return ledger._replace(unclear=False)
        case FetchChat() if not fate.is_fault:
            return ledger._replace(unlooked=False)
        case DeleteChat() if fate.failure is not NotSent:
            return ledger._replace(unclear=True)
        case _:
            return ledger


def _pause(exchange: Exchange, phase: Phase, outcome: FarReply | TransportError) -> Pause | None:
    """What must be waited for where ``outcome`` says that the exchange was not carried out (OA-6.3)."""
    if not isinstance(exchange, _TRIED_AGAIN.get(phase, ())):
        return None
    if isinstance(outcome, NotSent):
        return Pause(type(exchange), phase, 0.0)
    if isinstance(outcome, TransportError) or outcome.status not in (429, 503) or isinstance(exchange, OpenStream):
        return None
    return Pause(type(exchange), phase, float(dict(outcome.headers).get("retry-after", 0)))


def _told(ledger: Ledger, conversation: ConversationLike, events: list[ev.Event]) -> Ledger:
    for event in events:
        match event:
            case ev.Token():
                ledger = ledger._replace(told=ledger.told + event.text)
            case ev.Deleted():
                ledger = ledger._replace(over=True)
            case ev.Requested():
                ledger = ledger._replace(adopted=event.message_id)
            case _:
                pass
    return ledger._replace(over=True) if conversation.is_over else ledger


def _wishes(peer: Peer) -> tuple[object, ...]:
    phase = peer.conversation.phase
    turns = 0 if peer.conversation.is_over or phase in NO_MORE_TURNS else peer.turns
    return turns, peer.stream if phase in STREAM_MATTERS else ""


def _other(conversation: ConversationLike) -> Credentials:
    return OTHER_CREDENTIALS if conversation.credentials == CREDENTIALS else CREDENTIALS


def words(action: Action, before: World) -> str:
    """Say what happens by ``action`` in the world before it."""
    intent = before.peers[action.number].conversation.outstanding
    match action.who, action.what:
        case _, "exchange":
            assert action.fate is not None  # noqa: S101 - an exchange has one
            return f"{type(intent).__name__} {action.fate.words}"
        case ("worker", _) | ("server", "cancels" | "times out"):
            return f"{action.what}: {action.target[0][:13]} is {action.target[1]}"
        case "server", "carries out late":
            return f"carries out late what had been given up: the {action.target[0]}"
        case _:
            return action.what


def line(action: Action, what: str, after: World, moment: Moment | None) -> Line:
    """Tell ``action``, which was ``what`` before it happened, by the world after it; no moment where that failed."""
    if moment is not None and action.what == "asks":
        what = f"asks what to do: {type(moment.intent).__name__ if moment.intent else 'nothing'}"
    who = action.who if len(after.peers) == 1 else f"{action.who} {action.number + 1}"
    return Line(who, what, after.peers[action.number].conversation.phase.name)
