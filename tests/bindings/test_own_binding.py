"""A binding whose ids are no UUIDs: the engine takes the binding's word for what an id is."""

from __future__ import annotations

import pickle

import pytest

from oa_protocol import Conversation, Credentials, LocalProtocolError, Phase, RemoteProtocolError
from oa_protocol.bindings.base import page_query
from oa_protocol.bindings.json import ChatUpdate
from oa_protocol.engine import events as ev
from oa_protocol.engine.inputs import Close, Input, Prompt, ReplyReceived, StreamData, StreamEnded, StreamOpened
from oa_protocol.engine.intents import CloseStream, Exchange
from tests.examples.smallest_binding import Talks

API = Talks("https://talks.example.org")
MADE = b'{"id":"00000001"}'
PROMPT = b'{"id":"00000002"}'
ANSWER = b'{"id":"00000003"}'
WHOLE = b'{"id":"00000003","by":"bot","after":"00000002","text":"Hello to you"}'


def conversation() -> Conversation:
    made = Conversation(API, Credentials(token="secret"))
    made.handle(Prompt("Hello"), 0.0)
    return made


def play(talk: Conversation, *script: tuple[str, Input]) -> list[ev.Event]:
    """Take each intent, which must be this request, and hand in what follows."""
    events: list[ev.Event] = []
    for wanted, happened in script:
        intent = talk.next_intent(0.0)
        got = f"{intent.request.method} {intent.request.target}" if isinstance(intent, Exchange) else ""
        assert got == wanted
        assert isinstance(intent, CloseStream) == isinstance(happened, StreamEnded)
        events += talk.handle(happened, 0.0)
    return events


TO_THE_STREAM = (
    ("POST /talks", ReplyReceived(201, (), MADE)),
    ("POST /talks/00000001/lines", ReplyReceived(201, (), PROMPT)),
    ("POST /talks/00000001/lines", ReplyReceived(201, (), ANSWER)),
    ("GET /talks/00000001/lines/00000003/pieces", StreamOpened()),
)


@pytest.mark.clause("OA-2.6")
def test_ids_that_are_no_uuids_are_sent_and_read() -> None:
    talk = conversation()
    stream = b'data: {"piece":"Hello "}\n\ndata: {"piece":"to you"}\n\ndata: {"whole":%b}\n\n' % WHOLE
    events = play(talk, *TO_THE_STREAM, ("", StreamData(stream)), ("", StreamEnded()))
    assert [type(event) for event in events] == [
        ev.Created,
        ev.Prompted,
        ev.Requested,
        ev.Token,
        ev.Token,
        ev.Answered,
    ]
    talk.handle(Close(), 0.0)
    assert play(talk, ("DELETE /talks/00000001", ReplyReceived(204))) == [ev.Deleted("00000001")]
    assert talk.phase is Phase.DELETED


@pytest.mark.clause("OA-6.5")
def test_a_broken_stream_is_polled() -> None:
    talk = pickle.loads(pickle.dumps(conversation()))
    play(talk, *TO_THE_STREAM)
    talk.handle(StreamEnded(), 0.0)
    polled = ("GET /talks/00000001/lines/00000003", ReplyReceived(200, (), WHOLE))
    assert isinstance(play(talk, polled)[-1], ev.Answered)


@pytest.mark.clause("OA-6.5")
def test_a_binding_learns_which_message_was_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every reply says it: LangGraph Platform, for example, sends the whole thread."""
    read, asked = Talks.read_message, list[str]()

    def read_message(binding: Talks, body: bytes, message_id: str) -> ev.Message:
        asked.append(message_id)
        return read(binding, body, message_id)

    monkeypatch.setattr(Talks, "read_message", read_message)
    talk = conversation()
    play(talk, *TO_THE_STREAM)
    talk.handle(StreamEnded(), 0.0)
    play(talk, ("GET /talks/00000001/lines/00000003", ReplyReceived(200, (), WHOLE)))
    assert asked == ["00000003"]


@pytest.mark.clause("OA-2.6", "OA-6.11")
@pytest.mark.parametrize("body", [b'{"id":"1"}', b'{"id":"06b02a53-f28e-708d-8000-044bde7b4953"}'])
def test_an_id_that_is_none_of_this_api_fails_the_turn(body: bytes) -> None:
    talk = conversation()
    failed, *_ = play(talk, ("POST /talks", ReplyReceived(201, (), body)))
    assert isinstance(failed, ev.Failed)
    assert isinstance(failed.error, RemoteProtocolError)
    assert "not an id of this API" in str(failed.error)


@pytest.mark.clause("OA-2.6")
def test_only_an_id_of_this_api_can_be_opened() -> None:
    talk = Conversation(API, Credentials(token="secret"), chat_id="00000001")
    talk.handle(Close(drain=False), 0.0)
    assert play(talk, ("DELETE /talks/00000001", ReplyReceived(204))) == [ev.Deleted("00000001")]
    with pytest.raises(ValueError, match="not an id of this API"):
        Conversation(API, Credentials(token="secret"), chat_id="06b02a53-f28e-708d-8000-044bde7b4953")


@pytest.mark.parametrize(("after", "query"), [(None, ""), ("a/b c&", "?after=a%2Fb%20c%26")])
def test_a_page_of_the_list_is_asked_for_in_a_query(after: str | None, query: str) -> None:
    assert page_query(after) == query


@pytest.mark.clause("OA-3.7")
def test_without_a_request_for_it_a_chat_cannot_be_changed() -> None:
    with pytest.raises(LocalProtocolError, match=r"^the API 'talks' can't change a chat's title, or what it shows$"):
        API.update_chat(Credentials(), "00000001", ChatUpdate(title="Talk"))
