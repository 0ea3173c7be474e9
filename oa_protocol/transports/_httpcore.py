"""A connection as httpcore sees it: its network backend, and the stream that this backend opens."""

from __future__ import annotations

import ssl
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from types import ModuleType

import anyio
import httpcore
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from oa_protocol.transports._body import BROKEN, HEAD_END, Body, SocketResponse
from oa_protocol.transports._failures import raise_ungrouped, words_of
from oa_protocol.transports.fast.sockets import close, connect


class Connection(httpcore.AsyncNetworkBackend, httpcore.AsyncNetworkStream):
    """The connection of one request. httpcore connects, sends the request, and reads the reply's head over it.

    httpcore gets nothing after the head. The body is read by ``take_reply``'s response.
    """

    def __init__(self, core: ModuleType) -> None:
        self._core = core
        self._socket: ByteStream | None = None
        self._stream: ByteStream  # the socket, or what is encrypted on top of it
        self._unsent = b""
        self._head = b""
        self._rest = b""
        self.is_closed = False

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> Connection:
        """See httpcore."""
        with self._connecting(), anyio.fail_after(timeout):
            self._socket = self._stream = await connect(host.strip("[]"), port)
        return self

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Connection:
        """See httpcore."""
        host = (server_hostname or "").strip("[]")  # certificates have no brackets
        with self._connecting(), anyio.fail_after(timeout):
            # HTTP itself says where a body ends, and hardly any server sends a TLS close notice.
            self._stream = await TLSStream.wrap(
                self._stream, hostname=host, ssl_context=ssl_context, standard_compatible=False, server_side=False
            )
        return self

    @contextmanager
    def _connecting(self) -> Generator[None]:
        try:
            yield
        except TimeoutError as error:
            raise self._core.ConnectTimeout(words_of(error)) from error
        except (*BROKEN, ValueError) as error:
            raise self._core.ConnectError(words_of(error)) from error
        except BaseExceptionGroup as group:
            raise_ungrouped(group)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Keep it until ``read``, because httpcore writes a head and its body separately."""
        self._unsent += buffer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has arrived, up to the end of a head."""
        try:
            if self._unsent:
                await self._send()
            data = self._rest or await self._stream.receive()
        except anyio.EndOfStream:
            return b""
        except BROKEN as error:
            raise self._core.ReadError(words_of(error)) from error
        self._rest = b""
        if not self._head and not data.startswith(b"H"):
            return data  # a socks proxy's reply, which may have any bytes, or no HTTP
        searched = max(len(self._head) - 2, 0)
        self._head += data
        end = HEAD_END.search(self._head, searched)
        if end is None:
            return data
        left = len(self._head) - end.end()
        self._head = b""
        if left:
            data, self._rest = data[:-left], data[-left:]
        return data

    async def _send(self) -> None:
        message, self._unsent = self._unsent, b""
        # A server may refuse a request, and close the connection, before it has read all of it.
        with suppress(*BROKEN):
            await self._stream.send(message)

    async def aclose(self) -> None:
        """Close it, even if the caller is cancelled."""
        self.is_closed = True
        if self._socket is not None:
            await close(self._socket)

    def take_reply(self, status: int, headers: list[tuple[bytes, bytes]]) -> HttpxResponse:
        """Return the reply whose head httpcore has read. Raises ValueError if its body can't be read."""
        body = Body()
        body.begin(status, [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
        body.feed(self._rest)
        return HttpxResponse(self, self._stream, body)


class HttpxResponse(SocketResponse):
    """A reply of ``HttpxTransport``."""

    def __init__(self, connection: Connection, stream: ByteStream, body: Body) -> None:
        super().__init__(stream, body)
        self._connection = connection

    async def aclose(self) -> None:
        """Release the reply, and close its connection."""
        self._reply.close()
        await self._connection.aclose()
