"""Tools to test programs that use this package, and the package itself (docs/testing.md).

- ``Explorer`` tries everything that an owner, a network and a server can do to an engine. If a promise is broken, it
  shows the shortest story in which that happens.
- ``play`` checks a conversation step by step (``testing.playbook``).
- ``ConversationMachine`` is a Hypothesis state machine that tests an engine or a transport of yours.
- ``testing.strategies`` has Hypothesis strategies for everything that comes over the wire.
- ``TransportConformance`` and ``ServerConformance`` are test suites for transports and servers.
- ``testing.plugin`` has fixtures for pytest. Its fixture ``oa_faults`` is a ``Faults`` object.

Each name is imported when you first use it, so you need Hypothesis, pytest and the embedded server only for the tools
that use them.
"""

from __future__ import annotations

from oa_protocol._lazy import attach

__getattr__, __all__ = attach(__name__, __file__)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
