"""A simulation of conversations, with their owners and drivers, the network, the server and the clock.

It finds the actions that are possible next, and takes them. The conversations are the real engine, or one of yours.
Everything else is a model. An exchange finishes at once or hangs, and time jumps from one deadline to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.json import encode
from oa_protocol.engine import events as ev
from oa_protocol.engine.errors import TransportError
from oa_protocol.engine.inputs import (
    Abandon,
    Close,
    CredentialsFound,
    ExchangeFailed,
    Input,
    Interrupted,
    Keep,
    Prompt,
    Regenerate,
    ReplyReceived,
    StreamData,
    StreamEnded,
    StreamOpened,
    TimePassed,
)
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    Exchange,
    HttpRequest,
    Intent,
    LoadCredentials,
    OpenStream,
)
from oa_protocol.testing._model.conversation_like import ConversationLike
from oa_protocol.testing._model.invariants import TIME_PASSES, Limits, Moment
from oa_protocol.testing._model.ledger import CLEANING, FarReply, Ledger
from oa_protocol.testing._model.network import GARBAGE, Effect, Fate, fates, given_up
from oa_protocol.testing._model.server import HISTORY, Api, Asked, Server, read_request
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
"""The prompt of every turn. All turns have the same one, so an engine can identify a prompt only by its parent."""

CREDENTIALS = Credentials(token="first")  # noqa: S106  # This isn't a secret, because there is no such server.
OTHER_CREDENTIALS = Credentials(token="second")  # noqa: S106

REGENERATES, EDITS, KEEPS = "regenerates", "edits", "keeps"
EXTRAS = frozenset({REGENERATES, EDITS, KEEPS})
"""What an owner can do besides prompting and leaving. It makes for more states, so a simulation may leave it out."""

_TEN_PENDINGS = 10 * (b"data: " + encode({"event_type": "pending", "queue_position": 1, "queue_size": 1}) + b"\r\n\r\n")
_THREE_PINGS = 3 * b": ping\r\n\r\n"
_GARBAGE_EVENT = b"data: " + GARBAGE + b"\r\n\r\n"

_NOT_WORTH_WAITING = 0.1
_TROUBLES = frozenset(
    {"aborts", "cancels", "times out", "has no credentials", "has no other credentials", "some time passes"}
)
"""The actions after which a turn may fail, although they don't count as faults."""

_BEHIND_THE_NETWORK = frozenset({"worker", "server"})


class Action(NamedTuple):
    """One thing that can happen.

    Attributes:
        who: who does it.
        what: what is done, in words.
        number: the number of the conversation.
        target: the message and its new state, or the step of a late request.
        fate: what becomes of an exchange.
        cost: how many faults it counts as.

    """

    who: str
    what: str
    number: int = 0
    target: tuple[str, ...] = ()
    fate: Fate | None = None
    cost: int = 0

    @property
    def is_behind_the_network(self) -> bool:
        """Whether no conversation can notice it yet."""
        return self.who in _BEHIND_THE_NETWORK and self.what[:7] != "streams" and self.what != "ends the stream"


@dataclass(slots=True)
class Peer:
    """One conversation, with its owner and driver.

    Attributes:
        conversation: the engine.
        ledger: what an observer has noted about the conversation.
        turns: how many more times the owner may prompt, ask for another answer, or keep the chat.
        idle: true if the driver asked for an intent, and there was none.
        hangs: true if the outstanding exchange hangs, so that there will be no reply.
        stream: the id of the message whose stream is open, or empty.

    """

    conversation: ConversationLike
    ledger: Ledger
    turns: int
    idle: bool = False
    hangs: bool = False
    stream: str = ""

    @property
    def awaits_others(self) -> bool:
        """Whether it can't go on until somebody else does something, or time passes."""
        return self.hangs or self.idle or isinstance(self.conversation.outstanding, CloseStream | LoadCredentials)


class Simulation:
    """The state of everything at one moment. ``after`` returns the next state, and ``take`` changes this one."""

    __slots__ = ("extras", "faults", "late", "limits", "now", "peers", "server")

    stream_ends: ClassVar[tuple[str, ...]] = ("ends the stream, cleanly",)
    """The ways in which a stream can end. A break is another one for a transport, but not for an engine."""

    is_slow: ClassVar[bool] = False
    """Whether time can also pass without a deadline coming, so that replies take some time."""

    def __init__(
        self,
        server: Server,
        late: tuple[tuple[int, Asked], ...],
        faults: int,
        peers: list[Peer],
        limits: Limits,
        now: float,
        extras: frozenset[str] = frozenset(),
    ) -> None:
        self.extras = extras
        self.server = server
        self.late = late
        self.faults = faults
        self.peers = peers
        self.limits = limits
        self.now = now

    @classmethod
    def new(
        cls,
        make: Callable[[Credentials | None], ConversationLike],
        limits: Limits,
        *,
        faults: int,
        turns: int,
        conversations: int = 1,
        newer_chats: int = 0,
        credentials: bool,
        extras: frozenset[str] = frozenset(),
        existing: bool = False,
    ) -> Self:
        """Return a simulation in which nothing has happened yet.

        ``make`` returns a new engine. ``extras`` are the actions of ``EXTRAS`` that the owners may take. If
        ``existing`` is true, the engine goes on with the chat ``EXISTING``.
        """
        made = [make(CREDENTIALS if credentials else None) for _ in range(conversations)]
        ledger = Ledger(history=HISTORY if existing else ())
        peers = [Peer(conversation, ledger, turns) for conversation in made]
        server = Server.new(_api_of(made[0]), newer_chats, prompt=PROMPT if existing else "")
        return cls(server, (), faults, peers, limits, 0.0, extras)

    def after(self, action: Action) -> tuple[Self, Moment]:
        """Return a copy in which ``action`` has happened, and the moment for the invariants.

        Frozen objects are shared, and so are engines that the action doesn't change. Only the shipped engine can be
        copied.
        """
        peers = self.peers.copy()
        peer = peers[action.number]
        engine = peer.conversation if action.is_behind_the_network else copy_engine(peer.conversation)
        peers[action.number] = Peer(engine, peer.ledger, peer.turns, peer.idle, peer.hangs, peer.stream)
        following = type(self)(self.server, self.late, self.faults, peers, self.limits, self.now, self.extras)
        return following, following.take(action)

    def key(self) -> tuple[object, ...]:
        """Return a key that is equal for two simulations in the same state. It works only for the shipped engine.

        The key leaves out everything that has no effect on what can happen later: texts, dates, the time of day, and
        how earlier steps went. If a chat is being deleted, only its existence matters.
        """
        settled = {number for number, peer in enumerate(self.peers) if is_settled(peer.conversation)}
        streams = {peer.stream for peer in self.peers if peer.conversation.phase in STREAM_MATTERS}
        server = self.server
        chats = [c.id if c.maker in settled else (c.id, messages_key(c, streams, server)) for c in server.chats]
        late = [late for late in self.late if late[0] not in settled or late[1].step in ("create", "delete")]
        faults = -1 if len(settled) == len(self.peers) else self.faults
        peers = [(*engine_key(p.conversation, p.ledger, self.now), p.idle, p.hangs, _wishes(p)) for p in self.peers]
        return server.made, tuple(chats), tuple(late), faults, *peers

    # ---- what can happen

    def actions(self) -> Iterator[Action]:
        """Yield everything that can happen next."""
        busy = False
        for number, peer in enumerate(self.peers):
            conversation, intent = peer.conversation, peer.conversation.outstanding
            if intent is None and not peer.idle:
                yield Action("driver", "asks", number)
            if conversation.is_over:
                continue
            if intent is None and peer.idle and conversation.has_stream:
                busy = True
                yield from self._stream(number, peer)
            elif isinstance(intent, Exchange) and not peer.hangs:
                busy = True
                yield from self._network(number, peer, intent)
            elif isinstance(intent, LoadCredentials):
                yield Action("owner", "has other credentials" if intent.refused else "has credentials", number)
                yield Action("owner", "has no other credentials" if intent.refused else "has no credentials", number)
            elif isinstance(intent, CloseStream):
                yield Action("driver", "closes the stream", number)
            yield from self._owner(number, peer)
        if busy:
            # If no exchange and no stream is under way, no conversation notices when the server does something. So it
            # acts only while something is under way, which gives fewer states.
            yield from self._server()
        yield from self._clock()

    def _owner(self, number: int, peer: Peer) -> Iterator[Action]:
        conversation, ledger = peer.conversation, peer.ledger
        if peer.idle and peer.turns and conversation.awaits_prompt:
            yield Action("owner", "prompts", number)
            if REGENERATES in self.extras and ledger.history:
                yield Action("owner", REGENERATES, number)
            if EDITS in self.extras:
                for answer_id in ledger.earlier_answers:
                    yield Action("owner", EDITS, number, (answer_id,))
        if KEEPS in self.extras and peer.idle and peer.turns and not ledger.keeps and not ledger.has_left:
            yield Action("owner", KEEPS, number)
        if not ledger.has_left:
            yield Action("owner", "closes", number)
        elif ledger.drained_by > self.now and conversation.phase not in CLEANING:
            yield Action("owner", "closes without draining", number)
        yield Action("owner", "abandons", number)
        yield from self._interruptions(number, peer)

    def _interruptions(self, number: int, peer: Peer) -> Iterator[Action]:
        """Yield the interruptions of the owner. Each one counts as a fault, because it may lead to another try."""
        intent = peer.conversation.outstanding
        if isinstance(intent, LoadCredentials | CreateChat) or (intent is not None and peer.ledger.has_left):
            yield Action("owner", "interrupts", number)
        elif isinstance(intent, Exchange) and self.faults:
            for fate in (None,) if peer.hangs else given_up(type(intent)):
                yield Action("owner", "interrupts", number, fate=fate, cost=1)

    def _network(self, number: int, peer: Peer, exchange: Exchange) -> Iterator[Action]:
        free = peer.conversation.phase in CLEANING
        for fate in fates(self.server.api, type(exchange)):
            cost = 1 if fate.is_fault and not free else 0
            if cost <= self.faults:
                yield Action("network", "exchange", number, fate=fate, cost=cost)

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

    def _clock(self) -> Iterator[Action]:
        """Yield the ways in which time can pass. It passes to the first deadline if nothing else can happen."""
        waiting = [peer for peer in self.peers if not peer.conversation.is_over]
        due = [(peer.conversation.deadline, number) for number, peer in enumerate(self.peers) if peer in waiting]
        deadline, number = min(((when, number) for when, number in due if when is not None), default=(None, 0))
        if deadline is None:
            return
        if all(peer.awaits_others for peer in waiting):
            peer = self.peers[number]
            if deadline < peer.ledger.silent_since + self.limits.timeouts.idle or not peer.idle:
                cost = int(isinstance(peer.conversation.outstanding, CloseStream) and not is_settled(peer.conversation))
                what = "time passes"
            else:
                cost, what = 1, "falls silent"
            if cost <= self.faults:
                yield Action("network" if cost else "clock", what, number, cost=cost)
        asked = all(peer.idle or peer.conversation.outstanding for peer in waiting)
        if self.is_slow and asked and deadline - self.now > _NOT_WORTH_WAITING:
            yield Action("clock", "some time passes", number)

    # ---- how it happens

    def take(self, action: Action) -> Moment:
        """Take ``action``, and return the moment for the invariants."""
        peer = self.peers[action.number]
        conversation, ledger, phase = peer.conversation, peer.ledger, peer.conversation.phase
        self.faults -= action.cost
        if action.cost or action.what in _TROUBLES:
            peer.ledger = ledger = ledger._replace(is_troubled=True)
        intent: Intent | None = None
        asked: Asked | None = None
        events: list[ev.Event] = []
        if action.what == "asks":
            intent = conversation.next_intent(self.now)
            asked = read_request(intent.request) if isinstance(intent, Exchange) else None
            peer.idle = intent is None
            peer.ledger = ledger.with_intent(intent, phase, self.now)
        elif action.what == "some time passes":
            self.now += ((conversation.deadline or self.now) - self.now) / 2
        elif action.is_behind_the_network:
            self._work(action)
        else:
            events = self._happen(action, peer)
        return Moment(
            conversation,
            action.number,
            action.what,
            self.now,
            phase,
            ledger,
            events,
            intent,
            asked,
            peer.idle,
            bool(peer.stream),
            peer.ledger,
            self.server,
            self.late,
            self.limits,
        )

    def _work(self, action: Action) -> None:
        if action.what == "carries out late":
            found = next(late for late in self.late if late[0] == action.number and late[1].step == action.target[0])
            rest = list(self.late)
            rest.remove(found)
            self.late = tuple(rest)
            self.server, _ = self.server.carry_out(found[1], found[0], late=True)
            return
        self.server = self.server.work(*action.target)

    def _happen(self, action: Action, peer: Peer) -> list[ev.Event]:
        conversation, phase, intent = peer.conversation, peer.conversation.phase, peer.conversation.outstanding
        inputs = self._inputs(action, peer)
        peer.idle = peer.idle and not inputs
        events = [event for happened in inputs for event in conversation.handle(happened, self.now)]
        peer.hangs = peer.hangs and conversation.outstanding is intent
        peer.ledger = peer.ledger.with_events(events, phase, conversation.phase, self.now, self.limits.timeouts)
        return events

    def _inputs(self, action: Action, peer: Peer) -> list[Input]:
        """Do what ``action`` does outside the engine, and return the inputs that the engine gets."""
        match action.who, action.what:
            case _, "exchange":
                assert action.fate is not None  # noqa: S101 - an exchange has one
                return self._exchange(peer, action.number, action.fate)
            case _, what if what in TIME_PASSES:
                self.now = peer.conversation.deadline or self.now
                peer.ledger = peer.ledger._replace(at_once=0)
                return [TimePassed()]
            case "owner", what:
                return [self._owners_input(action, peer, what)]
            case _, "closes the stream" | "ends the stream" | "ends the stream, cleanly" | "breaks the stream":
                self.end_stream(action.what)
                peer.stream = ""
                return [StreamEnded()]
            case _, "puts garbage into the stream":
                data = _GARBAGE_EVENT
            case _, "streams ten pending events":
                data = _TEN_PENDINGS
            case _, "streams three pings":
                data = _THREE_PINGS
            case _, "streams the next event":
                found = self.server.next_event(peer.stream)
                assert found is not None  # noqa: S101 - it was there a moment ago
                self.server, data = found
            case _:
                raise ValueError(f"no such action: {action.what}")
        waits = data in (_TEN_PENDINGS, _THREE_PINGS)
        peer.ledger = peer.ledger._replace(silent_since=Ledger().silent_since, waited=waits or peer.ledger.waited)
        return [StreamData(piece) for piece in self.stream(data)]

    def _owners_input(self, action: Action, peer: Peer, what: str) -> Input:
        conversation, ledger, cleanup = peer.conversation, peer.ledger, self.limits.cleanup
        match what:
            case "prompts":
                peer.turns -= 1
                peer.ledger = ledger.with_prompt()
                return Prompt(PROMPT)
            case "edits":
                peer.turns -= 1
                peer.ledger = ledger.with_prompt(action.target[0])
                return Prompt(PROMPT, after=action.target[0])
            case "regenerates":
                peer.turns -= 1
                peer.ledger = ledger.with_regenerate(self.now, self.limits.timeouts)
                return Regenerate()
            case "keeps":
                peer.turns -= 1
                peer.ledger = ledger._replace(keeps=True)
                return Keep()
            case "closes" | "closes without draining":
                drain = what == "closes"
                peer.ledger = ledger.with_end(self.now, cleanup, drain=drain)
                return Close(drain)
            case "abandons":
                if isinstance(conversation.outstanding, CreateChat) and not peer.hangs:
                    self.late += ((action.number, read_request(conversation.outstanding.request)),)
                return Abandon()
            case "interrupts":
                if action.fate is not None:
                    self._exchange(peer, action.number, action.fate)
                peer.ledger = peer.ledger.with_interruption(conversation.outstanding)
                return Interrupted()
            case "has credentials" | "has other credentials":
                return CredentialsFound(_other(conversation))
            case "has no credentials" | "has no other credentials":
                return CredentialsFound(None)
            case _:
                raise ValueError(f"no such action: {what}")

    def _exchange(self, peer: Peer, number: int, fate: Fate) -> list[Input]:
        conversation, phase = peer.conversation, peer.conversation.phase
        exchange = conversation.outstanding
        assert isinstance(exchange, Exchange)  # noqa: S101 - actions() has seen it
        asked = read_request(exchange.request)
        peer.ledger = peer.ledger.with_fate(exchange, asked, phase, fate)
        outcome = self.send(exchange.request, number, fate)
        if outcome is None:
            peer.hangs = True
            return []
        peer.ledger = peer.ledger.with_outcome(exchange, phase, outcome, self.now)
        if isinstance(outcome, TransportError):
            return [ExchangeFailed(outcome)]
        if isinstance(exchange, OpenStream) and outcome.status == 200:
            peer.stream = asked.message_id
            return [StreamOpened()]
        return [ReplyReceived(*outcome)]

    def send(self, request: HttpRequest, number: int, fate: Fate) -> FarReply | TransportError | None:
        """Send ``request`` for the conversation ``number``, and return the outcome, or None if it hangs."""
        return self.answer(request, number, fate)

    def answer(self, request: HttpRequest, number: int, fate: Fate) -> FarReply | TransportError | None:
        """Do to ``request`` what ``fate`` says, and return the outcome that the client gets, or None if it hangs."""
        asked = read_request(request)
        reply = FarReply(fate.status, (), fate.body)
        match fate.effect:
            case Effect.DONE:
                self.server, true_reply = self.server.carry_out(asked, number)
                reply = reply if fate.status else FarReply(*true_reply[:3])
            case Effect.LEFT_BEHIND:
                self.server, true_reply = self.server.leave_behind(asked)
                reply = FarReply(*true_reply[:3])
            case Effect.LATER:
                self.late += ((number, asked),)
            case Effect.NONE:
                pass
        if fate.hangs:
            return None
        if fate.failure is not None:
            return fate.failure(fate.words)
        return reply._replace(headers=(*reply.headers, *fate.headers))

    def remark(self) -> str:
        """Return what a story has to add about the last exchange, or an empty text."""
        return ""

    def stream(self, data: bytes) -> list[bytes]:
        """Return the pieces in which bytes of the open stream arrive."""
        return [data]

    def end_stream(self, how: str) -> None:
        """End or close the open stream. An engine doesn't notice the difference, but a transport does."""


def _api_of(conversation: ConversationLike) -> Api:
    match conversation.binding.api:
        case "website":
            return "website"
        case "inference":
            return "inference"
        case other:
            raise ValueError(
                f"the simulated server has only the APIs of Website and InferenceServer, and the binding's is {other!r}"
            )


def _wishes(peer: Peer) -> tuple[object, ...]:
    phase = peer.conversation.phase
    turns = 0 if peer.conversation.is_over or phase in NO_MORE_TURNS else peer.turns
    return turns, peer.stream if phase in STREAM_MATTERS else bool(peer.stream)


def _other(conversation: ConversationLike) -> Credentials:
    return OTHER_CREDENTIALS if conversation.credentials == CREDENTIALS else CREDENTIALS


# ---- in words


def words(action: Action, before: Simulation) -> str:
    """Return what ``action`` does, in words. ``before`` is the simulation before the action."""
    peer = before.peers[action.number]
    intent = peer.conversation.outstanding
    match action.who, action.what:
        case _, "exchange":
            assert action.fate is not None  # noqa: S101 - an exchange has one
            return f"{type(intent).__name__} {action.fate.words}"
        case _, "interrupts" if action.fate is not None:
            return f"interrupts: {type(intent).__name__} {action.fate.words}"
        case _, what if what in TIME_PASSES:
            return f"{what}: {(peer.conversation.deadline or before.now) - before.now:g} s"
        case ("worker", _) | ("server", "cancels" | "times out"):
            return f"{action.what}: {action.target[0][:13]} is {action.target[1]}"
        case "owner", "edits":
            return f"prompts again, after {action.target[0][:13]}"
        case "server", "carries out late":
            return f"carries out late what had been given up: the {action.target[0]}"
        case _:
            return action.what


def line(action: Action, what: str, after: Simulation, moment: Moment | None) -> Line:
    """Return the story's line for ``action``. ``what`` is from ``words``; ``moment`` is None if the action failed."""
    if moment is not None and action.what == "asks":
        what = f"asks what to do: {type(moment.intent).__name__ if moment.intent else 'nothing'}"
    who = action.who if len(after.peers) == 1 else f"{action.who} {action.number + 1}"
    return Line(who, what, after.peers[action.number].conversation.phase.name)
