"""A test suite for transports: subclass it where pytest looks for tests, and say how yours is made.

It plays the servers itself, on free ports of loopback. It needs pytest, and for TLS trustme.
"""

from __future__ import annotations

from oa_protocol.testing.conformance._cancelled import Cancelled
from oa_protocol.testing.conformance._connecting import Connecting
from oa_protocol.testing.conformance._connections import Connections
from oa_protocol.testing.conformance._failures import Failures
from oa_protocol.testing.conformance._replies import Replies
from oa_protocol.testing.conformance._requests import Requests
from oa_protocol.testing.conformance._suite import Options

__all__ = ["Options", "TransportConformance"]


class TransportConformance(Requests, Replies, Failures, Connecting, Cancelled, Connections):
    """What a transport owes, each as a test; see docs/transports.md.

    ``backends`` are anyio's names of the event loops it runs on. ``takes`` names the ``Options`` it can be made with;
    tests that need another are skipped. ``connects`` is False for one that opens no connections of its own.
    ``patience`` is how many seconds a test waits for what does not happen. Raises TypeError or ValueError for a
    subclass in which these are not what they should be.

    >>> from oa_protocol.transports.httpx import HttpxTransport
    >>> class TestHttpx(TransportConformance):
    ...     takes = ("connect_timeout", "proxy", "ssl_context")
    ...
    ...     def make(self, **options):
    ...         return HttpxTransport(**options)

    pytest runs it all; a single test can be called, too:

    >>> TestHttpx().test_a_refused_connection_was_not_sent("asyncio")
    """
