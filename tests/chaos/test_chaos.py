"""No chat is unnamed, no success is false, no bound is broken, whatever owner and server do at random."""

from __future__ import annotations

import pytest

from tests.chaos.run import Backend, run
from tests.driver.site import PATIENCE


@pytest.mark.once
@pytest.mark.clause("OA-5.7", "OA-7.2", "OA-7.6", "OA-7.8")
@pytest.mark.parametrize("transport", ["httptools", "httpx"])
@pytest.mark.parametrize("backend", ["asyncio", "trio", "sync"])
def test_random_owners_and_random_faults_break_no_promise(backend: Backend, transport: str) -> None:
    """``python -m tests.chaos.run`` tries more of them."""
    assert run(backend, transport, range(50), slack=PATIENCE) == []
