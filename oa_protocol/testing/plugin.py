"""The pytest plugin: fixtures for a server to test against. ``-p no:oa_protocol`` switches it off.

Every pytest run loads it if this package is installed, also runs of projects that have nothing to do with it and have
an older pytest. So it imports nothing of the package before a fixture is used, and needs nothing that pytest 6.2 and
pluggy 0.12 don't have.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import pluggy

    from oa_protocol.server import Server
    from oa_protocol.testing.faults import Faults


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and have the asserts of the suite for transports explain themselves."""
    pytest.register_assert_rewrite("oa_protocol.testing.conformance")
    config.addinivalue_line(
        "markers",
        "oa_server(may_leave_chats=False, **settings): how the fixture oa_server is made (oa_protocol.server.Server), "
        "and whether the test may leave chats on it",
    )


# The test that has passed, and is not over yet.
_passed: set[str] = set()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    """Note whether the test has passed: a fixture's error at the end of one that failed would hide why it did."""
    report = (yield).get_result()
    if report.when == "call" and report.passed:
        _passed.add(item.nodeid)
    else:
        _passed.discard(item.nodeid)


@pytest.fixture
def oa_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A running Open Assistant server on loopback, for one test (oa_protocol.server.Server).

    Where a test that passes leaves a chat on it, that is an error at its end: a client of this protocol cleans up
    behind itself. The marker ``oa_server(may_leave_chats=True)`` allows it; its other arguments are those of Server,
    all of them named. Raises TypeError for any other. Answers wait for their readers for a minute, unless the marker
    says otherwise: a test on a busy machine may stop between a request and its stream.
    """
    from oa_protocol.server import Server

    settings: dict[str, Any] = {"reader_grace": 60.0}
    for marker in reversed(list(request.node.iter_markers("oa_server"))):
        if marker.args:
            raise TypeError(f"the marker oa_server takes named arguments only, not {marker.args[0]!r}")
        settings |= marker.kwargs
    may_leave_chats = settings.pop("may_leave_chats", False)
    with Server(**settings) as server:
        yield server
        left = ", ".join(chat.id for chat in server.chats)
    if left and not may_leave_chats and request.node.nodeid in _passed:
        pytest.fail(f"the test left chats on the server: {left}", pytrace=False)


@pytest.fixture
def oa_faults(request: pytest.FixtureRequest, oa_server: Server) -> Iterator[Faults]:
    """What goes wrong with the server of ``oa_server`` (oa_protocol.testing.Faults).

    Where something was scripted and did not happen, that is an error at the end of a test that passes: it has tested
    something else.
    """
    from oa_protocol.testing.faults import Faults

    yield Faults(oa_server)
    unused = "\n  ".join(map(repr, oa_server.unused_faults))
    if unused and request.node.nodeid in _passed:
        pytest.fail(f"what was scripted did not happen, or not as often:\n  {unused}", pytrace=False)
