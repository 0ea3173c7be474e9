"""Other answers to a prompt, other prompts after an answer, chats that exist already, and chats that stay."""

import pickle

import pytest

from oa_protocol.bindings.tree import MessageTree
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import ApiError, HTTPStatusError, RemoteProtocolError
from oa_protocol.engine.events import (
    Answered,
    Created,
    Deleted,
    Failed,
    Kept,
    Leaked,
    LeakRecord,
    NeverCreated,
    Prompted,
    Requested,
    Token,
)
from oa_protocol.engine.inputs import (
    Abandon,
    Close,
    CredentialsFound,
    Interrupted,
    Keep,
    Prompt,
    Regenerate,
    StreamEnded,
    StreamOpened,
)
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    DeleteChat,
    FetchChat,
    LoadCredentials,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.engine.timers import Timeouts
from oa_protocol.testing.playbook import Data, Lost, Pause, Play, Reply, Wait, play
from tests.bindings.test_own_binding import API

from .stories import (
    ANSWER,
    ANSWER_2,
    CHAT,
    COOKIES,
    PROMPT,
    PROMPT_2,
    WEBSITE,
    Story,
    assistant,
    chat,
    complete,
    final,
    message,
    prompter,
)
from .test_misuse import refusal

ANSWER_3 = "06b02a56-8afd-7f08-8000-15b2d08931de"
PROMPT_3 = "06b02a56-8a8e-7be5-8000-08c00366f723"
NO_ID = "../account"


def second(content: str | None = "Hi you", state: str = "complete") -> dict[str, object]:
    """A second answer to the first prompt."""
    return assistant(ANSWER_2, state, content)


def regenerating(story: Story) -> Play:
    return story.answered() >> Regenerate() << Phase.PROMPTED << RequestAssistant


def body_of(script: Play) -> str:
    intent = script.conversation.outstanding
    assert isinstance(intent, RequestAssistant | SendPrompt)
    return intent.request.body.decode()


# ---- another answer


@pytest.mark.clause("OA-3.5")
def test_another_answer_is_requested_under_the_same_prompt(story: Story) -> None:
    script = regenerating(story)
    assert f'"parent_id":"{PROMPT}"' in body_of(script)
    script = script >> Reply(200, second(None, "pending")) << Requested(ANSWER_2) << OpenStream >> StreamOpened()
    script = script << None >> Data(final(second())) << Token("Hi you") << Answered(message(second()))
    assert script << CloseStream >> StreamEnded() << Phase.ANSWERED << None
    assert (script.conversation.answer_id, script.conversation.prompt_id) == (ANSWER_2, PROMPT)


@pytest.mark.clause("OA-4.7")
def test_another_answer_waits_for_the_accounts_slot(story: Story) -> None:
    conversation = (story.answered() >> Regenerate()).conversation
    assert conversation.awaits_slot
    conversation.next_intent(7.0)
    assert conversation.awaits_worker


@pytest.mark.clause("OA-6.14")
def test_after_a_lost_request_the_new_answer_is_adopted_and_not_the_earlier_one(story: Story) -> None:
    script = regenerating(story) >> Lost() << Phase.REQUEST_LOST << Pause(0.5) << FetchChat
    both = Reply(200, chat(prompter(), second(None, "in_progress"), complete()))
    assert script >> both << Requested(ANSWER_2) << OpenStream


@pytest.mark.clause("OA-6.14")
def test_if_only_the_earlier_answer_is_there_the_lost_request_is_sent_again(story: Story) -> None:
    script = regenerating(story) >> Lost() << Phase.REQUEST_LOST << Pause(0.5) << FetchChat
    assert script >> Reply(200, chat(prompter(), complete())) << Phase.PROMPTED << Pause(0.5) << RequestAssistant


@pytest.mark.clause("OA-3.5")
def test_the_time_for_another_answer_runs_from_when_it_is_asked_for(story: Story) -> None:
    script = story.answered(timeouts=Timeouts(answer=20.0)) >> Regenerate() << RequestAssistant
    assert (script >> Wait(20.0)).drop_events() << Phase.FAILED


@pytest.mark.clause("OA-3.5")
def test_a_prompt_can_be_named(story: Story) -> None:
    script = story.answered() >> Regenerate(PROMPT_2) << RequestAssistant
    assert f'"parent_id":"{PROMPT_2}"' in body_of(script)


# ---- another prompt


@pytest.mark.clause("OA-3.4")
def test_a_prompt_can_follow_an_earlier_answer(story: Story) -> None:
    script = story.answered() >> Prompt("Edited", after=ANSWER_3) << SendPrompt
    assert f'"parent_id":"{ANSWER_3}"' in body_of(script)


@pytest.mark.clause("OA-6.14")
def test_after_a_lost_prompt_an_older_one_with_the_same_text_is_not_adopted(story: Story) -> None:
    """There is an older prompt with the same words after the same answer, which has been known for long."""
    older = prompter(PROMPT_2, "More", ANSWER)
    script = story.existing() >> Reply(
        200, chat(prompter(), complete(), older, assistant(ANSWER_2, "complete", "Yes", PROMPT_2))
    )
    script = script << Phase.ANSWERED >> Prompt("More", after=ANSWER) << SendPrompt >> Lost() << Pause(0.5) << FetchChat
    lost = pickle.loads(pickle.dumps(script.conversation))
    assert script >> Reply(200, chat(prompter(), complete(), older)) << Phase.ANSWERED << Pause(0.5) << SendPrompt
    script = play(lost) >> Reply(200, chat(prompter(PROMPT_3, "More", ANSWER), older, complete(), prompter()))
    assert script << Prompted(PROMPT_3) << RequestAssistant


@pytest.mark.clause("OA-6.14")
def test_after_a_lost_prompt_the_newest_message_that_was_known_is_not_adopted(story: Story) -> None:
    known = Reply(200, chat(prompter(), complete(), prompter(PROMPT_2, "More", ANSWER)))
    script = story.existing() >> known >> Prompt("More", after=ANSWER) << SendPrompt >> Lost() << Pause() << FetchChat
    assert script >> known << Phase.ANSWERED << Pause() << SendPrompt


@pytest.mark.clause("OA-6.14")
def test_after_a_lost_prompt_one_in_another_branch_is_not_adopted(story: Story) -> None:
    script = story.answered() >> Prompt("More", after=ANSWER) << SendPrompt >> Lost() << Pause(0.5) << FetchChat
    elsewhere = prompter(PROMPT_3, "More", ANSWER_2)
    assert script >> Reply(200, chat(prompter(), complete(), elsewhere)) << Phase.ANSWERED << Pause(0.5) << SendPrompt


# ---- what isn't possible


@pytest.mark.clause("OA-6.11")
@pytest.mark.parametrize("wrong", [Prompt("More", after=NO_ID), Regenerate(NO_ID)], ids=repr)
def test_what_is_no_id_is_refused(story: Story, wrong: Prompt | Regenerate) -> None:
    with pytest.raises(ValueError, match="not an id of this API"):
        story.answered().conversation.handle(wrong, 7.0)


@pytest.mark.clause("OA-3.4", "OA-3.5")
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (Prompt("More", after=ANSWER), "there is no chat yet"),
        (Regenerate(PROMPT), "there is no chat yet"),
        (Regenerate(), "there is no prompt in the chat"),
    ],
)
def test_before_there_is_a_chat_there_are_no_branches(story: Story, wrong: Prompt | Regenerate, why: str) -> None:
    assert why in refusal(story.start().conversation, wrong)


@pytest.mark.clause("OA-3.4", "OA-3.5")
@pytest.mark.parametrize("wrong", [Prompt("More", after="00000009"), Regenerate("00000009")], ids=repr)
def test_an_api_without_branches_says_so(wrong: Prompt | Regenerate) -> None:
    talk = {"id": "00000001", "lines": [{"id": "00000002", "by": "bot", "text": "Hi"}]}
    script = play(Conversation(API, COOKIES, chat_id="00000001")) << FetchChat >> Reply(200, talk) << Phase.ANSWERED
    said = f"{type(wrong).__name__} is not possible in phase ANSWERED (the API 'talks' has no branches)"
    assert refusal(script.conversation, wrong) == said


@pytest.mark.clause("OA-3.5", "OA-6.11")
def test_another_answer_is_not_possible_while_one_is_awaited(story: Story) -> None:
    assert "Regenerate is not possible in phase STREAMING" in refusal(story.streaming().conversation, Regenerate())


@pytest.mark.clause("OA-3.4")
def test_a_chat_takes_one_first_prompt(story: Story) -> None:
    script = story.existing() >> Reply(200, chat(prompter(), assistant(state="cancelled"))) << Phase.CHAT_CREATED
    assert "the chat has a first prompt already" in refusal(script.conversation, Prompt("Hello"))
    assert script >> Regenerate() << RequestAssistant


# ---- an existing chat


@pytest.mark.clause("OA-3.6")
def test_an_existing_chat_goes_on_at_the_end_of_the_branch_that_it_shows(story: Story) -> None:
    shown = chat(prompter(), complete(), second(), prompter(PROMPT_3, "More", ANSWER), assistant(ANSWER_3, "timeout"))
    script = story.existing() >> Reply(200, shown | {"active_thread_tail_message_id": ANSWER_2}) << Phase.ANSWERED
    assert script.conversation.answer_id == ANSWER_2
    script = story.existing() >> Reply(200, shown | {"active_thread_tail_message_id": ANSWER}) << Phase.ANSWERED << None
    assert (script.conversation.answer_id, script.conversation.prompt_id) == (ANSWER, PROMPT_3)
    assert script >> Prompt("More") << SendPrompt
    assert f'"parent_id":"{ANSWER}"' in body_of(script)


@pytest.mark.clause("OA-3.6")
def test_an_existing_chat_may_be_empty(story: Story) -> None:
    script = story.existing() >> Reply(200, chat()) << Phase.CHAT_CREATED << None
    assert script >> Prompt("Hello") << SendPrompt
    assert '"parent_id":null' in body_of(script)


@pytest.mark.clause("OA-3.6", "OA-6.3")
def test_an_existing_chat_is_read_again_if_it_cannot_be_read(story: Story) -> None:
    script = story.existing() >> Lost() << Phase.OPENING << Pause(0.5) << FetchChat
    assert script >> Interrupted() << FetchChat >> Reply(200, chat(prompter(), complete())) << Phase.ANSWERED


def test_an_existing_chat_needs_credentials(story: Story) -> None:
    script = play(Conversation(story.binding, chat_id=CHAT)) << LoadCredentials
    assert script >> CredentialsFound(COOKIES) << Phase.OPENING << FetchChat


@pytest.mark.clause("OA-6.2")
def test_a_chat_that_is_not_there_fails(story: Story) -> None:
    script = story.existing() >> story.not_found
    error = script.conversation.error
    assert isinstance(error, HTTPStatusError if story.is_website else ApiError)
    assert script << Failed(error) << Phase.FAILED


@pytest.mark.clause("OA-2.6")
def test_only_ids_of_an_existing_chat_are_used(story: Story) -> None:
    with pytest.raises(ValueError, match="not an id of this API"):
        Conversation(story.binding, COOKIES, chat_id=NO_ID)
    script = story.existing() >> Reply(200, chat(assistant(NO_ID, "complete", "Hi", "")))
    assert isinstance(script.conversation.error, RemoteProtocolError)


@pytest.mark.clause("OA-7.1")
def test_an_existing_chat_is_drained_before_it_is_deleted(story: Story) -> None:
    script = story.existing() >> Close() << Phase.DRAINING << FetchChat
    script = script >> Reply(200, chat(prompter(), assistant(state="in_progress"))) << Pause(0.5) << FetchChat
    script = script >> Reply(200, chat(prompter(), complete())) << Phase.DELETING << DeleteChat
    assert script >> story.deleted << Deleted(CHAT) << Phase.DELETED


@pytest.mark.clause("OA-7.1")
def test_an_answer_that_somebody_else_waits_for_is_drained_too(story: Story) -> None:
    read = Reply(200, chat(prompter(), complete(), second(None, "pending")))
    assert story.existing() >> read << Phase.ANSWERED >> Close() << Phase.DRAINING << FetchChat


@pytest.mark.clause("OA-7.1")
@pytest.mark.parametrize("is_complete", [False, True])
def test_an_answer_that_ran_before_is_drained_even_after_a_new_one_was_asked_for(
    story: Story, is_complete: bool
) -> None:
    script = story.existing() >> Reply(200, chat(prompter(), assistant(state="in_progress"))) >> Regenerate()
    script = script << RequestAssistant >> Reply(200, second(None, "pending")) << Requested(ANSWER_2)
    if is_complete:
        script = script << OpenStream >> StreamOpened() >> Data(final(second("Yes"))) << Token("Yes")
        script = script.drop_events() >> StreamEnded()
    script = (script << OpenStream if not is_complete else script) >> Close() << Phase.DRAINING << FetchChat
    script = script >> Reply(200, chat(prompter(), assistant(state="in_progress"), second("Yes")))
    script = script << Pause(0.5) << FetchChat >> Reply(200, chat(prompter(), complete(), second("Yes")))
    assert script << Phase.DELETING << DeleteChat


# ---- a chat that stays


@pytest.mark.clause("OA-7.9")
@pytest.mark.parametrize("abandons", [False, True])
def test_a_kept_chat_stays(story: Story, abandons: bool) -> None:
    script = story.answered() >> Keep() >> (Abandon() if abandons else Close())
    assert script << Kept(CHAT) << Phase.KEPT << None
    assert not script.conversation.is_chat_gone


@pytest.mark.clause("OA-7.9")
def test_the_stream_of_a_kept_chat_is_closed_and_its_answer_left_alone(story: Story) -> None:
    script = story.streaming("Hi") >> Keep() >> Close() << Phase.POLLING << CloseStream >> StreamEnded()
    assert script << Kept(CHAT) << Phase.KEPT << None


@pytest.mark.clause("OA-7.9")
def test_the_reply_to_a_create_is_awaited_even_if_the_chat_is_kept(story: Story) -> None:
    script = story.creating() >> Keep() >> Close() << None >> Reply(200, {"id": CHAT})
    assert script << Created(CHAT) << Kept(CHAT) << Phase.KEPT


@pytest.mark.clause("OA-7.9")
def test_a_kept_chat_stays_even_if_no_reply_comes(story: Story) -> None:
    script = story.prompting() >> Keep() >> Close() << None >> Wait()
    assert script << Kept(CHAT) << Phase.KEPT << None


@pytest.mark.clause("OA-7.9")
@pytest.mark.parametrize("abandons", [False, True])
def test_a_create_of_unknown_outcome_is_named_even_if_its_chat_was_to_be_kept(story: Story, abandons: bool) -> None:
    script = story.creating() >> Keep() >> (Abandon() if abandons else Lost())
    script = script if abandons else script >> Close()
    [record] = script.conversation.leaked
    assert script << Leaked((record,)) << Phase.LEAKED
    assert record.chat_id is None


@pytest.mark.clause("OA-7.9")
def test_a_kept_chat_is_not_named_if_another_one_may_be_left(story: Story) -> None:
    script = story.creating() >> Lost() << Pause(0.5) << CreateChat >> Reply(200, {"id": CHAT}) << Created(CHAT)
    script = script << SendPrompt >> Reply(200, prompter()) << Prompted(PROMPT) >> Keep() >> Close()
    lost: LeakRecord = script.conversation.leaked[0]
    assert script << Kept(CHAT) << Leaked((lost,)) << Phase.LEAKED
    assert not script.conversation.is_chat_gone


@pytest.mark.clause("OA-7.9")
def test_without_a_chat_there_is_nothing_to_keep(story: Story) -> None:
    script = play(Conversation(story.binding, COOKIES, keep=True)) >> Close() << NeverCreated()
    assert script << Phase.NEVER_CREATED


@pytest.mark.clause("OA-7.9")
def test_a_chat_may_be_kept_from_the_start(story: Story) -> None:
    script = story.existing(keep=True) >> Reply(200, chat(prompter(), complete())) >> Close()
    assert script << Kept(CHAT) << Phase.KEPT
    settings = script.conversation.settings
    assert (settings.chat_id, settings.keep) == (CHAT, True)  # for a tape, which writes them down


@pytest.mark.clause("OA-7.9")
def test_a_chat_that_is_no_longer_kept_is_deleted(story: Story) -> None:
    script = story.existing(keep=True) >> Reply(200, chat(prompter(), complete())) >> Keep(keep=False)
    assert script >> Close() << DeleteChat


@pytest.mark.clause("OA-7.9", "OA-6.11")
def test_after_close_it_is_too_late_to_keep_the_chat(story: Story) -> None:
    for script in (story.deleting(), story.answered() >> Close() << DeleteChat >> story.deleted << Deleted(CHAT)):
        assert "Keep is not possible in phase DELET" in refusal(script.conversation, Keep())


# ---- the tree itself


def tree_of(*messages: dict[str, object], tail_id: str | None = None) -> MessageTree:
    body = chat(*messages) | {"active_thread_tail_message_id": tail_id}
    return WEBSITE.binding.read_chat(Reply(200, body).body).tree


@pytest.mark.clause("OA-3.2")
def test_a_tree_has_its_messages_in_order_and_its_branches() -> None:
    edited = prompter(PROMPT_3, "Edited", ANSWER)
    tree = tree_of(edited, prompter(PROMPT_2, "More", ANSWER), second(), complete(), prompter())
    first, answer, more, other, last = tree
    assert len(tree) == 5
    assert tree.children(None) == (first,)
    assert tree.children(first) == (answer, other)
    assert tree.branch(more) == (first, answer, more)
    assert tree.shown == (first, answer, last)
    assert tree.leaves == (more, other, last)
    assert tree.find(PROMPT_3) == last
    assert tree.find("x") is None


@pytest.mark.clause("OA-3.2")
def test_a_circle_of_messages_ends() -> None:
    tree = tree_of(prompter(PROMPT, "Hello", ANSWER), complete())
    assert tree.shown == tree.messages
    assert len(tree_of(prompter(PROMPT, "Hello", PROMPT)).shown) == 1
    assert tree_of().shown == ()
