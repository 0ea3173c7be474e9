r"""Servers on the loopback interface that run a test's script, byte by byte.

Each connection has its own thread, so a script may block::

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
from pathlib import Path
from types import TracebackType
from typing import Self

from anyio import sleep, to_thread

PATIENCE = 30.0
"""How many seconds to wait for something before it counts as failed. ``Signal`` and ``Peer`` accept another number."""

_LOOPBACK = "127.0.0.1"
_RESET = struct.pack("ii", 1, 0)
_SYN_SENT = "02"  # in /proc/net/tcp
_LOOK_EVERY = 0.02  # seconds


class Signal:
    """An event that one thread sets, and another one waits for.

    Args:
        what: what has happened, for the error message if it doesn't happen.
        patience: how many seconds to wait.

    """

    def __init__(self, what: str, *, patience: float = PATIENCE) -> None:
        self._what = what
        self._patience = patience
        self._event = threading.Event()

    def __str__(self) -> str:
        return self._what

    def set(self) -> None:
        """Report that it has happened."""
        self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._event.is_set()

    def wait(self) -> None:
        """Block until it has happened.

        Raises:
            AssertionError: it didn't happen within ``patience`` seconds.

        """
        if not self._event.wait(self._patience):
            raise AssertionError(f"it never happened: {self._what}")

    async def reached(self) -> None:
        """Wait until it has happened, on asyncio or trio.

        Raises:
            AssertionError: it didn't happen within ``patience`` seconds.

        """
        await to_thread.run_sync(self.wait, abandon_on_cancel=True)


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Return the values of the header fields with this name, in their order. Write the name in lower case."""
        return [value for field, value in self.headers if field.lower() == name]


class Left(Exception):
    """The other side has closed the connection. Scripts don't have to catch it."""


class Connection:
    """One connection, from the peer's side.

    Each method that blocks raises ``Left`` if the other side closes the connection, and ``AssertionError`` if nothing
    happens for ``Peer.patience`` seconds.

    Attributes:
        left: a signal that is set when the other side has closed the connection.

    """

    def __init__(self, peer: Peer, endpoint: socket.socket) -> None:
        self.left = Signal("the connection was closed from the transport's side", patience=peer.patience)
        self._peer = peer
        self._endpoint = endpoint
        self._unread = b""
        endpoint.settimeout(peer.patience)

    def read_head(self) -> bytes:
        """Block until the head of a request has arrived, and return it with its empty line."""
        while b"\r\n\r\n" not in self._unread:
            self._read()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def read_request(self) -> Received:
        """Block until a request has arrived, and return it. It is appended to ``Peer.requests``, too."""
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
        """Block until any bytes have arrived."""
        self._read()

    def send(self, data: bytes) -> None:
        """Send the bytes."""
        with _may_have_left():
            self._endpoint.sendall(data)

    def send_bare(self, data: bytes) -> None:
        """Send the bytes without encryption, even after ``start_tls``."""
        with _may_have_left():
            socket.socket.sendall(self._endpoint, data)

    def end(self) -> None:
        """End the peer's side of the connection (FIN)."""
        with _may_have_left():
            self._endpoint.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Reset the connection (RST)."""
        self._endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._endpoint.close()

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Do a TLS handshake as the server. Everything that is read and sent afterwards is encrypted."""
        with _may_have_left():
            self._endpoint = context.wrap_socket(self._endpoint, server_side=True)

    def wait_until_left(self) -> None:
        """Block until the other side has closed the connection."""
        with suppress(Left):
            while True:
                self._read()
        self.left.set()

    def cut(self) -> None:
        """Shut the socket down, so that the connection's thread no longer blocks."""
        with suppress(OSError):
            self._endpoint.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
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
        raise AssertionError("the other side neither sent nor read anything, nor closed the connection") from error
    except OSError as error:
        raise Left from error


class Peer:
    """A server that calls ``serve`` for each connection, and then waits until the other side closes the connection.

    Use it as a context manager. It raises the first error of ``serve`` when it ends.

    Args:
        serve: the script for one connection. It runs in the connection's own thread.
        scheme: the scheme of ``url``, ``http`` or ``https``.
        patience: a connection is closed if nothing happens on it for this many seconds. So nothing blocks forever.
        host: an address of the loopback interface.
        port: the port, or 0 for a free one.

    Attributes:
        requests: the requests that ``Connection.read_request`` has read.
        connections: all connections so far.
        port: the port.
        netloc: the host and the port, as in a URL.
        url: the URL, without a slash at its end.

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
            return  # Don't join the threads: some of them may wait for signals that won't be set any more.
        for thread in self._threads:
            thread.join(self.patience)
        if self._errors:
            raise self._errors[0]

    async def all_left(self) -> None:
        """Wait until the other side has closed all connections so far.

        Raises:
            AssertionError: a connection is still open after ``patience`` seconds.

        """
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
    """Yield the host and port of an address that refuses connections."""
    # The socket is bound but doesn't listen, so no other program can get the port meanwhile.
    with socket.socket() as held:
        held.bind((_LOOPBACK, 0))
        yield f"{_LOOPBACK}:{held.getsockname()[1]}"


class UnansweringPort:
    """An address to which connecting neither succeeds nor fails, until ``answer`` is called. It works on Linux only.

    Attributes:
        netloc: the host and port.

    """

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind((_LOOPBACK, 0))
        self._listener.listen(0)
        # These connections fill the backlog, so the kernel doesn't answer further ones.
        self._waiting = [socket.socket() for _ in range(4)]
        for endpoint in self._waiting:
            endpoint.setblocking(False)
            endpoint.connect_ex(self._listener.getsockname())
        self._filling = self._connecting()
        self.netloc = f"{_LOOPBACK}:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def wait_until_wanted(self) -> None:
        """Wait until a connection is pending."""
        while self._connecting() <= self._filling:  # noqa: ASYNC110  # the kernel announces no event
            await sleep(_LOOK_EVERY)

    def answer(self) -> bytes:
        """Accept connections until none is pending. Return the first bytes that arrive, or nothing."""
        self._leave()
        sent, is_awaited = b"", True
        while is_awaited and not sent:
            is_awaited = self._connecting() > 0  # a connection that was made since is accepted below
            self._listener.settimeout(_LOOK_EVERY)
            with suppress(TimeoutError, ConnectionError):
                connection, _ = self._listener.accept()
                is_awaited = True
                with connection:
                    connection.settimeout(PATIENCE)
                    sent = connection.recv(1000)
        return sent

    def close(self) -> None:
        """Release the address."""
        self._leave()
        self._listener.close()

    def _leave(self) -> None:
        for endpoint in self._waiting:
            endpoint.close()

    def _connecting(self) -> int:
        """Return how many sockets wait for an answer of this address. Linux lists them."""
        ours = f"0100007F:{self._listener.getsockname()[1]:04X}"
        lines = Path("/proc/net/tcp").read_text("ascii").splitlines()
        return sum(line.split()[2:4] == [ours, _SYN_SENT] for line in lines)
