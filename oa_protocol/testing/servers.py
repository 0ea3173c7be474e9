"""A test suite for servers of this protocol. Subclass it in a test module, and set the URL of your server.

The suite uses the shipped engine to hold conversations with the server, over a network that loses requests and replies.
It needs pytest and Hypothesis. It creates chats on the server, and deletes them.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import ClassVar, Literal, Self, cast
from urllib.parse import urlsplit

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.website import Website
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import LocalProtocolError, MaybeSent, NotSent, TransportError
from oa_protocol.engine.events import Answered, Deleted, Event, Failed, Prompted, Token
from oa_protocol.engine.inputs import (
    Close,
    CredentialsFound,
    ExchangeFailed,
    Input,
    Interrupted,
    Prompt,
    ReplyReceived,
    StreamData,
    StreamEnded,
    StreamOpened,
    TimePassed,
)
from oa_protocol.engine.intents import CloseStream, CreateChat, Exchange, HttpRequest, LoadCredentials, OpenStream
from oa_protocol.engine.phases import Phase
from oa_protocol.tape import Tape, load_tapes
from oa_protocol.tape.format import Json, new_conversation
from oa_protocol.testing.strategies import prompts
from oa_protocol.testing.vectors.files import folder

__tracebackhide__ = True

Fate = Literal["arrives", "is not sent", "is lost on its way", "is carried out, its reply is lost"]

_FATES: tuple[Fate, ...] = ("arrives", "is not sent", "is lost on its way", "is carried out, its reply is lost")
_BINDINGS: dict[str, Callable[[str], Binding]] = {"website": Website, "inference": InferenceServer}
_SPEED = 10.0
_UNKNOWN = "00000000-0000-7000-8000-000000000000"


class ServerConformance:
    """A test for each duty of a server. docs/testing.md explains the tests.

    Attributes:
        api: the server's API.
        url: the server's URL.
        credentials: the credentials of an account that no other program uses during the tests.
        model: the name of a model that the server offers.
        patience: how many seconds to wait for a reply, or for the next event of a stream.
        examples: how many conversations to hold over a random network.

    >>> server = Server(token_delay=0)
    >>> class TestMine(ServerConformance):
    ...     api = "inference"
    ...     credentials = Credentials(token=server.token)
    >>> with server:
    ...     TestMine.url = server.url
    ...     TestMine().test_an_unknown_chat_is_not_found()

    """

    api: ClassVar[Literal["website", "inference"]]
    url: ClassVar[str]
    credentials: ClassVar[Credentials]
    model: ClassVar[str] = AnswerOptions().model
    patience: ClassVar[float] = 30.0
    examples: ClassVar[int] = 20

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run the test for each vector that a server can take part in."""
        if "vector" in metafunc.fixturenames:
            vectors = list(vectors_for(self.api))
            metafunc.parametrize("vector", vectors, ids=[vector.name for vector in vectors])

    def test_a_vector_s_conversation_is_held(self, vector: Tape) -> None:
        """A conversation of the vectors ends well. It has the vector's prompts, options and network faults."""
        with self._visit(vector.config) as visit:
            # The server's replies may legally differ from the vector's, so that the vector's next input is impossible.
            with suppress(LocalProtocolError):
                for step in vector.steps:
                    visit.follow(step.get("input") or {})
            visit.finish()

    def test_whatever_the_network_loses_no_chat_is_left(self) -> None:
        """No chat is left, with any network and any owner. Hypothesis draws the conversations."""
        run_state_machine_as_test(_machine(self._visit), settings=settings(max_examples=self.examples, deadline=None))

    def test_an_unknown_chat_is_not_found(self) -> None:
        """Reading or deleting an unknown chat is answered with an error."""
        for spell in (self._binding.fetch_chat, self._binding.delete_chat):
            request = spell(self.credentials, _UNKNOWN)
            status, body = self._ask(request)
            assert status >= 400, f"{request.method} {request.target}: {status} {body!r}"

    def test_nobody_is_served_without_credentials(self) -> None:
        """A request without credentials is refused with 401 or 403."""
        for request in (self._binding.create_chat(Credentials()), self._binding.list_chats(Credentials())):
            status, body = self._ask(request)
            assert status in (401, 403), f"{request.method} {request.target}: {status} {body!r}"

    # ---- what the tests share

    @property
    def _binding(self) -> Binding:
        return _BINDINGS[self.api](self.url)

    def _ask(self, request: HttpRequest) -> tuple[int, bytes]:
        return _ask(request, self.patience)

    def _visit(self, config: Json) -> _Visit:
        options: Json = {**(config.get("options") or {}), "model": self.model}
        long = self.patience * _SPEED
        conversation = new_conversation(
            {
                "api": self.api,
                "base_url": self.url,
                "options": options,
                "timeouts": {"reply": long, "idle": long, "poll": 4 * long, "answer": 4 * long},
                "cleanup": {"drain": long, "timeout": 4 * long},
            }
        )
        return _Visit(conversation, self.credentials, self.patience)


# ---- the vectors that a server can take part in

_NETWORK = {"NotSent": "is not sent", "MaybeSent": "is carried out, its reply is lost"}


def vectors_for(api: str) -> Iterator[Tape]:
    """Yield the conformance vectors that a server can take part in, which are those in which only the network fails.

    If several of them differ only in the server's replies, only the first one is yielded.

    >>> any(vector.name == "one turn with the website" for vector in vectors_for("website"))
    True
    """
    seen: set[str] = set()
    for path in sorted(folder().glob("*.jsonl")):
        for case in load_tapes(path):
            inputs = [step["input"] for step in case.steps if "input" in step]
            script = json.dumps([case.config.get("options"), [_part(happened) for happened in inputs]])
            is_usable = case.config.get("api") == api and not case.raises and all(map(_is_usable, inputs))
            if is_usable and script not in seen and not any("raises" in step for step in case.steps):
                seen.add(script)
                yield case


def _part(happened: Json) -> Json:
    """Return the fields of an input that don't depend on the server."""
    return {name: value for name, value in happened.items() if name in ("type", "text", "drain", "failure")}


def _is_usable(happened: Json) -> bool:
    if happened["type"] in ("Abandon", "CredentialsFound", "TimePassed"):
        return happened.get("credentials", True) is not None and happened["type"] == "CredentialsFound"
    return bool(happened.get("status", 200) < 300)


# ---- one conversation


class _Visit:
    """A conversation with a server. Its clock runs faster than real time, so that tests are quick."""

    def __init__(self, conversation: Conversation, credentials: Credentials, patience: float) -> None:
        self.conversation = conversation
        self.events: list[Event] = []
        self._credentials = credentials
        self._patience = patience
        self._began = time.monotonic()
        self._prompt = ""
        self._prompts: dict[str, str] = {}  # from a message's id to its text
        self._made: list[str] = []
        self._stream: tuple[http.client.HTTPConnection, http.client.HTTPResponse] | None = None
        self._opened_at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Delete the chats that are left, for example because a test failed."""
        if self._stream is not None:
            self._stream[0].close()
        for chat_id in self._made:
            self._ask(self.conversation.binding.delete_chat(self._credentials, chat_id))

    @property
    def now(self) -> float:
        return (time.monotonic() - self._began) * _SPEED

    def hand_in(self, happened: Input) -> None:
        events = self.conversation.handle(happened, self.now)
        self.events += events
        if isinstance(happened, Prompt):
            self._prompt = happened.text
        self._prompts |= {event.message_id: self._prompt for event in events if isinstance(event, Prompted)}
        if self._stream is not None and not self.conversation.has_stream:
            self._stream[0].close()
            self._stream = None

    def follow(self, happened: Json) -> None:
        """Do what happened in a step of a vector."""
        match happened.get("type"):
            case "Prompt":
                self.hand_in(Prompt(happened["text"]))
            case "Close":
                self.hand_in(Close(drain=happened.get("drain", True)))
            case "Interrupted":
                self.hand_in(Interrupted())
            case "ExchangeFailed":
                self.go(cast("Fate", _NETWORK[happened["failure"]["type"]]))
            case "StreamEnded" if self.conversation.has_stream:
                self.hand_in(StreamEnded())
            case "ReplyReceived" | "StreamOpened" | "StreamData":
                self.go()
            case _:
                pass

    def go(self, fate: Fate = "arrives") -> bool:
        """Carry out the next exchange with this fate, or the next read of the stream. Return false if there is none."""
        while True:
            intent = self.conversation.next_intent(self.now)
            deadline = self.conversation.deadline
            match intent:
                case Exchange() as exchange:
                    self.hand_in(self._exchange(exchange, fate))
                    return True
                case LoadCredentials(refused=refused):
                    assert not refused, "the credentials were rejected"
                    self.hand_in(CredentialsFound(self._credentials))
                case CloseStream():
                    self.hand_in(StreamEnded())
                case None if self._stream is not None:
                    self.hand_in(self._read(self._stream[1]))
                    return True
                case None:
                    if deadline is None:
                        return False
                    time.sleep(max(0.0, deadline - self.now) / _SPEED)
                    self.hand_in(TimePassed())

    def _exchange(self, exchange: Exchange, fate: Fate) -> Input:
        if fate == "is not sent":
            return ExchangeFailed(NotSent(fate))
        if fate == "is lost on its way":
            return ExchangeFailed(MaybeSent(fate))
        connection, response = _send(exchange.request, self._patience)
        if isinstance(exchange, OpenStream) and response.status == 200 and fate == "arrives":
            self._stream = connection, response
            self._opened_at = len(self.events)
            return StreamOpened()
        with closing(connection):
            is_lost = fate != "arrives"
            body = b"" if is_lost and isinstance(exchange, OpenStream) else response.read()
            if isinstance(exchange, CreateChat) and response.status == 200:
                with suppress(ValueError):  # If there is no id, the engine reports it.
                    self._made.append(self.conversation.binding.read_chat_id(body))
            if is_lost:
                return ExchangeFailed(MaybeSent(fate))
            return ReplyReceived(response.status, response.getheaders(), body)

    def _read(self, response: http.client.HTTPResponse) -> Input:
        try:
            data = response.read1()
        except TimeoutError as error:
            raise AssertionError(f"the stream sends nothing for {self._patience:g} s") from error
        except (OSError, http.client.HTTPException):
            data = b""
        has_begun = any(isinstance(event, Token) for event in self.events[self._opened_at :])
        assert data or not has_begun, "the stream ends in the middle of an answer"
        return StreamData(data) if data else StreamEnded()

    # ---- the end

    def finish(self) -> None:
        """End the conversation without further faults, and check what the server promised."""
        while not (self.conversation.is_over or self.conversation.awaits_prompt) and self.go():
            pass
        self._check_answers()
        if not self.conversation.is_over:
            self.hand_in(Close())
        while self.go():
            pass
        self._check_gone()

    def _check_answers(self) -> None:
        """Check that the chat has all prompts and answers, unchanged."""
        for event in self.events:
            if isinstance(event, Failed) and not isinstance(event.error, TransportError):
                raise AssertionError(f"an answer fails, although only the network had faults: {event.error!r}")
        if self.conversation.phase is not Phase.ANSWERED:
            return
        binding, chat_id = self.conversation.binding, self._made[-1]
        status, body = self._ask(binding.fetch_chat(self._credentials, chat_id))
        assert status == 200, f"a chat cannot be read: {status} {body!r}"
        messages = {message.id: message for message in binding.read_chat(body).messages}
        for message_id, text in self._prompts.items():
            message = messages.get(message_id)
            assert message is not None, f"a prompt is not in its chat: {message_id}"
            assert (message.role, message.content) == ("prompter", text), f"a prompt has changed: {message!r}"
        for event in self.events:
            if isinstance(event, Answered):
                message = messages.get(event.message.id)
                assert message is not None, f"an answer is not in its chat: {event.message.id}"
                assert (message.state, message.content) == ("complete", event.message.content), (
                    f"an answer differs in its chat: {message!r} instead of {event.message!r}"
                )

    def _check_gone(self) -> None:
        """Check that each chat whose deletion was confirmed is gone."""
        binding = self.conversation.binding
        for chat_id in [event.chat_id for event in self.events if isinstance(event, Deleted)]:
            status, body = self._ask(binding.fetch_chat(self._credentials, chat_id))
            assert status != 200, f"a chat that was deleted is still there: {body!r}"
            status, body = self._ask(binding.list_chats(self._credentials))
            assert status == 200, f"the chats cannot be listed: {status} {body!r}"
            assert chat_id not in [chat.id for chat in binding.read_chat_list(body).chats], "a deleted chat is listed"
            self._made.remove(chat_id)

    def _ask(self, request: HttpRequest) -> tuple[int, bytes]:
        return _ask(request, self._patience)


def _send(request: HttpRequest, patience: float) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Send a request over a new connection. Return the connection, which the caller has to close, and the reply."""
    url = urlsplit(request.url)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.netloc, timeout=patience)
    try:
        connection.request(request.method, request.target, request.body or None, dict(request.headers))
        return connection, connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise AssertionError(f"{request.method} {request.target}: the server doesn't reply: {error!r}") from error


def _ask(request: HttpRequest, patience: float) -> tuple[int, bytes]:
    connection, response = _send(request, patience)
    with closing(connection):
        return response.status, response.read()


# ---- the machine


def _machine(visit: Callable[[Json], _Visit]) -> type[RuleBasedStateMachine]:
    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.visit = visit({})

        @precondition(lambda self: self.visit.conversation.awaits_prompt)
        @rule(text=prompts())
        def owner_prompts(self, text: str) -> None:
            self.visit.hand_in(Prompt(text))

        @rule()
        def owner_is_interrupted(self) -> None:
            self.visit.hand_in(Interrupted())

        @rule(fate=st.sampled_from(_FATES))
        def next_exchange(self, fate: Fate) -> None:
            self.visit.go(fate)

        @rule(steps=st.integers(1, 20))
        def all_goes_well(self, steps: int) -> None:
            while steps and self.visit.go():
                steps -= 1

        @precondition(lambda self: self.visit.conversation.has_stream)
        @rule()
        def the_stream_breaks(self) -> None:
            self.visit.hand_in(StreamEnded())

        @precondition(lambda self: bool(self.visit.events))
        @rule()
        def owner_leaves(self) -> None:
            self.visit.hand_in(Close())

        def teardown(self) -> None:
            with self.visit:
                self.visit.finish()

    return Machine
