"""The faults that the historic client left its chats behind on."""

import pytest

from tests.driver.site import Api
from tests.tools.fault_table import ROWS, Row, is_honest, run_row

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.clause("OA-7.2"),
    pytest.mark.usefixtures("no_environment", "no_delays"),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.fault for row in ROWS])
async def test_a_fault_leaves_no_chat_unnamed_and_no_answer_cut_short(row: Row, api: Api) -> None:
    outcome = await run_row(row, api, 1)
    assert outcome.unnamed == set()
    assert outcome.named == outcome.left
    assert all(is_honest(seen) for seen in outcome.seen), outcome.seen
