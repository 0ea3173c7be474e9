"""Tools to test what is built on this package, and the package itself (docs/testing.md).

``Explorer`` searches every way in which an owner, a network and a server can play together with the engine, and tells
the shortest story in which a promise is broken. ``play`` tells a conversation step by step (``testing.playbook``).
``ConversationMachine`` is a Hypothesis state machine over an engine and a transport of yours, and
``testing.strategies`` generates what comes over the wire. ``TransportConformance`` is a test suite for a transport of
yours. ``testing.plugin`` has fixtures for pytest, and ``Faults`` is what its ``oa_faults`` gives.

Names are imported when they are first used: Hypothesis, pytest and the embedded server are needed only by what is made
of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oa_protocol.testing.explorer import Exploration, Explorer
    from oa_protocol.testing.faults import Faults
    from oa_protocol.testing.machine import ConversationMachine
    from oa_protocol.testing.playbook import Play, play
    from oa_protocol.testing.story import Line, Story
    from oa_protocol.testing.transport import TransportConformance

_HOMES = {
    "ConversationMachine": "machine",
    "Exploration": "explorer",
    "Explorer": "explorer",
    "Faults": "faults",
    "Line": "story",
    "Play": "playbook",
    "Story": "story",
    "TransportConformance": "transport",
    "play": "playbook",
}

__all__ = [
    "ConversationMachine",
    "Exploration",
    "Explorer",
    "Faults",
    "Line",
    "Play",
    "Story",
    "TransportConformance",
    "play",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
