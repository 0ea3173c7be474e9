from collections.abc import Iterator

import pytest

from oa_protocol.server import Lorem, Server
from tests.driver.site import Api, Site


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(Lorem(sentences=1), pending_interval=0.02, reader_grace=60) as running:
        yield running


@pytest.fixture
def site(server: Server, api: Api, no_environment: None, no_delays: None) -> Iterator[Site]:
    """A site; whatever the test did, nothing may be left of it: no chat, no connection."""
    found = Site(server, api)
    yield found
    server.wait_until(lambda: server.connections == 0)
    assert set(found.chats) == found.left
    assert server.unused_faults == ()
    found.assert_clean()
