"""Everything that real servers were recorded saying, replayed against the engine, however it is cut."""

from __future__ import annotations

import json
import pickle
import random
from typing import Any

import pytest

from oa_protocol.engine import events as ev
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import AnswerFailed, ApiError, AuthenticationError, HTTPStatusError, MaybeSent
from oa_protocol.engine.inputs import (
    Close,
    CredentialsFound,
    ExchangeFailed,
    Prompt,
    ReplyReceived,
    StreamEnded,
    StreamOpened,
    TimePassed,
)
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    DeleteChat,
    Exchange,
    FetchChat,
    FetchMessage,
    ListChats,
    LoadCredentials,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import Phase

from .captures import Recorded, every, scenario
from .replay import (
    BINDINGS,
    CREDENTIALS,
    NOW,
    hand_in,
    new_conversation,
    next_exchange,
    options_of,
    reconciled,
    stream_events,
    told,
    until,
    words_of,
)
from .request_table import STEPS

pytestmark = pytest.mark.once

SMALL = 4096
CHUNKINGS = 200


def recorded(*steps: str, **having: Any) -> list[Recorded]:
    return [
        each
        for each in every()
        if each.step in steps and all(getattr(each, name) == value for name, value in having.items())
    ]


STREAMS = recorded("stream", status=200)


def streaming(stream: Recorded) -> Conversation:
    """The conversation whose stream was recorded, its stream just opened."""
    conversation = until(stream, OpenStream)
    opened = next_exchange(conversation, OpenStream)
    if (stream.step, stream.method) == ("stream", "GET"):
        assert opened.request.url == f"http://oa.example.org{stream.target}"
    conversation.handle(StreamOpened(), NOW)
    assert conversation.phase is Phase.STREAMING
    return conversation


def expected_events(stream: Recorded) -> tuple[list[tuple[Any, ...]], Phase]:
    """Return the events that the engine has to emit for this stream, and its phase before the stream ends."""
    events: list[tuple[Any, ...]] = []
    tokens = ""
    for event in stream_events(stream.body):
        match event["event_type"]:
            case "token":
                tokens += event["text"]
                events.append(("token", event["text"]))
            case "pending":
                events.append(("pending", event["queue_position"], event["queue_size"]))
            case "message":
                final = event["message"]
                assert final["state"] == "complete"
                events += reconciled(tokens, final["content"], cut=False)
                events.append(("message", final["id"], final["content"]))
                return events, Phase.ANSWERED
            case "error":
                words = f"the server says {event['error']!r} (phase STREAMING)"
                events.append(("failed", AnswerFailed, words, tokens))
                return events, Phase.FAILED
            case _:
                del event["event_type"], event["message"]
                events.append((ev.PluginStep(**event),))
    return events, Phase.STREAMING


def feed(conversation: Conversation, chunks: list[bytes]) -> list[ev.Event]:
    return [event for chunk in chunks for event in conversation.receive_stream_data(chunk, NOW)]


def cut(body: bytes, at: list[int]) -> list[bytes]:
    return [body[start:end] for start, end in zip([0, *at], [*at, len(body)], strict=True)]


def cuts_of(body: bytes) -> list[list[int]]:
    """Every single cut of a small body, or many random ones of a large one; and one between any two bytes."""
    byte_by_byte = list(range(1, len(body)))
    if len(body) <= SMALL:
        return [[], byte_by_byte, *([at] for at in byte_by_byte)]
    chance = random.Random(len(body))
    few = [sorted(chance.sample(byte_by_byte, chance.randrange(1, 60))) for _ in range(CHUNKINGS)]
    return [[], byte_by_byte, *few]


@pytest.mark.clause("OA-5.2", "OA-5.3", "OA-5.6", "OA-5.7", "OA-5.9")
@pytest.mark.parametrize("stream", STREAMS, ids=str)
def test_a_recorded_stream_tells_the_same_wherever_it_is_cut(stream: Recorded) -> None:
    prepared = pickle.dumps(streaming(stream))
    events, phase = expected_events(stream)
    for at in cuts_of(stream.body):
        conversation: Conversation = pickle.loads(prepared)
        assert told(feed(conversation, cut(stream.body, at))) == events, at
        assert conversation.phase is phase, at


@pytest.mark.clause("OA-5.3")
@pytest.mark.parametrize("stream", STREAMS, ids=str)
def test_every_recorded_event_is_emitted_with_its_chunk(stream: Recorded) -> None:
    conversation = streaming(stream)
    events, _ = expected_events(stream)
    seen = b""
    so_far: list[tuple[Any, ...]] = []
    for chunk in stream.chunks:
        seen += chunk
        so_far += told(conversation.receive_stream_data(chunk, NOW))
        assert len(so_far) >= min(len(stream_events(seen)), len(events))
    assert so_far == events


@pytest.mark.clause("OA-5.7", "OA-6.5", "OA-6.6")
@pytest.mark.parametrize(
    "stream", [stream for stream in STREAMS if expected_events(stream)[1] is Phase.STREAMING], ids=str
)
def test_a_recorded_stream_without_a_final_event_is_no_success_and_is_polled(stream: Recorded) -> None:
    conversation = streaming(stream)
    events = feed(conversation, stream.chunks)
    if stream.end == "open":
        if isinstance(conversation.next_intent(NOW), FetchMessage):
            hand_in_pending(conversation, stream)
            assert conversation.next_intent(NOW) is None
        events += conversation.handle(TimePassed(), conversation.deadline or NOW)
        assert isinstance(conversation.next_intent(NOW), CloseStream)
    events += conversation.handle(StreamEnded(), NOW)
    assert conversation.phase is Phase.POLLING
    assert not any(isinstance(event, ev.Answered | ev.Failed) for event in events)
    next_exchange(conversation, FetchMessage)


def hand_in_pending(conversation: Conversation, stream: Recorded) -> None:
    message = {"id": stream.message_id, "role": "assistant", "state": "pending", "content": None}
    assert conversation.handle(ReplyReceived(200, (), json.dumps(message).encode()), NOW) == []


@pytest.mark.clause("OA-5.7")
@pytest.mark.parametrize(
    "stream", [stream for stream in STREAMS if expected_events(stream)[1] is not Phase.STREAMING], ids=str
)
def test_the_end_of_a_stream_after_its_final_event_changes_nothing(stream: Recorded) -> None:
    conversation = streaming(stream)
    feed(conversation, stream.chunks)
    phase = conversation.phase
    assert isinstance(conversation.next_intent(NOW), CloseStream)
    assert conversation.handle(StreamEnded(), NOW) == []
    assert conversation.phase is phase
    assert conversation.next_intent(NOW) is None


def _checks(stream: Recorded) -> bool:
    """Whether so much waiting was recorded that the message is to be read."""
    kinds = [event["event_type"] for event in stream_events(stream.body)]
    pings = stream.body.count(b"event: ping\r\n") + stream.body.count(b": ping - ")
    return kinds.count("pending") >= 10 or pings >= 3


WAITING = [stream for stream in STREAMS if _checks(stream) and expected_events(stream)[1] is Phase.STREAMING]


@pytest.mark.clause("OA-5.8")
@pytest.mark.parametrize("stream", WAITING, ids=str)
def test_while_a_recorded_stream_shows_pending_for_ever_the_message_is_read(stream: Recorded) -> None:
    conversation = streaming(stream)
    feed(conversation, stream.chunks)
    next_exchange(conversation, FetchMessage)
    hand_in_pending(conversation, stream)
    assert conversation.phase is Phase.STREAMING
    assert conversation.next_intent(NOW) is None


def of_its_chat(message: Recorded) -> bool:
    """Whether this is a message of the assistant's, as the engine reads them."""
    return message.status != 200 or message.json["role"] == "assistant"


MESSAGES = [message for message in recorded("message") if of_its_chat(message)]
UNFINISHED = ("pending", "in_progress")


@pytest.mark.clause("OA-5.8", "OA-5.9")
@pytest.mark.parametrize("message", [message for message in MESSAGES if message.status == 200], ids=str)
def test_a_recorded_message_settles_a_stream_that_shows_pending(message: Recorded) -> None:
    conversation = streaming(message)
    feed(conversation, 10 * [b'data: {"event_type": "pending", "queue_position": 0, "queue_size": 1}\r\n\r\n'])
    next_exchange(conversation, FetchMessage)
    settles(conversation, message, hand_in(conversation, message), waiting=Phase.STREAMING)


@pytest.mark.clause("OA-5.8", "OA-5.9", "OA-6.5")
@pytest.mark.parametrize("message", MESSAGES, ids=str)
def test_a_recorded_message_settles_polling(message: Recorded) -> None:
    conversation = until(message, OpenStream, retries=0)
    next_exchange(conversation, OpenStream)
    conversation.handle(ExchangeFailed(MaybeSent("cut")), NOW)
    fetch = next_exchange(conversation, FetchMessage)
    assert fetch.request.url == f"http://oa.example.org{message.target}"
    events = hand_in(conversation, message)
    if message.status == 200:
        settles(conversation, message, events, waiting=Phase.POLLING)
    else:
        refused(conversation, message, events, Phase.FAILED)


def settles(conversation: Conversation, message: Recorded, events: list[ev.Event], waiting: Phase) -> None:
    said = message.json
    if said["state"] == "complete":
        final = ("message", said["id"], said["content"])
        assert told(events) == [*reconciled("", said["content"], cut=True), final]
        assert conversation.phase is Phase.ANSWERED
    elif said["state"] in UNFINISHED:
        assert events == []
        assert conversation.phase is waiting
    else:
        [event] = told(events)
        assert event[:2] == ("failed", AnswerFailed)
        assert said["state"] in event[2]
        assert conversation.phase is Phase.FAILED


def refused(conversation: Conversation, reply: Recorded, events: list[ev.Event], phase: Phase) -> None:
    """Check that the engine fails with the server's text, after it asked for other credentials if that may help."""
    words = words_of(reply.body)
    if reply.status in (401, 403):
        assert events == []
        assert conversation.next_intent(NOW) == LoadCredentials(refused=True)
        events = conversation.handle(CredentialsFound(None), NOW)
        kind: type[Exception] = AuthenticationError
    else:
        kind = ApiError if words else HTTPStatusError
    assert isinstance(events[0], ev.Failed)
    assert type(events[0].error) is kind
    assert words in str(events[0].error)
    assert str(reply.status) in str(events[0].error)
    assert conversation.phase is phase
    assert conversation.error is events[0].error


WRITES: list[tuple[str, type[Exchange], Phase, Phase, Phase]] = [
    # step, intent, phase after a success, after a refusal, after a reply that does not say
    ("create", CreateChat, Phase.CHAT_CREATED, Phase.NEVER_CREATED, Phase.LEAKED),
    ("prompt", SendPrompt, Phase.PROMPTED, Phase.FAILED, Phase.PROMPT_LOST),
    ("request", RequestAssistant, Phase.ASSISTANT_REQUESTED, Phase.FAILED, Phase.REQUEST_LOST),
]


@pytest.mark.clause("OA-6.1", "OA-6.2", "OA-6.3", "OA-6.8", "OA-8.1")
@pytest.mark.parametrize(
    ("reply", "kind", "success", "refusal", "unclear"),
    [(reply, *row) for step, *row in WRITES for reply in recorded(step)],
    ids=str,
)
def test_a_recorded_reply_to_a_write_moves_on_or_fails_with_the_servers_words(
    reply: Recorded, kind: type[Exchange], success: Phase, refusal: Phase, unclear: Phase
) -> None:
    conversation = until(reply, kind, retries=0)
    sent = next_exchange(conversation, kind)
    assert (sent.request.method, sent.request.url.removeprefix("http://oa.example.org")) == (
        reply.method,
        reply.target,
    )
    if reply.status is None:
        conversation.handle(ExchangeFailed(MaybeSent("no reply")), NOW)
        assert conversation.phase is unclear
        return
    events = hand_in(conversation, reply)
    if reply.status == 200:
        made = {"create": ev.Created, "prompt": ev.Prompted, "request": ev.Requested}[reply.step]
        assert events == [made(reply.json["id"])]
        assert conversation.phase is success
    elif reply.status == 500:
        assert conversation.phase is unclear
    else:
        refused(conversation, reply, events, refusal)


@pytest.mark.clause("OA-5.7", "OA-6.5")
@pytest.mark.parametrize("reply", [each for each in recorded("stream") if each.status != 200], ids=str)
def test_a_stream_that_was_refused_is_polled(reply: Recorded) -> None:
    conversation = until(reply, OpenStream)
    next_exchange(conversation, OpenStream)
    if reply.status is None:
        conversation.handle(ExchangeFailed(MaybeSent("no reply")), NOW)
    else:
        assert hand_in(conversation, reply) == []
    assert conversation.phase is Phase.POLLING
    next_exchange(conversation, FetchMessage)


CHATS = recorded("chat")


def prompts_of(chat: Recorded) -> list[dict[str, Any]]:
    """Its first prompts, oldest first."""
    return sorted(
        (message for message in chat.json["messages"] if message["role"] == "prompter" and not message["parent_id"]),
        key=lambda message: message["id"],
    )


@pytest.mark.clause("OA-6.1")
@pytest.mark.parametrize("chat", [chat for chat in CHATS if chat.status == 200], ids=str)
def test_a_recorded_chat_tells_whether_a_lost_prompt_arrived(chat: Recorded) -> None:
    mine = prompts_of(chat)
    conversation = new_conversation(chat.api)
    conversation.handle(Prompt(mine[-1]["content"] if mine else "Hello"), NOW)
    next_exchange(conversation, CreateChat)
    conversation.handle(ReplyReceived(200, (), json.dumps({"id": chat.chat_id}).encode()), NOW)
    next_exchange(conversation, SendPrompt)
    conversation.handle(ExchangeFailed(MaybeSent("cut")), NOW)
    fetch = next_exchange(conversation, FetchChat)
    assert fetch.request.url == f"http://oa.example.org{chat.target}"
    events = hand_in(conversation, chat)
    if mine:
        newest = max(message["id"] for message in mine if message["content"] == mine[-1]["content"])
        assert events == [ev.Prompted(newest)]
        next_exchange(conversation, RequestAssistant)
    else:
        assert events == []
        next_exchange(conversation, SendPrompt)


@pytest.mark.clause("OA-6.1", "OA-7.1")
@pytest.mark.parametrize("leaving", [False, True], ids=["staying", "leaving"])
@pytest.mark.parametrize("chat", [chat for chat in CHATS if chat.status == 200 and prompts_of(chat)], ids=str)
def test_a_recorded_chat_tells_whether_a_lost_request_arrived(chat: Recorded, leaving: bool) -> None:
    prompt = prompts_of(chat)[-1]
    answers = sorted(
        (message for message in chat.json["messages"] if message["parent_id"] == prompt["id"]),
        key=lambda message: message["id"],
    )
    usable = [answer for answer in answers if answer["state"] in (*UNFINISHED, "complete")]
    conversation = new_conversation(chat.api)
    conversation.handle(Prompt("Hello"), NOW)
    for kind, made in ((CreateChat, chat.chat_id), (SendPrompt, prompt["id"])):
        next_exchange(conversation, kind)
        conversation.handle(ReplyReceived(200, (), json.dumps({"id": made}).encode()), NOW)
    next_exchange(conversation, RequestAssistant)
    conversation.handle(ExchangeFailed(MaybeSent("cut")), NOW)
    if leaving:
        conversation.handle(Close(), NOW)
        assert conversation.phase is Phase.DRAINING
    next_exchange(conversation, FetchChat)
    events = hand_in(conversation, chat)
    if leaving:
        running = any(answer["state"] in UNFINISHED for answer in answers)
        assert events == []
        assert conversation.phase is (Phase.DRAINING if running else Phase.DELETING)
    elif usable:
        assert events == [ev.Requested(usable[-1]["id"])]
        next_exchange(conversation, OpenStream)
    else:
        assert events == []
        next_exchange(conversation, RequestAssistant)


def deleting(reply: Recorded) -> Conversation:
    conversation = until(reply, SendPrompt)
    conversation.handle(Close(), NOW)
    sent = next_exchange(conversation, DeleteChat)
    if reply.step == "delete":
        assert sent.request.url == f"http://oa.example.org{reply.target}"
    return conversation


@pytest.mark.clause("OA-7.2", "OA-7.3", "OA-7.6")
@pytest.mark.parametrize("reply", recorded("delete"), ids=str)
def test_a_recorded_reply_to_a_delete_is_believed_or_looked_into(reply: Recorded) -> None:
    conversation = deleting(reply)
    if reply.status is None:
        assert conversation.handle(ExchangeFailed(MaybeSent("no reply")), NOW) == []
        assert conversation.phase is Phase.DELETE_UNCLEAR
        return
    events = hand_in(conversation, reply)
    if reply.status in (401, 403):
        assert conversation.next_intent(NOW) == LoadCredentials(refused=True)
        [leaked] = conversation.handle(CredentialsFound(None), NOW)
        assert isinstance(leaked, ev.Leaked)
        assert [record.chat_id for record in leaked.leaked] == [reply.chat_id]
        assert conversation.phase is Phase.LEAKED
    elif reply.status == 200 and not reply.body.strip(b"null"):
        assert events == [ev.Deleted(reply.chat_id)]
        assert conversation.phase is Phase.DELETED
    else:
        assert events == []
        next_exchange(conversation, FetchChat)


@pytest.mark.clause("OA-7.4", "OA-7.5", "OA-7.6")
@pytest.mark.parametrize("chat", CHATS, ids=str)
def test_a_recorded_chat_settles_an_unclear_delete(chat: Recorded) -> None:
    conversation = deleting(chat)
    conversation.handle(ExchangeFailed(MaybeSent("cut")), NOW)
    next_exchange(conversation, FetchChat)
    events = hand_in(conversation, chat)
    if chat.status == 200:
        assert isinstance(events[-1], ev.Leaked)
        assert conversation.phase is Phase.LEAKED
    elif chat.api == "inference":
        assert words_of(chat.body) == "Chat not found"
        assert events == [ev.Deleted(chat.chat_id)]
    else:
        assert events == []
        next_exchange(conversation, ListChats)


@pytest.mark.clause("OA-7.5")
@pytest.mark.parametrize("chats", recorded("chats", api="website"), ids=str)
def test_a_recorded_list_settles_an_unclear_delete(chats: Recorded) -> None:
    listed = [chat["id"] for chat in chats.json["chats"]] if chats.status == 200 else []
    for chat_id in ["06b02a53-0000-7000-8000-000000000000", *listed]:
        conversation = new_conversation("website")
        conversation.handle(Prompt("Hello"), NOW)
        next_exchange(conversation, CreateChat)
        conversation.handle(ReplyReceived(200, (), json.dumps({"id": chat_id}).encode()), NOW)
        conversation.handle(Close(), NOW)
        next_exchange(conversation, DeleteChat)
        conversation.handle(ExchangeFailed(MaybeSent("cut")), NOW)
        next_exchange(conversation, FetchChat)
        conversation.handle(ReplyReceived(404, (), b""), NOW)
        asked = next_exchange(conversation, ListChats)
        assert asked.request.url == f"http://oa.example.org{chats.target}"
        if chats.status is None:
            [event] = conversation.handle(ExchangeFailed(MaybeSent("no reply")), NOW)
        elif chats.status == 403:
            assert hand_in(conversation, chats) == []
            assert conversation.next_intent(NOW) == LoadCredentials(refused=True)
            [event] = conversation.handle(CredentialsFound(None), NOW)
        else:
            [event] = hand_in(conversation, chats)
        gone = chats.status == 200 and chat_id not in listed
        assert conversation.phase is (Phase.DELETED if gone else Phase.LEAKED)
        assert isinstance(event, ev.Deleted if gone else ev.Leaked)


@pytest.mark.clause("OA-1.2", "OA-3.3", "OA-4.5", "OA-7.2", "OA-7.7")
@pytest.mark.parametrize(
    ("api", "name", "turns"),
    [("website", "happy_path", 1), ("inference", "happy_path", 1), ("inference", "second_turn", 2)],
)
def test_a_recorded_conversation_is_spoken_word_for_word(api: str, name: str, turns: int) -> None:
    exchanges = scenario(api, name)
    prompts = [json.loads(each.sent or "{}")["content"] for each in exchanges if each.step == "prompt"]
    asked = next(json.loads(each.sent or "{}") for each in exchanges if each.step == "request")
    # The recorder also read the chat and the message to see them; the engine has no need to.
    left = [each for each in exchanges if each.step in ("create", "prompt", "request", "stream", "delete")]
    conversation = new_conversation(api, options_of(asked))
    answers: list[str] = []
    while not conversation.is_over:
        if conversation.awaits_prompt and prompts:
            conversation.handle(Prompt(prompts.pop(0)), NOW)
        elif conversation.awaits_prompt:
            conversation.handle(Close(), NOW)
        intent = conversation.next_intent(NOW)
        if isinstance(intent, CloseStream):
            conversation.handle(StreamEnded(), NOW)
            continue
        assert isinstance(intent, Exchange)
        said = left.pop(0)
        assert STEPS[type(intent).__name__] == said.step
        assert (intent.request.method, intent.request.url) == (said.method, f"http://oa.example.org{said.target}")
        assert json.loads(intent.request.body or "null") == json.loads(said.sent or "null")
        if isinstance(intent, OpenStream):
            conversation.handle(StreamOpened(), NOW)
            events = feed(conversation, said.chunks)
            answers += [event.text for event in events if isinstance(event, ev.Answered)]
        else:
            hand_in(conversation, said)
    assert conversation.phase is Phase.DELETED
    assert conversation.next_intent(NOW) is None
    assert left == []
    assert len(answers) == turns
    assert all(answers)


@pytest.mark.clause("OA-3.6")
@pytest.mark.parametrize("read", recorded("chat", status=200), ids=str)
def test_a_recorded_chat_is_opened_at_a_complete_answer_of_its_shown_branch(read: Recorded) -> None:
    conversation = Conversation(BINDINGS[read.api], CREDENTIALS[read.api], chat_id=read.json["id"])
    next_exchange(conversation, FetchChat)
    assert hand_in(conversation, read) == []
    messages = {message["id"]: message for message in read.json["messages"]}
    complete = [one for one in messages.values() if one["state"] == "complete"]
    assert conversation.phase is (Phase.ANSWERED if complete else Phase.CHAT_CREATED)
    assert (conversation.answer_id is None) == (not complete)
    assert conversation.answer_id in {None, *(one["id"] for one in complete)}
    assert conversation.prompt_id is None or messages[conversation.prompt_id]["role"] == "prompter"
    tail_id = read.json["active_thread_tail_message_id"]
    assert tail_id not in messages or conversation.answer_id == tail_id
