from typing import Unpack

import pytest

from oa_protocol import NotSent
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.testing.conformance import Options, TransportConformance
from oa_protocol.testing.peers import refusing_port
from oa_protocol.transports.httpx2 import Httpx2Transport


class TestHttpx2(TransportConformance):
    takes = ("connect_timeout", "proxy", "ssl_context")

    def make(self, **options: Unpack[Options]) -> Httpx2Transport:
        return Httpx2Transport(**options)


@pytest.mark.anyio
async def test_it_is_httpx2_that_sends() -> None:
    transport = Httpx2Transport()
    with refusing_port() as netloc, pytest.raises(NotSent) as caught:
        await transport.open(HttpRequest("GET", f"http://{netloc}/", ()))
    await transport.aclose()
    assert type(caught.value.__cause__).__module__ == "httpcore2"
