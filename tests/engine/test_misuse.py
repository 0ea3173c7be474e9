"""What the caller does wrong is refused, named, and changes nothing (OA-6.11)."""

import pickle

import pytest

from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import AnswerFailed, LocalProtocolError, OAError
from oa_protocol.testing.playbook import (
    Abandon,
    Close,
    Cookies,
    Data,
    Ended,
    Happening,
    Lost,
    Opened,
    Prompt,
    Reply,
    Silence,
    TimedOut,
    Unsent,
)

from .explorer import contents
from .stories import COOKIES, Story, token

pytestmark = pytest.mark.clause("OA-6.11")


def refusal(conversation: Conversation, happening: Happening) -> str:
    """What the engine says to a call that it must refuse; checks that nothing changed."""
    before, frozen = contents(conversation), pickle.dumps(conversation)
    with pytest.raises(LocalProtocolError) as refused:
        happening.happen(conversation)
    assert contents(conversation) == before
    assert pickle.dumps(conversation) == frozen
    assert refused.value.phase == conversation.phase.name
    return str(refused.value)


@pytest.mark.parametrize(
    ("happening", "call"),
    [
        (Reply(200), "receive_reply()"),
        (Lost(), "receive_failure()"),
        (Unsent(), "receive_failure()"),
        (Opened(), "receive_stream_opened()"),
        (Data(token("Hi")), "receive_stream_data()"),
        (Silence(), "receive_silence()"),
        (Ended(), "receive_stream_end()"),
        (Cookies(COOKIES), "receive_cookies()"),
        (TimedOut(), "answer_timed_out()"),
    ],
    ids=repr,
)
def test_what_was_not_asked_for_is_refused(story: Story, happening: Happening, call: str) -> None:
    said = refusal(story.answered().conversation, happening)
    assert said == f"{call} is not possible in phase ANSWERED, where nothing is outstanding"


def test_a_prompt_before_the_answer_is_refused(story: Story) -> None:
    said = refusal(story.opening().conversation, Prompt("Too early"))
    assert said == "prompt() is not possible in phase ASSISTANT_REQUESTED, where OpenStream is outstanding"


def test_a_second_prompt_before_the_first_was_sent_is_refused(story: Story) -> None:
    assert "prompt() is not possible in phase START" in refusal((story.start() >> Prompt()).conversation, Prompt())


def test_a_prompt_after_a_failure_is_refused_and_names_it(story: Story) -> None:
    said = refusal(story.failed().conversation, Prompt())
    assert "prompt() is not possible in phase FAILED" in said
    assert "the conversation failed before: no answer came in the time allowed" in said


def test_a_prompt_after_the_owner_left_is_refused(story: Story) -> None:
    assert "it is being closed" in refusal((story.answered() >> Close()).conversation, Prompt())


def test_nothing_is_taken_after_abandoning(story: Story) -> None:
    told = (story.prompting() >> Abandon()).drop_events()
    for happening in (Reply(200), Lost(), Ended(), Prompt()):
        assert "phase LEAKED, where nothing is outstanding" in refusal(told.conversation, happening)


def test_errors_pickle_with_all_they_say(story: Story) -> None:
    failed = (story.streaming("Hi") >> TimedOut()).drop_events().conversation.error
    assert isinstance(failed, AnswerFailed)
    thawed: OAError = pickle.loads(pickle.dumps(failed))
    assert isinstance(thawed, AnswerFailed)
    assert (str(thawed), thawed.phase, thawed.text) == (str(failed), "STREAMING", "Hi")
