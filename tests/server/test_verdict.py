"""The verdict: a small bad client for each finding, and the records that a rule is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from oa_protocol import sync
from oa_protocol.server import Answer, End, ExchangeRecord, Fault, Hold, Quirks, Reply, Server, StreamFault, judge
from oa_protocol.server import Close as Cut
from oa_protocol.server.exchanges import hash_of, seconds_to_wait
from oa_protocol.server.http import _witness

from .conftest import Connect
from .helpers import Peer, ask, new_chat, prompted

# ---- the bad clients: each makes one mistake, and otherwise does what a client has to do


def answered(peer: Peer) -> tuple[str, str]:
    """A chat in which an answer was requested: their ids."""
    chat, prompt = prompted(peer)
    return chat, ask(peer, chat, prompt)


def read(peer: Peer, chat: str, message: str) -> str:
    with peer.events(chat, message) as stream:
        return stream.read().decode()


def prompts_twice(peer: Peer, server: Server) -> None:
    server.script(Fault("prompt", after=Reply(500)))
    chat = new_chat(peer)
    for _ in range(2):
        peer.prompt(chat, parent_id=None, content="Hello")
    peer.delete(chat)


def deletes_twice(peer: Peer, server: Server) -> None:
    server.script(Fault("delete", before=Reply(500)))
    chat = new_chat(peer)
    peer.delete(chat)
    peer.delete(chat)


def reads_twice(peer: Peer, server: Server) -> None:
    server.script(StreamFault(after_events=1))
    chat, message = answered(peer)
    read(peer, chat, message)
    read(peer, chat, message)
    peer.message(chat, message)
    peer.delete(chat)


def does_not_wait(peer: Peer, server: Server) -> None:
    server.script(Fault("prompt", before=Reply(503, headers=(("retry-after", "3600"),))))
    chat = new_chat(peer)
    for _ in range(2):
        peer.prompt(chat, parent_id=None, content="Hello")
    peer.delete(chat)


def hammers(peer: Peer, server: Server) -> None:
    server.script(Fault("create", before=Reply(503)))
    while peer.create().status_code != 200:
        pass
    peer.delete(server.chats[0].id)


def takes_a_part(peer: Peer, server: Server) -> str:
    server.script(Answer(pieces=("One ", "two ", "three.")), StreamFault(after_events=2, then=End()))
    chat, message = answered(peer)
    read(peer, chat, message)
    peer.message(chat, message)
    peer.delete(chat)
    return "One two "


def does_not_drain(peer: Peer, server: Server) -> None:
    hold = Hold()
    server.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    chat, message = answered(peer)
    with peer.events(chat, message):
        pass
    peer.delete(chat)
    hold.release()


def goes_on(peer: Peer, server: Server) -> None:
    chat, message = answered(peer)
    read(peer, chat, message)
    peer.delete(chat)
    peer.prompt(chat, parent_id=None, content="And again?")


def forgets(peer: Peer, server: Server) -> None:
    peer.create()


BAD: dict[Callable[[Peer, Server], Any], tuple[str, str, list[str]]] = {
    prompts_twice: ("sent twice", "OA-6.1", ["prompt", "prompt"]),
    deletes_twice: ("sent twice", "OA-7.4", ["delete", "delete"]),
    reads_twice: ("stream opened twice", "OA-6.5", ["events", "events"]),
    does_not_wait: ("Retry-After ignored", "OA-6.3", ["prompt", "prompt"]),
    hammers: ("no back-off", "OA-6.3", ["create", "create"]),
    takes_a_part: ("truncated answer", "OA-5.7", ["events"]),
    does_not_drain: ("deleted while running", "OA-7.1", ["delete"]),
    goes_on: ("used after deletion", "OA-7.7", ["delete", "prompt"]),
    forgets: ("chat left", "OA-7.2", []),
}


class Clock:
    """It stands still, except that a client seems to think for as long as ``pause`` before each request."""

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.time = 0.0

    def __call__(self) -> float:
        self.time += self.pause
        return self.time


@pytest.mark.clause("OA-6.7")
def test_a_message_whose_request_was_refused_need_not_be_waited_for(connect: Connect) -> None:
    with Server(quirks=Quirks(queue_limit=0)) as server:
        peer = connect(server)
        chat, prompt = prompted(peer)
        assert peer.request(chat, parent_id=prompt, model_config_name="_lorem").status_code >= 500
        assert server.chats[0].messages[-1].state == "pending"
        peer.delete(chat)
        assert server.verdict() == ()


@pytest.mark.parametrize("client", BAD, ids=lambda client: client.__name__)
def test_a_bad_client_is_judged_right(
    client: Callable[[Peer, Server], Any], peer: Peer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_witness, "monotonic", Clock(0.001 if client is hammers else 1.0))
    answer = client(peer, server)
    (finding,) = server.verdict(answers=[answer] if answer else ())
    kind, clause, steps = BAD[client]
    assert (finding.kind, finding.clause, [each.step for each in finding.requests]) == (kind, clause, steps)
    assert finding.sentence in str(finding)
    assert all(each.target in str(finding) for each in finding.requests)


@pytest.mark.parametrize("step", ["create", "prompt", "request", "events", "delete"])
def test_the_shipped_client_is_clean_with_its_usual_pauses(step: Any, server: Server) -> None:
    server.script(Fault(step, before=Cut() if step == "prompt" else Reply(503, headers=(("retry-after", "1"),))))
    with sync.Client(server.url, cookies=server.cookies) as client, client.chat() as chat:
        answer = chat.ask("Hello")
    assert server.verdict(answers=[answer]) == ()


# ---- the rules, with records that are written by hand


def sent(began: float, step: Any = "prompt", status: int = 200, *, ended: float | None = None, **facts: Any) -> Any:
    """Return the record of a request whose reply came at once, unless ``ended`` says when."""
    facts = {"chat_id": "c", "end": "whole", "content": (None, 1)} | facts
    at = began if ended is None else ended
    return ExchangeRecord("inference", step, "POST", f"/{step}", began, status=status, ended=at, **facts)


def kinds(*exchanges: ExchangeRecord, **facts: Any) -> list[str]:
    return [finding.kind for finding in judge(exchanges, **facts)]


def test_a_write_may_be_sent_again_after_a_look() -> None:
    assert kinds(sent(0, status=500), sent(1, "chat"), sent(2)) == []


def test_a_look_that_failed_is_none() -> None:
    assert kinds(sent(0, status=500), sent(1, "chat", 500), sent(2)) == ["sent twice"]


def test_a_look_at_the_chat_is_enough_before_another_delete() -> None:
    assert kinds(sent(0, "delete", 500), sent(1, "chat", 500), sent(2, "delete", confirms_gone=True)) == []


def test_another_prompt_is_not_the_same() -> None:
    assert kinds(sent(0, status=500), sent(1, content=(None, 2))) == []


def test_a_stream_that_was_refused_may_be_opened_again() -> None:
    assert kinds(sent(0, "events", 503), sent(1, "events")) == []


@pytest.mark.parametrize(("pause", "found"), [(0.05, ["no back-off"]), (0.2, [])])
def test_a_failed_step_needs_a_pause(pause: float, found: list[str]) -> None:
    assert kinds(sent(0, status=429), sent(pause)) == found


@pytest.mark.parametrize(("growth", "found"), [(1.0, ["no back-off"]), (2.0, [])])
def test_the_pauses_between_many_tries_have_to_grow(growth: float, found: list[str]) -> None:
    times = [0.0]
    for number in range(4):
        times.append(times[-1] + 0.5 * growth**number)
    assert kinds(*(sent(time, status=503) for time in times)) == found


def test_a_client_that_left_on_purpose_may_come_back_at_once() -> None:
    assert kinds(sent(0, "message", 0, end="left"), sent(0.01, "message")) == []


@pytest.mark.parametrize(("times", "found"), [((0, 1), ["Retry-After ignored"]), ((0, 1, 6), [])])
def test_another_conversation_may_create_its_chat_meanwhile(times: tuple[float, ...], found: list[str]) -> None:
    first, *later = times
    creates = [sent(time, "create", chat_id=None) for time in later]
    assert kinds(sent(first, "create", 503, chat_id=None, retry_after=5.0), *creates) == found


def test_a_delete_after_asking_for_the_answer_is_no_mistake() -> None:
    assert kinds(sent(0, "events"), sent(1, "message"), sent(9, "delete", ran=True, confirms_gone=True)) == []


def test_a_look_after_the_deletion_is_no_mistake() -> None:
    assert kinds(sent(0, "delete", confirms_gone=True), sent(1, "chat", 404)) == []


def test_an_answer_that_was_polled_is_complete() -> None:
    assert kinds(sent(0, "events"), sent(1, "message", answers=(hash_of("One two."),)), answers=["One two. "]) == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "5"}, 5.0),
        ({"retry-after": "Sat, 28 Nov 2026 22:00:09 GMT", "date": "Sat, 28 Nov 2026 22:00:00 GMT"}, 9.0),
        ({"retry-after": "Sat, 28 Nov 2026 22:00:09 -0000", "date": "Sat, 28 Nov 2026 22:00:00 GMT"}, 9.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": f"Sat, 28 Nov {10**20} 22:00:09 GMT", "date": "Sat, 28 Nov 2026 22:00:00 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_both_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_to_wait(headers) == seconds
