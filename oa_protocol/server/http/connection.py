"""HTTP connections that a fault can cut: uvicorn's protocol, with access to its transport."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

import h11
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

LOGGER = logging.getLogger("oa_protocol.server.http")
"""Logs uvicorn's messages about a connection, for example that the client doesn't speak HTTP.

Our own errors are logged in ``app.py``.
"""
LOGGER.addHandler(logging.NullHandler())
LOGGER.setLevel(logging.WARNING)  # uvicorn notes each WebSocket that is opened and closed

_NAME = re.compile(rb"^[^:\r\n]+(?=:)", re.MULTILINE)
# With this value of SO_LINGER (on, 0 s), closing a socket sends a RST instead of a FIN.
_NO_LINGER = struct.pack("ii", 1, 0)


class _Wire(h11.Connection):
    """Writes all header names in lower case, as the real servers do. h11 adds some of its own in title case."""

    def send(self, event: h11.Event) -> bytes | None:  # type: ignore[override]  # no overload for how a connection ends
        """Return the bytes of the event."""
        sent = super().send(event)
        if not isinstance(event, h11.Response) or sent is None:
            return sent
        status_line, _, fields = sent.partition(b"\r\n")
        return status_line + b"\r\n" + _NAME.sub(lambda name: name[0].lower(), fields)


class _Cut:
    """What a fault can do to a connection. Requests find it in ``scope["state"]``."""

    transport: asyncio.Transport
    _lost: asyncio.Event

    async def reset(self) -> None:
        """End the connection with a RST. Bytes that aren't sent yet are lost."""
        with suppress(OSError):  # the client may have closed it before
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()
        await self._lost.wait()

    async def close(self, data: bytes = b"") -> None:
        """Send ``data``, and end the connection with a FIN."""
        self.transport.write(data)
        self.transport.close()
        await self._lost.wait()


class Connection(_Cut, H11Protocol):
    """A client's connection."""

    def __init__(self, config: Config, server_state: ServerState, on_change: Callable[[], None]) -> None:
        super().__init__(config, server_state, {"connection": self}, None)
        self.conn = _Wire(h11.SERVER)
        # uvicorn's own loggers belong to the rest of this process, which may run uvicorn, too.
        self.logger = LOGGER
        self.access_log = False
        self._on_change = on_change
        self._lost = asyncio.Event()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvicorn's own narrowing
        """Handle a call of the event loop."""
        super().connection_made(transport)
        self._on_change()

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle a call of the event loop."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._lost.set()
        self._on_change()

    def connection_upgraded_and_lost(self) -> None:
        """Note that the connection is gone, after it was upgraded."""
        self._lost.set()
        self._on_change()


class UpgradedConnection(_Cut, WebSocketsSansIOProtocol):
    """A worker's connection after it was upgraded to a WebSocket. uvicorn makes it, and keeps the transport."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config, server_state, {"connection": self})
        self.logger = LOGGER
        self.conn.logger = LOGGER
        self._before: Connection = app_state["connection"]
        self._lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle a call of the event loop."""
        super().connection_lost(exc)
        self._lost.set()
        self._before.connection_upgraded_and_lost()


def has_connection(scope: MutableMapping[str, Any]) -> bool:
    """Tell whether a request came over a socket."""
    return "connection" in scope.get("state", {})


def connection_of(scope: MutableMapping[str, Any]) -> Connection | UpgradedConnection:
    """Return a request's connection. Raise ConnectionResetError if the application runs in memory, without one."""
    connection = scope.get("state", {}).get("connection")
    if not isinstance(connection, Connection | UpgradedConnection):
        raise ConnectionResetError("the scripted fault cuts the connection, but the application runs without one")
    return connection


async def disconnected(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


class CutReply(Response):
    """Does something to the connection instead of sending a reply."""

    def __init__(self, cut: Callable[[Scope, Receive], Awaitable[None]]) -> None:
        self.background = None
        self._cut = cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do it."""
        del send
        await self._cut(scope, receive)
