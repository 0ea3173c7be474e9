"""A worker for an Open Assistant inference server: it connects to the server, and answers its messages with a model::

    await oa_protocol.worker.run("ws://127.0.0.1:8000", Lorem(), api_key="…")

What both say to each other is in ``protocol.py``, without I/O. Names are imported when they are first used.
"""

from __future__ import annotations

from oa_protocol._lazy import attach

__getattr__, __all__ = attach(__name__, __file__)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
