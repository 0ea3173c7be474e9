"""The JSON in the protocol's text is what the client sends, and what it understands."""

from __future__ import annotations

import json
import re

import pytest

from oa_protocol import Conversation, Credentials, Website
from oa_protocol.engine.events import Answered, Deleted, Event, Token
from oa_protocol.engine.inputs import Close, Prompt, ReplyReceived, StreamData, StreamEnded, StreamOpened
from oa_protocol.engine.intents import CloseStream, Exchange, HttpRequest, OpenStream
from tests.docs.readme import ROOT

TEXT = (ROOT / "specs" / "protocol.md").read_text(encoding="utf-8")
STEPS, STREAM = re.findall(r"^```text\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
EXCHANGES = [re.fullmatch(r"> (\S+) (\S+)\n(.*?)< 200(.*)", step.rstrip(), re.DOTALL) for step in STEPS.split("\n\n")]


def examples() -> dict[tuple[str, str], tuple[str, str]]:
    """Return for each method and target the JSON that is sent, and the body of the reply."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for match in EXCHANGES:
        assert match
        method, target, sent, reply = match.groups()
        found[method, target] = sent, "" if reply.startswith(",") else reply
    return found


def as_json(text: str | bytes) -> object:
    return json.loads(text) if text.strip() else None


@pytest.mark.clause("OA-1.2")
def test_the_examples_are_a_conversation() -> None:
    conversation = Conversation(Website("http://oa.test"), Credentials(token="secret"))
    conversation.handle(Prompt("Hello"), 0.0)
    told: list[Event] = []
    while not conversation.is_over:
        intent = conversation.next_intent(0.0)
        if intent is None and conversation.has_stream:
            told += conversation.handle(StreamData(STREAM.replace("\n", "\r\n").encode()), 0.0)
        elif isinstance(intent, CloseStream):
            conversation.handle(StreamEnded(), 0.0)
        elif intent is None:
            conversation.handle(Close(), 0.0)
        else:
            assert isinstance(intent, Exchange)
            sent, reply = examples()[intent.request.method, intent.request.target]
            assert as_json(intent.request.body) == as_json(sent)
            received = ReplyReceived(200, [], reply.encode())
            told += conversation.handle(StreamOpened() if isinstance(intent, OpenStream) else received, 0.0)
    assert [event.text for event in told if isinstance(event, Token)] == ["Hello ", "you"]
    assert [event.text for event in told if isinstance(event, Answered)] == ["Hello you"]
    assert isinstance(told[-1], Deleted)


@pytest.mark.clause("OA-1.2")
def test_the_examples_of_reads_can_be_read() -> None:
    website, credentials = Website("http://oa.test"), Credentials(token="secret")

    def body(request: HttpRequest) -> bytes:
        return examples()[request.method, request.target][1].encode()

    chat_id = str(json.loads(examples()["POST", "/api/chat"][1])["id"])
    chat = website.read_chat(body(website.fetch_chat(credentials, chat_id)))
    prompt, answer = chat.messages
    assert answer.parent_id == prompt.id
    assert website.read_message(body(website.fetch_message(credentials, chat_id, answer.id)), answer.id) == answer
    assert chat_id in str(website.read_chat_list(body(website.list_chats(credentials))))
