"""The embedded Open Assistant server: both HTTP APIs on one port of loopback, in memory.

It shares no code with the client library, so that a mistake in one of them shows. All of its behavior is in functions
on an immutable state, without sockets or clocks (``core.py``). The server keeps one such state, and tests can copy it::

    with Server() as server:
        ...  # server.url, server.cookies, server.token
        assert not server.chats

Names are imported when they are first used. So you can use the core without starlette and uvicorn.
"""

from __future__ import annotations

from oa_protocol._lazy import attach

__getattr__, __all__ = attach(__name__, __file__)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
