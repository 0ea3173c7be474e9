"""TCP connections for the fast transport. On trio they are anyio's. On asyncio they are our own, which cost half."""

from __future__ import annotations

import asyncio
import itertools
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
_ENOUGH = 256 * 1024  # as many bytes as asyncio reads at once

# Neither of these needs a file descriptor of its own. poll() takes descriptors of any number, and so does select() on
# Windows, which has no poll().
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


async def connect(host: str, port: int) -> ByteStream:
    """Connect to a name or an address. Raises OSError, or UnicodeError if it can't be a name."""
    if anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
        return await anyio.connect_tcp(host, port)
    if _is_address(host):
        return await _connect_asyncio(host, port)
    return await _race(await _addresses(host, port), port)


async def _connect_asyncio(address: str, port: int) -> AsyncioStream:
    _, stream = await asyncio.get_running_loop().create_connection(AsyncioStream, address, port)
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
            stream.abort()
        raise
    if not streams:
        raise OSError("; ".join(f"{address}: {error}" for address, error in errors.items())) from errors[addresses[0]]
    for late in streams[1:]:
        late.abort()
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


class AsyncioStream(asyncio.Protocol, ByteStream):
    """A TCP connection on asyncio, for one reader and one writer.

    anyio's own starts and stops watching the socket for each read, which takes two system calls for each token. This
    one goes on reading until the reader is ``_ENOUGH`` bytes behind.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._chunks: list[bytes] = []
        self._size = 0
        self._has_ended = False
        self._is_lost = False
        self._error: Exception | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None

    @property
    def has_news(self) -> bool:
        """Whether there is anything that wasn't read yet: bytes, an end or a failure."""
        return bool(self._chunks) or self._has_ended or self._is_lost

    @property
    def is_reading(self) -> bool:
        """Whether the socket is being read. It isn't while the reader is too far behind."""
        return self._transport.is_reading()

    async def receive(self, max_bytes: int = _ENOUGH) -> bytes:
        """Wait until something has arrived, and return all of it, even if it is more than ``max_bytes``.

        If a call is cancelled, the next one returns its bytes.
        """
        if not self.has_news:
            self._arrival = self._loop.create_future()
            await self._arrival
        if self._chunks:
            return self._take()
        if self._is_lost:
            raise anyio.BrokenResourceError from self._error
        raise anyio.EndOfStream

    def _take(self) -> bytes:
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        if self._size >= _ENOUGH:
            self._transport.resume_reading()
        self._chunks.clear()
        self._size = 0
        return data

    async def send(self, item: bytes) -> None:
        """Send all of ``item``."""
        if not self._is_lost:
            self._transport.write(item)
        if self._drained is not None:
            await self._drained
        if self._is_lost:
            raise anyio.BrokenResourceError from self._error

    async def send_eof(self) -> None:
        """End the sending side."""
        self._transport.write_eof()

    def abort(self) -> None:
        """Close it in the loop's next round. Bytes that weren't sent yet are dropped."""
        self._transport.abort()

    async def aclose(self) -> None:
        """Close it. Bytes that weren't sent yet are dropped."""
        self.abort()
        await asyncio.sleep(0)  # the socket is closed in the loop's next round

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket, for anyio."""
        return {SocketAttribute.raw_socket: lambda: cast("socket.socket", self._transport.get_extra_info("socket"))}

    # ---- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep asyncio's transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Keep the bytes, and wake the reader. If the reader is too far behind, stop reading from the socket."""
        self._chunks.append(bytes(data))
        was_enough = self._size >= _ENOUGH
        self._size += len(data)
        if self._size >= _ENOUGH and not was_enough:
            self._transport.pause_reading()
        _wake(self._arrival)

    def eof_received(self) -> bool:
        """Note that the server won't send any more. Return True, so that asyncio keeps the connection open."""
        self._has_ended = True
        _wake(self._arrival)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is closed, by either side, and wake everybody."""
        self._is_lost = True
        self._error = exc
        _wake(self._arrival)
        _wake(self._drained)

    def pause_writing(self) -> None:
        """Make ``send`` wait, because too much is waiting to be sent."""
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let ``send`` go on."""
        _wake(self._drained)
        self._drained = None


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
