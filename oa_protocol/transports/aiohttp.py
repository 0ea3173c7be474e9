"""The transport on aiohttp, for asyncio. Make it while the event loop runs."""

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

    Args:
        connect_timeout: how long connecting may take, in seconds. By default there is no limit.
        proxy: the URL of an http or https proxy.
        ssl_context: which certificates to trust. By default it is Python's choice.

    Raises:
        ValueError: the proxy can't be used.

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
            # No connection is used again, because aiohttp would read anything that came in between as the next reply.
            connector=aiohttp.TCPConnector(force_close=True, ssl=ssl_context or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            max_field_size=LONGEST_HEAD,
            max_headers=LONGEST_HEAD,
            max_line_size=LONGEST_HEAD,
            middlewares=[self._send_once],
            proxy=proxy,
            skip_auto_headers=_ADDED_BY_AIOHTTP,
            # Only connecting has a timeout. The driver bounds everything else.
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout),
        )

    async def open(self, request: HttpRequest) -> AiohttpResponse:
        """Send the request, and return once the reply's head is there. Raises NotSent or MaybeSent."""
        route = origin_of(request.url) + self._through
        try:
            response = await self._session.request(
                request.method,
                URL(request.url, encoded=True),
                allow_redirects=False,
                # aiohttp warns about big bodies unless they are files. An empty file would give a GET a body.
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
        """Send a request once. aiohttp itself would send a GET or a DELETE again, even one that may have arrived.

        An error that isn't aiohttp's own keeps it from doing so.
        """
        try:
            return await send(request)
        except _NOT_SENT:
            raise
        except aiohttp.ClientError as error:
            raise connection_failed(origin_of(str(request.url)) + self._through, error) from error


class AiohttpResponse:
    """A reply of ``AiohttpTransport``."""

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
        """Return the next bytes of the body. If a call is cancelled, the next one returns its bytes."""
        content = self._response.content
        try:
            data = await content.readany()
            if not data and (failure := content.exception()) is not None:
                raise failure
        except aiohttp.ClientError as error:
            raise reply_broke(error) from error
        return data

    async def aclose(self) -> None:
        """Release the reply, and close its connection."""
        self._response.close()

    def _note_closed(self, closed: asyncio.Future[None]) -> None:
        """Break the body off in two cases in which aiohttp doesn't.

        If chunks are malformed, aiohttp would wait forever. If a body ends with its connection, aiohttp would take a
        reset for a clean end.
        """
        failure = None if closed.cancelled() else closed.exception()
        headers, content = self._response.headers, self._response.content
        ends_with_connection = "content-length" not in headers and "transfer-encoding" not in headers
        if not content.is_eof() or (ends_with_connection and failure is not None):
            content.set_exception(aiohttp.ClientPayloadError(str(failure or "the body is malformed or cut off")))
