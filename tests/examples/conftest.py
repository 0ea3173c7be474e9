from collections.abc import Iterator

import pytest

from oa_protocol.server import Lorem, Server
from tests.examples.running import Api, Site


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(Lorem(sentences=1), pending_interval=0.02, reader_grace=60) as running:
        yield running


@pytest.fixture
def site(server: Server, api: Api, no_environment: None, no_delays: None) -> Iterator[Site]:
    """A site, for which the engine's pauses are a hundredth of what they usually are.

    After the test no connection may be left, and no chat except those that the test expects.
    """
    found = Site(server, api)
    yield found
    server.wait_until(lambda: server.connections == 0)
    assert set(found.chats) == found.left
    assert found.endless or server.unused_faults == ()
    # The pauses, and the time for draining, are too short here, and "chat left" is checked above.
    allowed = ("chat left", "deleted while running", "no back-off")
    findings = [finding for finding in server.verdict() if finding.kind not in allowed]
    assert not findings, "\n".join(map(str, findings))
