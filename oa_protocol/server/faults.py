"""Faults that a test can script: lost replies, broken streams, failing workers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from oa_protocol.models.base import PluginStep
from oa_protocol.server.requests import Step


class Hold:
    """A gate. Requests, streams and workers wait at it until ``release`` or ``Server.release`` is called.

    Both can be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._released = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def release(self) -> None:
        """Open the gate, now and for everything that comes later."""
        with self._lock:
            self._released = True
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            # This may be another thread than the loop's, and then ``event.set`` isn't safe.
            loop.call_soon_threadsafe(event.set)

    async def wait(self) -> None:
        """Return once the gate is open."""
        event = asyncio.Event()
        entry = (asyncio.get_running_loop(), event)
        with self._lock:
            if self._released:
                return
            self._waiting.append(entry)
        try:
            await event.wait()
        finally:
            with self._lock:
                if entry in self._waiting:
                    self._waiting.remove(entry)


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP reply that is sent instead of the server's own."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that are sent on the connection, before it is closed. They needn't be HTTP."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset (RST)."""


@dataclass(frozen=True, slots=True)
class Close:
    """The connection is closed (FIN) too early: without a reply, or without the last chunk of the body."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing more is sent, until the client leaves or the server stops."""


@dataclass(frozen=True, slots=True)
class End:
    """The stream's body ends properly."""


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes that are sent in the stream's body."""

    data: bytes


Outcome = Reply | Raw | Reset | Close | Hang | Hold
StreamAction = Send | End | Reset | Close | Hang | Hold


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in a request for ``step``, ``before`` or ``after`` the request takes effect.

    With ``before``, the request isn't carried out. With ``after``, the request is carried out, and only its reply is
    lost or replaced. A ``Hold`` only delays: when it is released, the request goes on as usual.

    Args:
        step: The kind of request.
        before: What happens instead of the request.
        after: What happens instead of the reply. A request for ``events`` or ``worker`` can't have it.
        times: How often the fault happens, at least once.
        skip: How many requests for the step pass without the fault before that.

    Raises:
        ValueError: The step is unknown, there is no outcome, or a number is too small.

    """

    step: Step
    before: Outcome | None = None
    after: Outcome | None = None
    times: int = 1
    skip: int = 0

    def __post_init__(self) -> None:
        _check(self.times, skip=self.skip)
        if self.step not in get_args(Step):
            raise ValueError(f"there is no step {self.step!r}: the steps are {', '.join(get_args(Step))}")
        if self.before is None and self.after is None:
            raise ValueError("a Fault needs `before` or `after`")
        if self.step in ("events", "worker") and self.after is not None:
            instead = "StreamFault" if self.step == "events" else "WorkerFault"
            raise ValueError(f"a Fault in `{self.step}` has no `after`: script a {instead} instead")


@dataclass(frozen=True, slots=True)
class StreamFault:
    """A fault in an event stream: it sends some events as usual, and then does what ``then`` says.

    If the last action is ``Send`` or ``Hold``, the stream goes on as usual afterwards. With ``events``, it ends after
    the last of these.

    Args:
        after_events: How many events are sent first. Pings don't count. By default, ``then`` comes at the start, or
            after the last of ``events``.
        then: One action, or several.
        events: What is sent instead of the answer's own events. A mapping is one event, and bytes are sent as they are.
        times: How many streams have the fault, at least one.
        skip: How many streams pass without the fault before that.

    Raises:
        ValueError: A number is too small.

    """

    after_events: int | None = None
    then: StreamAction | tuple[StreamAction, ...] = ()
    events: tuple[Mapping[str, Any] | bytes, ...] | None = None
    times: int = 1
    skip: int = 0
    step: Step = field(default="events", init=False)

    def __post_init__(self) -> None:
        _check(self.times, skip=self.skip, after_events=self.position)

    @property
    def actions(self) -> tuple[StreamAction, ...]:
        """The actions in ``then``, always as a tuple."""
        return self.then if isinstance(self.then, tuple) else (self.then,)

    @property
    def position(self) -> int:
        """How many events are sent before ``then``."""
        return len(self.events or ()) if self.after_events is None else self.after_events


@dataclass(frozen=True, slots=True)
class WorkerError:
    """The worker gives up: an ``error`` event with this text is sent, and the state is ``aborted_by_worker``."""

    text: str = "Aborted due to worker error."


@dataclass(frozen=True, slots=True)
class Freeze:
    """The worker falls silent, and the server gives it up after 40 s.

    If the answer has tokens already, it ends with an ``error``. Otherwise, its message goes back to the queue.
    """


@dataclass(frozen=True, slots=True)
class Never:
    """No worker takes the message, so it stays ``pending``."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """The message gets this state, but the stream doesn't show it.

    On a real server, a message stays ``in_progress`` if the server is killed and started again.
    """

    state: Literal["cancelled", "timeout", "in_progress"] = "cancelled"


@dataclass(frozen=True, slots=True)
class Answer:
    """How the worker answers the next request for an answer.

    Args:
        pieces: What the worker sends. By default, the pieces of the server's model.
        final: The message's content in the end. By default, the text of the pieces, stripped.
        after: How many pieces are sent before ``then``.
        then: What happens after these pieces. When a ``Hold`` is released, the worker goes on.
        times: How many requests get this answer, at least one.
        skip: How many requests are answered as usual before that.

    Raises:
        ValueError: A number is too small.

    """

    pieces: tuple[str | PluginStep, ...] | None = None
    final: str | None = None
    after: int = 0
    then: WorkerError | Freeze | Never | Abandon | Hold | None = None
    times: int = 1
    skip: int = 0
    step: Step = field(default="request", init=False)

    def __post_init__(self) -> None:
        _check(self.times, skip=self.skip, after=self.after)


def _check(times: int, **numbers: int) -> None:
    if times < 1:
        raise ValueError(f"times must be at least 1: {times}")
    for name, number in numbers.items():
        if number < 0:
            raise ValueError(f"{name} must not be negative: {number}")


@dataclass(frozen=True, slots=True)
class WorkerFault:
    """A fault in the connection of a worker that runs elsewhere (``/workers/work``).

    Args:
        after_responses: After how many responses of the worker it happens. Pongs don't count.
        then: One action, or several. ``Send`` sends a text as a request. While a ``Hold`` or ``Hang`` lasts, the server
            doesn't read. ``End`` closes the WebSocket, and ``Close`` the connection under it.
        times: How many connections have the fault, at least one.
        skip: How many connections pass without the fault before that.

    Raises:
        ValueError: A number is too small.

    """

    after_responses: int = 0
    then: StreamAction | tuple[StreamAction, ...] = ()
    times: int = 1
    skip: int = 0
    step: Step = field(default="worker", init=False)

    def __post_init__(self) -> None:
        _check(self.times, skip=self.skip, after_responses=self.after_responses)

    @property
    def actions(self) -> tuple[StreamAction, ...]:
        """The actions in ``then``, always as a tuple."""
        return self.then if isinstance(self.then, tuple) else (self.then,)


Scripted = Fault | StreamFault | Answer | WorkerFault
ScriptedT = TypeVar("ScriptedT", Fault, StreamFault, Answer, WorkerFault)


@dataclass(slots=True)
class _Entry:
    scripted: Scripted
    skip: int
    times: int


class Script:
    """The scripted faults that haven't happened yet. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []
        self._missed: list[Scripted] = []
        self._holds: list[Hold] = []

    def add(self, *scripted: Scripted) -> None:
        """Add these behind those that are queued already."""
        with self._lock:
            for one in scripted:
                self._entries.append(_Entry(one, one.skip, one.times))
                self._holds.extend(_holds(one))

    def take(self, kind: type[ScriptedT], step: Step) -> ScriptedT | None:
        """Return the first entry of this kind for ``step``, or None. The entry counts as used."""
        with self._lock:
            for entry in self._entries:
                if isinstance(entry.scripted, kind) and entry.scripted.step == step:
                    if entry.skip:
                        entry.skip -= 1
                        continue
                    entry.times -= 1
                    if not entry.times:
                        self._entries.remove(entry)
                    return entry.scripted
        return None

    def miss(self, scripted: Scripted) -> None:
        """Note that an entry was taken, but couldn't happen any more."""
        with self._lock:
            self._missed.append(scripted)

    def unused(self) -> tuple[Scripted, ...]:
        """Return the entries that didn't happen as many times as scripted."""
        with self._lock:
            return (*self._missed, *(entry.scripted for entry in self._entries))

    def release(self) -> None:
        """Release every ``Hold`` scripted so far."""
        with self._lock:
            holds, self._holds = self._holds, []
        for hold in holds:
            hold.release()


def _holds(scripted: Scripted) -> list[Hold]:
    match scripted:
        case Fault(before=before, after=after):
            found: tuple[object, ...] = (before, after)
        case StreamFault(actions=actions) | WorkerFault(actions=actions):
            found = actions
        case Answer(then=then):
            found = (then,)
    return [one for one in found if isinstance(one, Hold)]
