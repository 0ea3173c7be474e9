"""How long a conversation waits, and its clock.

The engine never reads a clock, because each call passes the time in as ``now``. The engine computes every deadline from
that. So a driver has one timer to set, to ``Conversation.deadline``, and computes no deadline itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from msgspec import Struct


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds.

    Attributes:
        connect: for a connection. The transport enforces this one, because only the transport knows that nothing has
            been sent yet.
        reply: for a whole reply, or for the head of a stream.
        idle: for the next byte of a stream. Servers send a ping every 15 s (WIRE 11).
        poll: for an answer whose stream was lost.
        answer: for a whole answer, from when the prompt is on the server. None means no limit, because an answer that
            is waiting may still get a worker (WIRE 22).

    Raises:
        TypeError: a value isn't a number. The message names it.
        ValueError: a value is negative. The message names it.

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
        drain: how many seconds to wait for an outstanding request, and for an answer that may be running, because
            deleting its chat breaks other users' answers (WIRE 25). 0 deletes the chat at once.
        timeout: how many seconds the whole cleanup may take. Waiting for a create, draining and deleting share this
            time. Draining can't use all of it, so there is always time for one attempt to delete (``attempt_budget``).
        attempts: the most DELETEs that are sent.

    Raises:
        TypeError: a value isn't a number. The message names it.
        ValueError: a value is too small. The message names it.

    """

    drain: float = 5.0
    timeout: float = 10.0
    attempts: int = 3

    def __post_init__(self) -> None:
        _check_seconds(self)
        check_count("attempts", self.attempts, 1)

    @property
    def attempt_budget(self) -> float:
        """The share of ``timeout`` for one attempt, in seconds. So one that hangs leaves time for the others."""
        return self.timeout / self.attempts

    @property
    def longest_drain(self) -> float:
        """The most seconds that draining may take. One attempt's share, or half of the time, is kept for deleting."""
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
    """Check that a value is a whole number of at least ``least``.

    Raises:
        TypeError: the value isn't a whole number.
        ValueError: the value is too small.

    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}: {value!r}")


class Clock(Struct, gc=False):
    """The caller's clock in the engine's count, which is seconds since the first call.

    The engine remembers all times in this count. So a pickled conversation keeps the *remaining* times: the clock of
    another process starts from another number, and its first call sets ``start`` accordingly.

    If a caller's time is earlier than the last one, it is ignored, so time never goes back.
    """

    now: float = 0.0
    start: float | None = None

    def __reduce__(self) -> tuple[type[Clock], tuple[float]]:
        return Clock, (self.elapsed,)

    @property
    def elapsed(self) -> float:
        """The current time, in the engine's count."""
        return self.now - (self.start or 0.0)

    def tell(self, now: float) -> None:
        """Set the current time, by the caller's clock."""
        if self.start is None:
            self.start = now - self.now
            self.now = now
        elif now > self.now:
            self.now = now

    def has_come(self, time: float) -> bool:
        """Return whether ``time`` has come."""
        # This computes the same sum as ``to_caller``, so rounding can't make a caller's timer fire too early.
        return self.now >= time + (self.start or 0.0)

    def to_caller(self, time: float) -> float | None:
        """Return ``time`` by the caller's clock, or None if it never comes or if the clock isn't set yet."""
        return None if self.start is None or time == math.inf else time + self.start
