"""Every shipped transport carries a whole conversation, and its cleanup when the owner is cancelled."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from oa_protocol import Cleanup, Client
from oa_protocol.server import Answer, Hold, Server
from oa_protocol.transports import Transport
from oa_protocol.transports.aiohttp import AiohttpTransport
from oa_protocol.transports.blocking_httpx import BlockingHttpxTransport
from oa_protocol.transports.fast.httptools import HttptoolsTransport
from oa_protocol.transports.httpx import HttpxTransport
from oa_protocol.transports.httpx2 import Httpx2Transport

ON_BOTH = (BlockingHttpxTransport, HttptoolsTransport, HttpxTransport, Httpx2Transport)

pytestmark = pytest.mark.parametrize(
    ("factory", "backend"),
    [(factory, backend) for factory in ON_BOTH for backend in ("asyncio", "trio")] + [(AiohttpTransport, "asyncio")],
)


def test_a_conversation_is_carried(factory: Callable[[], Transport], backend: str) -> None:
    with Server() as server:
        server.script(Answer(pieces=("Yes", ".")), Answer(pieces=("No", ".")))

        async def converse() -> None:
            client = Client(server.url, cookies=server.cookies, transport=factory)
            async with client, client.chat() as chat:
                assert await chat.ask("Hello") == "Yes."
                assert await chat.ask("Again?") == "No."

        anyio.run(converse, backend=backend)
        assert not server.chats
        server.wait_until(lambda: server.connections == 0)


def test_a_cancelled_owner_leaves_no_chat(factory: Callable[[], Transport], backend: str) -> None:
    with Server() as server:
        server.script(Answer(pieces=("Yes", "."), after=1, then=Hold()))

        async def converse() -> None:
            at_once = Cleanup(drain=0)
            client = Client(server.url, cookies=server.cookies, transport=factory, cleanup=at_once)
            with anyio.CancelScope() as scope:
                async with client, client.chat() as chat:
                    async for _ in chat.stream("Hello"):
                        scope.cancel()
            assert scope.cancelled_caught

        anyio.run(converse, backend=backend)
        assert [request.step for request in server.requests][-1] == "delete"
        assert not server.chats
        server.wait_until(lambda: server.connections == 0)
