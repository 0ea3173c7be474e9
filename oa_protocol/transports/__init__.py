"""What a transport is: anything that sends an HTTP request and hands back its reply as it arrives.

Each conversation gets its own transport, and another one for its cleanup. So nothing that is stuck in the first
one can hold up a DELETE. ``oa_protocol.transports.default`` chooses the transport if you don't.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from oa_protocol.engine.intents import HttpRequest


class Response(Protocol):
    """A reply whose head has arrived. ``Transport.open`` returns it."""

    @property
    def status(self) -> int:
        """The HTTP status. It is never that of an interim reply (1xx)."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """The header fields in their order, as pairs of name and value. A field that came twice is there twice.

        The names may be in upper or lower case.
        """
        ...

    async def receive(self) -> bytes:
        """Wait until some of the body has arrived, and return all that has.

        Nothing may be held back, not even half a chunk, because each token must be delivered as soon as it comes. The
        transfer coding is removed, but a content coding isn't.

        If a call is cancelled, no bytes are lost: the next call returns them, or raises ``MaybeSent``.

        Returns:
            Bytes of the body, or ``b""`` at its clean end, and at each later call.

        Raises:
            MaybeSent: the body broke off. Each later call raises it again.

        """
        ...

    async def aclose(self) -> None:
        """Release the reply. If its body was not read to the end, close its connection.

        It must not wait for the server, and it may be called again.
        """
        ...


class Transport(Protocol):
    """Sends requests one after the other. Only the reply to a stream's request may be open while others are sent."""

    async def open(self, request: HttpRequest) -> Response:
        """Send ``request`` once, as it is, and return the reply when its head has arrived.

        Add only ``host``, ``content-length`` and ``connection``. Don't follow redirects, and don't keep cookies. Never
        send the request again, because a stream that is opened twice loses tokens (OA-6.5).

        If the call is cancelled, it must leave no connection open, and the transport must stay usable.

        Args:
            request: its method, URL, header fields and body.

        Returns:
            The reply. Its body is not read yet.

        Raises:
            NotSent: the request certainly didn't leave.
            MaybeSent: the request may have left. Nothing else is raised for a failure of the network.

        """
        ...

    async def aclose(self) -> None:
        """Close every connection, even those of open replies.

        It must not wait for any server, and it may be called again.
        """
        ...


TransportFactory = Callable[[], Transport]

KEEP_ALIVE = 4.0
"""How many seconds an idle connection may be kept.

Servers close an idle connection after five seconds, without notice (WIRE 1). If a request is sent on it later, it is
unclear whether that request arrived.
"""

LONGEST_HEAD = 128 * 1024
"""How many bytes the head of a reply may have. httpx allows less, about 100 KiB."""
