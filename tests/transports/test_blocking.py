"""What the transport for blocking libraries does beyond the contract."""

from __future__ import annotations

import anyio
import pytest

from oa_protocol.engine.intents import HttpRequest
from oa_protocol.testing.peers import Signal
from oa_protocol.transports.blocking import BlockingTransport, ThreadedResponse


class SlowExchange:
    """An exchange that blocks while it is closed."""

    status = 200
    headers = ()

    def __init__(self, closing: Signal, released: Signal) -> None:
        self._closing = closing
        self._released = released

    def begin(self) -> None:
        pass

    def receive(self) -> bytes:
        return b""

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        self._closing.set()
        self._released.wait()


class SlowClient:
    def __init__(self) -> None:
        self.closing = Signal("a close has begun", patience=10.0)
        self.released = Signal("the event loop went on", patience=10.0)

    def exchange(self, request: HttpRequest) -> SlowExchange:
        return SlowExchange(self.closing, self.released)

    def close(self) -> None:
        self.closing.set()
        self.released.wait()


@pytest.mark.anyio
@pytest.mark.parametrize("what", ["reply", "transport", "unused transport"])
async def test_a_library_that_blocks_while_it_closes_does_not_block_the_event_loop(what: str) -> None:
    client = SlowClient()
    transport = BlockingTransport(client)
    closed: BlockingTransport | ThreadedResponse = transport
    if what != "unused transport":
        reply = await transport.open(HttpRequest("GET", "http://oa.test/", ()))
        closed = transport if what == "transport" else reply
    async with anyio.create_task_group() as group:
        group.start_soon(closed.aclose)
        await client.closing.reached()
        client.released.set()
    await transport.aclose()
