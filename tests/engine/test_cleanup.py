"""Leaving: waiting for an answer that may run, deleting, making sure, and naming what is left (section 7)."""

import pytest

from oa_protocol.engine.events import Created, Deleted, Failed, Leaked, NeverCreated, Prompted, Requested
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    DeleteChat,
    FetchChat,
    FetchMessage,
    ListChats,
    OpenStream,
    RequestAssistant,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.testing.playbook import (
    Abandon,
    Bytes,
    Close,
    Data,
    Ended,
    Happening,
    Leaks,
    Lost,
    Opened,
    Play,
    Prompt,
    Reply,
    Sends,
    TimedOut,
    Unsent,
)

from .stories import (
    ANSWER,
    ANSWER_2,
    CHAT,
    COMMENT,
    GARBAGE,
    INFERENCE,
    PROMPT,
    WEBSITE,
    Begin,
    Story,
    assistant,
    chat,
    chats,
    complete,
    prompter,
    token,
    worker_error,
)

inference_only = pytest.mark.parametrize("story", [INFERENCE], ids=["inference"])
website_only = pytest.mark.parametrize("story", [WEBSITE], ids=["website"])
RUNS = Reply(200, assistant(state="in_progress"))

# ---- waiting for an answer that runs


@pytest.mark.clause("OA-7.1")
@pytest.mark.parametrize("state", ["complete", "aborted_by_worker", "cancelled", "timeout"])
def test_a_running_answer_is_waited_for_before_its_chat_is_deleted(story: Story, state: str) -> None:
    told = story.draining() >> Reply(200, assistant()) << Sends(FetchMessage, delay=0.5, shielded=True)
    told = told >> RUNS << Sends(FetchMessage, delay=1.0) >> RUNS << Sends(FetchMessage, delay=2.0)
    told = told >> RUNS << Sends(FetchMessage, delay=4.0) >> RUNS << Sends(FetchMessage, delay=5.0)
    told = told >> RUNS << Sends(FetchMessage, delay=5.0) >> Reply(200, assistant(state=state))
    assert told << Phase.DELETING << DeleteChat >> story.deleted << Deleted(CHAT) << None


@pytest.mark.clause("OA-7.1")
def test_the_stream_is_closed_before_anything_else(story: Story) -> None:
    told = story.streaming() >> Close() << CloseStream << None >> Data(token("late")) >> Bytes(b"data: no JSON\n\n")
    assert told << None >> Ended() << FetchMessage


@pytest.mark.clause("OA-7.1")
def test_an_owner_whose_patience_ends_deletes_at_once(story: Story) -> None:
    assert story.draining() >> Close(drain=False) << Phase.DELETING << None >> RUNS << DeleteChat
    assert story.streaming() >> Close(drain=False) << Phase.DELETING << CloseStream >> Ended() << DeleteChat
    assert story.polling() >> Close(drain=False) << Phase.DELETING << None >> Lost() << DeleteChat


@pytest.mark.clause("OA-7.1")
def test_an_answer_that_failed_for_its_owner_may_still_run_and_is_waited_for(story: Story) -> None:
    assert story.failed() >> Close() << Phase.DRAINING << FetchMessage >> RUNS << FetchMessage
    assert story.failed() >> Close(drain=False) << Phase.DELETING << DeleteChat


@pytest.mark.clause("OA-7.1")
def test_an_answer_that_the_worker_failed_is_not_waited_for(story: Story) -> None:
    told = (story.streaming() >> Data(worker_error("Aborted due to worker error."))).drop_events()
    assert told << CloseStream >> Ended() << None >> Close() << Phase.DELETING << DeleteChat


@pytest.mark.clause("OA-7.1")
def test_a_request_made_while_the_owner_left_is_waited_for(story: Story) -> None:
    told = story.requesting() >> Close() << None >> Reply(200, assistant()) << Requested(ANSWER)
    assert told << Phase.DRAINING << FetchMessage


@pytest.mark.clause("OA-7.1")
def test_a_request_whose_fate_is_unknown_is_looked_for_in_the_chat(story: Story) -> None:
    told = story.draining_by_chat() >> Reply(200, chat(prompter(), assistant()))
    told = told << Sends(FetchChat, delay=0.5, shielded=True) >> Reply(200, chat(prompter(), RUNS_IN_CHAT))
    assert told << Sends(FetchChat, delay=1.0) >> Reply(200, chat(prompter(), complete())) << DeleteChat


RUNS_IN_CHAT = assistant(state="in_progress")


@pytest.mark.clause("OA-7.1")
def test_a_request_that_never_arrived_is_not_waited_for(story: Story) -> None:
    assert story.draining_by_chat() >> Reply(200, chat(prompter())) << DeleteChat


@pytest.mark.clause("OA-6.1", "OA-7.1")
def test_a_lost_request_may_still_be_carried_out_so_that_its_chat_is_not_read_at_once(story: Story) -> None:
    waiting = Sends(FetchChat, delay=0.5, shielded=True)
    assert story.requesting() >> Close() << None >> Lost() << Phase.DRAINING << waiting
    assert story.requesting() >> Lost() << Phase.REQUEST_LOST >> Close() << Phase.DRAINING << waiting
    assert story.requesting() >> Close(drain=False) << None >> Lost() << Phase.DELETING << Sends(DeleteChat, delay=0.0)


@pytest.mark.clause("OA-7.1")
def test_after_a_lost_request_that_did_not_arrive_nothing_is_waited_for(story: Story) -> None:
    told = story.request_lost() >> Reply(200, chat(prompter())) << RequestAssistant
    told = (told >> Reply(422, story.words("Model x not found"))).drop_events() << Phase.FAILED
    assert told >> Close() << Phase.DELETING << DeleteChat


@pytest.mark.clause("OA-6.7", "OA-7.1")
def test_the_message_that_a_503_left_behind_is_not_waited_for(story: Story) -> None:
    told = story.requesting() >> Reply(503)
    assert told >> Close() << Phase.DELETING << DeleteChat


@pytest.mark.clause("OA-7.1")
def test_leaving_while_the_chat_is_read_takes_that_reading_for_the_waiting(story: Story) -> None:
    assert story.request_lost() >> Close() << Phase.DRAINING << None >> Reply(200, chat(prompter())) << DeleteChat
    assert story.polling() >> Close() << Phase.DRAINING << None >> Reply(200, complete()) << DeleteChat


@pytest.mark.clause("OA-7.1")
@pytest.mark.parametrize("outcome", [Lost(), Unsent(), Reply(500), Reply(503)], ids=repr)
@pytest.mark.parametrize("by", ["message", "chat"])
def test_where_waiting_fails_the_chat_is_deleted_regardless(story: Story, outcome: Happening, by: str) -> None:
    told, kind = (story.draining(), FetchMessage) if by == "message" else (story.draining_by_chat(), FetchChat)
    told = told >> outcome << Sends(kind, delay=0.5) >> outcome << Sends(kind, delay=1.0) >> outcome
    assert told << Phase.DELETING << Sends(DeleteChat, delay=0.0)


@pytest.mark.clause("OA-7.1")
@pytest.mark.parametrize("outcome", [Reply(404), Reply(200, GARBAGE), Reply(302)], ids=repr)
@pytest.mark.parametrize("by", ["message", "chat"])
def test_where_waiting_is_refused_the_chat_is_deleted_at_once(story: Story, outcome: Happening, by: str) -> None:
    told = story.draining() if by == "message" else story.draining_by_chat()
    assert told >> outcome << Phase.DELETING << DeleteChat


# ---- leaving from everywhere


@pytest.mark.clause("OA-7.2")
@pytest.mark.parametrize(
    "begin", [Story.prompting, Story.prompt_lost, Story.requesting, Story.answered], ids=lambda begin: begin.__name__
)
def test_a_chat_without_a_running_answer_is_deleted(story: Story, begin: Begin) -> None:
    told: Play = begin(story) >> Close()
    if told.conversation.outstanding is not None:
        told = told << None >> Unsent()
    assert told << Phase.DELETING << DeleteChat >> story.deleted << Deleted(CHAT) << Phase.DELETED << None


@pytest.mark.clause("OA-7.2")
def test_a_prompt_that_arrives_while_the_owner_leaves_changes_nothing(story: Story) -> None:
    told = story.prompting() >> Close() << None >> Reply(200, prompter()) << Prompted(PROMPT)
    assert told << Phase.DELETING << DeleteChat


@pytest.mark.clause("OA-7.2")
def test_a_stream_that_opens_after_the_owner_left_is_closed(story: Story) -> None:
    told = story.opening() >> Close() << Phase.DRAINING << None >> Opened() << CloseStream >> Ended()
    assert told << FetchMessage
    told = story.opening() >> Close() << None >> Lost() << FetchMessage
    assert told


@pytest.mark.clause("OA-7.7")
def test_closing_an_ended_conversation_does_nothing(story: Story) -> None:
    told = story.deleting() >> story.deleted << Deleted(CHAT) << None
    assert told >> Close() >> Close(drain=False) >> Abandon() << Phase.DELETED << None


# ---- deleting


@pytest.mark.clause("OA-7.3")
@inference_only
@pytest.mark.parametrize("reply", [Reply(200, "null"), Reply(200), Reply(204), INFERENCE.not_found], ids=repr)
def test_an_inference_server_confirms_with_2xx_or_chat_not_found(story: Story, reply: Reply) -> None:
    assert story.deleting() >> reply << Deleted(CHAT) << Phase.DELETED << None


@pytest.mark.clause("OA-7.3")
@inference_only
@pytest.mark.parametrize("reply", [Reply(404), Reply(404, GARBAGE), Reply(404, {"detail": "Not Found"})], ids=repr)
def test_another_404_of_an_inference_server_is_unclear(story: Story, reply: Reply) -> None:
    assert story.deleting() >> reply << Phase.DELETE_UNCLEAR << FetchChat


@pytest.mark.clause("OA-7.3")
@website_only
def test_a_website_confirms_with_200_and_an_empty_body(story: Story) -> None:
    assert story.deleting() >> Reply(200) << Deleted(CHAT) << Phase.DELETED << None


UNCLEAR: list[Happening] = [Lost(), Reply(500, "Internal Server Error"), Reply(302), Reply(405), Reply(503), Reply(429)]


@pytest.mark.clause("OA-7.3", "OA-7.4")
@pytest.mark.parametrize("outcome", UNCLEAR, ids=repr)
def test_any_other_reply_is_unclear_and_the_chat_is_read(story: Story, outcome: Happening) -> None:
    assert story.deleting() >> outcome << Phase.DELETE_UNCLEAR << Sends(FetchChat, delay=0.0, shielded=True)


@pytest.mark.clause("OA-7.3")
@website_only
@pytest.mark.parametrize("reply", [Reply(200, GARBAGE), Reply(200, "null"), Reply(204), Reply(404)], ids=repr)
def test_what_a_website_does_not_say_is_not_believed(story: Story, reply: Reply) -> None:
    assert story.deleting() >> reply << Phase.DELETE_UNCLEAR << FetchChat


@pytest.mark.clause("OA-7.4")
@inference_only
def test_a_chat_that_an_inference_server_does_not_find_is_gone(story: Story) -> None:
    assert story.delete_unclear() >> story.not_found << Deleted(CHAT) << Phase.DELETED << None


@pytest.mark.clause("OA-7.5")
@website_only
def test_a_chat_that_a_website_does_not_find_is_gone_if_the_list_of_chats_answers(story: Story) -> None:
    told = story.delete_unclear() >> story.not_found << Sends(ListChats, method="GET", path="/api/chat", shielded=True)
    assert told >> Reply(200, chats(ANSWER_2)) << Deleted(CHAT) << Phase.DELETED << None


@pytest.mark.clause("OA-7.5")
@website_only
def test_a_page_of_the_list_that_reaches_back_beyond_the_chat_is_enough(story: Story) -> None:
    older = "0" * 8 + CHAT[8:]
    page = {"chats": [{"id": ANSWER_2}, {"id": older}], "next": "older ones"}
    assert story.delete_unclear() >> story.not_found << ListChats >> Reply(200, page) << Deleted(CHAT)


NEWER_CHATS = {"chats": [{"id": ANSWER_2}, {"id": ANSWER}], "next": "a page&more"}


@pytest.mark.clause("OA-7.5")
@website_only
@pytest.mark.parametrize(
    ("last", "phase"),
    [
        (Reply(200, chats()), Phase.DELETED),
        (Reply(200, chats(CHAT)), Phase.DELETING),
        (Reply(200, NEWER_CHATS), Phase.DELETING),
    ],
    ids=["the last one", "with the chat", "one more"],
)
def test_where_a_page_has_only_newer_chats_the_next_ones_are_read(story: Story, last: Reply, phase: Phase) -> None:
    told = story.delete_unclear() >> story.not_found << ListChats
    for _ in range(50):
        told = told >> Reply(200, NEWER_CHATS) << Sends(ListChats, path="/api/chat?after=a%20page%26more")
    assert (told >> last).drop_events() << phase


@pytest.mark.clause("OA-7.5")
@website_only
@pytest.mark.parametrize(
    "outcome",
    [
        Reply(200, chats(ANSWER_2, CHAT)),
        Reply(200, {"chats": [], "next": "a page on which ours may be"}),
        Reply(200, GARBAGE),
        Reply(200),
        Reply(200, b'{"chats": "\xff"}'),
        Reply(200, b" " * (8 * 1024 * 1024 + 1)),
        Reply(204),
        Reply(404),
        Reply(500),
        Lost(),
        Unsent(),
    ],
    ids=lambda outcome: repr(outcome)[:40],
)
def test_a_list_that_does_not_confirm_means_that_the_chat_may_be_there(story: Story, outcome: Happening) -> None:
    told = story.delete_unclear() >> story.not_found << ListChats >> outcome << Phase.DELETING
    assert told << Sends(DeleteChat, delay=0.5) >> Lost() << Phase.DELETE_UNCLEAR << FetchChat


@pytest.mark.clause("OA-7.4")
@pytest.mark.parametrize(
    "outcome", [Reply(200, chat()), Reply(200, GARBAGE), Reply(404, GARBAGE), Reply(500), Lost(), Unsent()], ids=repr
)
def test_a_chat_that_may_still_be_there_is_deleted_again(story: Story, outcome: Happening) -> None:
    assert story.delete_unclear() >> outcome << Phase.DELETING << Sends(DeleteChat, delay=0.5)


@pytest.mark.clause("OA-7.6")
def test_after_the_last_attempt_the_chat_is_named(story: Story) -> None:
    told = story.deleting() >> Reply(500, "Internal Server Error") << FetchChat >> Reply(200, chat())
    told = told << Sends(DeleteChat, delay=0.5) >> Lost() << FetchChat >> Lost()
    told = told << Sends(DeleteChat, delay=1.0) >> Reply(500, "Internal Server Error") << FetchChat
    told = told >> Reply(200, chat()) << Leaks(CHAT) << Phase.LEAKED << None
    (record,) = told.conversation.records
    assert "3 attempts" in record.reason
    assert "Internal Server Error" in record.reason


@pytest.mark.clause("OA-7.6")
def test_a_delete_that_was_not_sent_is_an_attempt_and_needs_no_reading(story: Story) -> None:
    told = story.deleting(attempts=2) >> Unsent() << Phase.DELETING << Sends(DeleteChat, delay=0.5) >> Unsent()
    assert told << Leaks(CHAT) << Phase.LEAKED << None


@pytest.mark.clause("OA-6.3")
def test_retry_after_is_waited_for_before_the_chat_is_read(story: Story) -> None:
    assert story.deleting() >> Reply(503, headers={"retry-after": "3"}) << Sends(FetchChat, delay=3.0)


@pytest.mark.clause("OA-6.3")
def test_a_retry_after_of_more_than_a_minute_names_the_chat_at_once(story: Story) -> None:
    assert story.deleting() >> Reply(503, headers={"retry-after": "61"}) << Leaks(CHAT) << Phase.LEAKED << None


# ---- naming what is left

EVERYWHERE = [
    Story.prompting,
    Story.prompt_lost,
    Story.requesting,
    Story.request_lost,
    Story.opening,
    Story.streaming,
    Story.polling,
    Story.answered,
    Story.failed,
    Story.draining,
    Story.draining_by_chat,
    Story.deleting,
    Story.delete_unclear,
]


@pytest.mark.clause("OA-7.2")
@pytest.mark.parametrize("begin", EVERYWHERE, ids=lambda begin: begin.__name__)
def test_an_abandoned_chat_is_named(story: Story, begin: Begin) -> None:
    told: Play = begin(story)
    assert told >> Abandon() << Leaks(CHAT) << Phase.LEAKED << None >> Abandon() << None
    assert not told.conversation.has_stream
    assert "in the time allowed" in told.conversation.records[0].reason


@pytest.mark.clause("OA-7.2")
def test_an_abandoned_create_may_have_made_a_chat(story: Story) -> None:
    assert story.creating() >> Abandon() << Leaks(None) << Phase.LEAKED << None


def test_abandoning_before_anything_was_sent_leaves_nothing(story: Story) -> None:
    assert story.start() >> Prompt() >> Abandon() << NeverCreated() << Phase.NEVER_CREATED << None
    assert story.creating() >> Unsent() >> Abandon() << NeverCreated() << None


AT_16 = {"Date": "Sun, 22 Nov 2026 08:18:16 GMT"}
AT_17 = {"date": "Sun, 22 Nov 2026 08:18:17 GMT"}
AT_18 = {"date": "Sun, 22 Nov 2026 08:18:18 GMT"}


@pytest.mark.clause("OA-6.8")
def test_the_window_of_a_lost_create_is_that_of_the_replies_around_it(story: Story) -> None:
    """The first window ends with the next reply of all, a lost create's own reply ends its own."""
    told = (
        story.creating()
        >> Lost()
        << CreateChat
        >> Reply(500, headers=AT_16)
        << CreateChat
        >> Reply(200, {"id": CHAT}, AT_17)
        << Created(CHAT)
    )
    told = (told >> Close() << DeleteChat >> Reply(200, headers=AT_18)).drop_events() << Phase.LEAKED
    windows = [(record.not_before, record.not_after) for record in told.conversation.records]
    assert windows == [(None, AT_16["Date"]), (None, AT_16["Date"])]


@pytest.mark.clause("OA-6.8")
def test_a_window_begins_with_the_last_reply_before_the_create(story: Story) -> None:
    told = story.creating(retries=1) >> Reply(503, headers=AT_16) << CreateChat >> Reply(500, headers=AT_17)
    told = told.drop_events() << Phase.LEAKED
    (record,) = told.conversation.records
    assert (record.not_before, record.not_after) == (AT_16["Date"], AT_17["date"])


@pytest.mark.clause("OA-7.2")
def test_what_is_told_as_leaked_is_what_is_recorded(story: Story) -> None:
    told = story.creating(retries=0)
    failed, leaked = told.conversation.receive_reply(500, AT_17.items(), b"")
    assert isinstance(failed, Failed)
    assert isinstance(leaked, Leaked)
    assert leaked.records == told.conversation.records
    assert leaked.records[0].not_after == AT_17["date"]
    assert told.conversation.error is failed.error


def test_a_chat_whose_id_is_known_needs_no_window(story: Story) -> None:
    told = story.prompting() >> Reply(200, prompter(), AT_16) << Prompted(PROMPT) >> Abandon() << Leaks(CHAT)
    (record,) = told.conversation.records
    assert (record.not_before, record.not_after) == (None, None)


# ---- late replies

LATE: list[Happening] = [Reply(200, complete()), Reply(200, GARBAGE), Reply(500), Reply(401), Lost(), Unsent()]


@pytest.mark.parametrize("outcome", LATE, ids=repr)
def test_a_reply_that_nobody_waits_for_any_more_is_ignored(story: Story, outcome: Happening) -> None:
    assert story.prompt_lost() >> Close() << None >> outcome << Phase.DELETING << DeleteChat
    told = story.streaming() >> Bytes(COMMENT * 3) << FetchMessage
    told = (told >> TimedOut()).drop_events() << Phase.FAILED
    assert told >> outcome << Phase.FAILED << CloseStream
    assert story.opening() >> Close(drain=False) << None >> outcome << Phase.DELETING << DeleteChat
    told = (story.opening() >> TimedOut()).drop_events()
    assert told << None >> Opened() << Phase.FAILED << CloseStream >> Ended() << None
    assert isinstance((story.opening() << None).conversation.outstanding, OpenStream)
