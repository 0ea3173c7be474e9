"""Credentials: none, rejected, renewed, rejected again; and rejections that no longer matter (OA-6.4)."""

import pytest

from oa_protocol.bindings.base import Credentials
from oa_protocol.engine.errors import AuthenticationError, NotSent
from oa_protocol.engine.events import Created, Deleted, NeverCreated
from oa_protocol.engine.inputs import (
    Close,
    CredentialsFound,
    Input,
    Prompt,
    ReplyReceived,
    StreamEnded,
    StreamOpened,
)
from oa_protocol.engine.intents import (
    CreateChat,
    DeleteChat,
    Exchange,
    FetchChat,
    FetchMessage,
    LoadCredentials,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.testing.playbook import Fails, Leaks, Lost, Pause, Play, Reply, Unsent

from .stories import CHAT, COOKIES, NEWER_COOKIES, Begin, Story

REJECTED = Reply(403)


@pytest.mark.clause("OA-4.1")
def test_without_credentials_nothing_is_sent_and_the_error_says_how_to_give_them(story: Story) -> None:
    assert (
        story.start(credentials=None)
        >> Prompt("Hello")
        << LoadCredentials
        >> CredentialsFound(None)
        << Fails(AuthenticationError, "cookies=", "token=", "OA_COOKIES", "OA_TOKEN")
        << NeverCreated()
        << Phase.NEVER_CREATED
        << None
    )


STEPS: dict[str, tuple[Begin, type[Exchange]]] = {
    "create": (Story.creating, CreateChat),
    "prompt": (Story.prompting, SendPrompt),
    "prompt lost": (Story.prompt_lost, FetchChat),
    "request": (Story.requesting, RequestAssistant),
    "request lost": (Story.request_lost, FetchChat),
    "open": (Story.opening, OpenStream),
    "poll": (Story.polling, FetchMessage),
    "drain": (Story.draining, FetchMessage),
    "drain by chat": (Story.draining_by_chat, FetchChat),
    "delete": (Story.deleting, DeleteChat),
    "delete unclear": (Story.delete_unclear, FetchChat),
}
every_step = pytest.mark.parametrize("step", STEPS)


def ends(step: str, story: Play) -> Play:
    """What a rejection that stands leads to at this step."""
    match step:
        case "create":
            return story << Fails(AuthenticationError, "403") << NeverCreated() << None
        case "delete" | "delete unclear":
            return story << Leaks(CHAT) << Phase.LEAKED << None
        case "drain" | "drain by chat":
            return story << Phase.DELETING << DeleteChat
        case _:
            return story << Fails(AuthenticationError, "403") << Phase.FAILED << None


@pytest.mark.clause("OA-6.4")
@every_step
def test_rejected_credentials_are_asked_for_once_more_and_the_step_is_tried_again(story: Story, step: str) -> None:
    begin, kind = STEPS[step]
    script = begin(story) >> REJECTED << LoadCredentials >> CredentialsFound(NEWER_COOKIES) << kind
    assert isinstance(script.intent, kind)
    assert ("cookie", "next-auth.session-token=newer secret") in script.intent.request.headers


@pytest.mark.clause("OA-6.4")
@every_step
@pytest.mark.parametrize("found", [None, COOKIES], ids=["none", "the same"])
def test_without_other_credentials_the_step_fails(story: Story, step: str, found: Credentials | None) -> None:
    begin, _ = STEPS[step]
    assert ends(step, begin(story) >> REJECTED << LoadCredentials >> CredentialsFound(found))


@pytest.mark.clause("OA-6.4")
@every_step
def test_credentials_that_are_rejected_again_fail_the_step_at_once(story: Story, step: str) -> None:
    begin, kind = STEPS[step]
    script = begin(story) >> REJECTED << LoadCredentials >> CredentialsFound(NEWER_COOKIES) << kind
    assert ends(step, script >> REJECTED)


@pytest.mark.clause("OA-6.4")
def test_a_rejected_try_does_not_count_as_one(story: Story) -> None:
    assert (
        story.creating(retries=0)
        >> REJECTED
        << LoadCredentials
        >> CredentialsFound(NEWER_COOKIES)
        << CreateChat
        >> Reply(200, {"id": CHAT})
        << Created(CHAT)
    )


@pytest.mark.clause("OA-6.4")
def test_a_rejected_try_leaves_all_the_further_ones(story: Story) -> None:
    script = story.creating(retries=1) >> REJECTED << LoadCredentials >> CredentialsFound(NEWER_COOKIES) << CreateChat
    assert script >> Reply(503) << Pause(0.5) << CreateChat >> Reply(200, {"id": CHAT}) << Created(CHAT)


@pytest.mark.clause("OA-6.4")
def test_the_first_credentials_found_may_be_rejected_as_well(story: Story) -> None:
    script = (
        story.start(credentials=None) >> Prompt("Hello") << LoadCredentials >> CredentialsFound(COOKIES) << CreateChat
    )
    assert script >> REJECTED << LoadCredentials >> CredentialsFound(NEWER_COOKIES) << CreateChat


@pytest.mark.clause("OA-6.4")
def test_the_next_step_may_ask_for_credentials_anew(story: Story) -> None:
    assert (
        story.creating()
        >> REJECTED
        << LoadCredentials
        >> CredentialsFound(NEWER_COOKIES)
        << CreateChat
        >> Reply(200, {"id": CHAT})
        << Created(CHAT)
        << SendPrompt
        >> REJECTED
        << LoadCredentials
    )


def test_a_create_rejected_after_the_owner_left_asks_for_no_credentials(story: Story) -> None:
    assert story.creating() >> Close() >> REJECTED << NeverCreated() << Phase.NEVER_CREATED << None


def test_credentials_that_are_looked_for_when_the_owner_leaves_are_no_longer_needed(story: Story) -> None:
    script = story.prompting() >> REJECTED << LoadCredentials >> Close() << Phase.DELETING << DeleteChat
    assert script >> story.deleted << Deleted(CHAT)


def test_a_rejected_stream_is_opened_with_other_credentials(story: Story) -> None:
    assert (
        story.opening()
        >> REJECTED
        << LoadCredentials
        >> CredentialsFound(NEWER_COOKIES)
        << OpenStream
        >> StreamOpened()
        << Phase.STREAMING
        >> StreamEnded()
        << FetchMessage
        >> REJECTED
        << LoadCredentials
    )


@pytest.mark.parametrize("other", [Reply(500), Lost()], ids=repr)
def test_an_earlier_renewal_is_forgotten_after_another_outcome(story: Story, other: Input) -> None:
    script = story.prompt_lost() >> REJECTED << LoadCredentials >> CredentialsFound(NEWER_COOKIES) << FetchChat
    script = script >> other << Pause() << FetchChat >> REJECTED
    assert script << LoadCredentials if isinstance(other, ReplyReceived) else script << Fails(AuthenticationError)


@pytest.mark.clause("OA-6.4")
def test_a_rejection_gives_no_further_try(story: Story) -> None:
    script = story.creating(retries=0) >> Reply(401) << LoadCredentials >> CredentialsFound(NEWER_COOKIES) << CreateChat
    assert script >> Unsent() << Fails(NotSent) << NeverCreated() << None
