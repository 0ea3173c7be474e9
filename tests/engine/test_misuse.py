"""What the caller does wrong is refused, named, and changes nothing (OA-6.11)."""

import pickle

import pytest

from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import AnswerFailed, LocalProtocolError, OAError
from oa_protocol.engine.inputs import Abandon, Close, CredentialsFound, Input, Prompt, StreamEnded, StreamOpened
from oa_protocol.testing.playbook import Data, Lost, Reply, Unsent, Wait

from .explorer import contents
from .stories import COOKIES, Story, token

pytestmark = pytest.mark.clause("OA-6.11")


def refusal(conversation: Conversation, happening: Input) -> str:
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
        (StreamOpened(), "receive_stream_opened()"),
        (Data(token("Hi")), "receive_stream_data()"),
        (Wait(), "receive_silence()"),
        (StreamEnded(), "receive_stream_end()"),
        (CredentialsFound(COOKIES), "receive_cookies()"),
        (Wait(), "answer_timed_out()"),
    ],
    ids=repr,
)
def test_what_was_not_asked_for_is_refused(story: Story, happening: Input, call: str) -> None:
    said = refusal(story.answered().conversation, happening)
    assert said == f"{call} is not possible in phase ANSWERED, where nothing is outstanding"


def test_a_prompt_before_the_answer_is_refused(story: Story) -> None:
    said = refusal(story.opening().conversation, Prompt("Too early"))
    assert said == "prompt() is not possible in phase ASSISTANT_REQUESTED, where OpenStream is outstanding"


def test_a_second_prompt_before_the_first_was_sent_is_refused(story: Story) -> None:
    assert "prompt() is not possible in phase START" in refusal(
        (story.start() >> Prompt("Hello")).conversation, Prompt("Hello")
    )


def test_a_prompt_after_a_failure_is_refused_and_names_it(story: Story) -> None:
    said = refusal(story.failed().conversation, Prompt("Hello"))
    assert "prompt() is not possible in phase FAILED" in said
    assert "the conversation failed before: no answer came in the time allowed" in said


def test_a_prompt_after_the_owner_left_is_refused(story: Story) -> None:
    assert "it is being closed" in refusal((story.answered() >> Close()).conversation, Prompt("Hello"))


def test_nothing_is_taken_after_abandoning(story: Story) -> None:
    script = (story.prompting() >> Abandon()).drop_events()
    for happening in (Reply(200), Lost(), StreamEnded(), Prompt("Hello")):
        assert "phase LEAKED, where nothing is outstanding" in refusal(script.conversation, happening)


def test_errors_pickle_with_all_they_say(story: Story) -> None:
    failed = (story.streaming("Hi") >> Wait()).drop_events().conversation.error
    assert isinstance(failed, AnswerFailed)
    thawed: OAError = pickle.loads(pickle.dumps(failed))
    assert isinstance(thawed, AnswerFailed)
    assert (str(thawed), thawed.phase, thawed.text) == (str(failed), "STREAMING", "Hi")
