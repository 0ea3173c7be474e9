"""Recovery: what was lost is looked for, what is there is adopted, and only what is not is sent again (section 6)."""

import pytest

from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.engine.errors import ApiError, HTTPStatusError, MaybeSent, NotSent, OAError, RemoteProtocolError
from oa_protocol.engine.events import Created, Deleted, Failed, NeverCreated, Prompted, Requested
from oa_protocol.engine.inputs import Close, ExchangeFailed, Input, Prompt
from oa_protocol.engine.intents import (
    CreateChat,
    DeleteChat,
    Exchange,
    FetchChat,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.testing.playbook import Fails, Json, Leaks, Lost, Pause, Play, Reply, Sends, Unsent

from .stories import (
    ANSWER,
    ANSWER_2,
    CHAT,
    GARBAGE,
    PROMPT,
    PROMPT_2,
    Begin,
    Story,
    assistant,
    chat,
    complete,
    prompter,
)

BUSY = "The server is currently busy. Please try again later."
LOST: list[Input] = [Lost(), Reply(500), Reply(502, GARBAGE), Reply(504), Reply(101)]
lost = pytest.mark.parametrize("loss", LOST, ids=repr)
BAD_IDS = ["../account/", "", "06b02a54", f"{CHAT}\n", f"{CHAT}/x", CHAT.replace("-", ""), "{" + CHAT + "}"]
bad_ids = pytest.mark.parametrize("bad_id", BAD_IDS)

WRITES: dict[str, tuple[Begin, type[Exchange]]] = {
    "create": (Story.creating, CreateChat),
    "prompt": (Story.prompting, SendPrompt),
    "request": (Story.requesting, RequestAssistant),
}
every_write = pytest.mark.parametrize("step", WRITES)


def fails(step: str, script: Play, error: type[OAError], *words: str) -> Play:
    """The step fails; without a chat that is the end of the conversation."""
    script = script << Fails(error, *words)
    return script << NeverCreated() << None if step == "create" else script << Phase.FAILED << None


# ---- what was certainly not carried out


@pytest.mark.clause("OA-6.3")
@every_write
@pytest.mark.parametrize("outcome", [Unsent(), Reply(429), Reply(503)], ids=repr)
def test_what_was_not_carried_out_is_tried_again_with_growing_delays(story: Story, step: str, outcome: Input) -> None:
    begin, kind = WRITES[step]
    script = begin(story) >> outcome << Pause(0.5) << kind >> outcome << Pause(1.0) << kind >> outcome
    assert fails(step, script, NotSent if isinstance(outcome, ExchangeFailed) else HTTPStatusError)


@pytest.mark.clause("OA-6.3")
def test_the_delays_grow_to_512_seconds(story: Story) -> None:
    script = story.creating(retries=13)
    for tries in range(13):
        script = script >> Unsent() << Pause(min(0.5 * 2**tries, 512.0)) << CreateChat
    assert script


@pytest.mark.clause("OA-6.3")
def test_a_stream_that_was_not_asked_for_is_tried_again(story: Story) -> None:
    script = story.opening() >> Unsent() << Pause(0.5) << OpenStream >> Unsent() << Pause(1.0) << OpenStream
    assert script >> Unsent() << Fails(NotSent, "connection refused", "opening the stream") << Phase.FAILED


@pytest.mark.clause("OA-6.3")
@every_write
def test_retry_after_is_waited_for(story: Story, step: str) -> None:
    begin, kind = WRITES[step]
    assert begin(story) >> Reply(503, headers={"Retry-After": "7"}) << Pause(7.0) << kind
    assert begin(story) >> Reply(429, headers={"retry-after": "60"}) << Pause(60.0) << kind


@pytest.mark.clause("OA-6.3")
@every_write
def test_a_retry_after_of_more_than_a_minute_fails_at_once(story: Story, step: str) -> None:
    begin, _ = WRITES[step]
    script = begin(story) >> Reply(503, story.words(BUSY), {"retry-after": "61"})
    assert fails(step, script, ApiError, BUSY, "503", "try again later")


@pytest.mark.clause("OA-6.3")
@pytest.mark.parametrize("value", ["soon", "nan", "inf", "-5", "", "Sun, 22 Nov 2026 08:18:16 GMT"])
def test_a_retry_after_that_is_no_number_of_seconds_is_ignored(story: Story, value: str) -> None:
    assert story.creating() >> Reply(503, headers={"retry-after": value}) << Pause(0.5) << CreateChat


@pytest.mark.clause("OA-6.2")
@every_write
@pytest.mark.parametrize("status", [300, 302, 400, 404, 409, 413, 422, 451])
def test_a_refusal_is_not_tried_again(story: Story, step: str, status: int) -> None:
    begin, _ = WRITES[step]
    assert fails(step, begin(story) >> Reply(status, story.words("No.")), ApiError, "No.", str(status))


@pytest.mark.clause("OA-2.7", "OA-6.2")
@every_write
def test_a_redirect_fails_and_its_target_is_named(story: Story, step: str) -> None:
    begin, _ = WRITES[step]
    script = begin(story) >> Reply(308, "/api/chat", {"Location": "http://elsewhere.test/api/chat"})
    assert fails(step, script, HTTPStatusError, "308", "http://elsewhere.test/api/chat")


# ---- a lost create


@pytest.mark.clause("OA-6.8")
@lost
def test_a_lost_create_is_recorded_and_tried_again_and_the_end_is_leaked(story: Story, loss: Input) -> None:
    script = story.creating() >> loss << Pause(0.5) << Sends(CreateChat, shielded=True) >> Reply(200, {"id": CHAT})
    script = script << Created(CHAT) << SendPrompt >> Unsent() >> Close() << DeleteChat >> story.deleted
    assert script << Deleted(CHAT) << Leaks(None) << Phase.LEAKED << None


@pytest.mark.clause("OA-6.8", "OA-7.2")
def test_creates_that_are_all_lost_fail_and_each_is_named(story: Story) -> None:
    script = story.creating(retries=1) >> Lost() << Pause() << CreateChat >> Reply(500)
    assert script << Fails(HTTPStatusError, "500", "creating the chat") << Leaks(None, None) << Phase.LEAKED << None


@pytest.mark.clause("OA-6.8", "OA-8.2")
@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("body", ["", GARBAGE, "null", '{"id": 3}', b'{"id": "\xff"}', "[" * 100_000])
def test_a_create_whose_reply_has_no_id_is_named_and_not_tried_again(
    story: Story, status: int, body: str | bytes
) -> None:
    """Another try could not help, and would leave another chat behind."""
    script = story.creating() >> Reply(status, body)
    assert script << Fails(RemoteProtocolError, "a new chat", "base URL") << Leaks(None) << Phase.LEAKED << None


@pytest.mark.clause("OA-2.6", "OA-6.8")
@bad_ids
def test_a_chat_id_that_is_no_uuid_is_never_used(story: Story, bad_id: str) -> None:
    script = story.creating() >> Reply(200, {"id": bad_id})
    assert script << Fails(RemoteProtocolError, "as the id of a new chat") << Leaks(None) << None


@pytest.mark.clause("OA-6.8")
@pytest.mark.parametrize("outcome", [Unsent(), Reply(302), Reply(404), Reply(422), Reply(429), Reply(503)], ids=repr)
def test_a_create_that_was_not_carried_out_leaves_no_record(story: Story, outcome: Input) -> None:
    script = (story.creating(retries=0) >> outcome).drop_events()
    assert script << Phase.NEVER_CREATED
    assert script.conversation.leaked == ()


@pytest.mark.clause("OA-6.8", "OA-7.2")
@pytest.mark.parametrize("outcome", [Lost(), Reply(500), Reply(200, GARBAGE)], ids=repr)
def test_a_create_lost_after_the_owner_left_is_named_and_not_tried_again(story: Story, outcome: Input) -> None:
    script = story.creating() >> Close() << None >> outcome
    script = script << Failed if outcome == Reply(200, GARBAGE) else script
    assert script << Leaks(None) << Phase.LEAKED << None


@pytest.mark.clause("OA-7.2")
def test_a_chat_made_after_the_owner_left_is_deleted(story: Story) -> None:
    script = story.creating() >> Close() << None >> Reply(200, {"id": CHAT}) << Created(CHAT)
    assert script << DeleteChat >> story.deleted << Deleted(CHAT) << Phase.DELETED


# ---- a lost prompt


@pytest.mark.clause("OA-6.1")
@lost
def test_a_lost_prompt_that_arrived_is_adopted(story: Story, loss: Input) -> None:
    assert (
        story.prompting()
        >> loss
        << Phase.PROMPT_LOST
        << Pause(0.5)
        << FetchChat
        >> Reply(200, chat(prompter()))
        << Prompted(PROMPT)
        << RequestAssistant
    )


@pytest.mark.clause("OA-6.1")
@lost
def test_a_lost_prompt_that_did_not_arrive_is_sent_again(story: Story, loss: Input) -> None:
    script = story.prompting() >> loss << Pause(0.5) << FetchChat >> Reply(200, chat()) << Phase.CHAT_CREATED
    script = script << Pause(0.5) << SendPrompt >> loss << Pause(0.5) << FetchChat >> Reply(200, chat())
    assert script << Pause(1.0) << SendPrompt >> Reply(200, prompter()) << Prompted(PROMPT)


@pytest.mark.clause("OA-6.1")
def test_a_prompt_is_sent_at_most_retries_further_times_and_the_failure_is_the_last_one(story: Story) -> None:
    script = story.prompt_lost(retries=1) >> Reply(200, chat()) << Pause() << SendPrompt
    script = script >> Reply(500, story.words("Something went wrong")) << Pause() << FetchChat >> Reply(200, chat())
    assert script << Fails(ApiError, "Something went wrong", "500", "sending the prompt") << Phase.FAILED << None


@pytest.mark.clause("OA-6.1")
def test_only_our_prompt_is_adopted(story: Story) -> None:
    """It is known by role, parent and content."""
    others = chat(
        prompter(content="Another"), prompter(parent_id=ANSWER), {**prompter(), "role": "assistant", "state": "pending"}
    )
    assert story.prompt_lost() >> Reply(200, others) << Pause() << SendPrompt


@pytest.mark.clause("OA-6.1")
def test_of_two_equal_prompts_the_newer_one_is_adopted(story: Story) -> None:
    assert story.prompt_lost() >> Reply(200, chat(prompter(PROMPT_2), prompter(PROMPT))) << Prompted(PROMPT_2)


@pytest.mark.clause("OA-3.3", "OA-6.1")
def test_a_lost_prompt_of_a_later_turn_is_looked_for_under_the_last_answer(story: Story) -> None:
    script = story.answered() >> Prompt("Hello") << SendPrompt >> Lost() << Phase.PROMPT_LOST << Pause() << FetchChat
    script = script >> Reply(200, chat(prompter(), complete())) << Phase.ANSWERED << Pause() << SendPrompt
    script = script >> Lost() << Pause() << FetchChat
    script = script >> Reply(200, chat(prompter(), complete(), prompter(PROMPT_2, "Hello", ANSWER)))
    assert script << Prompted(PROMPT_2) << Phase.PROMPTED


ALREADY = "Trying to add first message to non-empty chat"


@pytest.mark.clause("OA-6.10")
def test_a_resent_prompt_that_turns_out_to_have_arrived_is_adopted(story: Story) -> None:
    """The first one arrived late: after the chat was read, before the second one."""
    script = story.prompt_lost() >> Reply(200, chat()) << Pause() << SendPrompt >> Reply(400, story.words(ALREADY))
    assert script << Phase.PROMPT_LOST << Pause() << FetchChat >> Reply(200, chat(prompter())) << Prompted(PROMPT)


class Numbered(InferenceServer):
    """A server that says with a status what others say in words."""

    def is_prompt_there(self, status: int, words: str) -> bool:
        return status == 409

    def leaves_message(self, status: int, words: str) -> bool:
        return status == 429


@pytest.mark.clause("OA-6.7", "OA-6.10")
def test_a_binding_may_go_by_the_status() -> None:
    story = Story(Numbered("http://oa.test"))
    script = story.prompt_lost() >> Reply(200, chat()) << Pause() << SendPrompt >> Reply(409, story.words("No."))
    assert script << Phase.PROMPT_LOST
    script = story.requesting() >> Reply(429, story.words("No.")) << Pause() << RequestAssistant
    script = script >> Lost() << Pause() << FetchChat >> Reply(200, chat(prompter(), assistant()))
    assert script << Phase.PROMPTED


@pytest.mark.clause("OA-6.2")
def test_the_same_words_to_a_prompt_that_was_sent_once_are_a_refusal(story: Story) -> None:
    assert story.prompting() >> Reply(400, story.words(ALREADY)) << Fails(ApiError, ALREADY) << Phase.FAILED


@pytest.mark.clause("OA-2.6")
@bad_ids
def test_an_id_that_is_no_uuid_is_never_adopted(story: Story, bad_id: str) -> None:
    said = (RemoteProtocolError, "as the id of")
    created = Reply(200, {"id": bad_id})
    assert story.prompting() >> created << Fails(*said, "a new prompter message") << Phase.FAILED
    assert story.requesting() >> created << Fails(*said, "a new assistant message") << Phase.FAILED
    if bad_id:
        assert story.prompt_lost() >> Reply(200, chat(prompter(bad_id))) << Fails(*said, "a prompter message")
        assert story.request_lost() >> Reply(200, chat(assistant(bad_id))) << Fails(*said, "an assistant message")


# ---- a lost request


@pytest.mark.clause("OA-6.1")
@lost
@pytest.mark.parametrize("state", ["pending", "in_progress", "complete"])
def test_a_lost_request_that_arrived_is_adopted(story: Story, loss: Input, state: str) -> None:
    assert (
        story.requesting()
        >> loss
        << Phase.REQUEST_LOST
        << Pause(0.5)
        << FetchChat
        >> Reply(200, chat(assistant(state=state), prompter()))
        << Requested(ANSWER)
        << OpenStream
    )


@pytest.mark.clause("OA-6.1")
@lost
def test_a_lost_request_that_did_not_arrive_is_sent_again(story: Story, loss: Input) -> None:
    script = story.requesting(retries=1) >> loss << Pause(0.5) << FetchChat >> Reply(200, chat(prompter()))
    script = script << Phase.PROMPTED << Pause(0.5) << RequestAssistant
    script = script >> Reply(500, story.words("Something went wrong")) << Pause(0.5) << FetchChat
    assert script >> Reply(200, chat(prompter())) << Fails(ApiError, "Something went wrong") << Phase.FAILED


@pytest.mark.clause("OA-6.1")
@pytest.mark.parametrize("state", ["aborted_by_worker", "cancelled", "timeout"])
def test_an_answer_that_ended_badly_is_not_adopted(story: Story, state: str) -> None:
    ended = chat(prompter(), assistant(state=state))
    assert story.request_lost() >> Reply(200, ended) << Pause() << RequestAssistant


@pytest.mark.clause("OA-6.1")
def test_an_answer_to_another_prompt_is_not_adopted(story: Story) -> None:
    others = chat(prompter(), assistant(parent_id=PROMPT_2))
    assert story.request_lost() >> Reply(200, others) << Pause() << RequestAssistant


@pytest.mark.clause("OA-6.1")
def test_the_newest_answer_is_adopted(story: Story) -> None:
    both = chat(assistant(ANSWER_2, "in_progress"), prompter(), assistant(ANSWER, "complete", "Hi"))
    assert story.request_lost() >> Reply(200, both) << Requested(ANSWER_2)


def busy_and_then_lost(story: Story, body: Json | str) -> Play:
    """The server is too busy for the first request, and the reply to the second one is lost."""
    script = story.requesting() >> Reply(503, body) << Pause() << RequestAssistant
    return script >> Lost() << Pause() << FetchChat


@pytest.mark.clause("OA-6.7")
def test_the_message_that_a_503_left_behind_is_not_adopted(story: Story) -> None:
    script = busy_and_then_lost(story, story.words(BUSY)) >> Reply(200, chat(prompter(), assistant()))
    assert script << Phase.PROMPTED << Pause() << RequestAssistant
    script = busy_and_then_lost(story, story.words(BUSY))
    script = script >> Reply(200, chat(prompter(), assistant(ANSWER_2), assistant(ANSWER)))
    assert script << Requested(ANSWER_2) << OpenStream


@pytest.mark.clause("OA-6.7")
def test_each_503_leaves_a_message_behind(story: Story) -> None:
    busy = Reply(503, story.words(BUSY))
    script = story.requesting() >> busy << Pause() << RequestAssistant >> busy << Pause() << RequestAssistant
    script = script >> Lost() << Pause() << FetchChat
    script = script >> Reply(200, chat(prompter(), assistant(ANSWER), assistant(ANSWER_2)))
    assert script << Fails(MaybeSent) << Phase.FAILED


@pytest.mark.clause("OA-6.7")
def test_after_a_503_a_message_that_runs_is_adopted(story: Story) -> None:
    script = busy_and_then_lost(story, story.words(BUSY))
    assert script >> Reply(200, chat(prompter(), assistant(state="in_progress"))) << Requested(ANSWER)


@pytest.mark.clause("OA-6.7")
def test_a_503_without_the_servers_words_left_nothing_behind(story: Story) -> None:
    script = busy_and_then_lost(story, "upstream is busy")
    assert script >> Reply(200, chat(prompter(), assistant())) << Requested(ANSWER) << OpenStream


# ---- reading

READS: dict[str, Begin] = {"prompt": Story.prompt_lost, "request": Story.request_lost}


@pytest.mark.clause("OA-6.1", "OA-6.3")
@pytest.mark.parametrize("step", READS)
@pytest.mark.parametrize("outcome", [Unsent(), Lost(), Reply(500), Reply(503)], ids=repr)
def test_a_read_that_fails_is_tried_again_and_then_fails_the_step(story: Story, step: str, outcome: Input) -> None:
    script = READS[step](story) >> outcome << Pause(0.5) << FetchChat >> outcome << Pause(1.0) << FetchChat >> outcome
    error = type(outcome.failure) if isinstance(outcome, ExchangeFailed) else HTTPStatusError
    assert script << Fails(error, "reading the chat") << Phase.FAILED << None


@pytest.mark.clause("OA-6.3")
def test_a_read_waits_for_retry_after_but_not_for_more_than_a_minute(story: Story) -> None:
    assert story.prompt_lost() >> Reply(503, headers={"retry-after": "60"}) << Pause(60.0) << FetchChat
    assert story.prompt_lost() >> Reply(503, headers={"retry-after": "99"}) << Fails(HTTPStatusError, "503")


@pytest.mark.clause("OA-6.2")
@pytest.mark.parametrize("step", READS)
def test_a_refused_read_fails_the_step(story: Story, step: str) -> None:
    assert READS[step](story) >> story.not_found << Fails(ApiError if not story.is_website else HTTPStatusError)


@pytest.mark.clause("OA-8.2")
@pytest.mark.parametrize("step", READS)
@pytest.mark.parametrize("body", ["", GARBAGE, "{}", '{"id": "x", "messages": [{}]}', "[" * 100_000])
def test_a_chat_that_is_none_fails_the_step(story: Story, step: str, body: str) -> None:
    assert READS[step](story) >> Reply(200, body) << Fails(RemoteProtocolError, "a chat") << Phase.FAILED


@pytest.mark.clause("OA-8.2")
@every_write
def test_words_in_a_2xx_reply_reach_the_caller(story: Story, step: str) -> None:
    begin, _ = WRITES[step]
    script = begin(story, retries=0) >> Reply(200, story.words("Account is locked"))
    script = script << Fails(ApiError, "Account is locked", "instead of a new")
    assert script << Leaks(None) if step == "create" else script << Phase.FAILED


# ---- failures


class OddFailure(MaybeSent):
    """A transport's own failure, made in its own way."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")


@pytest.mark.clause("OA-6.11")
def test_a_failure_of_a_transports_own_class_is_raised_as_what_it_means(story: Story) -> None:
    failure = OddFailure(7, "broken pipe")
    script = story.opening() >> ExchangeFailed(failure) << Phase.POLLING
    script = story.creating(retries=0) >> ExchangeFailed(failure)
    assert script << Fails(MaybeSent, "7 broken pipe", "creating the chat") << Leaks(None)
    assert script.conversation.error is not None
    assert script.conversation.error.__cause__ is failure
    assert script.conversation.error.phase == "START"


@every_write
def test_only_the_create_is_shielded_on_the_way_to_an_answer(story: Story, step: str) -> None:
    begin, kind = WRITES[step]
    assert begin(story) >> Unsent() << Pause() << Sends(kind, shielded=kind is CreateChat)
