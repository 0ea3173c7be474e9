"""Reads requests. Refuses those that are meant for another server, and bodies that would take too much memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from oa_protocol.server.core import body_limit
from oa_protocol.server.http.connection import has_connection
from oa_protocol.server.requests import Request

BODIES_LIMIT = 64 * 1024 * 1024
"""How many bytes of bodies may be in memory while they are being read. A request that exceeds this is refused."""
BODY_SECONDS = 60.0
"""How long a client may take to send a body, in seconds."""
LINGER_SECONDS = 1.0
"""How long to wait for the next piece of a body that is dropped, in seconds."""

_ABSOLUTE = re.compile(r"[a-z][a-z\d+.-]*://", re.ASCII | re.IGNORECASE)
_HOST = re.compile(r"(?:\[([\da-f:.]+)\]|([^][/@?#:\s]+))(?::\d*)?", re.ASCII | re.IGNORECASE)
# A web site can't own these names, so no foreign page can have them as its origin.
_LOOPBACK = re.compile(r"(.+\.)?localhost|127(\.\d{1,3}){3}|::1", re.ASCII)


class Refused(Exception):
    """The request isn't carried out. The reply has this status, and this sentence as its body."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence)
        self.status = status
        self.sentence = sentence


class Intake:
    """Reads requests for a server that is known by ``names`` and by the names of loopback.

    The owner of any web site can let the site's name resolve to this machine (DNS rebinding). The scripts of the site
    could then read this server's replies, which contain credentials. But a page can't change what the browser writes
    into ``Host`` and ``Origin``. So each of them has to be one of our names. If a page embeds one of our URLs, for
    example as an image, the browser sends no ``Origin``, but it says in ``Sec-Fetch-Site`` that the page is foreign.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower() for name in names)
        self._held = 0  # bytes of the bodies that are being read now, by all requests together

    async def read(self, scope: Scope, receive: Receive) -> Request:
        """Read a request. If the body is too long, the request has only its length.

        Raise Refused if the request must not be carried out, and ClientDisconnect if the client leaves.
        """
        request = self.read_head(scope)
        limit = body_limit(request)
        declared = int(request.header("content-length") or 0)
        if declared > limit:
            return request._replace(unread=declared)
        return await self._read_body(request, receive, limit)

    def read_head(self, scope: Scope) -> Request:
        """Return a request without its body. Raise Refused if it must not be carried out."""
        raw_path: bytes = scope["raw_path"]
        query: bytes = scope["query_string"]
        target = (raw_path + b"?" + query if query else raw_path).decode("latin-1")
        headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"])
        request = Request(scope.get("method", "GET"), target, headers)
        if has_connection(scope):  # without a connection, the request comes from this process, and not from a browser
            self._check_names(request)
        if _ABSOLUTE.match(target):
            request = request._replace(target="/" + target.partition("://")[2].partition("/")[2])
        return request

    async def _read_body(self, request: Request, receive: Receive, limit: int) -> Request:
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while message := await _body_message(receive):
                    piece = message.get("body", b"")
                    self._held += len(piece)
                    body += piece
                    if len(body) > limit:
                        return request._replace(unread=len(body))
                    if self._held > BODIES_LIMIT:
                        raise Refused(503, "Too many bodies are being read at the same time. Try again later.")
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise Refused(408, f"The body did not arrive within {BODY_SECONDS:g} seconds.") from None
        finally:
            self._held -= len(body)
        return request._replace(body=bytes(body))

    def _check_names(self, request: Request) -> None:
        for header, value in _names_in(request):
            found = _HOST.fullmatch(value)
            name = (found[1] or found[2]).lower().removesuffix(".") if found else ""
            if name not in self._names and not _LOOPBACK.fullmatch(name):
                raise Refused(
                    403,
                    f"The name in the request's {header} is not one of this server's names, so a page of another site"
                    " may have sent the request. If the name belongs to this server, add it: Server(allowed_hosts=…),"
                    " or oa-protocol serve --allow-host.",
                )
        if request.header("sec-fetch-site") == "cross-site" and not request.header("origin"):
            raise Refused(403, "A page of another site has sent the request.")


def _names_in(request: Request) -> Iterator[tuple[str, str]]:
    """Yield the parts of the request that name its server or the site it comes from. Only ``Origin`` may be missing."""
    yield "Host", request.header("host")
    if _ABSOLUTE.match(request.target):
        yield "target", request.target.partition("://")[2].partition("/")[0].partition("?")[0]
    for name, value in request.headers:
        if name == "origin":
            yield "Origin", value.partition("://")[2]


async def _body_message(receive: Receive) -> Message:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message


def lingering(receive: Receive, send: Send) -> Send:
    """Return a ``send`` that reads and drops the rest of the request's body before the reply ends.

    If unread bytes are left when a connection is closed, the system sends a reset, and the client may lose the reply.
    """

    async def send_and_drain(message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await send({**message, "more_body": True})
            await _drain(receive)
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return send_and_drain


async def _drain(receive: Receive) -> None:
    try:
        while True:
            async with asyncio.timeout(LINGER_SECONDS):
                if not (await _body_message(receive)).get("more_body", False):
                    return
    except (TimeoutError, ClientDisconnect):
        return
