from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest

from oa_protocol.client._driver import Driver
from oa_protocol.engine.intents import Exchange
from oa_protocol.server import Lorem, Server
from oa_protocol.transports.fast.httptools import HttptoolsTransport
from oa_protocol.transports.httpx import HttpxTransport

from .site import PATIENCE, Api, Site, living_tasks


@pytest.fixture(params=["website", "inference"])
def api(request: pytest.FixtureRequest) -> Api:
    chosen: Api = request.param
    return chosen


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs the tests may have proxies and servers of its own."""
    for name in ("OA_URL", "OA_COOKIES", "OA_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off and polling as usual, a hundred times as fast."""
    monkeypatch.setattr("oa_protocol.engine.conversation._FIRST_BACK_OFF", 0.005)
    monkeypatch.setattr("oa_protocol.engine.conversation._SLOWEST_POLL", 0.05)


@pytest.fixture
def impatient_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has only the replies to these requests be waited for so shortly: on a busy machine any other may take longer."""
    carry_out = vars(Driver)["_carry_out"]

    def impatient(*kinds: type[Exchange], reply: float) -> None:
        async def noted(driver: Any, intent: object) -> object:
            patient = driver._timeouts
            driver._timeouts = replace(patient, reply=reply) if isinstance(intent, kinds) else patient
            try:
                return await carry_out(driver, intent)
            finally:
                driver._timeouts = patient

        monkeypatch.setattr(Driver, "_carry_out", noted)

    return impatient


@pytest.fixture
async def site(request: pytest.FixtureRequest, api: Api, no_environment: None, no_delays: None) -> AsyncIterator[Site]:
    """A site; whatever the test did, nothing may be left of it: no chat, no connection, no task.

    ``parametrize("site", [{…}], indirect=True)`` gives the server's settings.
    """
    usual: dict[str, Any] = {"model": Lorem(sentences=1), "pending_interval": 0.02, "reader_grace": PATIENCE}
    settings: dict[str, Any] = {**usual, **getattr(request, "param", {})}
    with Server(**settings) as server:
        found = Site(server, api)
        tasks = living_tasks()
        yield found
        with anyio.fail_after(PATIENCE):
            while living_tasks() > tasks:
                await anyio.sleep(0.001)
        await found.until(lambda: server.connections == 0)
        assert set(found.chats) == found.left
        assert found.endless or server.unused_faults == ()


@pytest.fixture(params=[HttptoolsTransport, HttpxTransport], ids=["httptools", "httpx"])
def either_transport(request: pytest.FixtureRequest, site: Site) -> None:
    """The site's clients use the one, and then the other."""
    site.transport = request.param
