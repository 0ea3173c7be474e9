"""After every fault at every await of a client, no chat is left that the client doesn't name."""

import pytest

from tests.driver.site import Api

from .awaits import APIS, FAILURES, MODES, TRANSPORTS, Backend, Mode, Where, fail_every_await, strike_every_await

pytestmark = [
    pytest.mark.clause("OA-7.2"),
    pytest.mark.usefixtures("no_environment", "no_delays"),
    # In anyio's task groups, a task's coroutine waits for another coroutine. If a native cancellation ends the task
    # before its first step, Python warns that the second coroutine was never awaited.
    pytest.mark.filterwarnings("ignore:coroutine '.*' was never awaited:RuntimeWarning"),
]

FEWEST = 20
"""A conversation has more awaits than these; with less, something was not counted."""


@pytest.mark.clause("OA-4.3")
# What a transport does under interruption has nothing to do with the API: one API is enough for the slower transport.
@pytest.mark.parametrize(
    ("api", "transport"), [("website", "httptools"), ("inference", "httptools"), ("website", "httpx")]
)
@pytest.mark.parametrize(
    ("backend", "mode"),
    [pytest.param(backend, mode, id=f"{backend}, {mode.name}") for backend, modes in MODES.items() for mode in modes],
)
def test_an_interruption_at_every_await(backend: Backend, mode: Mode, api: Api, transport: str) -> None:
    tally = strike_every_await(backend, api, mode, TRANSPORTS[transport])
    assert tally.struck > FEWEST


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("backend", "where", "error"),
    [
        pytest.param(backend, where, error, id=f"{backend}, {error.__name__} {where}")
        for backend, failures in FAILURES.items()
        for where, error in failures
    ],
)
def test_a_failure_of_the_network_at_every_await(
    backend: Backend, where: Where, error: type[Exception], api: Api
) -> None:
    tally = fail_every_await(backend, api, where, error)
    assert tally.struck > 5
