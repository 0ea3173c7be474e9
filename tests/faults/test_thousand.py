"""Many conversations at once, and all of their owners leave together."""

import pytest

from tests.tools.thousand import cancel_all_at_once

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.clause("OA-7.2"),
    pytest.mark.usefixtures("no_environment", "no_delays"),
]

COUNT = 200


@pytest.mark.parametrize("drain", [0.0, 5.0])
async def test_two_hundred_that_stream_are_cancelled_at_once(drain: float) -> None:
    result = await cancel_all_at_once(COUNT, "website", drain)
    assert (result.streaming, result.left, result.named) == (COUNT, 0, 0)
