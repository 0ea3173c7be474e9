"""Every recording of the real servers, replayed against the core."""

from __future__ import annotations

import pytest

from oa_protocol.server import Quirks

from .replaying import Replay, scenarios

QUIRKS = {
    "chat_disabled": Quirks(chat_enabled=False),
    "delete_by_other_user_aborts_bystanders": Quirks(delete_tears_worker=True),
    "delete_pending_chat_then_next_queued_message": Quirks(delete_tears_worker=True),
    "message_and_chat_limits_413": Quirks(max_content=50, max_messages=3),
    "model_not_allowed": Quirks(allowed_models=("OA_SFT_Llama_30B_6", "distilgpt2")),
    "pings_with_sse_starlette_1_6_5": Quirks(ping_comment=True),
    "rate_limit_exceeded": Quirks(rate_limit=2, rate_window=75),
    "server_run_with_RATE_LIMIT_False": Quirks(rate_limit=0),
    "work_queue_full": Quirks(queue_limit=1),
}


# The differences between the core and the recordings: the scenario, what the difference begins with or names, and why.
DIFFERENT: dict[str, dict[str, str]] = {
    "inference/concurrent_creates_and_branches": {
        "(concurrent first prompter message": "a value carries out one request after the other, and in this order",
        "(chat)": "shows what the concurrent requests did",
    },
    "inference/vote_eval_report": {"(message with score/reports)": "there are no votes and reports"},
    "website/concurrent_creates_and_branches": {
        "(concurrent first prompter message": "a value carries out one request after the other: only one is the first",
        "(chat)": "shows what the concurrent requests did",
    },
    "website/delete_variants": {"(/api/chat/<id> form)": "the page that isn't there is a line of text, not of HTML"},
    "website/http_details": {
        "(conditional GET with the etag)": "etags belong to HTTP, and nothing is answered with a 304",
        "(unknown path)": "the page that isn't there is a line of text, not of HTML",
        "(locale prefix)": "both APIs are on one port, so this is the inference server's 404",
        "(upper-case path)": "both APIs are on one port, so this is the inference server's 404",
    },
    "website/queue_position_of_waiting_messages": {
        "an event of /api/chat/events": "the positions of a server that has lost messages before count those, too",
    },
    "website/vote_eval_report": {"(message with score/reports)": "there are no votes and reports"},
}


@pytest.mark.parametrize("scenario", scenarios())
def test_a_recording_replayed_against_the_core_gives_the_same_replies(scenario: str) -> None:
    found = Replay(scenario, QUIRKS.get(scenario.partition("/")[2], Quirks())).run()
    expected = DIFFERENT.get(scenario, {})
    assert [one for one in found if not any(words in one for words in expected)] == []
    assert [words for words in expected if not any(words in one for one in found)] == []
