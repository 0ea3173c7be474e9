"""What an owner reads if something fails. Each text is compared as a whole, because it is all that a person sees."""

import re

import pytest

from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.replies import UNREADABLE as UNREADABLE_EVENT
from oa_protocol.engine.errors import AnswerFailed, MaybeSent, NotSent, RemoteProtocolError
from oa_protocol.engine.inputs import (
    Abandon,
    Close,
    CredentialsFound,
    Input,
    Interrupted,
    Prompt,
    Regenerate,
    StreamData,
)
from oa_protocol.engine.intents import CreateChat, FetchChat, FetchMessage, LoadCredentials
from oa_protocol.engine.timers import Cleanup, Timeouts
from oa_protocol.testing.playbook import Data, Lost, Play, Reply, Unsent, Wait

from .stories import (
    ANSWER,
    COMMENT,
    GARBAGE,
    Beginning,
    Story,
    assistant,
    chat,
    complete,
    final,
    prompter,
    token,
    worker_error,
)
from .test_misuse import refusal

BAD_ID = "../account/" + 90 * "x"
TOO_LATE = "no answer came in the time allowed (phase STREAMING)"
LARGE = 8 * 1024 * 1024

UNREADABLE: list[tuple[Beginning, str, str]] = [
    (Story.existing, "a chat", "OPENING"),
    (Story.creating, "a new chat", "START"),
    (Story.prompting, "a new prompter message", "CHAT_CREATED"),
    (Story.prompt_lost, "a chat", "PROMPT_LOST"),
    (Story.requesting, "a new assistant message", "PROMPTED"),
    (Story.request_lost, "a chat", "REQUEST_LOST"),
    (lambda story: story.streaming() >> StreamData(COMMENT * 3) << FetchMessage, "a message", "STREAMING"),
    (Story.polling, "a message", "POLLING"),
]
BAD_IDS: list[tuple[Beginning, Input, str, str]] = [
    (Story.existing, Reply(200, chat(complete(message_id=BAD_ID))), "a message", "OPENING"),
    (Story.creating, Reply(200, {"id": BAD_ID}), "a new chat", "START"),
    (Story.prompting, Reply(200, {"id": BAD_ID}), "a new prompter message", "CHAT_CREATED"),
    (Story.prompt_lost, Reply(200, chat(prompter(BAD_ID))), "a prompter message", "PROMPT_LOST"),
    (Story.requesting, Reply(200, {"id": BAD_ID}), "a new assistant message", "PROMPTED"),
    (Story.request_lost, Reply(200, chat(assistant(BAD_ID))), "an assistant message", "REQUEST_LOST"),
]
NO_EVENT = "the stream has data that is not an event of this protocol"
BROKEN: list[tuple[Beginning, Input, str]] = [
    (
        Story.polling,
        Reply(200, complete(message_id=BAD_ID)),
        f"the server sent message {BAD_ID[:80]!r} instead of {ANSWER}",
    ),
    (Story.polling, Reply(200, complete(None)), "the server sent a complete message without content"),
    (Story.streaming, Data(final(assistant())), "the server ended the stream with a message in state pending"),
    (
        Story.streaming,
        StreamData(b"data: " + 501 * b"[" + b"\n\n"),
        f"{NO_EVENT}: more than 500 arrays and objects are inside one another",
    ),
    (Story.streaming, StreamData(b"data: " + LARGE * b"x"), "the stream has an event of more than 8,388,608 bytes"),
]
BY_OTHERS = "another request of the same account, maybe another program's, cancelled it while it waited"
FAILED: list[tuple[Beginning, Input, str]] = [
    (Story.streaming, Data(worker_error("No.")), "the server says 'No.' (phase STREAMING)"),
    (
        Story.polling,
        Reply(200, assistant(state="timeout")),
        "the server says that the answer is in state timeout (phase POLLING)",
    ),
    (
        Story.polling,
        Reply(200, assistant(state="cancelled")),
        f"the server says that the answer is in state cancelled: {BY_OTHERS} (phase POLLING)",
    ),
]


def error_of(story: Story, begin: Beginning, happens: Input) -> Exception:
    script = begin(story) >> happens
    error = script.conversation.error
    assert error is not None
    assert f"(phase {error.phase})" in str(error)
    return error


@pytest.mark.clause("OA-8.2")
@pytest.mark.parametrize(("begin", "what", "phase"), UNREADABLE, ids=[row[2] for row in UNREADABLE])
def test_a_reply_that_cannot_be_read(story: Story, begin: Beginning, what: str, phase: str) -> None:
    error = error_of(story, begin, Reply(200, GARBAGE))
    assert isinstance(error, RemoteProtocolError)
    start = f"the server sent something other than {what}: "
    end = f" (phase {phase}). Is the base URL that of an Open Assistant server, and the api the right one?"
    assert re.fullmatch(f"{re.escape(start)}[^:]*: .+{re.escape(end)}", str(error))


@pytest.mark.clause("OA-2.6")
@pytest.mark.parametrize(("begin", "happens", "what", "phase"), BAD_IDS, ids=[row[3] for row in BAD_IDS])
def test_an_id_that_is_none(story: Story, begin: Beginning, happens: Input, what: str, phase: str) -> None:
    assert str(error_of(story, begin, happens)) == (
        f"the server sent {BAD_ID[:80]!r} as the id of {what}, which is not an id of this API (phase {phase})"
    )


@pytest.mark.clause("OA-6.11")
@pytest.mark.parametrize(("begin", "happens", "text"), BROKEN, ids=[row[2] for row in BROKEN])
def test_a_server_that_breaks_the_protocol(story: Story, begin: Beginning, happens: Input, text: str) -> None:
    error = error_of(story, begin, happens)
    assert isinstance(error, RemoteProtocolError)
    assert str(error) == f"{text} (phase {error.phase})"


@pytest.mark.parametrize(("begin", "happens", "text"), FAILED, ids=[row[2][:50] for row in FAILED])
def test_an_answer_that_fails(story: Story, begin: Beginning, happens: Input, text: str) -> None:
    error = error_of(story, begin, happens)
    assert isinstance(error, AnswerFailed)
    assert str(error) == text


@pytest.mark.clause("OA-5.5")
def test_an_event_that_is_none(story: Story) -> None:
    with pytest.raises(UNREADABLE_EVENT) as refused:
        story.binding.read_event(b"[]")
    error = error_of(story, Story.streaming, StreamData(b"data: []\n\n"))
    assert isinstance(error, RemoteProtocolError)
    assert str(error) == f"{NO_EVENT}: {refused.value} (phase STREAMING)"


@pytest.mark.clause("OA-2.5")
def test_credentials_that_the_server_repeats_are_hidden(story: Story) -> None:
    secret = Credentials({"session": "a secret of some length"})
    script = story.start(secret) >> Prompt("Hello") << CreateChat
    script = script >> Reply(422, story.words("a secret of some length isn't valid"))
    said = "*** isn't valid: HTTP 422 while creating the chat (phase START)"
    assert str(script.conversation.error) == said
    script = story.start(secret) >> Prompt("Hello") << CreateChat >> Reply(200, {"id": "a secret of some length"})
    said = "the server sent '***' as the id of a new chat, which is not an id of this API (phase START)"
    assert str(script.conversation.error) == said


@pytest.mark.clause("OA-2.5")
def test_the_user_and_the_password_of_a_proxy_are_hidden() -> None:
    assert str(NotSent("no route to http://me:secret@proxy:1 now")) == "no route to http://***@proxy:1 now"


def test_an_answer_that_takes_too_long(story: Story) -> None:
    error = story.failed().conversation.error
    assert str(error) == TOO_LATE


def test_no_reply_in_time(story: Story) -> None:
    script = story.creating(retries=0, timeouts=Timeouts(reply=2.5)) >> Wait()
    error = script.conversation.error
    assert isinstance(error, MaybeSent)
    assert str(error) == "no reply within 2.5 s (while creating the chat, phase START)"


def test_no_credentials(story: Story) -> None:
    script = story.start(credentials=None) >> Prompt("Hello") << LoadCredentials >> CredentialsFound(None)
    error = script.conversation.error
    assert error is not None
    assert error.phase == "START"
    assert str(error) == (
        "there are no credentials: give cookies= or token=, or set OA_COOKIES (a cookies file, or a Cookie header) or "
        "OA_TOKEN"
    )


def lost_delete(story: Story) -> Play:
    return story.deleting(cleanup=Cleanup(attempts=1)) >> Lost() << FetchChat >> Reply(200, chat())


LATE = "the chat could not be deleted in the time allowed"
RESET = "connection reset (while deleting the chat, phase DELETING)"
INTERRUPTED = "interrupted (while sending the prompt, phase CHAT_CREATED)"
REFUSED = "connection refused (while deleting the chat, phase DELETING)"
BUSY = "HTTP 503 while deleting the chat (phase DELETING). The server is busy: try again later"

LEFT: list[tuple[Beginning, str]] = [
    (lambda story: story.creating() >> Abandon(), "the server did not say in time whether it made the chat"),
    (lambda story: story.creating() >> Lost(), "connection reset (while creating the chat, phase START)"),
    (lambda story: story.prompting() >> Abandon(), LATE),
    (lambda story: story.prompting() >> Interrupted() >> Abandon(), f"{LATE}: {INTERRUPTED}"),
    (lambda story: story.deleting() >> Unsent() >> Abandon(), f"{LATE}: {REFUSED}"),
    (lost_delete, f"the chat could not be deleted in 1 attempts: {RESET}"),
    (lambda story: story.deleting() >> Reply(503, "", {"retry-after": "61"}), BUSY),
]


@pytest.mark.clause("OA-7.2")
@pytest.mark.parametrize(("end", "reason"), LEFT, ids=[row[1] for row in LEFT])
def test_why_a_chat_is_left(story: Story, end: Beginning, reason: str) -> None:
    assert [record.reason for record in end(story).conversation.leaked] == [reason]


MISUSED: list[tuple[Beginning, Input, str, str]] = [
    (Story.start, Regenerate(ANSWER), "START", "there is no chat yet"),
    (Story.start, Regenerate(), "START", "there is no prompt in the chat"),
    (Story.start, Prompt("Hello", after=ANSWER), "START", "there is no chat yet"),
    (
        lambda story: story.existing() >> Reply(200, chat(prompter())),
        Prompt("Hello"),
        "CHAT_CREATED",
        "the chat has a first prompt already, and no complete answer to go on from",
    ),
    (
        lambda story: story.answered() >> Close(),
        Prompt("Hello"),
        "DELETING",
        "nothing is outstanding; it is being closed",
    ),
    (
        Story.failed,
        Prompt("Hello"),
        "FAILED",
        f"nothing is outstanding; the conversation failed before: {TOO_LATE}",
    ),
    (Story.requesting, Data(token("Hi")), "PROMPTED", "RequestAssistant is outstanding"),
]


@pytest.mark.clause("OA-6.11")
@pytest.mark.parametrize(("begin", "happens", "phase", "why"), MISUSED, ids=[row[3] for row in MISUSED])
def test_an_input_that_is_not_possible(story: Story, begin: Beginning, happens: Input, phase: str, why: str) -> None:
    said = f"{type(happens).__name__} is not possible in phase {phase} ({why})"
    assert refusal(begin(story).conversation, happens) == said
