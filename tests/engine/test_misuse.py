"""What the caller does wrong is refused and named (OA-6.11). That nothing changes, test_totality shows."""

import pickle
from typing import Any

import pytest

from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import AnswerFailed, LocalProtocolError, MaybeSent, OAError
from oa_protocol.engine.inputs import (
    Abandon,
    Close,
    CredentialsFound,
    ExchangeFailed,
    Input,
    Prompt,
    ReplyReceived,
    StreamEnded,
    StreamOpened,
)
from oa_protocol.engine.intents import LoadCredentials
from oa_protocol.engine.timers import Timeouts
from oa_protocol.testing.playbook import Data, Lost, Reply, Unsent, Wait

from .stories import CHAT, COOKIES, Story, token

pytestmark = pytest.mark.clause("OA-6.11")


def refusal(conversation: Conversation, happens: Input) -> str:
    """What the engine says to an input that it must refuse; checks that nothing changed."""
    frozen = pickle.dumps(conversation)
    with pytest.raises(LocalProtocolError) as refused:
        conversation.handle(happens, now=7.0)
    assert pickle.dumps(conversation) == frozen
    assert refused.value.phase == conversation.phase.name
    return str(refused.value)


@pytest.mark.parametrize(
    "happens",
    [
        Reply(200),
        Lost(),
        Unsent(),
        StreamOpened(),
        Data(token("Hi")),
        StreamEnded(),
        CredentialsFound(COOKIES),
    ],
    ids=lambda happens: type(happens).__name__,
)
def test_what_was_not_asked_for_is_refused(story: Story, happens: Input) -> None:
    said = refusal(story.answered().conversation, happens)
    assert said == f"{type(happens).__name__} is not possible in phase ANSWERED (nothing is outstanding)"


def test_a_prompt_before_the_answer_is_refused(story: Story) -> None:
    said = refusal(story.opening().conversation, Prompt("Too early"))
    assert said == "Prompt is not possible in phase ASSISTANT_REQUESTED (OpenStream is outstanding)"


def test_a_second_prompt_before_the_first_was_sent_is_refused(story: Story) -> None:
    assert "Prompt is not possible in phase START" in refusal(
        (story.start() >> Prompt("Hello")).conversation, Prompt("Hello")
    )


def test_a_prompt_after_a_failure_is_refused_and_names_it(story: Story) -> None:
    said = refusal(story.failed().conversation, Prompt("Hello"))
    assert "Prompt is not possible in phase FAILED" in said
    assert "the conversation failed before: no answer came in the time allowed" in said


def test_a_prompt_after_the_owner_left_is_refused(story: Story) -> None:
    assert "it is being closed" in refusal((story.answered() >> Close()).conversation, Prompt("Hello"))


def test_nothing_is_taken_after_abandoning(story: Story) -> None:
    script = (story.prompting() >> Abandon()).drop_events()
    for happens in (Reply(200), Lost(), StreamEnded(), Prompt("Hello")):
        assert "phase LEAKED (nothing is outstanding)" in refusal(script.conversation, happens)


def test_errors_pickle_with_all_they_say(story: Story) -> None:
    failed = (story.streaming("Hi", timeouts=Timeouts(answer=9.0)) >> Wait()).drop_events().conversation.error
    assert isinstance(failed, AnswerFailed)
    thawed: OAError = pickle.loads(pickle.dumps(failed))
    assert isinstance(thawed, AnswerFailed)
    assert (str(thawed), thawed.phase, thawed.text) == (str(failed), "STREAMING", "Hi")


# ---- inputs whose content can't be used


def untyped(kind: type[Input], *fields: object) -> Input:
    """An input that a type checker would refuse."""
    anything: Any = kind
    made: Input = anything(*fields)
    return made


BAD_FIELDS: list[tuple[Any, str]] = [
    (untyped(ReplyReceived, "200"), "status must be a number, not '200'"),
    (untyped(ReplyReceived, True), "status must be a number, not True"),
    (untyped(ReplyReceived, 200, (), "{}"), "body must be bytes, not str"),
    (untyped(ReplyReceived, 200, (), None), "body must be bytes, not NoneType"),
    (untyped(ReplyReceived, 200, None), "headers must be a mapping or pairs, not NoneType"),
    (untyped(ReplyReceived, 200, [("date", 5)]), "headers must be text or bytes, not int"),
    (untyped(ReplyReceived, 200, [5]), "int"),
    (untyped(ReplyReceived, 200, ["date"]), "unpack"),
    (untyped(ExchangeFailed, OSError("reset")), r"failure must be NotSent\(…\) or MaybeSent\(…\), not OSError"),
    (untyped(ExchangeFailed, MaybeSent), "failure must be"),
    ({"session": "SECRET"}, "not an input of a conversation: dict$"),
    (None, "not an input of a conversation: NoneType"),
    (Close, "not an input of a conversation: Close"),
    (MaybeSent("reset"), "not an input of a conversation: MaybeSent"),
]


@pytest.mark.parametrize(("happens", "words"), BAD_FIELDS, ids=lambda value: ascii(value).replace("\\", ""))
def test_an_input_of_the_wrong_type_raises_and_changes_nothing(story: Story, happens: Any, words: str) -> None:
    conversation = story.prompting().conversation
    frozen = pickle.dumps(conversation)
    with pytest.raises((TypeError, ValueError), match=words):
        conversation.handle(happens, now=7.0)
    assert pickle.dumps(conversation) == frozen


def test_credentials_of_the_wrong_type_raise_and_change_nothing(story: Story) -> None:
    conversation = (story.start(credentials=None) >> Prompt("Hello") << LoadCredentials).conversation
    frozen = pickle.dumps(conversation)
    with pytest.raises(TypeError, match="credentials must be Credentials or None, not str"):
        conversation.handle(untyped(CredentialsFound, "secret"), now=7.0)
    assert pickle.dumps(conversation) == frozen


class Odd(InferenceServer):
    """A binding with a mistake in it."""

    def read_chat_id(self, body: bytes) -> str:
        raise KeyError("id")


def test_an_error_of_the_binding_itself_is_raised_and_changes_nothing() -> None:
    conversation = Story(Odd("http://oa.test")).creating().conversation
    frozen = pickle.dumps(conversation)
    with pytest.raises(KeyError, match="id"):
        conversation.handle(Reply(200, {"id": CHAT}), now=0.0)
    assert pickle.dumps(conversation) == frozen
