from __future__ import annotations

import asyncio
from typing import Literal

import anyio
import pytest

from oa_protocol import Client, MaybeSent
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.server import Answer, Echo, Server
from oa_protocol.testing.conformance import TransportConformance
from oa_protocol.transports.httpx import HttpxTransport
from oa_protocol.transports.memory import Application, MemoryTransport, Message, Receive, Send


async def gateway(scope: Message, receive: Receive, send: Send) -> None:
    """An application that passes everything on: the suite's servers are sockets."""
    target = scope["raw_path"].decode() + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")
    host, port = scope["server"]
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    body = (await receive())["body"]
    request = HttpRequest(
        scope["method"],
        f"{scope['scheme']}://{host}:{port}{target}",
        tuple(field for field in fields if field[0] not in ("host", "content-length")),
        body,
    )

    async def forward() -> None:
        transport = HttpxTransport()
        try:
            response = await transport.open(request)
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            while data := await response.receive():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await response.aclose()
            await send({"type": "http.response.body"})
        finally:
            await transport.aclose()

    forwarding = asyncio.create_task(forward())
    leaving = asyncio.ensure_future(receive())
    await asyncio.wait([forwarding, leaving], return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    forwarding.cancel()
    await asyncio.wait([forwarding, leaving])
    if not forwarding.cancelled():
        forwarding.result()


class TestMemory(TransportConformance):
    backends = ("asyncio",)
    connects = False

    def make(self, **_: object) -> MemoryTransport:
        return MemoryTransport(gateway)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize("api", ["website", "inference"])
async def test_a_conversation_with_the_embedded_server_needs_no_socket(api: Literal["website", "inference"]) -> None:
    server = Server()
    server.script(Answer(pieces=("Yes", ".")))
    client = Client(
        "http://localhost",
        api=api,
        cookies=server.cookies if api == "website" else None,
        token=server.token if api == "inference" else None,
        transport=lambda: MemoryTransport(server.app),
    )
    async with client, client.chat() as chat:
        assert await chat.ask("Hello") == "Yes."
        assert [made.id for made in server.chats] == [chat.id]
    assert server.chats == ()


@pytest.mark.anyio
@pytest.mark.parametrize("api", ["website", "inference"])
async def test_a_reader_who_leaves_a_stream_is_no_error_of_the_embedded_server(
    api: Literal["website", "inference"], caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(Echo())

    async def left(message: Message) -> None:
        raise ConnectionResetError("the client has left")

    async def nobody_reads_streams(scope: Message, receive: Receive, send: Send) -> None:
        await server.app(scope, receive, left if scope["path"].endswith("/events") else send)

    client = Client(
        "http://localhost",
        api=api,
        cookies=server.cookies if api == "website" else None,
        token=server.token if api == "inference" else None,
        transport=lambda: MemoryTransport(nobody_reads_streams),
    )
    async with client, client.chat() as chat:
        assert await chat.ask("Hello") == "Hello"
    assert caplog.records == []


@pytest.mark.anyio
async def test_an_application_that_does_not_notice_that_its_client_has_left_is_not_waited_for() -> None:
    noticed = asyncio.Event()

    async def busy(scope: Message, receive: Receive, send: Send) -> None:
        await head(scope, receive, send)
        await noticed.wait()

    transport = MemoryTransport(busy)
    await transport.open(GET)
    with anyio.fail_after(10):
        await transport.aclose()
    noticed.set()


async def head(scope: Message, receive: Receive, send: Send) -> None:
    """An application whose reply begins and does not go on."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"a", "more_body": True})


async def broken(scope: Message, receive: Receive, send: Send) -> None:
    await head(scope, receive, send)
    raise ZeroDivisionError("by zero")


async def silent(scope: Message, receive: Receive, send: Send) -> None:
    """An application that sends nothing."""


GET = HttpRequest("GET", "http://oa.test/", ())


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("application", "told"), [(head, "the application ended before the reply was complete"), (broken, "by zero")]
)
async def test_an_application_that_ends_in_the_middle_of_a_reply_breaks_it_off(
    application: Application, told: str
) -> None:
    transport = MemoryTransport(application)
    response = await transport.open(GET)
    assert await response.receive() == b"a"
    for _ in range(2):
        with pytest.raises(MaybeSent, match=told):
            await response.receive()
    await transport.aclose()


@pytest.mark.anyio
async def test_an_application_that_sends_no_reply_may_have_been_sent_it() -> None:
    transport = MemoryTransport(silent)
    with pytest.raises(MaybeSent, match="the application ended"):
        await transport.open(GET)
    await transport.aclose()


@pytest.mark.anyio
async def test_an_application_waits_for_its_reader() -> None:
    sent = 0

    async def endless(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(40_000), "more_body": True})
            sent += 1

    transport = MemoryTransport(endless)
    response = await transport.open(GET)
    for _ in range(10):
        await asyncio.sleep(0)
    assert sent == 2
    assert len(await response.receive()) == 80_000
    for _ in range(10):
        await asyncio.sleep(0)
    assert sent == 4
    await transport.aclose()  # ends it


@pytest.mark.anyio
async def test_an_application_receives_a_disconnect_if_its_client_has_left() -> None:
    told: list[Message] = []

    async def patient(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert (await receive())["type"] == "http.request"
        told.append(await receive())

    transport = MemoryTransport(patient)
    response = await transport.open(GET)
    assert told == []
    await response.aclose()
    await transport.aclose()
    for _ in range(10):
        await asyncio.sleep(0)
    assert told == [{"type": "http.disconnect"}]
