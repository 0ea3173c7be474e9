"""The connections under the fast transport: nothing is lost, nothing is hoarded, and news is noticed."""

import asyncio
import contextlib
import socket
import struct
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

import anyio
import anyio.to_thread
import pytest
from anyio.abc import ByteStream

from oa_protocol.testing.peers import refusing_port
from oa_protocol.transports.fast.sockets import AsyncioStream, connect, is_silent

from .peers import peer

# pyright: reportPrivateUsage=false

pytestmark = pytest.mark.anyio

RESET = struct.pack("ii", 1, 0)
MANY = 8 * 1024 * 1024


@contextlib.asynccontextmanager
async def connected(serve: Callable[[socket.socket], None], host: str = "127.0.0.1") -> AsyncGenerator[ByteStream]:
    with peer(serve) as port:
        stream = await connect(host, port)
        try:
            yield stream
        finally:
            await stream.aclose()


async def read_all(stream: ByteStream) -> int:
    size = 0
    with contextlib.suppress(anyio.EndOfStream):
        while True:
            size += len(await stream.receive())
    return size


async def test_all_bytes_come_and_then_the_end() -> None:
    async with connected(lambda connection: connection.sendall(b"x" * MANY)) as stream:
        assert await read_all(stream) == MANY
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()


async def test_a_name_is_connected_to() -> None:
    async with connected(lambda connection: connection.sendall(b"abc"), "localhost") as stream:
        assert await read_all(stream) == 3


@pytest.fixture
def two_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name has two addresses, and no server listens at the first one."""

    async def addresses(name: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    monkeypatch.setattr("oa_protocol.transports.fast.sockets._addresses", addresses)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.usefixtures("two_addresses")
async def test_if_one_address_of_a_name_refuses_the_next_one_is_tried() -> None:
    async with connected(lambda connection: connection.sendall(b"abc"), "a.name") as stream:
        assert await read_all(stream) == 3


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.usefixtures("two_addresses")
async def test_if_every_address_of_a_name_refuses_the_error_names_each_one() -> None:
    with refusing_port() as place, pytest.raises(OSError, match=r"127\.0\.0\.2.*; .*127\.0\.0\.1"):
        await connect("a.name", int(place.rpartition(":")[2]))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="came with 3.12")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_name_is_connected_to_with_eager_tasks() -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - not every Python has it
    try:
        async with connected(lambda connection: connection.sendall(b"abc"), "localhost") as stream:
            assert await read_all(stream) == 3
    finally:
        loop.set_task_factory(None)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_reader_that_is_far_behind_stops_the_peer() -> None:
    async with connected(lambda connection: connection.sendall(b"x" * MANY)) as stream:
        assert isinstance(stream, AsyncioStream)
        with anyio.fail_after(20):
            while stream.is_reading:
                await anyio.sleep(0.001)
        assert len(await stream.receive()) < MANY / 4
        assert stream.is_reading
        await read_all(stream)


async def test_all_is_sent_to_a_peer_that_is_slow() -> None:
    def serve(connection: socket.socket) -> None:
        sending.wait(20)
        size = 0
        while size < MANY:
            size += len(connection.recv(1024 * 1024))
        connection.sendall(b"%d" % size)

    sending = threading.Event()
    async with connected(serve) as stream, anyio.create_task_group() as group:
        group.start_soon(stream.send, b"x" * MANY)
        sending.set()
        assert await stream.receive() == b"%d" % MANY


async def test_a_peer_that_goes_breaks_what_is_being_sent() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async def send_on(stream: ByteStream) -> None:
        while True:
            await stream.send(b"x" * MANY)

    async with connected(serve) as stream:
        for _ in range(2):
            with pytest.raises(anyio.BrokenResourceError):
                await send_on(stream)


async def fails(operation: Callable[[], Awaitable[object]], error: type[Exception]) -> None:
    with pytest.raises(error):
        await operation()


async def test_closing_wakes_who_reads_and_who_sends() -> None:
    def serve(connection: socket.socket) -> None:
        closed.wait(20)

    closed = threading.Event()
    async with connected(serve) as stream, anyio.create_task_group() as group:
        group.start_soon(fails, stream.receive, anyio.ClosedResourceError)
        group.start_soon(fails, partial(stream.send, b"x" * MANY), anyio.ClosedResourceError)
        await anyio.wait_all_tasks_blocked()
        await stream.aclose()
        closed.set()


async def test_nothing_works_once_it_is_closed() -> None:
    async with connected(lambda connection: connection.sendall(b"abc")) as stream:
        await stream.aclose()
        await fails(stream.receive, anyio.ClosedResourceError)
        await fails(partial(stream.send, b"abc"), anyio.ClosedResourceError)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_end_cannot_be_sent_over_a_closed_connection() -> None:
    async with connected(lambda connection: connection.sendall(b"abc")) as stream:
        await stream.aclose()
        await fails(stream.send_eof, anyio.ClosedResourceError)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_end_cannot_be_sent_over_a_broken_connection() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async with connected(serve) as stream:
        await stream.send(b"x")
        await fails(stream.receive, anyio.BrokenResourceError)
        await fails(stream.send_eof, anyio.BrokenResourceError)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_reset_that_is_met_while_sending_is_no_clean_end_of_what_is_read() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"abc")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async with connected(serve) as stream:
        await fails(partial(stream.send, b"x" * MANY), anyio.BrokenResourceError)
        with pytest.raises(anyio.BrokenResourceError):
            await read_all(stream)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_all_that_has_come_is_noticed_at_one_look_if_there_is_no_other() -> None:
    """uvloop has a single look at a socket that was reset, and then no longer watches it."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"abc")
        connection.shutdown(socket.SHUT_WR)
        said.set()
        connection.recv(1)

    said = threading.Event()
    async with connected(serve) as stream:
        assert isinstance(stream, AsyncioStream)
        stream._is_called_again = False
        said.wait(20)
        stream._read()
        assert not stream.is_reading
        assert await read_all(stream) == 3


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_look_at_nothing_is_not_taken_for_the_end() -> None:
    """Linux may say that there is something to read when there isn't."""

    def serve(connection: socket.socket) -> None:
        wanted.wait(20)
        connection.sendall(b"abc")

    wanted = threading.Event()
    async with connected(serve) as stream, anyio.create_task_group() as group:
        assert isinstance(stream, AsyncioStream)
        group.start_soon(read_all, stream)
        await anyio.wait_all_tasks_blocked()
        stream._read()
        await anyio.wait_all_tasks_blocked()
        wanted.set()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_peer_that_has_said_all_and_left_has_ended_cleanly() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"abc")
        connection.shutdown(socket.SHUT_RDWR)
        said.set()

    async def send_on() -> None:
        while True:
            await stream.send(b"x")

    said = threading.Event()
    async with connected(serve) as stream:
        said.wait(20)
        await fails(send_on, anyio.BrokenResourceError)
        assert await read_all(stream) == 3


def test_a_connection_outlives_its_loop_and_is_closed_then() -> None:
    """Otherwise Python would warn that the socket was left open."""
    with peer(lambda connection: connection.sendall(b"abc")) as port:
        stream = asyncio.run(connect("127.0.0.1", port))
        asyncio.run(stream.aclose())


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_loop_that_cannot_watch_sockets_gets_anyio_s_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the one that asyncio uses on Windows."""
    monkeypatch.setattr(asyncio, "ProactorEventLoop", type(asyncio.get_running_loop()), raising=False)
    async with connected(lambda connection: connection.sendall(b"abc")) as stream:
        assert not isinstance(stream, AsyncioStream)
        assert await read_all(stream) == 3


async def test_a_read_that_is_cancelled_loses_nothing() -> None:
    def serve(connection: socket.socket) -> None:
        wanted.wait(20)
        connection.sendall(b"abc")

    wanted = threading.Event()
    async with connected(serve) as stream:
        with anyio.move_on_after(0.01):
            await stream.receive()
        wanted.set()
        assert await read_all(stream) == 3


async def test_a_connection_that_nothing_came_over_is_silent() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1)

    async with connected(serve) as stream:
        assert is_silent(stream)


@pytest.mark.parametrize("data", [b"abc", b""], ids=["bytes", "end"])
@pytest.mark.parametrize("noticed", [True, False])
async def test_news_ends_the_silence(data: bytes, noticed: bool) -> None:
    """Whether the event loop has noticed it already, or not yet."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        said.set()
        connection.recv(1)

    said = threading.Event()
    async with connected(serve) as stream:
        if noticed:
            await anyio.to_thread.run_sync(said.wait, 20)
            await anyio.sleep(0)
        else:
            said.wait(20)
        assert not is_silent(stream)
