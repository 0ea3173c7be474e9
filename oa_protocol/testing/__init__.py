"""Tools to test what is built on this package, and the package itself (docs/testing.md).

``Explorer`` searches every way in which an owner, a network and a server can play together with the engine, and tells
the shortest story in which a promise is broken. ``play`` tells a conversation step by step (``testing.playbook``).
``ConversationMachine`` is a Hypothesis state machine over an engine and a transport of yours, and
``testing.strategies`` generates what comes over the wire. ``TransportConformance`` and ``ServerConformance`` are test
suites for a transport and a server of yours. ``testing.plugin`` has fixtures for pytest, and ``Faults`` is what its
``oa_faults`` gives.

Names are imported when they are first used: Hypothesis, pytest and the embedded server are needed only by what is made
of them.
"""

from __future__ import annotations

from oa_protocol._lazy import attach

__getattr__, __all__ = attach(__name__, __file__)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
