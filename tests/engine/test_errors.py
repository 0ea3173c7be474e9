"""What the engine makes of every error that servers are known to send, at each step (section 8)."""

from pathlib import Path

import pytest

from oa_protocol.bindings.replies import Reply as JudgedReply
from oa_protocol.engine.errors import AnswerFailed, ApiError, AuthenticationError, HTTPStatusError, NotSent, OAError
from oa_protocol.engine.events import Deleted, Failed, NeverCreated
from oa_protocol.engine.inputs import Close, CredentialsFound, Input, ReplyReceived, StreamEnded
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    DeleteChat,
    Exchange,
    FetchChat,
    FetchMessage,
    Intent,
    ListChats,
    LoadCredentials,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.testing.error_table import ROWS, Row, markdown
from oa_protocol.testing.playbook import Play, Reply, Wait

from .stories import CHAT, INFERENCE, WEBSITE, Begin, Story, chat, complete, prompter

SPECIFICATION = Path(__file__).parent.parent.parent / "specs" / "protocol.md"

BEGIN: dict[str, Begin] = {
    "create": Story.creating,
    "prompt": Story.prompting,
    "request": Story.requesting,
    "events": Story.opening,
    "message": Story.polling,
    "chat": Story.delete_unclear,
    "delete": Story.deleting,
}
SENT = {
    "create": CreateChat,
    "prompt": SendPrompt,
    "request": RequestAssistant,
    "events": OpenStream,
    "message": FetchMessage,
    "chat": FetchChat,
    "delete": DeleteChat,
}


def name_of(row: Row) -> str:
    return f"{row.api}-{row.step}-{row.case}-{row.words[0] if row.words else row.status}".replace(" ", "_")


def rows(*, raised: bool) -> list[Row]:
    return [row for row in ROWS if (row.error is not None) is raised and row.step != "models"]


def story_of(row: Row) -> Story:
    return WEBSITE if row.api == "website" else INFERENCE


def reply_of(row: Row) -> ReplyReceived:
    return Reply(row.status, row.body, {"content-type": row.content_type} if row.content_type else {})


def meet(row: Row) -> Play:
    """Bring a conversation that tries nothing twice to the row's step, and let the server say it."""
    return BEGIN[row.step](story_of(row), retries=0) >> reply_of(row)


def ask(script: Play) -> Intent | None:
    """Return what is to be done. If nothing is due yet, time passes first."""
    for _ in range(2):
        intent = script.conversation.outstanding or script.conversation.next_intent(script.now)
        if intent is not None or script.conversation.deadline is None:
            return intent
        script = script >> Wait()
    return None


def go_on(script: Play, row: Row) -> Play:
    """Until it fails or has nothing to do: the server goes on saying the same at this step, and knows nothing else."""
    for _ in range(10):
        if script.conversation.error is not None or script.conversation.is_over:
            return script
        intent = ask(script)
        answer: Input
        match intent:
            case LoadCredentials():
                answer = CredentialsFound(None)
            case FetchChat():
                answer = Reply(200, chat() if row.step == "prompt" else chat(prompter()))
            case _:
                answer = reply_of(row)
        script = script.drop_events() >> answer
    pytest.fail(f"no end: {script.conversation!r}")


def leave(script: Play, story: Story) -> Play:
    """Close; the server does as it should."""
    script = script.drop_events() >> Close()
    for _ in range(10):
        answer: Input
        match ask(script):
            case None:
                return script
            case CloseStream():
                answer = StreamEnded()
            case FetchMessage():
                answer = Reply(200, complete())
            case DeleteChat():
                answer = story.deleted
            case FetchChat():
                answer = Reply(200, chat(prompter()))
            case other:
                pytest.fail(f"not expected while leaving: {other!r}")
        script = script.drop_events() >> answer
    pytest.fail(f"no end: {script.conversation!r}")


@pytest.mark.clause("OA-8.1", "OA-8.3", "OA-6.11")
@pytest.mark.parametrize("row", rows(raised=True), ids=name_of)
def test_the_error_is_raised_as_promised_with_the_servers_words(row: Row) -> None:
    error = go_on(meet(row), row).conversation.error
    assert error is not None
    assert type(error) is row.error
    for words in row.words:
        assert words in str(error)
    assert f"phase {error.phase}" in str(error)
    assert getattr(error, "status", row.status) == row.status


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (ApiError, {"status": 0, "message": ""}),
        (HTTPStatusError, {"status": 0}),
        (AuthenticationError, {"status": None}),
        (AnswerFailed, {"text": ""}),
        (NotSent, {}),
    ],
)
def test_an_error_can_be_made_from_a_text_alone(kind: type[OAError], fields: dict[str, object]) -> None:
    assert vars(kind("No.")) == {"phase": None, **fields}


@pytest.mark.clause("OA-7.2", "OA-8.3")
@pytest.mark.parametrize("row", rows(raised=True), ids=name_of)
def test_afterwards_the_chat_is_deleted_or_none_was_made_or_it_is_named(row: Row) -> None:
    script = leave(go_on(meet(row), row), story_of(row))
    if row.step != "create":
        assert script.conversation.phase is Phase.DELETED
    elif row.status >= 500:
        assert script.conversation.phase is Phase.LEAKED
    else:
        assert script.conversation.phase is Phase.NEVER_CREATED


@pytest.mark.clause("OA-8.3")
@pytest.mark.parametrize("row", rows(raised=False), ids=name_of)
def test_if_nothing_is_raised_the_conversation_goes_on_as_promised(row: Row) -> None:
    """An unusable stream is polled; a DELETE is looked into, or its rejection names the chat."""
    script = meet(row)
    if row.step == "events":
        assert script << Phase.POLLING << FetchMessage
    elif row.status in (401, 403):
        script = (script << LoadCredentials >> CredentialsFound(None)).drop_events()
        assert script << Phase.LEAKED << None
    elif b"Chat not found" in row.body:
        assert script << Deleted(CHAT) << Phase.DELETED << None
    elif row.step == "chat":
        assert script << ListChats
    else:
        assert script << Phase.DELETE_UNCLEAR << FetchChat


@pytest.mark.clause("OA-8.1")
@pytest.mark.parametrize("row", [row for row in ROWS if row.step == "models"], ids=name_of)
def test_the_list_of_models_fails_with_the_same_errors(row: Row) -> None:
    error = JudgedReply.of(story_of(row).binding, row.status, (), row.body).error("listing the models")
    assert row.error is not None
    assert type(error) is row.error
    for words in row.words:
        assert words in str(error)


@pytest.mark.clause("OA-8.3")
def test_the_specification_shows_this_table() -> None:
    """``python -m oa_protocol.testing.error_table`` prints it."""
    assert markdown() in SPECIFICATION.read_text(encoding="utf-8")


def test_each_step_but_the_models_is_one_of_the_engines() -> None:
    assert {row.step for row in ROWS} == {*BEGIN, "models"}
    for step, begin in BEGIN.items():
        outstanding = begin(WEBSITE).conversation.outstanding
        assert isinstance(outstanding, Exchange)
        assert type(outstanding) is SENT[step]


def test_a_failed_create_ends_the_conversation_without_close() -> None:
    row = next(row for row in ROWS if row.step == "create" and row.status == 404)
    events = BEGIN["create"](story_of(row)).conversation.handle(reply_of(row), now=0.0)
    assert [type(event) for event in events] == [Failed, NeverCreated]
