"""A client that is killed at any point of a conversation leaves nothing that a sweep does not find."""

import sys
from pathlib import Path

import anyio
import pytest

from tests.driver.site import Api
from tests.tools.kill9 import killer, points, sweep

pytestmark = [
    pytest.mark.clause("OA-7.2"),
    pytest.mark.skipif(sys.platform == "win32", reason="signals and forks as POSIX has them"),
]


@pytest.mark.parametrize("api", ["website", "inference"])
def test_killed_at_every_point_and_swept(api: Api, tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite3"
    with killer(journal) as (victims, server):
        for backend in ("asyncio", "trio"):
            for point in points():
                victims.kill_at(point, api, backend)
        assert len(server.chats) > len(points())
        swept = anyio.run(sweep, server, journal, api)
        assert server.chats == ()
        assert swept.leaked == ()
