r"""Peers on loopback that do what a test says, byte by byte; each connection has a thread of its own.

::

    def serve(connection: Connection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    with Peer(serve) as peer:
        ...  # peer.url
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from anyio import to_thread

PATIENCE = 30.0
"""Seconds after which what has not happened will not happen; who makes a signal or a peer may say another time."""

_LOOPBACK = "127.0.0.1"
_RESET = struct.pack("ii", 1, 0)


class Signal:
    """Something that has happened, told from one thread to another."""

    def __init__(self, what: str, *, patience: float = PATIENCE) -> None:
        self._what = what
        self._patience = patience
        self._event = threading.Event()

    def __str__(self) -> str:
        return self._what

    def set(self) -> None:
        """It has happened."""
        self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._event.is_set()

    def wait(self) -> None:
        """Block until it has happened. Raises AssertionError when the patience is over."""
        if not self._event.wait(self._patience):
            raise AssertionError(f"it never happened: {self._what}")

    async def reached(self) -> None:
        """Wait until it has happened, on asyncio or trio. Raises AssertionError when the patience is over."""
        await to_thread.run_sync(self.wait, abandon_on_cancel=True)


@dataclass(frozen=True, slots=True)
class Received:
    """A request, as it came over the wire."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        """The values of the header fields of this name, in lower case, in order."""
        return [value for field, value in self.headers if field.lower() == name]


class Left(Exception):
    """The other side has left. A script need not catch it."""


class Connection:
    """One connection, from the peer's side."""

    def __init__(self, peer: Peer, endpoint: socket.socket) -> None:
        self.left = Signal("the connection was closed from the transport's side", patience=peer.patience)
        self._peer = peer
        self._endpoint = endpoint
        self._unread = b""
        endpoint.settimeout(peer.patience)

    def read_head(self) -> bytes:
        """Block until a request's head is there, and return it with its empty line."""
        while b"\r\n\r\n" not in self._unread:
            self._read()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def read_request(self) -> Received:
        """Block until a request is there, and return it; ``peer.requests`` has it, too."""
        first, *lines = self.read_head().decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        fields = [line.partition(":") for line in lines]
        headers = tuple((name, value.strip()) for name, _, value in fields)
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        while len(self._unread) < length:
            self._read()
        body, self._unread = self._unread[:length], self._unread[length:]
        request = Received(method, target, headers, body)
        self._peer.requests.append(request)
        return request

    def read_some(self) -> None:
        """Block until anything is there."""
        self._read()

    def send(self, data: bytes) -> None:
        """Send the bytes."""
        with _may_have_left():
            self._endpoint.sendall(data)

    def send_bare(self, data: bytes) -> None:
        """Send the bytes as they are, though the connection is encrypted."""
        with _may_have_left():
            socket.socket.sendall(self._endpoint, data)

    def end(self) -> None:
        """Say that nothing more will come (FIN)."""
        with _may_have_left():
            self._endpoint.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection off (RST)."""
        self._endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._endpoint.close()

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Take the server's part in a handshake; what is read and sent afterwards is encrypted."""
        with _may_have_left():
            self._endpoint = context.wrap_socket(self._endpoint, server_side=True)

    def wait_until_left(self) -> None:
        """Block until the other side has closed the connection."""
        with suppress(Left):
            while True:
                self._read()
        self.left.set()

    def cut(self) -> None:
        """Unblock this connection's thread."""
        with suppress(OSError):
            self._endpoint.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back."""
        self._endpoint.close()

    def _read(self) -> None:
        data = b""
        with _may_have_left():
            data = self._endpoint.recv(65536)
        if not data:
            raise Left
        self._unread += data


@contextmanager
def _may_have_left() -> Generator[None]:
    try:
        yield
    except TimeoutError as error:
        raise AssertionError("the other side neither went on nor left") from error
    except OSError as error:
        raise Left from error


class Peer:
    """A server on a free port that gives each connection to ``serve``, and waits then for the other side to leave.

    A connection on which nothing happens for ``patience`` seconds is closed, so that whoever blocks on it is let go.
    ``host`` is an address of loopback.
    """

    def __init__(
        self,
        serve: Callable[[Connection], None],
        *,
        scheme: str = "http",
        patience: float = PATIENCE,
        host: str = _LOOPBACK,
        port: int = 0,
    ) -> None:
        self.patience = patience
        self.requests: list[Received] = []
        self.connections: list[Connection] = []
        self._serve = serve
        self._listener = socket.create_server((host, port))
        self.port: int = self._listener.getsockname()[1]
        self.netloc = f"{host}:{self.port}"
        self.url = f"{scheme}://{self.netloc}"
        self._stopping = False
        self._errors: list[Exception] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping = True
        with suppress(OSError), socket.create_connection(self._listener.getsockname()):  # unblocks the accept
            pass
        self._threads[0].join(self.patience)
        self._listener.close()
        for connection in self.connections:
            connection.cut()
        if error is not None:
            return  # who waits for a signal now waits in vain
        for thread in self._threads:
            thread.join(self.patience)
        if self._errors:
            raise self._errors[0]

    async def all_left(self) -> None:
        """Wait until every connection so far was closed from the other side."""
        for connection in list(self.connections):
            await connection.left.reached()

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            endpoint, _ = self._listener.accept()
            if self._stopping:
                endpoint.close()
                return
            endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self, endpoint)
            self.connections.append(connection)
            self._start(partial(self._attend, connection))

    def _attend(self, connection: Connection) -> None:
        try:
            with suppress(Left):
                self._serve(connection)
            connection.wait_until_left()
        except Exception as error:
            self._errors.append(error)
        finally:
            connection.close()


@contextmanager
def refusing_port() -> Generator[str]:
    """Yield the host and port of an address that refuses connections, and that nobody else can take meanwhile."""
    with socket.socket() as held:
        held.bind((_LOOPBACK, 0))
        yield f"{_LOOPBACK}:{held.getsockname()[1]}"


@contextmanager
def unanswering_port() -> Generator[str]:
    """Yield the host and port of an address at which connecting takes for ever. Works on Linux."""
    with socket.socket() as listener:
        listener.bind((_LOOPBACK, 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]  # more than the backlog takes: what comes next is not answered
        try:
            for endpoint in waiting:
                endpoint.setblocking(False)
                endpoint.connect_ex(listener.getsockname())
            yield f"{_LOOPBACK}:{listener.getsockname()[1]}"
        finally:
            for endpoint in waiting:
                endpoint.close()
