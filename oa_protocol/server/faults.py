"""What a test scripts: replies that are lost, streams that break, workers that fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from oa_protocol.server.models import PluginStep
from oa_protocol.server.requests import Step


class Hold:
    """A gate: what comes to it waits there until ``release`` (or ``Server.release``) is called, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._released = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def release(self) -> None:
        """Open the gate, for what waits at it and for what comes later."""
        with self._lock:
            self._released = True
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
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
    """An HTTP reply, in place of the server's own."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes on the connection, which need not be HTTP; then it is closed."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset (RST)."""


@dataclass(frozen=True, slots=True)
class Close:
    """The connection is closed (FIN) without an end: no reply, or no last chunk of the body."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Not a byte more, until the client leaves or the server stops."""


@dataclass(frozen=True, slots=True)
class End:
    """The stream's body ends properly."""


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes in the stream's body."""

    data: bytes


Outcome = Reply | Raw | Reset | Close | Hang | Hold
StreamAction = Send | End | Reset | Close | Hang | Hold


@dataclass(frozen=True, slots=True)
class Fault:
    """Something goes wrong with a request for ``step``, ``before`` or ``after`` it has its effect.

    With ``before``, the request isn't carried out. With ``after``, it is, and only its reply is lost or replaced. A
    ``Hold`` changes only the time: the request goes on as usual once it is released. The first ``skip`` requests for
    the step go undisturbed, then this happens ``times`` times.

    Raises ValueError if the step is unknown, if there is no outcome, if ``events`` has an ``after``, if ``times`` is
    less than one, and if a number is negative.
    """

    step: Step
    before: Outcome | None = None
    after: Outcome | None = None
    times: int = 1
    skip: int = 0

    def __post_init__(self) -> None:
        _check(self.times, skip=self.skip)
        if self.step not in get_args(Step):
            raise ValueError(f"no request is for {self.step!r}: the steps are {', '.join(get_args(Step))}")
        if self.before is None and self.after is None:
            raise ValueError("a Fault needs `before` or `after`")
        if self.step == "events" and self.after is not None:
            raise ValueError("a stream has no `after`: script a StreamFault")


@dataclass(frozen=True, slots=True)
class StreamFault:
    """An event stream goes on as usual for ``after_events`` events (pings don't count), then does what ``then`` says.

    With ``events``, these are sent instead of the answer's own: a mapping as one event, bytes as they are. Without
    ``after_events``, ``then`` comes at the start, or after the last of ``events``. If the last action is ``Send`` or
    ``Hold``, the stream goes on as usual, or ends when its scripted ``events`` do. Raises ValueError if ``times`` is
    less than one, and if a number is negative.
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
        """``then`` as a tuple."""
        return self.then if isinstance(self.then, tuple) else (self.then,)

    @property
    def position(self) -> int:
        """After how many events ``then`` comes."""
        return len(self.events or ()) if self.after_events is None else self.after_events


@dataclass(frozen=True, slots=True)
class WorkerError:
    """The worker gives up: an ``error`` event with this text, and the state ``aborted_by_worker``."""

    text: str = "Aborted due to worker error."


@dataclass(frozen=True, slots=True)
class Freeze:
    """The worker says no more. After 40 s the server gives it up: an ``error``, or without a token the queue again."""


@dataclass(frozen=True, slots=True)
class Never:
    """No worker takes the message; it stays ``pending``."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """The message goes to this state, of which the stream says nothing.

    A message stays ``in_progress`` if the server is killed and started again.
    """

    state: Literal["cancelled", "timeout", "in_progress"] = "cancelled"


@dataclass(frozen=True, slots=True)
class Answer:
    """How the worker treats the next assistant message that is requested.

    It sends ``pieces``, or the model's if None. After the first ``after`` of them, ``then`` happens. A ``Hold`` lets
    the worker go on when it is released. The message's content is ``final``, or else the text stripped, as workers do.
    Raises ValueError if ``times`` is less than one, and if a number is negative.
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
        raise ValueError(f"what is scripted happens once at least, not {times} times")
    for name, number in numbers.items():
        if number < 0:
            raise ValueError(f"{name} must not be negative: {number}")


Scripted = Fault | StreamFault | Answer
ScriptedT = TypeVar("ScriptedT", Fault, StreamFault, Answer)


@dataclass(slots=True)
class _Entry:
    scripted: Scripted
    skip: int
    times: int


class Script:
    """The scripted faults that are still to come. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []
        self._missed: list[Scripted] = []
        self._holds: list[Hold] = []

    def add(self, *scripted: Scripted) -> None:
        """Queue these behind the ones there are."""
        with self._lock:
            for one in scripted:
                self._entries.append(_Entry(one, one.skip, one.times))
                self._holds.extend(_holds(one))

    def take(self, kind: type[ScriptedT], step: Step) -> ScriptedT | None:
        """Return the first entry of this kind for ``step``, if there is one: it happens to this request."""
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
        """Note that something was taken, but came too late to happen."""
        with self._lock:
            self._missed.append(scripted)

    def unused(self) -> tuple[Scripted, ...]:
        """Return what has not happened, or not as many times as scripted."""
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
        case StreamFault(actions=actions):
            found = actions
        case Answer(then=then):
            found = (then,)
    return [one for one in found if isinstance(one, Hold)]
