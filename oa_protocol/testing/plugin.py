"""The pytest plugin. It has fixtures for a server to test against. ``-p no:oa_protocol`` switches it off.

If this package is installed, every run of pytest loads the plugin, even in projects that don't use this package and
have an older pytest. So it doesn't import the rest of the package until you use a fixture, and it needs only pytest 6.2
and pluggy 0.12.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import pluggy

    from oa_protocol.server import Server
    from oa_protocol.testing.faults import Faults


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and let pytest rewrite the asserts of the suite for transports."""
    pytest.register_assert_rewrite("oa_protocol.testing.conformance")
    config.addinivalue_line(
        "markers",
        "oa_server(may_leave_chats=False, clean=False, **settings): the arguments of the fixture oa_server's server "
        "(oa_protocol.server.Server), whether the test may leave chats on it, and whether the verdict on the client "
        "must be clean",
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for pages about failures."""
    parser.getgroup("oa_protocol").addoption(
        "--oa-html",
        metavar="DIR",
        help="write a page with a sequence diagram for each failing playbook, explorer and state machine to DIR",
    )


def _write_page(item: pytest.Item, report: pytest.TestReport) -> None:
    """Write the page about the last failure of the kit, if the test has failed because of it."""
    pages = sys.modules.get("oa_protocol.testing._pages")
    folder = item.config.getoption("--oa-html")
    if pages is None or not folder or not report.failed:
        return
    for failure in pages.noted:
        if failure.problem.partition("\n")[0] in report.longreprtext:
            name = re.sub(r"[^\w.-]+", "_", item.nodeid)[-120:]
            # Two tests may have the same name then, so the name ends with a checksum.
            path = Path(folder, f"{name}-{zlib.crc32(item.nodeid.encode()):08x}.html").absolute()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(failure.to_html(), encoding="utf-8")
            report.sections.append(("oa_protocol", f"The steps as a page: {path}"))


# The id of the test that has passed, while its fixtures are being torn down.
_passed: set[str] = set()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    """Remember whether the test has passed, because an error of a fixture would hide why a test failed."""
    report = (yield).get_result()
    _write_page(item, report)
    if report.when == "call" and report.passed:
        _passed.add(item.nodeid)
    else:
        _passed.discard(item.nodeid)


@pytest.fixture
def oa_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Yield a running Open Assistant server on the loopback interface, for one test (``oa_protocol.server.Server``).

    If a test passes but leaves a chat on the server, that is an error, because a client of this protocol has to delete
    its chats. The marker ``oa_server(may_leave_chats=True)`` allows it. With the marker ``oa_server(clean=True)``, it
    is also an error if the server's verdict on the client isn't clean (``Server.verdict``). All other arguments of the
    marker are passed to ``Server``. They have to be named. By default, answers wait for their reader for a minute
    (``reader_grace``), because a test on a busy machine may pause between a request and its stream.

    Raises:
        TypeError: the marker has an unnamed argument, or one that ``Server`` doesn't have.

    """
    from oa_protocol.server import Server

    settings: dict[str, Any] = {"reader_grace": 60.0}
    for marker in reversed(list(request.node.iter_markers("oa_server"))):
        if marker.args:
            raise TypeError(f"the marker oa_server takes named arguments only, not {marker.args[0]!r}")
        settings |= marker.kwargs
    may_leave_chats, clean = settings.pop("may_leave_chats", False), settings.pop("clean", False)
    with Server(**settings) as server:
        yield server
        findings = [found for found in server.verdict() if clean or found.kind == "chat left"]
    wrong = [found for found in findings if not (may_leave_chats and found.kind == "chat left")]
    if wrong and request.node.nodeid in _passed:
        pytest.fail("the client did something wrong:\n" + "\n".join(map(str, wrong)), pytrace=False)


@pytest.fixture
def oa_faults(request: pytest.FixtureRequest, oa_server: Server) -> Iterator[Faults]:
    """Yield a ``Faults`` object that makes the server of ``oa_server`` misbehave (``oa_protocol.testing.Faults``).

    If a test passes but a scripted fault didn't happen, that is an error, because the test didn't test that fault.
    """
    from oa_protocol.testing.faults import Faults

    yield Faults(oa_server)
    unused = "\n  ".join(map(repr, oa_server.unused_faults))
    if unused and request.node.nodeid in _passed:
        pytest.fail(f"these scripted faults did not happen, or not often enough:\n  {unused}", pytrace=False)
