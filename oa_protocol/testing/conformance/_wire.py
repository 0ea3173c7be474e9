"""The requests that the tests send, and the replies of their peers."""

from __future__ import annotations

import functools
import hashlib
import socket
import ssl
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest

from oa_protocol.engine.errors import MaybeSent, NotSent
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.testing.conformance._waiting import expecting
from oa_protocol.testing.peers import Connection
from oa_protocol.transports import Response, Transport

Serve = Callable[[Connection], None]

BIG = 4 * 1024 * 1024

_LONGEST = 300


# ---- requests and replies


def get(url: str) -> HttpRequest:
    return HttpRequest("GET", f"{url}/", (("accept", "*/*"),))


def post(url: str, body: bytes) -> HttpRequest:
    return HttpRequest("POST", f"{url}/", (("accept", "*/*"), ("content-type", "application/json")), body)


def head_of(*fields: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join((b"HTTP/1.1 " + status, *fields, b"", b""))


def reply_of(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    return head_of(*fields, b"content-length: %d" % len(body), status=status) + body


def chunk_of(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


BEGUN = head_of(b"transfer-encoding: chunked") + chunk_of(b"a")
"""The head and the first chunk of a reply that has further chunks."""


def chunked(*pieces: bytes) -> bytes:
    return head_of(b"transfer-encoding: chunked") + b"".join(map(chunk_of, pieces)) + b"0\r\n\r\n"


def noise(size: int) -> bytes:
    """Return random bytes, so that a part that is lost or repeated is noticed. They are the same in each run."""
    return hashlib.shake_256().digest(size)


async def receive_part(response: Response, wanted: bytes, what: str = "a part of the body") -> None:
    """Receive exactly what the peer has sent so far."""
    with expecting(f"{what} was sent, but receive() does not return it: it is held back"):
        data = await response.receive()
    assert data == wanted, f"{what} was lost or changed"


async def read_all(response: Response) -> bytes:
    """Read a body to its clean end, and close the reply."""
    body = bytearray()
    try:
        while data := await response.receive():
            body += data
    finally:
        await response.aclose()
    return bytes(body)


async def ask(transport: Transport, request: HttpRequest) -> bytes:
    """Send a request, and read the body of its reply."""
    return await read_all(await transport.open(request))


async def failure_of(transport: Transport, request: HttpRequest) -> Exception | None:
    """Send a request, and return the error that was raised, or None if there was a reply."""
    try:
        response = await transport.open(request)
    except Exception as error:
        return error
    await response.aclose()
    return None


async def check_not_sent(transport: Transport, request: HttpRequest) -> None:
    """Send a request that can't leave, and check that ``open`` says so."""
    failure = await failure_of(transport, request)
    if not isinstance(failure, NotSent):
        outcome = f"raised {type(failure).__name__}" if failure else "returned a reply"
        raise AssertionError(f"open() {outcome}, but nothing was sent: raise NotSent") from failure


def check_maybe_sent(failure: Exception | None, which: str, reply: bytes = b"") -> None:
    """Check what ``open`` raised after the request was sent, and ``reply`` was all that came back."""
    if failure is None:
        raise AssertionError(f"{which} got a reply, although the server sent only {reply!r}: raise MaybeSent")
    if not isinstance(failure, MaybeSent):
        raise AssertionError(
            f"{which} was sent, but open() raised {type(failure).__name__}: raise MaybeSent"
        ) from failure


# ---- what is compared


def must_be(what: str, found: object, *wanted: object) -> None:
    """Check that something has one of the values that are wanted. The message shows all of them."""
    if found not in wanted:
        raise AssertionError(f"{what} is {_shown(found)}, not {' or '.join(dict.fromkeys(map(_shown, wanted)))}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"


# ---- what peers do


def say(reply: bytes, *, ends: bool = False) -> Serve:
    """Return a script that sends this reply to each request."""

    def serve(connection: Connection) -> None:
        while True:
            connection.read_request()
            connection.send(reply)
            if ends:
                connection.end()

    return serve


def over_tls(context: ssl.SSLContext, serve: Serve) -> Serve:
    def serve_encrypted(connection: Connection) -> None:
        connection.start_tls(context)
        serve(connection)

    return serve_encrypted


@functools.cache
def tls_contexts(host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the settings of a server for ``host``, and those of a client that trusts its certificate."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return server, trusting


def need_linux(what: str) -> None:
    if sys.platform != "linux":
        pytest.skip(f"this needs Linux, {what}")


@contextmanager
def name_of(*addresses: str) -> Generator[str]:
    """Yield a host name that ``socket.getaddrinfo`` resolves to these addresses."""
    name, ask = "several.invalid", socket.getaddrinfo

    def getaddrinfo(host: str | bytes | None, *details: Any, **more: Any) -> list[Any]:  # noqa: ANN401
        hosts = addresses if host in (name, name.encode()) else (host,)
        return [found for host in hosts for found in ask(host, *details, **more)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield name
