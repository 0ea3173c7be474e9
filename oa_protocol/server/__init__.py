"""The embedded Open Assistant server: both HTTP APIs on one port of loopback, in memory.

It stands on the other side of the protocol from the client library, and shares no code with it. What it does is a
value without sockets or clocks (core.py), which the server holds and the tests copy::

    with Server() as server:
        ...  # server.url, server.cookies, server.token
        assert not server.chats

Names are imported when they are first used, so the core needs neither starlette nor uvicorn.
"""

from __future__ import annotations

from oa_protocol._lazy import attach

__getattr__, __all__ = attach(__name__, __file__)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
