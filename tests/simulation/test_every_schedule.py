"""No order of the tasks, and no cancellation at any await, leaves a chat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import detangle
import pytest

from tests.driver.site import Api
from tests.simulation.schedules import explore

pytestmark = pytest.mark.once


@pytest.mark.clause("OA-4.3", "OA-7.2")
@pytest.mark.parametrize("seed", range(4))
def test_no_schedule_leaves_a_chat_or_swallows_a_cancellation(api: Api, seed: int) -> None:
    """``python -m tests.simulation.schedules`` tries more of them."""
    assert explore(api, seed=seed, count=500).runs == 500


async def bare(operation: Callable[[], Awaitable[None]], *, at_last: Callable[[], object] = bool, **_: Any) -> None:
    """What ``run_to_completion`` would be without its protection."""
    try:
        await operation()
    finally:
        at_last()


async def shielded(operation: Callable[[], Awaitable[None]], **settings: Any) -> None:
    """The same under an ordinary shield, which ``Task.cancel`` goes through."""
    with anyio.CancelScope(shield=True):
        await bare(operation, **settings)


@pytest.mark.parametrize("planted", [bare, shielded])
def test_an_await_without_protection_is_found_and_its_schedule_can_be_replayed(
    planted: Callable[..., Awaitable[None]], api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oa_protocol.client._driver.run_to_completion", planted)
    monkeypatch.setattr("oa_protocol.client.client.run_to_completion", planted)
    monkeypatch.setenv("DETANGLE_SHRINK", "no")  # shortening a schedule takes seconds
    with pytest.raises(detangle.BugFound) as found:
        explore(api, seed=0, count=500)
    monkeypatch.setenv("DETANGLE_REPLAY", found.value.report.token)
    with pytest.raises(detangle.BugFound) as again:
        explore(api, seed=0, count=500)
    assert again.value.report.failure.signature() == found.value.report.failure.signature()
