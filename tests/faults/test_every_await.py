"""After every fault at every await of a client, no chat is left that the client doesn't name."""

import pytest

from tests.driver.site import Api

from .awaits import FAILURES, MODES, TRANSPORTS, Backend, Mode, Where, fail_every_await, strike_every_await

pytestmark = [
    pytest.mark.clause("OA-7.2"),
    pytest.mark.usefixtures("no_environment", "no_delays"),
    # In anyio's task groups, a task's coroutine waits for another coroutine. If a native cancellation ends the task
    # before its first step, Python warns that the second coroutine was never awaited.
    pytest.mark.filterwarnings("ignore:coroutine '.*' was never awaited:RuntimeWarning"),
]

FEWEST = 20
"""A conversation has more awaits than these; with less, something was not counted."""

API: Api = "website"
"""What a transport or trio does has nothing to do with the API, and tests/simulation tries both."""


@pytest.mark.clause("OA-4.3")
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("backend", "mode"),
    [pytest.param(backend, mode, id=f"{backend}, {mode.name}") for backend, modes in MODES.items() for mode in modes],
)
def test_an_interruption_at_every_await(backend: Backend, mode: Mode, transport: str) -> None:
    tally = strike_every_await(backend, API, mode, TRANSPORTS[transport])
    assert tally.struck > FEWEST


@pytest.mark.parametrize(
    ("backend", "where", "error"),
    [
        pytest.param(backend, where, error, id=f"{backend}, {error.__name__} {where}")
        for backend, failures in FAILURES.items()
        for where, error in failures
        if backend == "trio" or where == "within"  # tests/simulation tries those that don't depend on the transport
    ],
)
def test_a_failure_of_the_network_at_every_await(backend: Backend, where: Where, error: type[Exception]) -> None:
    tally = fail_every_await(backend, API, where, error)
    assert tally.struck > 5
