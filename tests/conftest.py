import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from hypothesis import Phase, settings

from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.intents import Exchange, Intent
from oa_protocol.server import Lorem, Server
from oa_protocol.transports.fast.httptools import HttptoolsTransport
from oa_protocol.transports.httpx import HttpxTransport
from tests.driver.site import PATIENCE, Api, Site, living_tasks

# Hypothesis times each example; on a busy machine that says nothing.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# Mutation testing runs the tests thousands of times, compares the results, and reads no failing example.
settings.register_profile(
    "brief", deadline=None, max_examples=20, derandomize=True, phases=[Phase.explicit, Phase.generate]
)

# A shell has its background jobs ignore SIGINT, nohup SIGHUP, and all that they start. The tests send both.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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
    monkeypatch.setattr("oa_protocol.engine.moves._FIRST_BACK_OFF", 0.005)
    monkeypatch.setattr("oa_protocol.engine.moves._SLOWEST_POLL", 0.05)


@pytest.fixture
def impatient_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Wait so shortly only for the replies to these requests; on a busy machine any other may take longer."""
    ends_of = vars(Conversation)["_ends_of"]

    def impatient(*kinds: type[Exchange], reply: float) -> None:
        def shortened(conversation: Any, intent: Intent) -> float:
            ends: float = ends_of(conversation, intent)
            return min(ends, conversation._clock.elapsed + reply) if isinstance(intent, kinds) else ends

        monkeypatch.setattr(Conversation, "_ends_of", shortened)

    return impatient


@pytest.fixture
async def site(request: pytest.FixtureRequest, api: Api, no_environment: None, no_delays: None) -> AsyncIterator[Site]:
    """A site; whatever the test did, nothing may be left of it: no chat, no connection, no task.

    ``parametrize("site", [{…}], indirect=True)`` gives the server's settings.
    """
    usual: dict[str, Any] = {"model": Lorem(sentences=1), "pending_interval": 0.02, "reader_grace": PATIENCE}
    with Server(**{**usual, **getattr(request, "param", {})}) as server:
        found = Site(server, api)
        tasks = living_tasks()
        yield found
        with anyio.fail_after(PATIENCE):
            while living_tasks() > tasks:
                await anyio.sleep(0.001)
        await found.until(lambda: server.connections == 0)
        assert set(found.chats) == found.left
        assert found.endless or server.unused_faults == ()
        found.assert_clean()


@pytest.fixture(params=[HttptoolsTransport, HttpxTransport], ids=["httptools", "httpx"])
def either_transport(request: pytest.FixtureRequest, site: Site) -> None:
    """The site's clients use the one, and then the other."""
    site.transport = request.param
