"""Each example that drives the engine holds whole conversations, over both APIs, whatever the server does."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Event as ThreadEvent

import pytest

from oa_protocol import AnswerFailed, Cleanup, Conversation, Credentials, MaybeSent, NotSent, Timeouts, Website
from oa_protocol.engine.events import Answered, Event, Token
from oa_protocol.server import Answer, Close, Fault, Hold, StreamFault, WorkerError
from tests.driver.peers import peer, read_head
from tests.examples.running import ENGINE, Example, Site

pytestmark = pytest.mark.clause("OA-7.2")

each_example = pytest.mark.parametrize("example", ENGINE, ids=repr)

BRIEF = Cleanup(timeout=0.5)


def answers(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Answered)]


@each_example
def test_a_conversation_of_two_turns(site: Site, example: Example) -> None:
    site.script(Answer(pieces=("One ", "two.")), Answer(pieces=("Three.",)))
    events: list[Event] = []
    example.converse(site.conversation(), ["Count", "And on"], events.append)
    assert answers(events) == ["One two.", "Three."]
    assert "".join(event.text for event in events if isinstance(event, Token)) == "One two.Three."
    assert site.chats == ()


@pytest.mark.clause("OA-6.5")
@each_example
def test_a_stream_that_breaks(site: Site, example: Example) -> None:
    site.script(Answer(pieces=("One ", "two.")), StreamFault(after_events=1, then=Close()))
    events: list[Event] = []
    example.converse(site.conversation(), ["Count"], events.append)
    assert answers(events) == ["One two."]


@pytest.mark.clause("OA-6.5")
@each_example
def test_a_stream_that_breaks_before_its_first_byte_is_not_opened_again(site: Site, example: Example) -> None:
    site.script(Answer(pieces=("One ", "two.")), StreamFault(then=Close()))
    events: list[Event] = []
    example.converse(site.conversation(), ["Count"], events.append)
    assert answers(events) == ["One two."]
    assert site.steps.count("events") == 1


@pytest.mark.clause("OA-6.6")
@each_example
def test_a_stream_that_falls_silent(site: Site, example: Example) -> None:
    silence = Hold()
    site.script(Answer(pieces=("One ", "two.")), StreamFault(after_events=1, then=silence))
    events: list[Event] = []
    example.converse(site.conversation(timeouts=Timeouts(idle=1.0)), ["Count"], events.append)
    assert answers(events) == ["One two."]
    silence.release()


@pytest.mark.clause("OA-6.1")
@each_example
def test_replies_that_are_lost(site: Site, example: Example) -> None:
    site.script(Fault("prompt", after=Close()), Fault("request", after=Close()), Fault("delete", after=Close()))
    events: list[Event] = []
    example.converse(site.conversation(), ["Count"], events.append)
    assert len(answers(events)) == 1
    assert site.steps.count("prompt") == 1
    assert site.steps.count("request") == 1


@each_example
def test_requests_that_are_lost_are_sent_again_only_by_the_engine(site: Site, example: Example) -> None:
    site.script(Fault("prompt", before=Close()), Fault("request", before=Close()), Fault("delete", before=Close()))
    events: list[Event] = []
    example.converse(site.conversation(), ["Count"], events.append)
    assert len(answers(events)) == 1
    assert [site.steps.count(step) for step in ("create", "prompt", "request", "delete")] == [1, 2, 2, 2]


@each_example
def test_a_create_that_is_lost_is_named(site: Site, example: Example) -> None:
    site.script(Fault("create", before=Close()))
    conversation = site.conversation()
    example.converse(conversation, ["Count"], print)
    assert [leaked.chat_id for leaked in conversation.leaked] == [None]
    assert site.steps.count("create") == 2


@each_example
def test_an_answer_that_fails(site: Site, example: Example) -> None:
    site.script(Answer(pieces=("One ",), after=1, then=WorkerError("out of memory")))
    with pytest.raises(AnswerFailed, match="out of memory"):
        example.converse(site.conversation(), ["Count"], print)


@each_example
def test_a_long_prompt_and_a_long_answer(site: Site, example: Example) -> None:
    long = "0123456789 äöü" * 30_000
    site.script(Answer(pieces=(long,)))
    events: list[Event] = []
    example.converse(site.conversation(), [long], events.append)
    assert answers(events) == [long.strip()]


# ---- without a proper server


@each_example
def test_without_a_server_nothing_has_been_sent(example: Example) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    conversation = elsewhere(port)
    with pytest.raises(NotSent):
        example.converse(conversation, ["Count"], print)
    assert conversation.leaked == ()


@each_example
def test_a_peer_that_trickles_bytes_cannot_move_the_deadline(example: Example) -> None:
    stop = ThreadEvent()

    def trickle(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nx-padding: ")
        with suppress(OSError):
            while not stop.wait(0.02):
                connection.sendall(b".")

    conversation: Conversation
    with peer(trickle) as port:
        conversation = elsewhere(port, timeouts=Timeouts(reply=0.5))
        with pytest.raises(MaybeSent):
            example.converse(conversation, ["Count"], print)
        stop.set()
    assert conversation.is_over
    assert [leaked.chat_id for leaked in conversation.leaked] == [None]


def elsewhere(port: int, timeouts: Timeouts | None = None) -> Conversation:
    website = Website(f"http://127.0.0.1:{port}")
    return Conversation(website, Credentials({"session": "a"}), retries=0, timeouts=timeouts, cleanup=BRIEF)
