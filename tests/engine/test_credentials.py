"""Credentials: none, rejected, renewed, rejected again; and a rejection that nobody needs any more (OA-6.4)."""

import pytest

from oa_protocol.engine.errors import AuthenticationError
from oa_protocol.engine.events import Answered, Created, Deleted, NeverCreated, Token
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    DeleteChat,
    Exchange,
    FetchChat,
    FetchMessage,
    LoadCookies,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.testing.playbook import (
    Bytes,
    Close,
    Cookies,
    Data,
    Ended,
    Fails,
    Leaks,
    Lost,
    Opened,
    Play,
    Prompt,
    Reply,
    Sends,
    TimedOut,
)

from .stories import CHAT, COMMENT, COOKIES, NEWER_COOKIES, Begin, Story, complete, final, message

REJECTED = Reply(403)


@pytest.mark.clause("OA-4.1")
def test_without_credentials_nothing_is_sent_and_the_error_says_where_to_put_them(story: Story) -> None:
    assert (
        story.start(credentials=None)
        >> Prompt()
        << LoadCookies
        >> Cookies(None)
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
    told = begin(story) >> REJECTED << LoadCookies >> Cookies(NEWER_COOKIES) << Sends(kind, delay=0.0)
    assert isinstance(told.intent, kind)
    assert ("cookie", "next-auth.session-token=newer secret") in told.intent.request.headers


@pytest.mark.clause("OA-6.4")
@every_step
@pytest.mark.parametrize("found", [None, COOKIES], ids=["none", "the same"])
def test_without_other_credentials_the_step_fails(story: Story, step: str, found: object) -> None:
    begin, _ = STEPS[step]
    credentials = COOKIES if found is COOKIES else None
    assert ends(step, begin(story) >> REJECTED << LoadCookies >> Cookies(credentials))


@pytest.mark.clause("OA-6.4")
@every_step
def test_credentials_that_are_rejected_again_fail_the_step_at_once(story: Story, step: str) -> None:
    begin, kind = STEPS[step]
    assert ends(step, begin(story) >> REJECTED << LoadCookies >> Cookies(NEWER_COOKIES) << kind >> REJECTED)


@pytest.mark.clause("OA-6.4")
def test_a_rejected_try_does_not_count_as_one(story: Story) -> None:
    assert (
        story.creating(retries=0)
        >> REJECTED
        << LoadCookies
        >> Cookies(NEWER_COOKIES)
        << CreateChat
        >> Reply(200, {"id": CHAT})
        << Created(CHAT)
    )


@pytest.mark.clause("OA-6.4")
def test_a_rejected_try_leaves_all_the_further_ones(story: Story) -> None:
    told = story.creating(retries=1) >> REJECTED << LoadCookies >> Cookies(NEWER_COOKIES) << CreateChat
    assert told >> Reply(503) << CreateChat >> Reply(200, {"id": CHAT}) << Created(CHAT)


@pytest.mark.clause("OA-6.4")
def test_the_first_credentials_found_may_be_rejected_as_well(story: Story) -> None:
    told = story.start(credentials=None) >> Prompt() << LoadCookies >> Cookies(COOKIES) << CreateChat
    assert told >> REJECTED << LoadCookies >> Cookies(NEWER_COOKIES) << CreateChat


@pytest.mark.clause("OA-6.4")
def test_the_next_step_may_ask_for_credentials_anew(story: Story) -> None:
    assert (
        story.creating()
        >> REJECTED
        << LoadCookies
        >> Cookies(NEWER_COOKIES)
        << CreateChat
        >> Reply(200, {"id": CHAT})
        << Created(CHAT)
        << SendPrompt
        >> REJECTED
        << LoadCookies
    )


def checking_rejected(story: Story) -> Play:
    """The stream looks stuck, and reading the message is rejected."""
    return story.streaming() >> Bytes(COMMENT * 3) << FetchMessage >> REJECTED


ANSWERS = Data(final(complete("Hi")))


@pytest.mark.parametrize("asked", [False, True])
def test_an_answer_that_came_is_not_failed_by_an_earlier_rejection(story: Story, asked: bool) -> None:
    told = checking_rejected(story)
    told = told << LoadCookies if asked else told
    told = told >> ANSWERS << Token("Hi") << Answered(message(complete("Hi")))
    told = told >> Cookies(None) if asked else told
    assert told << Phase.ANSWERED << CloseStream >> Ended() << None >> Prompt() << SendPrompt


@pytest.mark.parametrize("asked", [False, True])
def test_a_failed_answer_asks_for_no_credentials(story: Story, asked: bool) -> None:
    told = checking_rejected(story)
    told = told << LoadCookies if asked else told
    told = (told >> TimedOut()).drop_events()
    told = told >> Cookies(None) if asked else told
    assert told << Phase.FAILED << CloseStream >> Ended() << None


def test_a_create_rejected_after_the_owner_left_asks_for_no_credentials(story: Story) -> None:
    assert story.creating() >> Close() >> REJECTED << NeverCreated() << Phase.NEVER_CREATED << None


def test_credentials_found_after_the_owner_left_are_used_to_delete(story: Story) -> None:
    told = (
        story.prompting()
        >> REJECTED
        << LoadCookies
        >> Close()
        << Phase.DELETING
        >> Cookies(NEWER_COOKIES)
        << DeleteChat
    )
    assert isinstance(told.intent, DeleteChat)
    assert ("cookie", "next-auth.session-token=newer secret") in told.intent.request.headers


def test_credentials_not_found_after_the_owner_left_fail_nothing(story: Story) -> None:
    told = story.prompting() >> REJECTED << LoadCookies >> Close() >> Cookies(None) << DeleteChat
    assert told >> story.deleted << Deleted(CHAT)


def test_a_late_rejection_is_ignored(story: Story) -> None:
    assert story.prompt_lost() >> Close() << None >> REJECTED << Phase.DELETING << DeleteChat


def test_a_rejected_stream_is_opened_with_other_credentials(story: Story) -> None:
    assert (
        story.opening()
        >> REJECTED
        << LoadCookies
        >> Cookies(NEWER_COOKIES)
        << OpenStream
        >> Opened()
        << Phase.STREAMING
        >> Ended()
        << FetchMessage
        >> REJECTED
        << LoadCookies
    )


def test_an_earlier_renewal_is_forgotten_after_another_reply(story: Story) -> None:
    told = story.prompt_lost() >> REJECTED << LoadCookies >> Cookies(NEWER_COOKIES) << FetchChat
    assert told >> Reply(500) << FetchChat >> REJECTED << LoadCookies
    told = story.prompt_lost() >> REJECTED << LoadCookies >> Cookies(NEWER_COOKIES) << FetchChat
    assert told >> Lost() << FetchChat >> REJECTED << Fails(AuthenticationError)
