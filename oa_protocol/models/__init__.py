"""The models that write answers, for the embedded server and for workers.

A model has one method, ``answer``, an async generator that yields the pieces of an answer. Names are imported when they
are first used, so a model that needs an extra costs nothing unless you use it.
"""

from __future__ import annotations

from oa_protocol._lazy import attach

__getattr__, __all__ = attach(__name__, __file__)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
