"""How long a conversation waits, and the clock by which it does.

The engine never reads a clock: each call passes ``now`` in. Every deadline is counted from there, so that a driver has
one timer to set (``Conversation.deadline``) and none to compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from msgspec import Struct


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds.

    Attributes:
        connect: for a connection. Only the transport knows that nothing has been sent then, so it keeps this one.
        reply: for a whole reply, or the head of a stream.
        idle: for any byte of a stream; servers send a ping every 15 s (WIRE 11).
        poll: for an answer whose stream was lost.
        answer: for an answer at all, counted from when the prompt is on the server. None means no limit, because an
            answer that merely waits may still get its worker (WIRE 22).

    Raises:
        TypeError, ValueError: a value is no number, or is negative. The message names it.

    """

    connect: float = 10.0
    reply: float = 30.0
    idle: float = 45.0
    poll: float = 300.0
    answer: float | None = None

    def __post_init__(self) -> None:
        _check_seconds(self, optional="answer")


@dataclass(frozen=True, slots=True)
class Cleanup:
    """How a chat is cleaned up after its owner has left.

    Attributes:
        drain: seconds to wait for a request that is under way, and for an answer that may be running, because deleting
            its chat breaks other users' answers (WIRE 25). 0 deletes at once.
        timeout: seconds until everything is over. Waiting for a create, draining and deleting have to share them, and
            whatever the others take, one attempt to delete keeps its share (``attempt_budget``).
        attempts: how many DELETEs are sent at most.

    Raises:
        TypeError, ValueError: a value is no number, or is too small. The message names it.

    """

    drain: float = 5.0
    timeout: float = 10.0
    attempts: int = 3

    def __post_init__(self) -> None:
        _check_seconds(self)
        check_count("attempts", self.attempts, 1)

    @property
    def attempt_budget(self) -> float:
        """One attempt's share of the time in seconds, so that an attempt that hangs leaves time for the others."""
        return self.timeout / self.attempts

    @property
    def longest_drain(self) -> float:
        """The seconds that draining may take at most: one attempt's share is kept back, or half of the time."""
        return min(self.drain, self.timeout - min(self.attempt_budget, self.timeout / 2))


def _check_seconds(settings: Timeouts | Cleanup, *, optional: str = "") -> None:
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value is None and field.name == optional:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{field.name} must be a number, not {value!r}")
        if not value >= 0:
            raise ValueError(f"{field.name} must not be negative: {value!r}")


def check_count(name: str, value: object, least: int) -> None:
    """Refuse a value that isn't a whole number of at least ``least``.

    Raises:
        TypeError, ValueError: with a message that names the value.

    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}: {value!r}")


class Clock(Struct, gc=False):
    """The caller's clock, as the engine counts it: in seconds since the first call.

    A time that the engine remembers is such a count. So a pickled conversation keeps the *remaining* times: in another
    process, whose clock stands somewhere else, the first call says where to go on. A time earlier than the last one
    counts as the last one.
    """

    now: float = 0.0
    start: float | None = None

    def __reduce__(self) -> tuple[type[Clock], tuple[float]]:
        return Clock, (self.elapsed,)

    @property
    def elapsed(self) -> float:
        """The time now, in the engine's count."""
        return self.now - (self.start or 0.0)

    def tell(self, now: float) -> None:
        """Take the time that a caller passes in."""
        if self.start is None:
            self.start = now - self.now
            self.now = now
        elif now > self.now:
            self.now = now

    def has_come(self, time: float) -> bool:
        """Return whether ``time`` has come. It is compared as ``to_caller`` tells it, so that rounding can't matter."""
        return self.now >= time + (self.start or 0.0)

    def to_caller(self, time: float) -> float | None:
        """Return ``time`` by the caller's clock, or None if it never comes or no call has told the time yet."""
        return None if self.start is None or time == math.inf else time + self.start
