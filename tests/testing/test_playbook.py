"""Playbooks: what a wrong step says, and that nothing goes unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.website import Website
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import AnswerFailed, ApiError, LocalProtocolError, MaybeSent, NotSent
from oa_protocol.engine.events import Created, Prompted, Token
from oa_protocol.engine.inputs import Close, Prompt, ReplyReceived, StreamData, StreamOpened
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    DeleteChat,
    LoadCredentials,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.engine.timers import Timeouts
from oa_protocol.testing.playbook import (
    Data,
    Deadline,
    Fails,
    Lost,
    Pause,
    Play,
    Reply,
    Sends,
    Unsent,
    Wait,
    play,
)

CHAT, PROMPT, ANSWER = (f"06b02a54-89e8-7932-8000-00000000000{number}" for number in range(3))


@pytest.fixture
def created() -> Play:
    """The chat is made; that event is still to be expected."""
    conversation = Conversation(Website("http://oa.test"), Credentials(token="secret"), timeouts=Timeouts(answer=9.0))
    return play(conversation) >> Prompt("Hello") << CreateChat >> Reply(200, {"id": CHAT})


@pytest.fixture
def streaming(created: Play) -> Play:
    """The stream is open, and has brought nothing yet."""
    script = created.drop_events() << SendPrompt >> Reply(200, {"id": PROMPT})
    script = script.drop_events() << RequestAssistant >> Reply(200, {"id": ANSWER})
    return script.drop_events() << OpenStream >> StreamOpened()


def test_a_playbook_that_fits_is_true(created: Play) -> None:
    assert created << Created(CHAT) << Phase.CHAT_CREATED << SendPrompt << None


def test_a_wrong_step_fails_like_a_diff(created: Play) -> None:
    body = b'{"id": "%s"}' % CHAT.encode()
    with pytest.raises(AssertionError) as failure:
        assert created << Created(CHAT) << DeleteChat
    assert str(failure.value).splitlines()[:-1] == [
        "the conversation leaves the playbook (- expected, + found):",
        "  >> Prompt(text='Hello')",
        "  << CreateChat",
        f"  >> ReplyReceived(status=200, headers=(), body={body!r})",
        f"  << Created(chat_id='{CHAT}')",
        "- << DeleteChat",
    ]
    assert str(failure.value).splitlines()[-1].startswith("+ << SendPrompt(request=HttpRequest(method='POST', url=")


def test_a_failure_shows_no_credentials(created: Play) -> None:
    with pytest.raises(AssertionError) as failure:
        assert created << Created(CHAT) << DeleteChat
    assert "secret" not in str(failure.value)


def test_an_event_that_was_not_emitted_is_missed(created: Play) -> None:
    with pytest.raises(AssertionError, match=r"\n- << Token\(text='Hi'\)$"):
        assert created << Created(CHAT) << Token("Hi")


def test_another_event_than_the_expected_one_fails(created: Play) -> None:
    with pytest.raises(AssertionError, match=r"\n- << Token\(text='Hi'\)\n\+ << Created"):
        assert created << Token("Hi")


GOING_ON: list[Callable[[Play], object]] = [
    lambda created: created << SendPrompt,
    lambda created: created >> Close(),
    lambda created: bool(created),
]


@pytest.mark.parametrize("go_on", GOING_ON, ids=["an intent", "an input", "the end"])
def test_an_unexpected_event_fails_whatever_comes_next(created: Play, go_on: Callable[[Play], object]) -> None:
    with pytest.raises(AssertionError, match=r"\n\+ << Created\(chat_id='[^\n]*$"):
        go_on(created)


def test_events_can_be_dropped(created: Play) -> None:
    assert created.drop_events() << SendPrompt


def test_another_phase_fails(created: Play) -> None:
    with pytest.raises(AssertionError, match=r"\n- << Phase.START\n\+ << Phase.CHAT_CREATED$"):
        assert created << Created(CHAT) << Phase.START


def test_the_details_of_a_request_can_be_expected(created: Play) -> None:
    script = created << Created(CHAT)
    assert script << Sends(
        SendPrompt,
        shielded=False,
        method="POST",
        path="/api/chat/prompter_message",
        body={"chat_id": CHAT, "parent_id": None, "content": "Hello"},
    )


@pytest.mark.parametrize(
    "wrong",
    [
        Sends(CreateChat),
        Sends(SendPrompt, shielded=True),
        Sends(SendPrompt, method="GET"),
        Sends(SendPrompt, path="/api/chat"),
        Sends(SendPrompt, body={"content": "Hello"}),
    ],
    ids=repr,
)
def test_each_detail_that_is_not_so_fails(created: Play, wrong: Sends) -> None:
    with pytest.raises(AssertionError, match=r"\n- << Sends"):
        assert created << Created(CHAT) << wrong


def test_the_last_intent_is_at_hand(created: Play) -> None:
    assert isinstance((created << Created(CHAT) << SendPrompt).intent, SendPrompt)


def test_a_long_step_takes_one_short_line() -> None:
    conversation = Conversation(Website("http://oa.test"), Credentials(token="secret"))
    with pytest.raises(AssertionError) as failure:
        assert play(conversation) >> Prompt("x" * 10_000) << DeleteChat
    assert all(len(line) < 400 for line in str(failure.value).splitlines())


def test_the_builders_return_inputs() -> None:
    assert (
        Reply(200, {"a": 1}) == Reply(200, b'{"a": 1}') == Reply(200, '{"a": 1}') == ReplyReceived(200, (), b'{"a": 1}')
    )
    assert Reply(204, headers={"date": "now"}) == ReplyReceived(204, {"date": "now"})
    assert (type(Lost().failure), type(Unsent().failure)) == (MaybeSent, NotSent)
    assert Data({"a": 1}, []) == StreamData(b'data: {"a": 1}\r\n\r\ndata: []\r\n\r\n')


# ---- time


def test_a_pause_is_not_taken_for_an_intent_that_is_due(created: Play) -> None:
    script = created << Created(CHAT) << SendPrompt >> Unsent()
    assert failure_of(lambda: script << SendPrompt)[-2:] == ["- << SendPrompt", "+ << Pause(0.5)"]
    assert failure_of(lambda: script << Pause(1))[-2:] == ["- << Pause(1)", "+ << Pause(0.5)"]
    assert failure_of(lambda: script << None)[-2:] == ["- << None", "+ << Pause(0.5)"]


def test_an_intent_that_is_due_is_not_taken_for_a_pause(created: Play) -> None:
    script = created << Created(CHAT)
    expected, found = failure_of(lambda: script << Pause(0.5))[-2:]
    assert (expected, found[:16]) == ("- << Pause(0.5)", "+ << SendPrompt(")


def test_the_clock_goes_on_to_the_end_of_a_pause(created: Play) -> None:
    script = created << Created(CHAT) << SendPrompt >> Unsent() << Pause(0.5) << SendPrompt
    assert script.now == 0.5
    script = script >> Unsent() << Pause() << SendPrompt
    assert script.now == 1.5


def test_time_passes_only_by_waiting(created: Play) -> None:
    script = created << Created(CHAT) << SendPrompt << Deadline(30) >> Wait(20) << None << Deadline(10)
    assert script.now == 20
    assert script >> Wait() << Phase.PROMPT_LOST
    assert script.now == 30


def test_another_deadline_fails(created: Play) -> None:
    script = created << Created(CHAT) << SendPrompt
    assert failure_of(lambda: script << Deadline(29.99))[-2:] == ["- << Deadline(29.99)", "+ << Deadline(30)"]
    assert failure_of(lambda: script << Deadline(None))[-2:] == ["- << Deadline(None)", "+ << Deadline(30)"]


def test_seconds_are_compared_to_the_millisecond(created: Play) -> None:
    assert created << Created(CHAT) << SendPrompt >> Wait(0.1) >> Wait(0.2) << Deadline(29.7)


def test_without_a_deadline_there_is_nothing_to_wait_for() -> None:
    begun = play(Conversation(Website("http://oa.test")))
    assert begun << None << Deadline(None)
    assert failure_of(lambda: begun >> Wait())[-2:] == [
        "  >> Wait()",
        "! the conversation has no deadline, so Wait() needs a number of seconds",
    ]


def test_an_event_at_the_end_of_a_pause_is_to_be_expected(created: Play) -> None:
    script = created << Created(CHAT) << SendPrompt >> Reply(200, {"id": PROMPT}) << Prompted(PROMPT) >> Wait(8.75)
    script = script << RequestAssistant >> Unsent() << Pause(0.25)
    assert failure_of(lambda: script << None)[-1].startswith("+ << Failed(error=AnswerFailed(")


# ---- what a wrong step says


def failure_of(step: Callable[[], object]) -> list[str]:
    """The lines with which a wrong step fails, without the title."""
    with pytest.raises(AssertionError) as failure:
        step()
    return str(failure.value).splitlines()[1:]


def test_what_a_request_is_instead_is_said_in_the_same_details(created: Play) -> None:
    script = created << Created(CHAT)
    body = {"chat_id": CHAT, "content": "Hello", "parent_id": None}
    wrong = Sends(SendPrompt, path="/api/chat", body={**body, "content": "Goodbye"})
    assert failure_of(lambda: script << wrong)[-2:] == [
        f"- << Sends(SendPrompt, path='/api/chat', body={ {**body, 'content': 'Goodbye'} })",
        f"+ << Sends(SendPrompt, path='/api/chat/prompter_message', body={body})",
    ]


def test_the_fields_of_two_bodies_are_shown_in_the_same_order(created: Play) -> None:
    script = created << Created(CHAT)
    wrong = Sends(SendPrompt, body={"parent_id": None, "content": "Hello" * 200, "chat_id": CHAT})
    expected, found = failure_of(lambda: script << wrong)[-2:]
    assert expected.startswith(f"- << Sends(SendPrompt, body={{'chat_id': '{CHAT}', 'content': 'HelloHello")
    assert found == f"+ << Sends(SendPrompt, body={ {'chat_id': CHAT, 'content': 'Hello', 'parent_id': None} })"


def test_a_request_of_another_kind_is_shown_by_its_name(created: Play) -> None:
    script = created << Created(CHAT)
    assert failure_of(lambda: script << Sends(DeleteChat, method="DELETE"))[-2:] == [
        "- << Sends(DeleteChat, method='DELETE')",
        "+ << Sends(SendPrompt, method='POST')",
    ]


def test_what_is_asked_for_instead_of_a_request_is_shown() -> None:
    begun = play(Conversation(Website("http://oa.test"))) >> Prompt("Hello")
    assert failure_of(lambda: begun << Sends(CreateChat, body={}))[-2:] == [
        "- << Sends(CreateChat, body={})",
        "+ << LoadCredentials(refused=False)",
    ]


def test_a_failure_with_other_words_is_shown_with_its_own(created: Play) -> None:
    script = created << Created(CHAT) << SendPrompt >> Reply(400, {"message": "No"})
    expected, found = failure_of(lambda: script << Fails(ApiError, "Yes"))[-2:]
    assert expected == "- << Fails(ApiError, 'Yes')"
    assert found.startswith("+ << Fails(ApiError, 'No: HTTP 400")


def test_a_failed_answer_with_another_text_is_shown_with_its_own(streaming: Play) -> None:
    script = streaming >> Data({"event_type": "token", "text": "Hi"}) << Token("Hi") >> Wait(9)
    expected, found = failure_of(lambda: script << Fails(AnswerFailed, text="Ho"))[-2:]
    assert expected == "- << Fails(AnswerFailed, text='Ho')"
    assert found.startswith("+ << Fails(AnswerFailed, ")
    assert found.endswith(", text='Hi')")


@pytest.mark.parametrize("alike", [0, 150, 250, 501, 5000])
def test_two_long_steps_are_cut_at_their_difference(streaming: Play, alike: int) -> None:
    text = "x" * alike
    script = streaming >> Data({"event_type": "token", "text": f"{text}found{'y' * 9000}"})
    expected, found = failure_of(lambda: script << Token(f"{text}expected{'y' * 9000}"))[-2:]
    assert expected.startswith("- << Token(text='")
    assert found.startswith("+ << Token(text='")
    assert ("expected" in expected, "found" in found) == (True, True)
    assert max(len(expected), len(found)) < 400


def test_an_input_that_is_not_possible_fails_after_the_steps_so_far(created: Play) -> None:
    script, body = created << Created(CHAT), b'{"id": "%s"}' % CHAT.encode()
    with pytest.raises(AssertionError) as failure:
        assert script >> StreamOpened()
    assert isinstance(failure.value.__cause__, LocalProtocolError)
    assert str(failure.value).splitlines() == [
        "the conversation leaves the playbook (! not possible):",
        "  >> Prompt(text='Hello')",
        "  << CreateChat",
        f"  >> ReplyReceived(status=200, headers=(), body={body!r})",
        f"  << Created(chat_id='{CHAT}')",
        "  >> StreamOpened()",
        f"! LocalProtocolError: {failure.value.__cause__}",
    ]


def test_a_prompt_that_cannot_be_sent_fails_after_the_steps_so_far() -> None:
    begun = play(Conversation(Website("http://oa.test")))
    assert failure_of(lambda: begun >> Prompt("\0"))[-1].startswith("! ValueError: ")


def test_an_event_can_be_expected_whatever_is_in_it(created: Play) -> None:
    assert created << Created << SendPrompt


def test_another_event_than_one_of_the_expected_class_fails(created: Play) -> None:
    assert failure_of(lambda: created << Token)[-2:] == ["- << Token", f"+ << Created(chat_id='{CHAT}')"]


def test_an_event_of_a_class_that_was_not_emitted_is_missed(created: Play) -> None:
    script = created << Created
    assert failure_of(lambda: script << Prompted)[-2:] == ["  << Created", "- << Prompted"]


def name_of(value: object) -> str:
    return getattr(value, "__name__", repr(value))


NO_EXPECTATIONS: list[tuple[Any, str]] = [
    ("Hello", "<< takes what you expect from a conversation, "),
    (Exception, "<< takes what you expect from a conversation, "),
    (Prompt("Hello"), r"Prompt\(text='Hello'\) is what happens to a conversation: write it after >>"),
    (Close, "Close is what happens to a conversation: write it after >>"),
    (Wait(1), r"Wait\(1\) is what happens to a conversation: write it after >>"),
    (Lost, "Lost is what happens to a conversation: write it after >>"),
    (LoadCredentials(), r"expect an intent by its class \(<< LoadCredentials\)"),
]


@pytest.mark.parametrize(("value", "words"), NO_EXPECTATIONS, ids=name_of)
def test_what_cannot_be_expected_is_refused(created: Play, value: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        assert created << value


NO_INPUTS: list[tuple[Any, str]] = [
    ("Hello", ">> takes what happens to a conversation, "),
    (None, ">> takes what happens to a conversation, "),
    (Close, r">> takes an instance: Close\(…\)"),
    (Wait, r">> takes an instance: Wait\(…\)"),
    (Lost, r">> takes an instance: Lost\(…\)"),
    (Pause(1), r"Pause\(1\) is what you expect from a conversation: write it after <<"),
    (Deadline(1), r"Deadline\(1\) is what you expect from a conversation: write it after <<"),
    (Phase.START, "Phase.START is what you expect from a conversation: write it after <<"),
    (CreateChat, "CreateChat is what you expect from a conversation: write it after <<"),
    (Created(CHAT), r"Created\(.*\) is what you expect from a conversation: write it after <<"),
    (Sends(CreateChat), r"Sends\(CreateChat\) is what you expect from a conversation: write it after <<"),
]


@pytest.mark.parametrize(("value", "words"), NO_INPUTS, ids=name_of)
def test_what_cannot_happen_is_refused(value: Any, words: str) -> None:
    begun = play(Conversation(Website("http://oa.test")))
    with pytest.raises(TypeError, match=words):
        assert begun >> value


@pytest.mark.parametrize("kind", [LoadCredentials, CloseStream, Created, Sends(CreateChat)], ids=repr)
def test_only_exchanges_have_details(kind: Any) -> None:
    with pytest.raises(TypeError, match="Sends takes a class of exchanges"):
        Sends(kind)
