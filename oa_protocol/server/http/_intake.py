"""Reading requests: only those that are meant for this server, and no more of their bodies than there is room for."""

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
"""Bytes of all bodies together that are being read. What would be more is refused."""
BODY_SECONDS = 60.0
"""Seconds that a client may take to send a body."""
LINGER_SECONDS = 1.0
"""Seconds without a further byte after which the rest of a body that is not wanted is no longer awaited."""

_ABSOLUTE = re.compile(r"[a-z][a-z\d+.-]*://", re.ASCII | re.IGNORECASE)
_HOST = re.compile(r"(?:\[([\da-f:.]+)\]|([^][/@?#:\s]+))(?::\d*)?", re.ASCII | re.IGNORECASE)
# Names that no site can have point elsewhere.
_LOOPBACK = re.compile(r"(.+\.)?localhost|127(\.\d{1,3}){3}|::1", re.ASCII)


class Refused(Exception):
    """The request is not carried out: a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence)
        self.status = status
        self.sentence = sentence


class Intake:
    """Reads requests for a server that goes by ``names``, besides those of loopback, where it listens.

    A page of any site may have its name resolve to this machine, and its scripts then read whatever a server here says,
    credentials included. The page cannot change what its browser puts into ``Host`` and ``Origin``: all must name us.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower() for name in names)
        self._held = 0

    async def read(self, scope: Scope, receive: Receive) -> Request:
        """Read a request. Of a body that is too long it only says how long. Raises Refused and ClientDisconnect."""
        raw_path: bytes = scope["raw_path"]
        query: bytes = scope["query_string"]
        target = (raw_path + b"?" + query if query else raw_path).decode("latin-1")
        headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"])
        request = Request(scope["method"], target, headers)
        if has_connection(scope):  # otherwise it comes from this process, and from no browser
            self._check_names(request)
        if _ABSOLUTE.match(target):
            request = request._replace(target="/" + target.partition("://")[2].partition("/")[2])
        limit = body_limit(request)
        declared = int(request.header("content-length") or 0)
        if declared > limit:
            return request._replace(unread=declared)
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
                        raise Refused(503, "Too many bodies are being read at once. Try again later.")
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
                    f"This server does not go by the name in the request's {header}, so a page of another site may have"
                    " sent it. If that name is meant to be this server's, add it: Server(allowed_hosts=…), or"
                    " oa-protocol serve --allow-host.",
                )


def _names_in(request: Request) -> Iterator[tuple[str, str]]:
    """Where the request says which server it is for, or which site it's from. All but ``Origin`` is always there."""
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
    """Read what is left of a request's body before a reply ends, and drop it.

    Otherwise, the end of the connection would be a reset, and the client might lose the reply.
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
