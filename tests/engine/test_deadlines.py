"""Time: what is waited for and how long, what happens if it doesn't come, and when the next exchange is due."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import AnswerFailed, MaybeSent
from oa_protocol.engine.events import Prompted, Requested, Token
from oa_protocol.engine.inputs import Close, Prompt, StreamData, StreamEnded, TimePassed
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    DeleteChat,
    FetchChat,
    FetchMessage,
    LoadCredentials,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.engine.timers import Cleanup, Timeouts
from oa_protocol.testing.playbook import Data, Deadline, Fails, Leaks, Lost, Pause, Play, Reply, Unsent, Wait

from .stories import ANSWER, CHAT, COMMENT, PROMPT, Begin, Beginning, Story, assistant, chat, prompter, token

pytestmark = pytest.mark.clause("OA-6.12")

RUNS = Reply(200, assistant(state="in_progress"))
ALL_DIFFERENT = Timeouts(reply=20.0, idle=40.0, poll=100.0, answer=50.0)
SHARE = 10 / 3
"""One attempt's share of the time for cleanup."""


def limited(begin: Begin) -> Beginning:
    """The same beginning, with a time of its own for everything."""
    return lambda story: begin(story, timeouts=ALL_DIFFERENT)


DEADLINES: dict[str, tuple[Beginning, float | None]] = {
    "nothing to do": (Story.start, None),
    "credentials": (lambda story: story.start(credentials=None) >> Prompt("Hello") << LoadCredentials, None),
    "create": (limited(Story.creating), 20),
    "prompt": (limited(Story.prompting), 20),
    "look for the prompt": (limited(Story.prompt_lost), 20),
    "request": (limited(Story.requesting), 20),
    "look for the request": (limited(Story.request_lost), 20),
    "opening": (limited(Story.opening), 20),
    "silence": (limited(Story.streaming), 40),
    "check": (lambda story: limited(Story.streaming)(story) >> StreamData(COMMENT * 3) << FetchMessage, 20),
    "poll": (limited(Story.polling), 20),
    "polling ends first": (lambda story: story.polling(timeouts=Timeouts(poll=15.0)), 15),
    "the answer ends first": (lambda story: story.opening(timeouts=Timeouts(answer=15.0)), 15),
    "answered": (limited(Story.answered), None),
    "failed": (Story.failed, None),
    "draining": (Story.draining, SHARE),
    "closing the stream first": (lambda story: story.streaming() >> Close() << CloseStream, 5),
    "closing it without draining": (
        lambda story: story.streaming() >> Close() << CloseStream >> Close(drain=False),
        10,
    ),
    "deleting": (Story.deleting, SHARE),
    "looking whether it is gone": (Story.delete_unclear, SHARE),
    "a create after the owner left": (lambda story: story.creating() >> Close(), 10),
    "a prompt after the owner left": (lambda story: story.prompting() >> Close(), 5),
    "a request after the owner left": (lambda story: story.requesting() >> Close(), 5),
    "a short reply after the owner left": (lambda story: story.prompting(timeouts=Timeouts(reply=3.0)) >> Close(), 3),
    "deleted": (lambda story: (story.deleting() >> story.deleted).drop_events(), None),
}


@pytest.mark.parametrize("case", DEADLINES)
def test_a_deadline_is_that_of_what_is_waited_for(story: Story, case: str) -> None:
    begin, seconds = DEADLINES[case]
    assert begin(story) << Deadline(seconds)


def test_without_any_call_there_is_no_deadline(story: Story) -> None:
    assert story.conversation().deadline is None


# ---- an intent when it is due


def test_an_intent_is_handed_out_when_it_is_due_and_not_before(story: Story) -> None:
    conversation = (story.creating() >> Unsent()).conversation
    assert (conversation.next_intent(0.0), conversation.deadline) == (None, 0.5)
    assert (conversation.next_intent(0.499), conversation.deadline) == (None, 0.5)
    assert isinstance(conversation.next_intent(0.5), CreateChat)
    assert conversation.deadline == 30.5


def test_if_a_deadline_has_passed_nothing_is_handed_out_before_that_is_said(story: Story) -> None:
    conversation = (story.requesting(timeouts=Timeouts(answer=9.0)) >> Unsent()).conversation
    assert conversation.next_intent(9.0) is None
    assert len(conversation.handle(TimePassed(), 9.0)) == 1
    assert conversation.phase is Phase.FAILED


@pytest.mark.parametrize("seconds", [0.0, 1.0, 29.0])
def test_time_that_passes_before_a_deadline_changes_nothing(story: Story, seconds: float) -> None:
    assert story.prompting() >> Wait(seconds) << None << Phase.CHAT_CREATED << Deadline(30 - seconds)


def test_any_other_input_says_that_time_has_passed_as_well(story: Story) -> None:
    """For example, a driver that was busy hands in bytes after the deadline."""
    conversation = story.streaming(timeouts=Timeouts(answer=9.0)).conversation
    events = conversation.handle(Data(token("late")), 9.0)
    assert [type(event).__name__ for event in events] == ["Token", "Failed"]


def test_a_clock_that_goes_back_stands_still(story: Story) -> None:
    conversation = story.prompting().conversation
    conversation.handle(TimePassed(), 20.0)
    conversation.handle(TimePassed(), 5.0)
    assert conversation.deadline == 30.0
    conversation.handle(Lost(), 5.0)
    assert conversation.deadline == 20.5


# ---- a reply that doesn't come


@pytest.mark.clause("OA-6.1")
def test_a_prompt_without_a_reply_is_lost(story: Story) -> None:
    script = story.prompting(retries=0) >> Wait() << Phase.PROMPT_LOST << Pause(0.5) << FetchChat
    assert script >> Reply(200, chat()) << Fails(MaybeSent, "no reply within 30 s") << Phase.FAILED << None


@pytest.mark.clause("OA-6.1")
def test_a_request_without_a_reply_is_lost(story: Story) -> None:
    script = story.requesting() >> Wait() << Phase.REQUEST_LOST << Pause(0.5) << FetchChat
    assert script >> Reply(200, chat(prompter(), assistant())) << Requested(ANSWER)


@pytest.mark.clause("OA-6.8")
def test_a_create_without_a_reply_is_named_and_tried_again(story: Story) -> None:
    script = story.creating(retries=1) >> Wait() << Pause(0.5) << CreateChat >> Wait()
    assert script << Fails(MaybeSent, "no reply") << Leaks(None, None) << Phase.LEAKED << None


@pytest.mark.clause("OA-6.5")
def test_a_stream_whose_head_does_not_come_is_polled(story: Story) -> None:
    assert story.opening() >> Wait() << Phase.POLLING << FetchMessage


def test_a_read_without_a_reply_is_tried_again(story: Story) -> None:
    script = story.prompt_lost() >> Wait() << Pause(0.5) << FetchChat >> Wait() << Pause(1.0) << FetchChat
    assert script >> Wait() << Fails(MaybeSent, "no reply", "reading the chat") << Phase.FAILED
    assert story.polling() >> Wait() << Phase.POLLING << Pause(0.5) << FetchMessage


def test_a_check_without_a_reply_says_nothing_of_the_stream(story: Story) -> None:
    script = story.streaming() >> StreamData(COMMENT * 3) << FetchMessage >> Wait()
    assert script << Phase.STREAMING << None >> Data(token("Hi")) << Token("Hi")


@pytest.mark.clause("OA-7.4")
def test_a_delete_without_a_reply_is_unclear(story: Story) -> None:
    assert story.deleting() >> Wait() << Phase.DELETE_UNCLEAR << FetchChat


# ---- a stream that falls silent


@pytest.mark.clause("OA-6.6")
def test_every_byte_begins_the_silence_anew(story: Story) -> None:
    script = story.streaming() >> Wait(40) >> StreamData(b":") << None << Deadline(45) >> Wait(44.9) << None
    assert script << Phase.STREAMING >> Wait() << Phase.POLLING << CloseStream


@pytest.mark.clause("OA-6.6")
def test_silence_is_counted_only_while_the_driver_waits_for_bytes(story: Story) -> None:
    """The owner may take time for each event before the driver reads on."""
    script = story.streaming() >> Data(token("Hi")) << Token("Hi") << Deadline(None)
    assert script >> Wait(1000) << Phase.STREAMING << None << Deadline(45)


# ---- an answer that doesn't come


@pytest.mark.clause("OA-6.9")
def test_the_time_for_polling_begins_when_the_stream_is_lost(story: Story) -> None:
    script = story.streaming("Hi", timeouts=Timeouts(poll=3.0)) >> Wait(20) >> StreamEnded() << FetchMessage
    script = script >> RUNS << Pause(0.5) << FetchMessage >> RUNS << Pause(1.0) << FetchMessage << Deadline(1.5)
    assert script >> Wait() << Fails(AnswerFailed, "time allowed", text="Hi") << Phase.FAILED << None


@pytest.mark.clause("OA-6.9")
def test_the_time_for_polling_ends_a_pause_as_well(story: Story) -> None:
    script = story.polling(timeouts=Timeouts(poll=0.75)) >> RUNS << Pause(0.5) << FetchMessage >> RUNS
    assert script << Pause(0.25) << Fails(AnswerFailed, "time allowed") << Phase.FAILED << None


@pytest.mark.clause("OA-6.9")
@pytest.mark.parametrize(
    "begin",
    [Story.requesting, Story.request_lost, Story.opening, Story.streaming, Story.polling],
    ids=lambda begin: begin.__name__,
)
def test_the_owners_time_for_the_answer_ends_the_waiting(story: Story, begin: Begin) -> None:
    script: Play = begin(story, timeouts=Timeouts(answer=9.0)) >> Wait()
    assert script.now == 9.0
    assert script << Fails(AnswerFailed, "time allowed", text="") << Phase.FAILED
    assert script.conversation.outstanding is None


@pytest.mark.clause("OA-6.9")
def test_the_owners_time_begins_when_the_prompt_is_on_the_server(story: Story) -> None:
    script = story.prompting(timeouts=Timeouts(answer=9.0)) << Deadline(30) >> Wait(20)
    assert script >> Reply(200, prompter()) << Prompted(PROMPT) << RequestAssistant << Deadline(9)


@pytest.mark.clause("OA-6.9")
def test_each_answer_has_a_time_of_its_own(story: Story) -> None:
    script = story.answered(timeouts=Timeouts(answer=9.0)) << Deadline(None) >> Wait(20) >> Prompt("Bye") << SendPrompt
    script = script >> Reply(200, prompter(content="Bye", parent_id=ANSWER)) << Prompted(PROMPT)
    assert script << RequestAssistant << Deadline(9)


@pytest.mark.clause("OA-6.9")
def test_the_text_so_far_is_on_the_failure(story: Story) -> None:
    script = story.streaming("Hi ", "the", timeouts=Timeouts(answer=9.0)) >> Wait()
    assert script << Fails(AnswerFailed, text="Hi the")


@pytest.mark.clause("OA-7.1")
def test_a_request_that_was_given_up_may_run_and_is_waited_for(story: Story) -> None:
    script = (story.requesting(timeouts=Timeouts(answer=9.0)) >> Wait()).drop_events()
    assert script >> Close() << Phase.DRAINING << FetchChat


# ---- the way out


@pytest.mark.clause("OA-7.1")
def test_a_running_answer_is_waited_for_no_longer_than_the_drain(story: Story) -> None:
    script = story.draining()
    for seconds in (0.5, 1.0, 2.0):
        script = script >> RUNS << Pause(seconds) << FetchMessage
    assert script >> RUNS << Pause(1.5) << Phase.DELETING << DeleteChat
    assert script.now == 5.0


@pytest.mark.clause("OA-7.1")
@pytest.mark.parametrize(
    ("cleanup", "seconds"),
    [
        (Cleanup(drain=60.0, timeout=12.0, attempts=3), 8),
        (Cleanup(drain=60.0, timeout=12.0, attempts=1), 6),
        (Cleanup(drain=2.0, timeout=12.0, attempts=1), 2),
    ],
)
def test_draining_leaves_time_for_one_attempt_to_delete(story: Story, cleanup: Cleanup, seconds: float) -> None:
    assert story.streaming(cleanup=cleanup) >> Close() << CloseStream << Deadline(seconds)


@pytest.mark.clause("OA-7.1")
def test_without_a_drain_the_chat_is_deleted_at_once(story: Story) -> None:
    script = story.polling(cleanup=Cleanup(drain=0.0)) >> Close()
    assert script << Phase.DELETING << DeleteChat


@pytest.mark.clause("OA-7.8")
def test_a_delete_that_hangs_leaves_time_for_another(story: Story) -> None:
    script = story.deleting() << Deadline(SHARE) >> Wait() << FetchChat >> Reply(200, chat()) << Pause(0.5)
    assert (script << DeleteChat >> story.deleted).drop_events() << Phase.DELETED


@pytest.mark.clause("OA-7.2", "OA-7.8")
def test_after_the_time_for_cleanup_the_chat_is_named(story: Story) -> None:
    script = story.deleting() >> Wait() << FetchChat >> Wait() << Pause(0.5) << DeleteChat
    script = script << Deadline(10 - 2 * SHARE - 0.5)
    assert script >> Wait() << Leaks(CHAT) << Phase.LEAKED << None
    assert script.now == 10.0
    assert "in the time allowed" in script.conversation.leaked[0].reason


@pytest.mark.clause("OA-4.3", "OA-7.2")
def test_a_create_that_hangs_after_the_owner_left_is_waited_for_as_long_as_there_is_time(story: Story) -> None:
    assert story.creating() >> Close() << None << Deadline(10) >> Wait() << Leaks(None) << Phase.LEAKED << None


def test_leaving_again_does_not_begin_the_time_anew(story: Story) -> None:
    assert story.creating() >> Close() >> Wait(6) >> Close() << Deadline(4) >> Close(drain=False) << Deadline(4)


# ---- pickled, with another clock


def test_a_pickled_conversation_keeps_the_remaining_times(story: Story) -> None:
    script = story.creating() >> Wait(10)
    thawed: Conversation = pickle.loads(pickle.dumps(script.conversation))
    assert thawed.deadline is None  # no call has said yet what time it is
    thawed.handle(TimePassed(), 5000.0)
    assert thawed.deadline == 5020.0


def test_a_pickled_pause_goes_on(story: Story) -> None:
    script = story.creating() >> Unsent() >> Wait(0.25)
    thawed: Conversation = pickle.loads(pickle.dumps(script.conversation))
    assert (thawed.next_intent(-7.0), thawed.deadline) == (None, -6.75)
    assert isinstance(thawed.next_intent(-6.75), CreateChat)


# ---- what can be no time


@pytest.mark.parametrize("kind", [Timeouts, Cleanup])
@pytest.mark.parametrize("value", ["5", None, True, [], 1j], ids=repr)
def test_what_is_no_number_of_seconds_is_refused_by_name(kind: type[Timeouts | Cleanup], value: Any) -> None:
    for name in SECONDS[kind]:
        with pytest.raises(TypeError, match=f"{name} must be a number, not"):
            kind(**{name: value})


@pytest.mark.parametrize("kind", [Timeouts, Cleanup])
@pytest.mark.parametrize("value", [-1, -0.001, float("nan")])
def test_a_negative_number_of_seconds_is_refused_by_name(kind: type[Timeouts | Cleanup], value: Any) -> None:
    for name in SECONDS[kind]:
        with pytest.raises(ValueError, match=f"{name} must not be negative"):
            kind(**{name: value})


SECONDS: dict[type, list[str]] = {Timeouts: ["connect", "reply", "idle", "poll"], Cleanup: ["drain", "timeout"]}


def test_the_time_for_an_answer_may_have_no_limit() -> None:
    assert Timeouts(answer=None).answer is None
    with pytest.raises(TypeError, match="answer must be a number"):
        Timeouts(answer="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), (1.0, TypeError)])
def test_there_is_at_least_one_attempt_to_delete(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="attempts must"):
        Cleanup(attempts=value)
