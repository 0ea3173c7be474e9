from typing import Unpack

from oa_protocol.testing.conformance import Options, TransportConformance
from oa_protocol.transports.aiohttp import AiohttpTransport


class TestAiohttp(TransportConformance):
    backends = ("asyncio",)
    takes = ("connect_timeout", "proxy", "ssl_context")

    def make(self, **options: Unpack[Options]) -> AiohttpTransport:
        return AiohttpTransport(**options)
