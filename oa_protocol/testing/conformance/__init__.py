"""A test suite for transports. Subclass it in a test module, and override ``make`` so that it returns your transport.

The suite runs its own servers, on free ports of the loopback interface. It needs pytest, and trustme for the TLS tests.
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
    """A test for each duty of a transport. docs/transports.md explains the duties.

    Attributes:
        backends: the event loops on which your transport runs, by anyio's names. By default, ``asyncio`` and ``trio``.
        takes: the names of the ``Options`` that ``make`` accepts. Tests that need other options are skipped.
        connects: false if your transport opens no connections. Tests that need connections are skipped then.
        patience: how many seconds a test may take. A test that takes longer fails, and says what it was waiting for.

    Raises:
        TypeError: ``backends`` or ``takes`` of a subclass is a single name.
        ValueError: ``takes`` of a subclass names an unknown option.

    >>> from oa_protocol.transports.httpx import HttpxTransport
    >>> class TestHttpx(TransportConformance):
    ...     takes = ("connect_timeout", "proxy", "ssl_context")
    ...
    ...     def make(self, **options):
    ...         return HttpxTransport(**options)

    pytest runs all tests. You can also call a single one:

    >>> TestHttpx().test_a_refused_connection_was_not_sent("asyncio")

    """
