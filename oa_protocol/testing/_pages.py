"""Pages about failures: a violation of the explorer or of the machine, or a playbook that the conversation leaves.

The last failure is kept, so that the pytest plugin can write its page if the test fails because of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oa_protocol.engine.events import Event
from oa_protocol.engine.inputs import (
    Abandon,
    Close,
    CredentialsFound,
    ExchangeFailed,
    Interrupted,
    Keep,
    Prompt,
    Regenerate,
    ReplyReceived,
    StreamData,
    StreamEnded,
    StreamOpened,
)
from oa_protocol.engine.intents import CloseStream, Exchange, LoadCredentials
from oa_protocol.tape._page import LANES

_OWNER, _ENGINE, _NETWORK, _SERVER = range(len(LANES))


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure. ``problem`` is a line of its message, and ``to_html`` makes the page."""

    problem: str
    to_html: Callable[[], str]


noted: list[Failure] = []
"""The last failure, if there was one."""


def note(problem: str, to_html: Callable[[], str]) -> None:
    """Keep a failure instead of the last one. While Hypothesis looks for a shorter example, there are many."""
    noted[:] = [Failure(problem, to_html)]


def ends_of(value: object) -> tuple[int, int]:
    """Return from whom and to whom a step of a playbook goes, as indices of ``LANES``."""
    kind = value if isinstance(value, type) else type(value)
    if issubclass(kind, (Prompt, Regenerate, Keep, Close, Abandon, Interrupted, CredentialsFound)):
        return _OWNER, _ENGINE
    if issubclass(kind, (ReplyReceived, StreamData, StreamOpened, StreamEnded)):
        return _SERVER, _ENGINE
    if issubclass(kind, ExchangeFailed):
        return _NETWORK, _ENGINE
    if issubclass(kind, Exchange):
        return _ENGINE, _SERVER
    if issubclass(kind, CloseStream):
        return _ENGINE, _NETWORK
    if issubclass(kind, (Event, LoadCredentials)):
        return _ENGINE, _OWNER
    return _ENGINE, _ENGINE
