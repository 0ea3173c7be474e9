"""A binding to another API, LangGraph's: whole conversations, faults, and what is left on the server after each."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from oa_protocol import AnswerFailed, ApiError, AuthenticationError, Client, Conversation, Credentials, Phase
from oa_protocol.bindings.json import ChatSummary, ModelConfig
from oa_protocol.engine import intents
from oa_protocol.engine.events import Answered, Created, Deleted, Event, Failed, Prompted, Requested, Token
from oa_protocol.engine.inputs import Close, Input, Interrupted, Prompt
from oa_protocol.engine.intents import Exchange
from tests.examples import langgraph_talk
from tests.examples.langgraph_binding import LangGraph
from tests.examples.langgraph_recording import RECORDING, Value, collect
from tests.examples.langgraph_server import Answer, LangGraphServer

KEY = Credentials(token="lsv2-key")
RECORDED: dict[str, Any] = json.loads(RECORDING.read_text("utf-8"))


class Talk(langgraph_talk.Talk):
    """A talk in a time of its own, so that pauses take none. Ctrl-C may come right after an exchange of one kind."""

    def __init__(self, conversation: Conversation, http: httpx.Client) -> None:
        super().__init__(conversation, http, clock=lambda: self.time, sleep=self._pass)
        self.time = 0.0
        self.interrupted_at: type[Exchange] | None = None

    def _pass(self, seconds: float) -> None:
        self.time += seconds

    def exchange(self, exchange: Exchange) -> Input:
        happened = super().exchange(exchange)
        if type(exchange) is self.interrupted_at:
            raise KeyboardInterrupt
        return happened

    def ask(self, prompt: str) -> Event:
        """Ask, and return what came of it."""
        self.hand_in(Prompt(prompt))
        self.go_on()
        return self.events[-1]

    def close(self) -> Phase:
        """Close, and return how it ended."""
        self.hand_in(Close())
        self.go_on()
        return self.conversation.phase


@pytest.fixture
def server() -> Iterator[LangGraphServer]:
    with LangGraphServer() as server:
        yield server


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10, limits=httpx.Limits(max_keepalive_connections=0)) as http:
        yield http


@pytest.fixture
def talk(server: LangGraphServer, http: httpx.Client) -> Talk:
    return Talk(Conversation(LangGraph(server.url, "echo"), KEY), http)


def said(server: LangGraphServer) -> list[tuple[str, str]]:
    """Return what is in the only thread."""
    (thread,) = server.threads.values()
    return [(message["type"], message["content"]) for message in thread.messages or ()]


def failure(talk: Talk) -> Exception:
    (failed,) = [event for event in talk.events if isinstance(event, Failed)]
    return failed.error


@pytest.mark.clause("OA-7.2")
def test_a_whole_conversation(server: LangGraphServer, talk: Talk) -> None:
    answered = talk.ask("Hello")
    assert isinstance(answered, Answered)
    assert answered.text == "You said: Hello"
    assert said(server) == [("human", "Hello"), ("ai", "You said: Hello")]
    assert talk.close() is Phase.DELETED
    kinds = [Created, Prompted, Requested, Token, Token, Answered, Deleted]
    assert [type(event) for event in talk.events] == kinds
    assert server.steps == ["create", "prompt", "request", "stream", "thread", "delete"]
    assert set(server.keys) == {"lsv2-key"}
    assert server.threads == {}


@pytest.mark.clause("OA-3.3")
def test_two_turns(server: LangGraphServer, talk: Talk) -> None:
    talk.ask("Hello")
    answered = talk.ask("Hello")
    assert isinstance(answered, Answered)
    assert [kind for kind, _ in said(server)] == ["human", "ai", "human", "ai"]
    assert talk.close() is Phase.DELETED
    assert server.threads == {}


@pytest.mark.clause("OA-6.5")
def test_a_stream_that_is_dropped_is_polled_to_the_end(server: LangGraphServer, talk: Talk) -> None:
    server.answers(Answer(pieces=("One ", "two."), cut=1, reads=3))
    answered = talk.ask("Count")
    assert isinstance(answered, Answered)
    assert answered.text == "One two."
    assert [event.text for event in talk.events if isinstance(event, Token)] == ["One ", "two."]
    assert server.steps.count("thread") == 4
    assert talk.close() is Phase.DELETED
    assert server.threads == {}


@pytest.mark.clause("OA-5.8")
def test_a_run_that_fails_says_so_in_the_stream(server: LangGraphServer, talk: Talk) -> None:
    server.answers(Answer(pieces=("One ",), error="the model broke"))
    talk.ask("Count")
    error = failure(talk)
    assert isinstance(error, AnswerFailed)
    assert "the model broke" in str(error)
    assert error.text == "One "
    assert talk.close() is Phase.DELETED
    assert server.threads == {}


@pytest.mark.clause("OA-5.8")
@pytest.mark.parametrize(
    ("answer", "state"),
    [(Answer(error="the model broke", cut=0), "aborted_by_worker"), (Answer(cancelled=True), "cancelled")],
)
def test_a_run_that_fails_without_a_word_is_found_out_by_polling(
    server: LangGraphServer, talk: Talk, answer: Answer, state: str
) -> None:
    server.answers(answer)
    talk.ask("Count")
    error = failure(talk)
    assert isinstance(error, AnswerFailed)
    assert state in str(error)
    assert talk.close() is Phase.DELETED
    assert server.threads == {}


@pytest.mark.clause("OA-6.11")
def test_a_thread_whose_creation_got_no_reply_is_named(server: LangGraphServer, talk: Talk) -> None:
    server.lose("create")
    assert isinstance(talk.ask("Hello"), Answered)
    assert talk.close() is Phase.LEAKED
    (leaked,) = talk.conversation.leaked
    assert leaked.chat_id is None
    (left,) = server.threads.values()
    assert left.messages is None


@pytest.mark.clause("OA-6.10")
@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("turn", [1, 2])
def test_a_prompt_that_got_no_reply_is_there_once(
    server: LangGraphServer, talk: Talk, arrives: bool, turn: int
) -> None:
    for _ in range(turn - 1):
        talk.ask("Hello")
    server.lose("prompt", after=arrives)
    assert isinstance(talk.ask("Hello"), Answered)
    assert said(server) == [("human", "Hello"), ("ai", "You said: Hello")] * turn
    assert talk.close() is Phase.DELETED
    assert server.threads == {}


@pytest.mark.clause("OA-6.7")
@pytest.mark.parametrize("arrives", [True, False])
def test_a_run_that_got_no_reply_is_found_or_asked_for_again(
    server: LangGraphServer, talk: Talk, arrives: bool
) -> None:
    server.answers(Answer(reads=1))
    server.lose("request", after=arrives)
    assert isinstance(talk.ask("Hello"), Answered)
    (thread,) = server.threads.values()
    assert len(thread.runs) == 1
    assert server.steps.count("request") == (1 if arrives else 2)
    assert talk.close() is Phase.DELETED
    assert server.threads == {}


@pytest.mark.clause("OA-7.1")
@pytest.mark.parametrize("at", [intents.SendPrompt, intents.RequestAssistant, intents.OpenStream, intents.FetchMessage])
def test_an_interruption_and_close_leave_no_thread(server: LangGraphServer, talk: Talk, at: type[Exchange]) -> None:
    server.answers(Answer(cut=1, reads=3))
    talk.interrupted_at = at
    with pytest.raises(KeyboardInterrupt):
        talk.ask("Hello")
    talk.interrupted_at = None
    talk.hand_in(Interrupted())
    assert talk.close() is Phase.DELETED
    assert server.threads == {}


@pytest.mark.clause("OA-4.3")
def test_an_interruption_while_the_thread_is_made_and_close_leave_no_thread(
    server: LangGraphServer, talk: Talk
) -> None:
    talk.hand_in(Prompt("Hello"))
    reply = talk.carry_out_next()
    assert reply is not None
    talk.hand_in(Interrupted())
    talk.hand_in(Close())
    talk.hand_in(reply)
    talk.go_on()
    assert talk.conversation.phase is Phase.DELETED
    assert server.threads == {}


@pytest.mark.clause("OA-7.1")
def test_a_close_in_the_middle_of_an_answer_waits_for_the_run(server: LangGraphServer, talk: Talk) -> None:
    server.answers(Answer(pieces=("One ", "two."), cut=1, reads=2))
    talk.hand_in(Prompt("Count"))
    talk.go_on(until=Token)
    assert talk.close() is Phase.DELETED
    assert server.steps[-4:] == ["thread", "thread", "thread", "delete"]
    assert server.threads == {}


@pytest.mark.clause("OA-7.3", "OA-7.4")
@pytest.mark.parametrize("arrives", [True, False])
def test_a_delete_that_got_no_reply_is_looked_at(server: LangGraphServer, talk: Talk, arrives: bool) -> None:
    talk.ask("Hello")
    server.lose("delete", after=arrives)
    assert talk.close() is Phase.DELETED
    assert server.steps[5:] == (["delete", "runs"] if arrives else ["delete", "runs", "delete"])
    assert server.threads == {}


@pytest.mark.clause("OA-7.3", "OA-7.4")
@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b"Internal Server Error"), (404, b'{"detail":"Not Found"}'), (404, b"<html>"), (200, b"{}")],
)
def test_a_reply_to_delete_that_does_not_name_the_thread_is_looked_at(
    server: LangGraphServer, talk: Talk, status: int, body: bytes
) -> None:
    talk.ask("Hello")
    server.refuse("delete", status, body)
    assert talk.close() is Phase.DELETED
    assert server.steps[5:] == ["delete", "runs", "delete"]
    assert server.threads == {}


@pytest.mark.clause("OA-7.3")
def test_a_thread_that_is_gone_already_is_confirmed_gone(server: LangGraphServer, talk: Talk) -> None:
    talk.ask("Hello")
    server.threads.clear()
    assert talk.close() is Phase.DELETED
    assert server.steps[5:] == ["delete"]


@pytest.mark.clause("OA-8.1")
@pytest.mark.parametrize("step", ["create", "prompt", "request"])
def test_an_error_is_raised_in_the_servers_words(server: LangGraphServer, talk: Talk, step: str) -> None:
    server.refuse(step, 422, b'{"detail":"Invalid JSON in request body"}')
    talk.ask("Hello")
    error = failure(talk)
    assert isinstance(error, ApiError)
    assert (error.status, error.message) == (422, "Invalid JSON in request body")
    talk.close()
    assert server.threads == {}


@pytest.mark.clause("OA-8.1")
def test_a_graph_that_the_server_does_not_have_is_named(server: LangGraphServer, http: httpx.Client) -> None:
    talk = Talk(Conversation(LangGraph(server.url, "nothing"), KEY), http)
    talk.ask("Hello")
    error = failure(talk)
    assert isinstance(error, ApiError)
    assert "Graph 'nothing' not found" in error.message
    assert talk.close() is Phase.DELETED
    assert server.threads == {}


@pytest.mark.clause("OA-6.4")
def test_a_key_that_is_rejected_is_an_authentication_error(server: LangGraphServer, talk: Talk) -> None:
    server.refuse("create", 403, b'{"detail":"Invalid API key"}')
    talk.ask("Hello")
    error = failure(talk)
    assert isinstance(error, AuthenticationError)
    assert "Invalid API key" in str(error)
    assert server.threads == {}


def test_threads_and_graphs_are_listed(server: LangGraphServer, talk: Talk, http: httpx.Client) -> None:
    talk.ask("Hello")
    api = LangGraph(server.url, "echo")
    (thread,) = server.threads.values()
    listed, models = [
        http.request(wanted.method, wanted.url, headers=wanted.headers, content=wanted.body).content
        for wanted in (api.list_chats(KEY), api.list_models(KEY))
    ]
    assert api.read_chat_list(listed).chats == [ChatSummary(id=thread.thread_id, created_at=thread.created_at)]
    assert api.read_models(models) == [ModelConfig(name="echo")]


@pytest.mark.clause("OA-7.2")
def test_the_client_speaks_it(server: LangGraphServer) -> None:
    async def main() -> None:
        api = LangGraph(server.url, assistant_id="echo")
        async with Client(api=api, token="lsv2-key") as client, client.chat() as chat:
            assert await chat.ask("Hello") == "You said: Hello"
            assert await chat.ask("And again") == "You said: And again"
            assert [model.name for model in await client.models()] == ["echo"]

    asyncio.run(main())
    assert server.threads == {}


@pytest.mark.clause("OA-4.3")
def test_the_client_deletes_the_thread_after_an_exception(server: LangGraphServer) -> None:
    async def main() -> None:
        api = LangGraph(server.url, assistant_id="echo")
        async with Client(api=api, token="lsv2-key") as client, client.chat() as chat:
            async for _ in chat.stream("Hello"):
                raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(main())
    assert server.steps[-1] == "delete"
    assert server.threads == {}


# ---- the small server and the binding, beside what ``langgraph dev`` said

PIECES = ("You", " ", "said:", " ", "Hello")


def normal(value: Value) -> Value:
    """Return a reply with its ids and times replaced, and its events parsed."""
    if isinstance(value, dict):
        return {name: normal(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [normal(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if event := re.fullmatch(r"event: (\w+)\r\ndata: (.*?)(\r\nid: .*)?", value):
        data: Value = json.loads(event[2])
        return {event[1]: normal(data)}
    value = re.sub("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "ID", value)
    return "TIME" if re.match(r"\d{4}-\d\d-\d\dT", value) else value


def surplus(ours: Value, theirs: Value, path: str = "") -> Iterator[str]:
    """Yield what one reply has and the other doesn't."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            yield from surplus(value, theirs[name], f"{path}.{name}") if name in theirs else [f"{path}.{name}"]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from surplus(one, other, f"{path}[{index}]")
    elif ours != theirs:
        yield f"{path}: {ours!r} instead of {theirs!r}"


def test_the_small_server_says_nothing_that_the_real_one_did_not_say(server: LangGraphServer) -> None:
    server.answers(Answer(pieces=PIECES), Answer(pieces=(), error="the model broke"))
    replies = collect(server.url)
    assert list(replies) == list(RECORDED)
    assert list(surplus(normal(replies), normal(RECORDED))) == []


def test_the_recorded_stream_is_read() -> None:
    api = LangGraph("http://127.0.0.1:2024", "echo")
    decoder = api.stream_decoder(1 << 20)
    stream = "\r\n\r\n".join([*RECORDED["first: stream"]["body"], ""]).encode()
    assert [api.read_event(payload) for payload in decoder.feed(stream)] == [Token(piece) for piece in PIECES]


def test_the_recorded_failure_is_read() -> None:
    api = LangGraph("http://127.0.0.1:2024", "echo")
    thread = json.dumps(RECORDED["failing: thread"]["body"]).encode()
    assert api.read_message(thread, "").state == "aborted_by_worker"
    runs = api.read_chat(json.dumps(RECORDED["failing: runs"]["body"]).encode())
    assert [message.state for message in runs.messages] == ["aborted_by_worker", "complete"]


@pytest.mark.parametrize(
    ("content", "text"),
    [("Hi", "Hi"), ([{"type": "text", "text": "Hi "}, {"type": "image"}, "there"], "Hi there"), ([], "")],
)
def test_content_may_be_in_blocks(content: object, text: str) -> None:
    api = LangGraph("http://127.0.0.1:2024", "echo")
    piece = json.dumps([{"type": "AIMessageChunk", "content": content}, {}]).encode()
    assert api.read_event(b"messages\n" + piece) == Token(text)


def test_what_a_tool_says_is_not_the_answer() -> None:
    api = LangGraph("http://127.0.0.1:2024", "echo")
    assert api.read_event(b'messages\n[{"type": "tool", "content": "4"}, {}]') == Token("")
