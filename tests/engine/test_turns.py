"""A conversation that goes well: credentials, prompt, stream, answer, the next turn, goodbye."""

import json

import pytest

from oa_protocol.bindings.base import AnswerOptions
from oa_protocol.bindings.json import SamplingParameters
from oa_protocol.engine.events import (
    Answered,
    Created,
    Deleted,
    NeverCreated,
    PluginStep,
    Prompted,
    Queued,
    Requested,
    Token,
)
from oa_protocol.engine.inputs import Abandon, Close, CredentialsFound, Prompt, StreamEnded, StreamOpened
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    DeleteChat,
    FetchMessage,
    LoadCredentials,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.testing.playbook import Data, Reply, Sends, Unsent, Wait

from .stories import (
    ANSWER,
    ANSWER_2,
    CHAT,
    COOKIES,
    INFERENCE,
    PROMPT,
    PROMPT_2,
    WEBSITE,
    Story,
    assistant,
    chat,
    complete,
    final,
    message,
    pending,
    prompter,
    token,
)


@pytest.mark.clause("OA-4.1", "OA-4.3", "OA-5.3", "OA-7.2", "OA-7.3")
def test_a_whole_conversation(story: Story) -> None:
    assert (
        story.start(credentials=None)
        << None
        >> Prompt("Hello")
        << LoadCredentials
        >> CredentialsFound(COOKIES)
        << Phase.COOKIES
        << Sends(CreateChat, shielded=True, body={})
        >> Reply(200, {"id": CHAT})
        << Created(CHAT)
        << Phase.CHAT_CREATED
        << Sends(SendPrompt, shielded=False)
        >> Reply(200, prompter())
        << Prompted(PROMPT)
        << Phase.PROMPTED
        << Sends(RequestAssistant, shielded=False)
        >> Reply(200, assistant())
        << Requested(ANSWER)
        << Phase.ASSISTANT_REQUESTED
        << Sends(OpenStream, shielded=False)
        >> StreamOpened()
        << Phase.STREAMING
        << None
        >> Data(pending(3), token("Hi "))
        << Queued(3, 5)
        << Token("Hi ")
        >> Data(token("there"))
        << Token("there")
        >> Data(final(complete("Hi there")))
        << Answered(message(complete("Hi there")))
        << Phase.ANSWERED
        << CloseStream
        >> StreamEnded()
        << None
        >> Close()
        << Phase.DELETING
        << Sends(DeleteChat, shielded=True)
        >> story.deleted
        << Deleted(CHAT)
        << Phase.DELETED
        << None
    )


@pytest.mark.clause("OA-1.2")
@pytest.mark.parametrize(
    ("story", "prompt", "request_", "stream", "message_", "delete"),
    [
        (
            WEBSITE,
            "/api/chat/prompter_message",
            "/api/chat/assistant_message",
            f"/api/chat/events?chat_id={CHAT}&message_id={ANSWER}",
            f"/api/chat/message?chat_id={CHAT}&message_id={ANSWER}",
            f"/api/chat?chat_id={CHAT}",
        ),
        (
            INFERENCE,
            f"/chats/{CHAT}/prompter_message",
            f"/chats/{CHAT}/assistant_message",
            f"/chats/{CHAT}/messages/{ANSWER}/events",
            f"/chats/{CHAT}/messages/{ANSWER}",
            f"/chats/{CHAT}",
        ),
    ],
    ids=["website", "inference"],
)
def test_every_request_names_the_ids_that_the_server_gave(
    story: Story, prompt: str, request_: str, stream: str, message_: str, delete: str
) -> None:
    assert (
        story.creating()
        >> Reply(200, {"id": CHAT})
        << Created(CHAT)
        << Sends(SendPrompt, method="POST", path=prompt)
        >> Reply(200, prompter())
        << Prompted(PROMPT)
        << Sends(RequestAssistant, method="POST", path=request_)
        >> Reply(200, assistant())
        << Requested(ANSWER)
        << Sends(OpenStream, method="GET", path=stream)
        >> StreamOpened()
        >> StreamEnded()
        << Sends(FetchMessage, method="GET", path=message_)
        >> Reply(200, complete("Hi"))
        << Token("Hi")
        << Answered(message(complete("Hi")))
        >> Close()
        << Sends(DeleteChat, method="DELETE", path=delete)
    )


@pytest.mark.clause("OA-3.3")
def test_the_parent_of_the_first_prompt_is_null_and_of_the_next_one_the_last_answer(story: Story) -> None:
    chat_id = {"chat_id": CHAT} if story.is_website else {}
    assert (
        story.creating("One")
        >> Reply(200, {"id": CHAT})
        << Created(CHAT)
        << Sends(SendPrompt, body={**chat_id, "parent_id": None, "content": "One"})
    )
    assert (
        story.answered()
        >> Prompt("Two")
        << Sends(SendPrompt, body={**chat_id, "parent_id": ANSWER, "content": "Two"})
        >> Reply(200, prompter(PROMPT_2, "Two", ANSWER))
        << Prompted(PROMPT_2)
        << RequestAssistant
        >> Reply(200, assistant(ANSWER_2, parent_id=PROMPT_2))
        << Requested(ANSWER_2)
        << OpenStream
        >> StreamOpened()
        >> Data(token("Bye"), final(complete("Bye", ANSWER_2)))
        << Token("Bye")
        << Answered(message(complete("Bye", ANSWER_2)))
        << CloseStream
        >> StreamEnded()
        >> Prompt("Three")
        << Sends(SendPrompt, body={**chat_id, "parent_id": ANSWER_2, "content": "Three"})
    )


@pytest.mark.clause("OA-4.5")
def test_a_request_carries_what_was_asked_for_and_nothing_else(story: Story) -> None:
    options = AnswerOptions("_lorem", SamplingParameters(temperature=1.0), (), "Be brief.", None, "")
    chat_id = {"chat_id": CHAT} if story.is_website else {}
    sampling = {
        "top_k": 50,
        "top_p": None,
        "typical_p": None,
        "temperature": 1.0,
        "repetition_penalty": 1.1111111111111112,
        "max_new_tokens": 1024,
    }
    assert (
        story.prompting(options=options)
        >> Reply(200, prompter())
        << Prompted(PROMPT)
        << Sends(
            RequestAssistant,
            body={
                **chat_id,
                "parent_id": PROMPT,
                "model_config_name": "_lorem",
                "sampling_parameters": sampling,
                "plugins": [],
                "system_prompt": "Be brief.",
                "user_response_instructions": "",
            },
        )
    )


@pytest.mark.clause("OA-4.2")
def test_no_chat_is_made_before_there_is_a_prompt(story: Story) -> None:
    assert story.start() << None >> Close() << NeverCreated() << Phase.NEVER_CREATED << None


@pytest.mark.clause("OA-4.4")
def test_the_empty_prompt_is_sent(story: Story) -> None:
    assert story.requesting("")


@pytest.mark.clause("OA-4.4", "OA-6.11")
@pytest.mark.parametrize("text", ["a\0b", "lone \ud800 surrogate"])
def test_text_that_no_server_can_store_is_refused_before_any_request(story: Story, text: str) -> None:
    conversation = story.conversation()
    with pytest.raises(ValueError, match="prompt"):
        conversation.handle(Prompt(text), now=0.0)
    assert conversation.awaits_prompt
    assert conversation.next_intent(now=0.0) is None


@pytest.mark.clause("OA-4.4")
def test_a_prompt_that_is_no_text_is_refused(story: Story) -> None:
    with pytest.raises(TypeError, match="prompt must be text, not bytes"):
        story.conversation().handle(Prompt(b"Hello"), now=0.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_the_last_event_of_a_stream_need_not_name_the_message(story: Story) -> None:
    bare = complete(message_id="")
    assert story.streaming("Hi there") >> Data(final(bare)) << Answered(message(bare)) << Phase.ANSWERED


def test_a_plugin_step_is_emitted(story: Story) -> None:
    step = {"event_type": "plugin_intermediate", "current_plugin_thought": "Hm", "message": None}
    assert story.streaming() >> Data(step, token("")) << PluginStep("Hm") << Token("")


@pytest.mark.clause("OA-5.5")
def test_an_event_of_an_unknown_type_is_ignored(story: Story) -> None:
    assert story.streaming() >> Data({"event_type": "safe_prompt", "x": 1}, token("Hi")) << Token("Hi")


def test_credentials_are_asked_for_once_there_is_a_prompt(story: Story) -> None:
    script = (
        story.start(credentials=None) >> Prompt("Hello") << LoadCredentials >> CredentialsFound(COOKIES) << CreateChat
    )
    assert ("cookie", "next-auth.session-token=secret") in _headers(script.intent)


def _headers(intent: object) -> tuple[tuple[str, str], ...]:
    assert isinstance(intent, CreateChat)
    return intent.request.headers


def test_a_conversation_shows_its_state(story: Story) -> None:
    conversation = story.start().conversation
    assert (conversation.chat_id, conversation.awaits_prompt, conversation.has_stream) == (None, True, False)
    conversation = story.streaming().conversation
    assert (conversation.chat_id, conversation.awaits_prompt, conversation.has_stream) == (CHAT, False, True)
    conversation = story.answered().conversation
    assert (conversation.is_over, conversation.awaits_prompt, conversation.has_stream) == (False, True, False)
    conversation = story.prompting().conversation
    assert isinstance(conversation.outstanding, SendPrompt)
    assert repr(conversation).startswith(f"<Conversation CHAT_CREATED chat_id={CHAT} outstanding=SendPrompt(")
    assert "secret" not in repr(conversation)
    assert (conversation.binding, conversation.credentials) == (story.binding, COOKIES)


@pytest.mark.clause("OA-4.7")
def test_it_says_when_the_next_intent_asks_for_an_answer(story: Story) -> None:
    script = story.prompting() >> Reply(200, prompter()) << Prompted(PROMPT)
    assert script.conversation.awaits_slot
    assert not (script << RequestAssistant).conversation.awaits_slot
    assert not (script >> Unsent()).conversation.awaits_slot
    assert (script >> Wait()).conversation.awaits_slot
    assert not (script >> Close()).conversation.awaits_slot


@pytest.mark.clause("OA-4.7")
def test_it_says_whether_a_worker_has_begun_with_our_answer(story: Story) -> None:
    assert not story.prompting().conversation.awaits_worker
    assert story.requesting().conversation.awaits_worker
    assert story.opening().conversation.awaits_worker
    assert (story.streaming() >> Data(pending()) << Queued(1, 5)).conversation.awaits_worker
    assert not story.streaming("Hi").conversation.awaits_worker
    step = {"event_type": "plugin_intermediate", "current_plugin_thought": "Hm"}
    assert not (story.streaming() >> Data(step) << PluginStep("Hm")).conversation.awaits_worker
    assert not (story.polling() >> Reply(200, assistant(state="in_progress"))).conversation.awaits_worker


@pytest.mark.clause("OA-4.7")
@pytest.mark.parametrize(("state", "waits"), [("pending", True), ("in_progress", False), ("complete", False)])
def test_it_knows_whether_its_answer_waits_in_a_chat_that_somebody_else_has_read(
    story: Story, state: str, waits: bool
) -> None:
    conversation = story.opening().conversation
    request = conversation.probe_request()
    assert (request.method, CHAT in request.url) == ("GET", True)
    read = story.binding.read_chat(json.dumps(chat(prompter(), assistant(state=state))).encode())
    assert conversation.is_waiting_in(read) is waits
    assert not story.answered().conversation.is_waiting_in(read)


def test_without_a_chat_there_is_no_request_that_reads_it(story: Story) -> None:
    with pytest.raises(ValueError, match="not an id"):
        story.creating().conversation.probe_request()


@pytest.mark.clause("OA-7.2")
def test_it_says_whether_its_chat_is_gone(story: Story) -> None:
    script = story.deleting()
    assert not script.conversation.is_chat_gone
    assert (script >> story.deleted << Deleted(CHAT)).conversation.is_chat_gone
    assert not (story.deleting() >> Abandon()).drop_events().conversation.is_chat_gone
    assert not (story.start() >> Close() << NeverCreated()).conversation.is_chat_gone


def test_each_intent_is_handed_out_once(story: Story) -> None:
    assert story.prompting() << None
