"""An explicit state-machine protocol engine for Open Assistant conversations.

Names are imported when they are first used, so that the engine stays free of I/O::

    from oa_protocol import Conversation, Website     # no I/O library is imported
    from oa_protocol import Client, OpenAssistant     # anyio and httpx are
    from oa_protocol import sync                      # sync.Client, for threads
"""

from __future__ import annotations

from oa_protocol._lazy import attach

__getattr__, __all__ = attach(__name__, __file__)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
