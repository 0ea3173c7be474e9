"""Leaving: waiting for an answer that may run, deleting, making sure, and naming what is left (section 7)."""

import pytest

from oa_protocol.engine.events import Answered, Created, Deleted, Failed, Leaked, NeverCreated, Prompted, Requested
from oa_protocol.engine.inputs import Abandon, Close, Input, Prompt, ReplyReceived, StreamData, StreamEnded
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    DeleteChat,
    FetchChat,
    FetchMessage,
    ListChats,
    RequestAssistant,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.engine.timers import Cleanup
from oa_protocol.testing.playbook import Data, Json, Leaks, Lost, Pause, Play, Reply, Sends, Unsent

from .stories import (
    ANSWER,
    ANSWER_2,
    CHAT,
    COMMENT,
    GARBAGE,
    INFERENCE,
    PROMPT,
    SLOWLY,
    WEBSITE,
    Begin,
    Story,
    assistant,
    chat,
    chats,
    complete,
    final,
    message,
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
    script = story.draining(cleanup=SLOWLY) >> Reply(200, assistant())
    script = script << Pause(0.5) << Sends(FetchMessage, shielded=True)
    for seconds in (1.0, 2.0, 4.0, 5.0, 5.0):
        script = script >> RUNS << Pause(seconds) << FetchMessage
    script = script >> Reply(200, assistant(state=state)) << Phase.DELETING << DeleteChat
    assert script >> story.deleted << Deleted(CHAT) << None


@pytest.mark.clause("OA-7.1")
def test_the_stream_is_closed_before_anything_else(story: Story) -> None:
    script = story.streaming() >> Close() << CloseStream << None
    script = script >> Data(token("late")) >> StreamData(b"data: no JSON\n\n") << None
    assert script >> StreamEnded() << FetchMessage


@pytest.mark.clause("OA-7.1")
def test_an_owner_who_does_not_drain_deletes_at_once(story: Story) -> None:
    assert story.draining() >> Close(drain=False) << Phase.DELETING << DeleteChat
    script = story.streaming() >> Close(drain=False) << Phase.DELETING << CloseStream
    assert script >> StreamEnded() << DeleteChat
    assert story.polling() >> Close(drain=False) << Phase.DELETING << DeleteChat


@pytest.mark.clause("OA-7.1")
def test_an_answer_that_failed_for_its_owner_may_still_run_and_is_waited_for(story: Story) -> None:
    assert story.failed() >> Close() << Phase.DRAINING << FetchMessage >> RUNS << Pause() << FetchMessage
    assert story.failed() >> Close(drain=False) << Phase.DELETING << DeleteChat


@pytest.mark.clause("OA-7.1")
def test_an_answer_that_the_worker_failed_is_not_waited_for(story: Story) -> None:
    script = (story.streaming() >> Data(worker_error("Aborted due to worker error."))).drop_events()
    assert script << CloseStream >> StreamEnded() << None >> Close() << Phase.DELETING << DeleteChat


@pytest.mark.clause("OA-7.1")
def test_a_request_made_while_the_owner_left_is_waited_for(story: Story) -> None:
    script = story.requesting() >> Close() << None >> Reply(200, assistant()) << Requested(ANSWER)
    assert script << Phase.DRAINING << FetchMessage


@pytest.mark.clause("OA-7.1")
def test_a_request_whose_fate_is_unknown_is_looked_for_in_the_chat(story: Story) -> None:
    script = story.draining_by_chat() >> Reply(200, chat(prompter(), assistant()))
    script = script << Pause(0.5) << Sends(FetchChat, shielded=True) >> Reply(200, chat(prompter(), RUNS_IN_CHAT))
    assert script << Pause(1.0) << FetchChat >> Reply(200, chat(prompter(), complete())) << DeleteChat


RUNS_IN_CHAT = assistant(state="in_progress")


@pytest.mark.clause("OA-7.1")
def test_a_request_that_never_arrived_is_not_waited_for(story: Story) -> None:
    assert story.draining_by_chat() >> Reply(200, chat(prompter())) << DeleteChat


@pytest.mark.clause("OA-6.1", "OA-7.1")
def test_a_lost_request_may_still_be_carried_out_so_that_its_chat_is_not_read_at_once(story: Story) -> None:
    assert story.requesting() >> Close() << None >> Lost() << Phase.DRAINING << Pause(0.5) << FetchChat
    assert story.request_lost() >> Close() << Phase.DRAINING << Pause(0.5) << FetchChat
    assert story.requesting() >> Lost() >> Close() << Phase.DRAINING << Pause(0.5) << FetchChat


@pytest.mark.clause("OA-7.1")
def test_after_a_lost_request_that_did_not_arrive_nothing_is_waited_for(story: Story) -> None:
    script = story.request_lost() >> Reply(200, chat(prompter())) << Pause() << RequestAssistant
    script = (script >> Reply(422, story.words("Model x not found"))).drop_events() << Phase.FAILED
    assert script >> Close() << Phase.DELETING << DeleteChat


@pytest.mark.clause("OA-6.7", "OA-7.1")
def test_the_message_that_a_503_left_behind_is_not_waited_for(story: Story) -> None:
    script = story.requesting() >> Reply(503)
    assert script >> Close() << Phase.DELETING << DeleteChat
    busy = Reply(503, story.words("The server is currently busy. Please try again later."))
    script = story.requesting() >> busy << Pause() << RequestAssistant >> Close() << None >> Lost()
    script = script << Phase.DRAINING << Pause() << FetchChat >> Reply(200, chat(prompter(), assistant()))
    assert script << Phase.DELETING << DeleteChat


@pytest.mark.clause("OA-7.1")
@pytest.mark.parametrize(
    "begin",
    [Story.prompt_lost, Story.request_lost, Story.opening, Story.polling],
    ids=lambda begin: begin.__name__,
)
def test_a_read_that_is_under_way_is_dropped_because_it_no_longer_matters(story: Story, begin: Begin) -> None:
    script: Play = begin(story) >> Close()
    assert script.conversation.outstanding is None


@pytest.mark.clause("OA-7.1")
@pytest.mark.parametrize("begin", [Story.prompting, Story.requesting], ids=lambda begin: begin.__name__)
def test_an_owner_who_does_not_drain_waits_for_no_write_but_a_create(story: Story, begin: Begin) -> None:
    assert begin(story) >> Close(drain=False) << Phase.DELETING << DeleteChat
    assert story.creating() >> Close(drain=False) << Phase.START << None


@pytest.mark.clause("OA-7.1")
@pytest.mark.parametrize("outcome", [Lost(), Unsent(), Reply(500), Reply(503)], ids=repr)
@pytest.mark.parametrize("by", ["message", "chat"])
def test_if_waiting_fails_the_chat_is_deleted_regardless(story: Story, outcome: Input, by: str) -> None:
    script, kind = (story.draining(), FetchMessage) if by == "message" else (story.draining_by_chat(), FetchChat)
    script = script >> outcome << Pause(0.5) << kind >> outcome << Pause(1.0) << kind >> outcome
    assert script << Phase.DELETING << DeleteChat


@pytest.mark.clause("OA-7.1")
@pytest.mark.parametrize("outcome", [Reply(404), Reply(200, GARBAGE), Reply(302)], ids=repr)
@pytest.mark.parametrize("by", ["message", "chat"])
def test_if_waiting_is_refused_the_chat_is_deleted_at_once(story: Story, outcome: Input, by: str) -> None:
    script = story.draining() if by == "message" else story.draining_by_chat()
    assert script >> outcome << Phase.DELETING << DeleteChat


# ---- leaving from everywhere


@pytest.mark.clause("OA-7.2")
@pytest.mark.parametrize(
    "begin", [Story.prompting, Story.prompt_lost, Story.requesting, Story.answered], ids=lambda begin: begin.__name__
)
def test_a_chat_without_a_running_answer_is_deleted(story: Story, begin: Begin) -> None:
    script: Play = begin(story) >> Close()
    if script.conversation.outstanding is not None:
        script = script << None >> Unsent()
    assert script << Phase.DELETING << DeleteChat >> story.deleted << Deleted(CHAT) << Phase.DELETED << None


@pytest.mark.clause("OA-7.2")
def test_a_prompt_that_arrives_while_the_owner_leaves_changes_nothing(story: Story) -> None:
    script = story.prompting() >> Close() << None >> Reply(200, prompter()) << Prompted(PROMPT)
    assert script << Phase.DELETING << DeleteChat


@pytest.mark.clause("OA-7.7")
def test_closing_an_ended_conversation_does_nothing(story: Story) -> None:
    script = story.deleting() >> story.deleted << Deleted(CHAT) << None
    assert script >> Close() >> Close(drain=False) >> Abandon() << Phase.DELETED << None


# ---- deleting


@pytest.mark.clause("OA-7.3")
@inference_only
@pytest.mark.parametrize("reply", [Reply(200, "null"), Reply(200), Reply(204), INFERENCE.not_found], ids=repr)
def test_an_inference_server_confirms_with_2xx_or_chat_not_found(story: Story, reply: ReplyReceived) -> None:
    assert story.deleting() >> reply << Deleted(CHAT) << Phase.DELETED << None


@pytest.mark.clause("OA-7.3")
@inference_only
@pytest.mark.parametrize("reply", [Reply(404), Reply(404, GARBAGE), Reply(404, {"detail": "Not Found"})], ids=repr)
def test_another_404_of_an_inference_server_is_unclear(story: Story, reply: ReplyReceived) -> None:
    assert story.deleting() >> reply << Phase.DELETE_UNCLEAR << FetchChat


@pytest.mark.clause("OA-7.3")
@website_only
def test_a_website_confirms_with_200_and_an_empty_body(story: Story) -> None:
    assert story.deleting() >> Reply(200) << Deleted(CHAT) << Phase.DELETED << None


UNCLEAR: list[Input] = [Lost(), Reply(500, "Internal Server Error"), Reply(302), Reply(405), Reply(503), Reply(429)]


@pytest.mark.clause("OA-7.3", "OA-7.4")
@pytest.mark.parametrize("outcome", UNCLEAR, ids=repr)
def test_any_other_reply_is_unclear_and_the_chat_is_read(story: Story, outcome: Input) -> None:
    assert story.deleting() >> outcome << Phase.DELETE_UNCLEAR << Sends(FetchChat, shielded=True)


@pytest.mark.clause("OA-7.3")
@website_only
@pytest.mark.parametrize("reply", [Reply(200, GARBAGE), Reply(200, "null"), Reply(204), Reply(404)], ids=repr)
def test_what_a_website_does_not_say_is_not_believed(story: Story, reply: ReplyReceived) -> None:
    assert story.deleting() >> reply << Phase.DELETE_UNCLEAR << FetchChat


@pytest.mark.clause("OA-7.4")
@inference_only
def test_a_chat_that_an_inference_server_does_not_find_is_gone(story: Story) -> None:
    assert story.delete_unclear() >> story.not_found << Deleted(CHAT) << Phase.DELETED << None


@pytest.mark.clause("OA-7.5")
@website_only
def test_a_chat_that_a_website_does_not_find_is_gone_if_the_list_of_chats_answers(story: Story) -> None:
    script = (
        story.delete_unclear() >> story.not_found << Sends(ListChats, method="GET", path="/api/chat", shielded=True)
    )
    assert script >> Reply(200, chats(ANSWER_2)) << Deleted(CHAT) << Phase.DELETED << None


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
def test_if_a_page_has_only_newer_chats_the_next_ones_are_read(story: Story, last: ReplyReceived, phase: Phase) -> None:
    script = story.delete_unclear() >> story.not_found << ListChats
    for _ in range(50):
        script = script >> Reply(200, NEWER_CHATS) << Sends(ListChats, path="/api/chat?after=a%20page%26more")
    assert (script >> last).drop_events() << phase


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
def test_a_list_that_does_not_confirm_means_that_the_chat_may_be_there(story: Story, outcome: Input) -> None:
    script = story.delete_unclear() >> story.not_found << ListChats >> outcome << Phase.DELETING
    assert script << Pause(0.5) << DeleteChat >> Lost() << Phase.DELETE_UNCLEAR << FetchChat


@pytest.mark.clause("OA-7.4")
@pytest.mark.parametrize(
    "outcome", [Reply(200, chat()), Reply(200, GARBAGE), Reply(404, GARBAGE), Reply(500), Lost(), Unsent()], ids=repr
)
def test_a_chat_that_may_still_be_there_is_deleted_again(story: Story, outcome: Input) -> None:
    assert story.delete_unclear() >> outcome << Phase.DELETING << Pause(0.5) << DeleteChat


@pytest.mark.clause("OA-7.6")
def test_after_the_last_attempt_the_chat_is_named(story: Story) -> None:
    script = story.deleting() >> Reply(500, "Internal Server Error") << FetchChat >> Reply(200, chat())
    script = script << Pause(0.5) << DeleteChat >> Lost() << FetchChat >> Lost()
    script = script << Pause(1.0) << DeleteChat >> Reply(500, "Internal Server Error") << FetchChat
    script = script >> Reply(200, chat()) << Leaks(CHAT) << Phase.LEAKED << None
    (record,) = script.conversation.leaked
    assert "3 attempts" in record.reason
    assert "Internal Server Error" in record.reason


@pytest.mark.clause("OA-7.5", "OA-7.6")
@website_only
@pytest.mark.parametrize("page", [chats(CHAT), {"chats": [], "next": "a page"}], ids=["with the chat", "empty"])
def test_a_chat_whose_last_attempt_no_list_confirms_is_named(story: Story, page: Json) -> None:
    script = story.delete_unclear(cleanup=Cleanup(attempts=1)) >> story.not_found << ListChats
    assert script >> Reply(200, page) << Leaks(CHAT) << Phase.LEAKED << None


@pytest.mark.clause("OA-6.3", "OA-7.6")
def test_a_server_may_delay_a_delete_by_a_minute(story: Story) -> None:
    script = story.deleting(cleanup=SLOWLY) >> Reply(503, headers={"retry-after": "60"})
    assert script << Phase.DELETE_UNCLEAR << Pause(60.0) << FetchChat


@pytest.mark.clause("OA-7.6")
def test_a_delete_that_was_not_sent_is_no_attempt_and_needs_no_reading(story: Story) -> None:
    script = story.deleting(cleanup=Cleanup(attempts=1))
    for seconds in (0.5, 1.0, 2.0, 4.0):
        script = script >> Unsent() << Phase.DELETING << Pause(seconds) << DeleteChat
    assert script >> story.deleted << Deleted(CHAT)


@pytest.mark.clause("OA-7.6")
def test_deletes_that_are_not_sent_end_with_the_time(story: Story) -> None:
    script = story.deleting()
    for seconds in (0.5, 1.0, 2.0, 4.0):
        script = script >> Unsent() << Pause(seconds) << DeleteChat
    assert script >> Unsent() << Pause(2.5) << Leaks(CHAT) << Phase.LEAKED << None


@pytest.mark.clause("OA-6.3")
def test_retry_after_is_waited_for_before_the_chat_is_read(story: Story) -> None:
    assert story.deleting() >> Reply(503, headers={"retry-after": "3"}) << Pause(3.0) << FetchChat


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
    script: Play = begin(story)
    assert script >> Abandon() << Leaks(CHAT) << Phase.LEAKED << None >> Abandon() << None
    assert not script.conversation.has_stream
    assert "in the time allowed" in script.conversation.leaked[0].reason


@pytest.mark.clause("OA-7.2")
def test_an_abandoned_create_may_have_made_a_chat(story: Story) -> None:
    assert story.creating() >> Abandon() << Leaks(None) << Phase.LEAKED << None


def test_abandoning_before_anything_was_sent_leaves_nothing(story: Story) -> None:
    assert story.start() >> Prompt("Hello") >> Abandon() << NeverCreated() << Phase.NEVER_CREATED << None
    assert story.creating() >> Unsent() >> Abandon() << NeverCreated() << None


AT_16 = {"Date": "Sun, 22 Nov 2026 08:18:16 GMT"}
AT_17 = {"date": "Sun, 22 Nov 2026 08:18:17 GMT"}
AT_18 = {"date": "Sun, 22 Nov 2026 08:18:18 GMT"}


@pytest.mark.clause("OA-6.8")
def test_the_window_of_a_lost_create_is_that_of_the_replies_around_it(story: Story) -> None:
    """The first window ends with the next reply of all, a lost create's own reply ends its own."""
    script = story.creating() >> Lost() << Pause() << CreateChat >> Reply(500, headers=AT_16) << Pause() << CreateChat
    script = script >> Reply(200, {"id": CHAT}, AT_17) << Created(CHAT)
    script = (script >> Close() << DeleteChat >> Reply(200, headers=AT_18)).drop_events() << Phase.LEAKED
    windows = [(record.not_before, record.not_after) for record in script.conversation.leaked]
    assert windows == [(None, AT_16["Date"]), (None, AT_16["Date"])]


@pytest.mark.clause("OA-6.8")
def test_a_window_begins_with_the_last_reply_before_the_create(story: Story) -> None:
    script = story.creating(retries=1) >> Reply(503, headers=AT_16) << Pause() << CreateChat
    script = (script >> Reply(500, headers=AT_17)).drop_events() << Phase.LEAKED
    (record,) = script.conversation.leaked
    assert (record.not_before, record.not_after) == (AT_16["Date"], AT_17["date"])


@pytest.mark.clause("OA-7.2")
def test_what_is_emitted_as_leaked_is_what_is_kept(story: Story) -> None:
    script = story.creating(retries=0)
    failed, leaked = script.conversation.handle(Reply(500, headers=AT_17), now=0.0)
    assert isinstance(failed, Failed)
    assert isinstance(leaked, Leaked)
    assert leaked.leaked == script.conversation.leaked
    assert leaked.leaked[0].not_after == AT_17["date"]
    assert script.conversation.error is failed.error


@pytest.mark.clause("OA-6.8")
def test_a_chat_whose_id_cannot_be_read_is_named_with_the_error_and_the_time(story: Story) -> None:
    script = story.creating() >> Reply(200, {"id": "x"}, AT_16)
    (record,) = script.conversation.leaked
    assert (record.reason, record.not_after) == (str(script.conversation.error), AT_16["Date"])


def test_a_chat_whose_id_is_known_needs_no_window(story: Story) -> None:
    script = story.prompting() >> Reply(200, prompter(), AT_16) << Prompted(PROMPT) >> Abandon() << Leaks(CHAT)
    (record,) = script.conversation.leaked
    assert (record.not_before, record.not_after) == (None, None)


# ---- late replies

LATE: list[Input] = [Reply(200, complete()), Reply(200, GARBAGE), Reply(500), Reply(401), Lost(), Unsent()]


@pytest.mark.parametrize("outcome", LATE, ids=repr)
def test_a_reply_that_is_no_longer_needed_is_ignored(story: Story, outcome: Input) -> None:
    """The message is read because the stream looked stuck, and then the answer comes over the stream."""
    script = story.streaming("Hi") >> StreamData(COMMENT * 3) << FetchMessage
    script = script >> Data(final(complete("Hi"))) << Answered(message(complete("Hi"))) << Phase.ANSWERED
    assert script << None >> outcome << Phase.ANSWERED << CloseStream >> StreamEnded() << None
