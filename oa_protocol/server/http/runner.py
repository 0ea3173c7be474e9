"""The server's thread, with the event loop that runs its connections and workers."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from oa_protocol.server.http.connection import Connection, UpgradedConnection

HOST = "127.0.0.1"


class Runner:
    """Serves an application on loopback from a daemon thread.

    It uses uvicorn's protocol, but not uvicorn's ``Server``. That one checks only every 0.1 s whether it has to stop,
    and it installs signal handlers.
    """

    def __init__(self, app: ASGIApp, *, on_change: Callable[[], None], on_stop: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._on_change = on_change
        self._on_stop = on_stop
        self._state = ServerState()
        self._listening: Future[tuple[int, Callable[[], object]]] = Future()
        self._halt: Callable[[], object] = lambda: None
        self._thread: threading.Thread | None = None

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._state.connections)

    def start(self, port: int) -> int:
        """Start the thread, and return the port when it listens. Raise OSError if it can't listen."""
        listener = _listen(port)
        thread = threading.Thread(target=self._run, args=(listener,), name="oa_protocol.server", daemon=True)
        thread.start()
        port, self._halt = self._listening.result()
        self._thread = thread
        return port

    def stop(self) -> None:
        """Close all connections, and return when the thread has ended."""
        if self._thread is not None:
            self._halt()
            self._thread.join()
            self._thread = None

    def _run(self, listener: socket.socket) -> None:
        try:
            with listener, asyncio.Runner() as runner:
                runner.run(self._serve(listener))
        except BaseException as error:
            if self._listening.done():
                raise
            # The server couldn't start. Raise the error in the thread that waits in ``start``.
            self._listening.set_exception(error)

    async def _serve(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        config = Config(
            self._app,
            interface="asgi3",
            http="h11",
            ws=UpgradedConnection,
            ws_ping_interval=None,  # the worker protocol has pings of its own
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            date_header=False,
        )
        config.load()
        server = await loop.create_server(
            lambda: Connection(config, self._state, self._on_change), sock=listener, backlog=2048
        )
        self._listening.set_result((listener.getsockname()[1], lambda: loop.call_soon_threadsafe(stop.set)))
        await stop.wait()
        await self._stop_accepting(listener)
        server.close()
        await self._abandon()
        await self._on_stop()

    async def _stop_accepting(self, listener: socket.socket) -> None:
        # asyncio accepts a connection some rounds of the loop before it calls ``connection_made``. If the server is
        # closed in between, asyncio forgets the connection, and it stays open (``Server._attach`` fails).
        with suppress(NotImplementedError):  # Windows' event loop has no readers
            asyncio.get_running_loop().remove_reader(listener)
        for _ in range(3):
            await asyncio.sleep(0)

    async def _abandon(self) -> None:
        for connection in tuple(self._state.connections):
            connection.transport.abort()
        # The transports call ``connection_lost`` in the next round of the loop. Before that, the requests don't know
        # that their clients are gone, so they are cancelled only afterwards.
        await asyncio.sleep(0)
        tasks = tuple(self._state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _listen(port: int) -> socket.socket:
    # Without an explicit protocol, asyncio doesn't recognize TCP and leaves Nagle's algorithm on. That would delay each
    # reply by 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
    except OSError:
        listener.close()
        raise
    return listener
