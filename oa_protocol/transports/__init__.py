"""What a transport is: anything that can send an HTTP request and hand back its reply as it arrives.

A conversation gets a transport of its own, and one more for its cleanup. ``transports.default`` says which by default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from oa_protocol.engine.intents import HttpRequest


class Response(Protocol):
    """A reply whose head has arrived."""

    @property
    def status(self) -> int:
        """The HTTP status; never that of an interim reply (1xx)."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """The header fields in their order, repeated ones repeated; names in any case."""
        ...

    async def receive(self) -> bytes:
        """Return the body bytes that have arrived, waiting for some; ``b""`` at the body's clean end, and ever after.

        The transfer coding is undone, a content coding is not. Nothing may be held back: a token waits for no other.
        Raises MaybeSent where the body broke off, and ever after. A call that is cancelled loses nothing: the next one
        goes on where it was, or raises MaybeSent.
        """
        ...

    async def aclose(self) -> None:
        """Let go of the reply, and close its connection where the body was not read to its end.

        Waits for no peer. May be called again.
        """
        ...


class Transport(Protocol):
    """Sends requests, one after the other; only a stream's reply may stay open while others are sent."""

    async def open(self, request: HttpRequest) -> Response:
        """Send ``request`` once, as it is, and return the reply once its head is there.

        Only ``host``, ``content-length`` and ``connection`` are added. No redirect is followed, no cookie kept. Raises
        NotSent where the request certainly did not leave, MaybeSent where it may have, and nothing else. A call that is
        cancelled leaves no connection open, and the transport as good as before.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection that is left, those of open replies, too. Waits for no peer. May be called again."""
        ...


TransportFactory = Callable[[], Transport]

KEEP_ALIVE = 4.0
"""Seconds for which an idle connection may be kept.

Servers close theirs after five without a word (WIRE 1): one that is reused later may be dead, and the fate of the
request on it unclear.
"""

LONGEST_HEAD = 128 * 1024
"""Bytes that the head of a reply may have: more than httpx allows, which is about 100 KiB."""
