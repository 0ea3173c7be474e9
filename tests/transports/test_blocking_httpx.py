from typing import Unpack

from oa_protocol.testing.conformance import Options, TransportConformance
from oa_protocol.transports.blocking_httpx import BlockingHttpxTransport


class TestBlockingHttpx(TransportConformance):
    takes = ("connect_timeout", "proxy", "ssl_context")

    def make(self, **options: Unpack[Options]) -> BlockingHttpxTransport:
        return BlockingHttpxTransport(**options)
