"""Interrupted: the owner wants control back, for example because of Ctrl-C. What is under way costs no try."""

from __future__ import annotations

import pytest

from oa_protocol.engine.errors import NotSent
from oa_protocol.engine.events import Created, Deleted, Prompted, Requested, Token
from oa_protocol.engine.inputs import Close, CredentialsFound, Interrupted, Prompt, StreamData, StreamEnded
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    DeleteChat,
    Exchange,
    FetchChat,
    FetchMessage,
    LoadCredentials,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.engine.timers import Cleanup
from oa_protocol.testing.playbook import Data, Deadline, Fails, Pause, Reply, Unsent, Wait

from .stories import ANSWER, CHAT, COMMENT, COOKIES, PROMPT, Begin, Story, assistant, chat, prompter, token

MORE_OFTEN_THAN_RETRIES = range(5)


pytestmark = pytest.mark.clause("OA-6.13")


@pytest.mark.clause("OA-6.1")
def test_an_interrupted_prompt_is_looked_for_and_costs_no_try(story: Story) -> None:
    script = story.prompting(retries=0)
    for _ in MORE_OFTEN_THAN_RETRIES:
        script = script >> Interrupted() << Phase.PROMPT_LOST << Pause(0.5) << FetchChat
        script = script >> Reply(200, chat()) << Phase.CHAT_CREATED << Pause(0.5) << SendPrompt
    assert script >> Interrupted() << Pause() << FetchChat >> Reply(200, chat(prompter())) << Prompted(PROMPT)


@pytest.mark.clause("OA-6.1")
def test_an_interrupted_request_is_looked_for_and_costs_no_try(story: Story) -> None:
    script = story.requesting(retries=0)
    for _ in MORE_OFTEN_THAN_RETRIES:
        script = script >> Interrupted() << Phase.REQUEST_LOST << Pause(0.5) << FetchChat
        script = script >> Reply(200, chat(prompter())) << Phase.PROMPTED << Pause(0.5) << RequestAssistant
    script = script >> Interrupted() << Pause() << FetchChat
    assert script >> Reply(200, chat(prompter(), assistant())) << Requested(ANSWER)


@pytest.mark.clause("OA-6.1")
def test_an_interrupted_prompt_gives_no_further_try(story: Story) -> None:
    script = story.prompting(retries=0) >> Interrupted() << Pause() << FetchChat >> Reply(200, chat())
    assert script << Pause() << SendPrompt >> Unsent() << Fails(NotSent) << Phase.FAILED


READS: dict[str, tuple[Begin, type[Exchange]]] = {
    "prompt lost": (Story.prompt_lost, FetchChat),
    "request lost": (Story.request_lost, FetchChat),
    "polling": (Story.polling, FetchMessage),
}


@pytest.mark.parametrize("step", READS)
def test_an_interrupted_read_is_asked_for_again_at_once(story: Story, step: str) -> None:
    begin, kind = READS[step]
    script = begin(story, retries=0)
    for _ in MORE_OFTEN_THAN_RETRIES:
        script = script >> Interrupted() << kind
    assert script


@pytest.mark.clause("OA-6.5")
def test_a_stream_that_was_being_opened_may_be_open_and_is_polled(story: Story) -> None:
    assert story.opening() >> Interrupted() << Phase.POLLING << FetchMessage


@pytest.mark.clause("OA-4.3")
def test_a_create_goes_on_for_as_long_as_cleanup_may_take(story: Story) -> None:
    script = story.creating() << Deadline(30) >> Interrupted() << None << Deadline(10)
    assert script >> Reply(200, {"id": CHAT}) << Created(CHAT) << SendPrompt
    assert story.creating(cleanup=Cleanup(timeout=60.0)) >> Wait(5) >> Interrupted() << Deadline(25)


@pytest.mark.clause("OA-5.8")
def test_a_check_of_a_stream_is_dropped_and_the_stream_goes_on(story: Story) -> None:
    script = story.streaming() >> StreamData(COMMENT * 3) << FetchMessage >> Interrupted() << Phase.STREAMING << None
    assert script >> Data(token("Hi")) << Token("Hi") >> StreamData(COMMENT * 3) << FetchMessage


def test_a_stream_that_is_read_stays_open(story: Story) -> None:
    assert story.streaming() >> Interrupted() << Phase.STREAMING << None >> Data(token("Hi")) << Token("Hi")


def test_credentials_are_asked_for_again(story: Story) -> None:
    script = story.start(credentials=None) >> Prompt("Hello") << LoadCredentials >> Interrupted() << LoadCredentials
    assert script >> CredentialsFound(COOKIES) << CreateChat
    script = story.prompting() >> Reply(401) << LoadCredentials >> Interrupted() << LoadCredentials
    assert script.intent == LoadCredentials(refused=True)


def test_the_stream_is_still_closed(story: Story) -> None:
    script = story.streaming() >> Wait() << CloseStream >> Interrupted() << None
    assert script >> StreamEnded() << FetchMessage


def test_a_pause_goes_on(story: Story) -> None:
    assert story.prompting() >> Unsent() >> Interrupted() << Pause(0.5) << SendPrompt


@pytest.mark.clause("OA-7.2")
@pytest.mark.parametrize(
    "begin", [Story.draining, Story.deleting, Story.delete_unclear], ids=lambda begin: begin.__name__
)
def test_what_is_sent_after_close_goes_on(story: Story, begin: Begin) -> None:
    script = begin(story)
    outstanding = script.conversation.outstanding
    assert (script >> Interrupted() << None).conversation.outstanding is outstanding


@pytest.mark.clause("OA-7.2")
def test_an_interrupted_conversation_can_be_closed(story: Story) -> None:
    script = story.prompting() >> Interrupted() >> Close() << Phase.DELETING << DeleteChat
    assert script >> story.deleted << Deleted(CHAT)
