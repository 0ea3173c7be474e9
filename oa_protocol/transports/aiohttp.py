"""The transport on aiohttp, for asyncio: it must be made while the event loop runs."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import Sequence
from http import HTTPStatus

import aiohttp
from yarl import URL

from oa_protocol.engine.errors import MaybeSent
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.transports import LONGEST_HEAD
from oa_protocol.transports._failures import NO_REPLY, cannot_reach, connection_failed, origin_of, reply_broke, through
from oa_protocol.transports._proxies import HTTP, check_proxy

_NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
)

_ADDED_BY_AIOHTTP = ("accept", "accept-encoding", "content-type", "user-agent")


class AiohttpTransport:
    """Sends requests over aiohttp.

    ``connect_timeout`` is in seconds; ``proxy`` is an http or https URL; ``ssl_context`` says whom to trust, and None
    is Python's choice. Raises ValueError for a proxy that cannot be used.
    """

    def __init__(
        self,
        *,
        connect_timeout: float | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        proxy = None if proxy is None else check_proxy(proxy, HTTP)
        self._through = through(proxy)
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            # On a connection that is used again, aiohttp would read what has come meanwhile as the next reply.
            connector=aiohttp.TCPConnector(force_close=True, ssl=ssl_context or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            max_field_size=LONGEST_HEAD,
            max_headers=LONGEST_HEAD,
            max_line_size=LONGEST_HEAD,
            middlewares=[self._send_once],
            proxy=proxy,
            skip_auto_headers=_ADDED_BY_AIOHTTP,
            # The body's time is the driver's business: it knows what it waits for.
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout),
        )

    async def open(self, request: HttpRequest) -> AiohttpResponse:
        """Send the request. Raises NotSent or MaybeSent."""
        route = origin_of(request.url) + self._through
        try:
            response = await self._session.request(
                request.method,
                URL(request.url, encoded=True),
                allow_redirects=False,
                # aiohttp warns of big bodies unless they are files; an empty one would be sent with a GET.
                data=io.BytesIO(request.body) if request.body else None,
                headers=request.headers,
            )
        except _NOT_SENT as error:
            raise cannot_reach(route, error) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise connection_failed(route, error) from error
        if response.status < HTTPStatus.OK:
            response.close()
            raise MaybeSent(f"the connection to {route} failed: {NO_REPLY}")
        return AiohttpResponse(response)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def _send_once(
        self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Keep aiohttp from sending a request again that may have arrived, which it does with a GET and a DELETE."""
        try:
            return await send(request)
        except _NOT_SENT:
            raise
        except aiohttp.ClientError as error:
            raise connection_failed(origin_of(str(request.url)) + self._through, error) from error


class AiohttpResponse:
    """A reply of AiohttpTransport."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        connection = response.connection
        if connection is not None and connection.protocol is not None and connection.protocol.closed is not None:
            connection.protocol.closed.add_done_callback(self._note_closed)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """The header fields."""
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._response.raw_headers]

    async def receive(self) -> bytes:
        """Return the next bytes. After a cancellation it goes on where it was."""
        content = self._response.content
        try:
            data = await content.readany()
            if not data and (failure := content.exception()) is not None:
                raise failure
        except aiohttp.ClientError as error:
            raise reply_broke(error) from error
        return data

    async def aclose(self) -> None:
        """Let go of the reply."""
        self._response.close()

    def _note_closed(self, closed: asyncio.Future[None]) -> None:
        """Break the body off where aiohttp does not.

        After chunks that are none it would wait for ever, and where a body ends with its connection, a reset is an end
        to it like any other.
        """
        failure = None if closed.cancelled() else closed.exception()
        headers, content = self._response.headers, self._response.content
        ends_with_connection = "content-length" not in headers and "transfer-encoding" not in headers
        if not content.is_eof() or (ends_with_connection and failure is not None):
            content.set_exception(aiohttp.ClientPayloadError(str(failure or "the body is no HTTP, or has no end")))
