"""Scripted faults: on which side of a request's effect they are, and what the client then sees."""

import contextlib
import threading
from collections.abc import Callable

import httpx
import pytest

from oa_protocol.server import (
    Answer,
    Close,
    End,
    Fault,
    Freeze,
    Hang,
    Hold,
    Raw,
    Reply,
    Reset,
    Send,
    Server,
    StreamFault,
    WorkerError,
)

from .helpers import (
    Inference,
    Peer,
    Website,
    asked,
    blocks,
    create_and_leave,
    new_chat,
    parse,
    prompted,
    read_stream,
    state,
)

Connect = Callable[..., Peer]
TOKENS = ("a ", "b ", "c ", "d")


def background(work: Callable[[], object]) -> threading.Thread:
    """Runs `work`, which may fail as its server stops, in a thread."""

    def run() -> None:
        with contextlib.suppress(httpx.TransportError):
            work()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("cut", "error"), [(Reset(), httpx.ReadError), (Close(), httpx.RemoteProtocolError)], ids=["reset", "close"]
)
class TestCut:
    def test_before_a_create_makes_no_chat(
        self, server: Server, peer: Peer, cut: Reset | Close, error: type[Exception]
    ) -> None:
        server.script(Fault("create", before=cut))
        with pytest.raises(error):
            peer.create()
        assert not server.chats
        assert peer.create().status_code == 200

    def test_after_a_create_leaves_the_chat(
        self, server: Server, peer: Peer, cut: Reset | Close, error: type[Exception]
    ) -> None:
        server.script(Fault("create", after=cut))
        with pytest.raises(error):
            peer.create()
        assert len(server.chats) == 1

    def test_in_mid_stream_comes_after_the_events(
        self, server: Server, peer: Peer, cut: Reset | Close, error: type[Exception]
    ) -> None:
        server.script(Answer(TOKENS), StreamFault(after_events=2, then=cut))
        seen: list[bytes] = []
        with pytest.raises(error), peer.events(*asked(peer)) as reply:
            seen.extend(blocks(reply))
        assert [event["text"] for event in parse(b"".join(seen))] == ["a ", "b "]


def test_a_reply_can_be_replaced_with_the_request_carried_out_or_not(server: Server, peer: Peer) -> None:
    chat = new_chat(peer)
    busy = Reply(503, b"busy", (("retry-after", "1"),))
    server.script(Fault("delete", before=busy), Fault("delete", after=Reply(500, b"Internal Server Error")))
    reply = peer.delete(chat)
    assert (reply.status_code, reply.text, reply.headers["retry-after"]) == (503, "busy", "1")
    assert len(server.chats) == 1
    reply = peer.delete(chat)
    assert (reply.status_code, reply.text) == (500, "Internal Server Error")
    assert not server.chats


def test_raw_bytes_need_not_be_http(server: Server, peer: Peer) -> None:
    server.script(Fault("models", before=Raw(b"nonsense\r\n\r\n")))
    with pytest.raises(httpx.RemoteProtocolError):
        peer.models()


@pytest.mark.parametrize("fault", [Fault("create", before=Hang()), Fault("create", after=Hang())])
def test_a_hanging_request_ends_when_the_client_leaves(server: Server, peer: Peer, fault: Fault) -> None:
    server.script(fault)
    create_and_leave(server, peer)
    server.wait_until(lambda: server.connections == 0)
    assert len(server.chats) == (0 if fault.before else 1)


def test_a_held_request_is_carried_out_when_released(server: Server, peer: Peer) -> None:
    hold = Hold()
    server.script(Fault("create", before=hold))
    thread = background(peer.create)
    server.wait_for("create")
    assert not server.chats
    hold.release()
    thread.join()
    assert len(server.chats) == 1


def test_a_held_request_is_carried_out_although_its_client_has_left(server: Server, peer: Peer) -> None:
    hold = Hold()
    server.script(Fault("create", before=hold))
    create_and_leave(server, peer)
    server.wait_until(lambda: server.connections == 0)
    hold.release()
    server.wait_until(lambda: len(server.chats) == 1)


def test_a_held_reply_belongs_to_a_request_that_is_carried_out(server: Server, peer: Peer) -> None:
    server.script(Fault("create", after=Hold()))
    thread = background(peer.create)
    server.wait_until(lambda: len(server.chats) == 1)
    server.release()
    thread.join()


def test_a_fault_happens_as_often_as_it_says_after_those_it_skips(server: Server, peer: Peer) -> None:
    server.script(Fault("create", before=Reply(500), skip=1, times=2))
    assert [peer.create().status_code for _ in range(4)] == [200, 500, 500, 200]


def test_faults_are_used_in_the_order_they_were_scripted(server: Server, peer: Peer) -> None:
    server.script(*(Fault("models", before=Reply(status)) for status in (501, 502, 503)))
    assert [peer.models().status_code for _ in range(4)] == [501, 502, 503, 200]


def test_faults_for_other_steps_wait(server: Server, peer: Peer) -> None:
    fault = Fault("delete", before=Reply(500))
    server.script(fault)
    assert peer.models().status_code == 200
    assert server.unused_faults == (fault,)
    peer.delete(new_chat(peer))
    assert not server.unused_faults


def test_a_stream_that_ends_before_its_fault_leaves_it_unused(server: Server, peer: Peer) -> None:
    fault = StreamFault(after_events=1000, then=Reset())
    server.script(fault)
    assert read_stream(peer, *asked(peer))[-1]["event_type"] == "message"
    assert server.unused_faults == (fault,)


@pytest.mark.parametrize(
    "step", ["create", "prompt", "request", "events", "message", "chat", "list", "update", "delete", "models"]
)
def test_every_step_can_be_disturbed_and_is_recorded(server: Server, peer: Peer, step: str) -> None:
    server.script(Fault(step, before=Reply(599)))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - one of the steps
    calls: dict[str, Callable[[], httpx.Response]] = {
        "create": peer.create,
        "prompt": lambda: peer.prompt("x"),
        "request": lambda: peer.request("x"),
        "message": lambda: peer.message("x", "y"),
        "chat": lambda: peer.chat("x"),
        "list": peer.list_chats,
        "update": lambda: peer.update("x"),
        "delete": lambda: peer.delete("x"),
        "models": peer.models,
    }
    if step == "events":
        with peer.events("x", "y") as reply:
            assert reply.status_code == 599
    else:
        assert calls[step]().status_code == 599
    (record,) = server.requests
    assert (record.step, record.api) == (step, "website" if isinstance(peer, Website) else "inference")


def test_a_record_has_all_of_the_request(server: Server, inference: Inference) -> None:
    inference.http.put("/chats/a%20b?x=%20y", content=b"body", headers={"X-Name": "v"})
    (record,) = server.requests
    assert (record.method, record.target, record.body) == ("PUT", "/chats/a%20b?x=%20y", b"body")
    assert record.headers["x-name"] == "v"


def test_a_stream_can_end_too_early(server: Server, peer: Peer) -> None:
    server.script(Answer(TOKENS), StreamFault(after_events=2, then=End()))
    assert [event["text"] for event in read_stream(peer, *asked(peer))] == ["a ", "b "]


def test_a_stream_can_end_before_its_first_event(server: Server, peer: Peer) -> None:
    server.script(Answer(TOKENS), StreamFault(then=End()))
    assert read_stream(peer, *asked(peer)) == []


def test_a_stream_can_carry_other_bytes_and_go_on(server: Server, peer: Peer) -> None:
    server.script(Answer(("a",)), StreamFault(after_events=1, then=Send(b"data: {oops\n\n")))
    with peer.events(*asked(peer)) as reply:
        body = reply.read()
    assert body.startswith(
        b'data: {"event_type": "token", "text": "a"}\r\n\r\ndata: {oops\n\ndata: {"event_type": "mess'
    )


def test_a_stream_can_hang(server: Server, peer: Peer) -> None:
    server.script(Answer(TOKENS), StreamFault(after_events=1, then=Hang()))
    with peer.events(*asked(peer)) as reply:
        stream = blocks(reply)
        assert b'"a "' in next(stream)
    server.wait_until(lambda: server.connections == 0)


def test_a_stream_can_be_held(server: Server, peer: Peer) -> None:
    hold = Hold()
    server.script(Answer(TOKENS), StreamFault(after_events=1, then=hold))
    with peer.events(*asked(peer)) as reply:
        stream = blocks(reply)
        first = next(stream)
        hold.release()
        assert len(parse(first + b"".join(stream))) == 5


def test_a_scripted_stream_is_sent_as_it_is_written(server: Server, peer: Peer) -> None:
    events = ({"event_type": "token", "text": "é"}, b": comment\n\n", {"event_type": "odd"})
    server.script(StreamFault(events=events))
    with peer.events(*asked(peer)) as reply:
        assert reply.read() == (
            b'data: {"event_type": "token", "text": "\\u00e9"}\r\n\r\n: comment\n\ndata: {"event_type": "odd"}\r\n\r\n'
        )


def test_a_scripted_stream_can_end_in_a_reset(server: Server, peer: Peer) -> None:
    server.script(StreamFault(events=(b"data: x\n\n",), then=Reset()))
    seen: list[bytes] = []
    with pytest.raises(httpx.ReadError), peer.events(*asked(peer)) as reply:
        seen.extend(reply.iter_raw())
    assert seen == [b"data: x\n\n"]


def test_answers_are_treated_as_scripted_in_the_order_of_requests(server: Server, peer: Peer) -> None:
    server.script(Answer(("one",)), Answer(then=WorkerError("no")))
    assert [read_stream(peer, *asked(peer))[-1]["event_type"] for _ in range(3)] == ["message", "error", "message"]


def test_a_frozen_worker_leaves_the_message_in_progress(server: Server, peer: Peer) -> None:
    server.script(Answer(TOKENS, after=2, then=Freeze()))
    chat, message = asked(peer)
    with peer.events(chat, message) as reply:
        stream = blocks(reply)
        assert len([next(stream), next(stream)]) == 2
    assert state(server, message) == "in_progress"


def test_a_lost_stream_leaves_the_answer_to_be_polled(server: Server, peer: Peer) -> None:
    server.script(Answer(TOKENS), Fault("events", before=Reset()))
    chat, message = asked(peer)
    with pytest.raises(httpx.ReadError), peer.events(chat, message):
        pass
    server.wait_until(lambda: state(server, message) == "complete")
    assert peer.message(chat, message).json()["content"] == "a b c d"


def test_a_fault_without_an_outcome_is_refused() -> None:
    with pytest.raises(ValueError, match="before"):
        Fault("create")
    with pytest.raises(ValueError, match="StreamFault"):
        Fault("events", after=Reset())


def test_a_fault_of_an_unknown_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"there is no step 'delet': the steps are create, .*, delete, "):
        Fault("delet", after=Reset())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


NEVER: dict[str, Callable[[], object]] = {
    "a fault": lambda: Fault("create", before=Reset(), times=0),
    "a stream's fault": lambda: StreamFault(times=0),
    "an answer": lambda: Answer(times=0),
}


@pytest.mark.parametrize("script", NEVER.values(), ids=list(NEVER))
def test_what_would_happen_no_time_at_all_is_refused(script: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="times must be at least 1: 0"):
        script()


NEGATIVE: dict[str, Callable[[], object]] = {
    "skip must": lambda: Fault("create", before=Reset(), skip=-1),
    "after_events must": lambda: StreamFault(-1),
    "after must": lambda: Answer(after=-1),
}


@pytest.mark.parametrize(("words", "script"), NEGATIVE.items(), ids=list(NEGATIVE))
def test_a_negative_number_is_refused(words: str, script: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=f"^{words} not be negative: -1$"):
        script()


def test_waiting_gives_up(server: Server) -> None:
    with pytest.raises(TimeoutError):
        server.wait_for("create", timeout=0.01)


def test_waiting_counts_arrivals(server: Server, peer: Peer) -> None:
    thread = background(lambda: prompted(peer))
    server.wait_for("prompt")
    thread.join()
    assert len(server.chats) == 1
