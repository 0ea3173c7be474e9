from typing import Unpack

from oa_protocol.testing.conformance import Options, TransportConformance
from oa_protocol.transports.fast.httptools import HttptoolsTransport


class TestHttptools(TransportConformance):
    takes = ("connect_timeout", "proxy", "ssl_context")

    def make(self, **options: Unpack[Options]) -> HttptoolsTransport:
        return HttptoolsTransport(**options)
