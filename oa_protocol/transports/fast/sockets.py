"""TCP connections for the transports. On asyncio they are our own, which cost half, and elsewhere they are anyio's."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import selectors
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, cast

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSAttribute, TLSStream

_HAPPY_EYEBALLS_DELAY = 0.25  # seconds
_CONNECTING = (errno.EINPROGRESS, errno.EWOULDBLOCK)
_ENOUGH = 256 * 1024  # as many bytes as asyncio reads at once

# Neither of these needs a file descriptor of its own. poll() takes descriptors of any number, and so does select() on
# Windows, which has no poll().
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


async def connect(host: str, port: int) -> ByteStream:
    """Connect to a name or an address. Raises OSError, or UnicodeError if it can't be a name."""
    if not _can_watch():
        return await anyio.connect_tcp(host, port)
    if _is_address(host):
        return await _connect_asyncio(host, port)
    return await _race(await _addresses(host, port), port)


def _can_watch() -> bool:
    """Return whether the running loop can watch a socket. That of trio and asyncio's default on Windows can't."""
    if anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
        return False
    return not isinstance(asyncio.get_running_loop(), getattr(asyncio, "ProactorEventLoop", ()))


async def _connect_asyncio(address: str, port: int) -> AsyncioStream:
    stream = AsyncioStream(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM))
    try:
        await stream.connect(address, port)
    except BaseException:
        stream.close()
        raise
    return stream


async def _addresses(name: str, port: int) -> list[str]:
    """Return the addresses of ``name``, each once, with the families in turns (RFC 8305, section 4)."""
    families: dict[int, dict[str, None]] = {}
    for family, _, _, _, address in await anyio.getaddrinfo(name, port, type=socket.SOCK_STREAM):
        families.setdefault(family, {})[address[0]] = None
    turns = itertools.zip_longest(*families.values())
    return [address for turn in turns for address in turn if address is not None]


async def _race(addresses: list[str], port: int) -> AsyncioStream:
    """Try the addresses, and return the first connection that is made.

    Each attempt begins a little after the one before, or as soon as that one has failed. asyncio's own race isn't used:
    it leaves a connection open if it is cancelled late, it breaks with eager tasks, and uvloop doesn't have it.
    """
    streams: list[AsyncioStream] = []
    errors: dict[str, OSError] = {}

    async def attempt(address: str, ended: anyio.Event) -> None:
        try:
            streams.append(await _connect_asyncio(address, port))
            group.cancel_scope.cancel()
        except OSError as error:
            errors[address] = error
        finally:
            ended.set()

    try:
        async with anyio.create_task_group() as group:
            for address in addresses:
                ended = anyio.Event()
                group.start_soon(attempt, address, ended)
                with anyio.move_on_after(_HAPPY_EYEBALLS_DELAY):
                    await ended.wait()
    except BaseException:
        for stream in streams:
            stream.close()
        raise
    if not streams:
        raise OSError("; ".join(f"{address}: {error}" for address, error in errors.items())) from errors[addresses[0]]
    for late in streams[1:]:
        late.close()
    return streams[0]


def is_silent(stream: ByteStream) -> bool:
    """Return whether everything that came from the server was read: there are no bytes, no end and no failure."""
    while isinstance(stream, TLSStream):
        if not _is_silent_inside(stream.extra(TLSAttribute.ssl_object)):  # noqa: S610  # not Django's
            return False
        stream = cast("ByteStream", stream.transport_stream)
    if isinstance(stream, AsyncioStream) and stream.has_news:
        return False
    descriptor = stream.extra(SocketAttribute.raw_socket).fileno()  # noqa: S610  # not Django's
    with _Selector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return not selector.select(0)


def _is_silent_inside(encrypted: ssl.SSLObject) -> bool:
    """Return whether TLS has nothing left to read. It may hold whole records that it hasn't decrypted yet."""
    try:
        encrypted.read(1)
    except ssl.SSLWantReadError:
        return True
    except ssl.SSLError:
        pass
    return False


class AsyncioStream(ByteStream):
    """A TCP connection on asyncio, for one reader and one writer.

    anyio's own starts and stops watching the socket for each read, which takes two system calls for each token.
    asyncio's transports don't. But each of them takes five rounds of the loop to begin and to end, and it leaves cyclic
    garbage. This one watches the socket itself, and goes on reading until the reader is ``_ENOUGH`` bytes behind.

    Attributes:
        is_reading: whether the socket is being read. It isn't while the reader is too far behind.

    """

    def __init__(self, unconnected: socket.socket) -> None:
        self.is_reading = False
        self._socket = unconnected
        self._descriptor = unconnected.fileno()
        self._loop = asyncio.get_running_loop()
        # asyncio's own loops call ``_read`` as long as there is anything to read. uvloop calls it only once for a
        # connection that was reset, even if there are bytes before the reset.
        self._is_called_again = isinstance(self._loop, asyncio.SelectorEventLoop)
        self._chunks: list[bytes] = []
        self._size = 0
        self._has_ended = False
        self._error: OSError | None = None
        # A reset that a send has met. The system reports it only once, and after that the end looks clean.
        self._reset: ConnectionResetError | None = None
        self._is_closed = False
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    async def connect(self, address: str, port: int) -> None:
        """Connect, and begin to read. Raises OSError."""
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        error = self._socket.connect_ex((address, port))
        if error in _CONNECTING:
            await self._wait_for_room()
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        self._begin_reading()

    @property
    def has_news(self) -> bool:
        """Whether there is anything that wasn't read yet: bytes, an end or a failure."""
        return bool(self._chunks) or self._has_ended or self._error is not None or self._is_closed

    async def receive(self, max_bytes: int = _ENOUGH) -> bytes:
        """Wait until something has arrived, and return all of it, even if it is more than ``max_bytes``.

        If a call is cancelled, the next one returns its bytes.
        """
        if not self.has_news:
            self._arrival = self._loop.create_future()
            await self._arrival
        if self._chunks:
            return self._take()
        if self._is_closed:
            raise anyio.ClosedResourceError
        if self._error is not None:
            raise anyio.BrokenResourceError from self._error
        raise anyio.EndOfStream

    def _take(self) -> bytes:
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        if not (self.is_reading or self._has_ended or self._error is not None or self._is_closed):
            self._begin_reading()
        self._chunks.clear()
        self._size = 0
        return data

    async def send(self, item: bytes) -> None:
        """Send all of ``item``."""
        unsent = memoryview(item)
        while not self._is_closed:
            try:
                unsent = unsent[self._socket.send(unsent) :]
            except BlockingIOError:
                pass
            except OSError as error:
                self._reset = error if isinstance(error, ConnectionResetError) else None
                raise anyio.BrokenResourceError from error
            if not unsent:
                return
            await self._wait_for_room()
        raise anyio.ClosedResourceError

    async def _wait_for_room(self) -> None:
        self._room = self._loop.create_future()
        self._loop.add_writer(self._descriptor, _wake, self._room)
        try:
            await self._room
        finally:
            if not self._is_closed:
                self._loop.remove_writer(self._descriptor)

    async def send_eof(self) -> None:
        """End the sending side."""
        if self._is_closed:
            raise anyio.ClosedResourceError
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise anyio.BrokenResourceError from error

    def close(self) -> None:
        """Close it at once. A task that waits for it gets ``anyio.ClosedResourceError``."""
        if self._is_closed:
            return
        self._is_closed = True
        if not self._loop.is_closed():  # a loop that is over watches nothing
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            _wake(self._arrival)
            _wake(self._room)
        self._socket.close()

    async def aclose(self) -> None:
        """See ``close``."""
        self.close()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket, for anyio."""
        return {SocketAttribute.raw_socket: lambda: self._socket}

    def _begin_reading(self) -> None:
        self.is_reading = True
        self._loop.add_reader(self._descriptor, self._read)

    def _read(self) -> None:
        """Keep what has arrived, and wake the reader. The loop calls this."""
        try:
            while self._size < _ENOUGH:
                data = self._socket.recv(_ENOUGH)
                if not data:
                    self._has_ended, self._error = True, self._reset
                    break
                self._chunks.append(data)
                self._size += len(data)
                if self._is_called_again:
                    break
        except BlockingIOError:
            pass
        except OSError as error:
            self._error = error
        if self._size >= _ENOUGH or self._has_ended or self._error is not None:
            self.is_reading = False
            self._loop.remove_reader(self._descriptor)
        if self.has_news:
            _wake(self._arrival)


async def close(stream: ByteStream) -> None:
    """Close it, even if the caller is cancelled. This doesn't wait for the server, so the shield is safe."""
    if isinstance(stream, AsyncioStream):
        stream.close()
        return
    with anyio.CancelScope(shield=True):
        await stream.aclose()


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


@lru_cache(maxsize=64)
def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
