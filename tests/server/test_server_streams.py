"""Event streams: what a reader sees, and what it costs to leave one."""

import re
from collections.abc import Callable

import pytest

from oa_protocol.server import Abandon, Answer, Freeze, Hold, Never, Quirks, Server, WorkerError
from oa_protocol.server.http import worker

from .helpers import Inference, Peer, Website, ask, asked, blocks, parse, prompted, read_stream, state

Connect = Callable[..., Peer]
LEFT = Answer(("a ", "b ", "c "), after=1, then=Freeze())


@pytest.fixture
def impatient() -> Server:
    """A server whose waiting streams say so at once."""
    return Server(pending_interval=0.01)


def take(peer: Peer, chat: str, message: str, count: int) -> list[bytes]:
    """The first blocks of a stream, which is then left."""
    with peer.events(chat, message) as reply:
        stream = blocks(reply)
        return [next(stream) for _ in range(count)]


def test_pending_comes_until_the_first_token_and_not_after(impatient: Server, connect: Connect) -> None:
    hold = Hold()
    with impatient as server:
        server.script(Answer(("a ", "b"), then=hold))
        peer = connect(server)
        with peer.events(*asked(peer)) as reply:
            stream = blocks(reply)
            first = [next(stream), next(stream)]
            assert first[0] == b'data: {"event_type": "pending", "queue_position": 0, "queue_size": 0}\r\n\r\n'
            hold.release()
            rest = [event["event_type"] for event in parse(b"".join(stream))]
        assert rest[-3:] == ["token", "token", "message"]


def test_the_website_sends_its_head_with_the_first_event(impatient: Server) -> None:
    hold = Hold()
    with impatient as server:
        server.script(Answer(("a",), then=hold))
        website = Website(server)
        with website.http, website.events(*asked(website)) as reply:
            # The head is here because the first pending event is: there was none before it.
            assert next(blocks(reply)).startswith(b'data: {"event_type": "pending"')


def test_the_inference_server_sends_its_head_at_once(server: Server, inference: Inference) -> None:
    server.script(Answer(then=Freeze()))
    with inference.events(*asked(inference)) as reply:
        assert reply.status_code == 200


@pytest.mark.parametrize(
    ("comment", "pattern"),
    [
        (False, rb"event: ping\r\ndata: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\r\n\r\n"),
        (True, rb": ping - \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\r\n\r\n"),
    ],
)
def test_pings_come_in_two_forms(connect: Connect, comment: bool, pattern: bytes) -> None:
    with Server(ping_interval=0.01, quirks=Quirks(ping_comment=comment)) as server:
        server.script(LEFT)
        peer = connect(server)
        token, *pings = take(peer, *asked(peer), 3)
        assert token == b'data: {"event_type": "token", "text": "a "}\r\n\r\n'
        assert all(re.fullmatch(pattern, ping) for ping in pings)


def test_a_late_reader_gets_the_backlog(server: Server, peer: Peer) -> None:
    hold = Hold()
    server.script(Answer(("a ", "b ", "c"), after=2, then=hold))
    chat, message = asked(peer)
    assert [event["text"] for event in parse(b"".join(take(peer, chat, message, 2)))] == ["a ", "b "]


def test_two_readers_share_the_events_and_one_gets_the_end(server: Server, inference: Inference) -> None:
    hold = Hold()
    server.script(Answer(("a ", "b ", "c "), after=1, then=hold))
    chat, message = asked(inference)
    with inference.events(chat, message) as one, Inference(server).http as http:
        first = blocks(one)
        seen = [next(first)]
        with http.stream("GET", f"/chats/{chat}/messages/{message}/events") as two:
            hold.release()
            second = blocks(two)
            seen += [next(first), next(second), next(first)]
    assert [event.get("text", "end") for event in parse(b"".join(seen))] == ["a ", "b ", "c ", "end"]


def test_a_message_without_a_reader_finishes_after_the_grace(connect: Connect) -> None:
    with Server(reader_grace=0) as server:
        peer = connect(server)
        _, message = asked(peer)
        server.wait_until(lambda: state(server, message) == "complete")


@pytest.mark.parametrize("then", [Abandon("cancelled"), Abandon("timeout"), Abandon("in_progress"), Never()])
def test_a_message_without_a_worker_shows_pending_for_ever(
    impatient: Server, connect: Connect, then: Abandon | Never
) -> None:
    with impatient as server:
        server.script(Answer(then=then))
        peer = connect(server)
        chat, message = asked(peer)
        expected = then.state if isinstance(then, Abandon) else "pending"
        server.wait_until(lambda: state(server, message) == expected)
        for _ in range(2):
            events = parse(b"".join(take(peer, chat, message, 3)))
            assert {event["event_type"] for event in events} == {"pending"}
        assert peer.message(chat, message).json()["state"] == expected


def test_a_worker_error_ends_the_stream(server: Server, peer: Peer) -> None:
    server.script(Answer(("a ", "b "), after=1, then=WorkerError("CUDA out of memory\nsecond line")))
    chat, message = asked(peer)
    token, error = read_stream(peer, chat, message)
    assert token["text"] == "a "
    assert list(error) == ["event_type", "error", "message"]
    assert error["error"] == "CUDA out of memory\nsecond line"
    assert (error["message"]["state"], error["message"]["content"]) == ("aborted_by_worker", None)
    assert peer.message(chat, message).json()["state"] == "aborted_by_worker"


def test_a_frozen_worker_is_given_up(monkeypatch: pytest.MonkeyPatch, connect: Connect) -> None:
    monkeypatch.setattr(worker, "FROZEN_SECONDS", 0.01)
    with Server(workers=1, reader_grace=60) as server:
        server.script(Answer(("a ",), after=1, then=Freeze()))
        peer = connect(server)
        *_, error = read_stream(peer, *asked(peer))
        assert (error["error"], error["message"]["state"]) == ("Aborted due to worker error.", "aborted_by_worker")


def test_what_a_frozen_worker_has_not_begun_goes_back_to_the_queue(
    monkeypatch: pytest.MonkeyPatch, connect: Connect
) -> None:
    monkeypatch.setattr(worker, "FROZEN_SECONDS", 0.01)
    with Server(workers=1, reader_grace=60) as server:
        server.script(Answer(then=Freeze()))
        peer, other = connect(server), connect(server, server.account("ann"))
        _, frozen = asked(peer)
        assert read_stream(other, *asked(other))[-1]["event_type"] == "message"
        assert state(server, frozen) in {"pending", "in_progress"}


def test_the_final_content_is_stripped_or_as_scripted(server: Server, peer: Peer) -> None:
    server.script(Answer((" a ", "b ")), Answer(("a ", "b "), final="differs"), Answer(()))
    finals = [read_stream(peer, *asked(peer))[-1]["message"]["content"] for _ in range(3)]
    assert finals == ["a b", "differs", ""]


def test_a_dropped_inference_stream_loses_one_token(server: Server, inference: Inference) -> None:
    hold = Hold()
    server.script(Answer(("a ", "b ", "c "), after=1, then=hold))
    chat, message = asked(inference)
    assert parse(take(inference, chat, message, 1)[0])[0]["text"] == "a "
    server.wait_until(lambda: server.connections == 0)
    with inference.events(chat, message) as reply:
        hold.release()
        events = parse(reply.read())
    assert [event.get("text") for event in events] == ["c ", None]
    assert events[-1]["message"]["content"] == "a b c"


def test_a_dropped_website_stream_goes_on_eating(server: Server, website: Website) -> None:
    hold = Hold()
    server.script(Answer(("a ", "b ", "c "), after=1, then=hold))
    chat, message = asked(website)
    take(website, chat, message, 1)
    server.wait_until(lambda: server.connections == 0)
    hold.release()
    server.wait_until(lambda: state(server, message) == "complete")
    assert website.message(chat, message).json()["content"] == "a b c"


def test_a_client_that_leaves_early_causes_no_warning(
    server: Server, inference: Inference, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):  # whether the server is still writing when the client leaves depends on both
        server.script(Answer(tuple(f"word{number} " for number in range(1000))))
        chat, message = asked(inference)
        take(inference, chat, message, 1)
        server.wait_until(lambda: server.connections == 0)
    assert caplog.records == []


def test_a_chat_deleted_while_its_answer_runs_streams_on_without_an_end(connect: Connect) -> None:
    hold = Hold()
    with Server(ping_interval=0.05, quirks=Quirks(answers_outlive_delete=True)) as server:
        server.script(Answer(("a ", "b "), after=1, then=hold))
        peer, other = connect(server), connect(server)
        chat, message = asked(peer)
        with peer.events(chat, message) as reply:
            stream = blocks(reply)
            assert b'"a "' in next(stream)
            assert other.delete(chat).status_code == 200
            assert other.message(chat, message).status_code == 500
            hold.release()
            assert any(b'"b "' in block for block in stream)  # after as many pings as there was time for
            assert all(b"ping" in next(stream) for _ in range(2))


def test_messages_wait_for_a_worker(connect: Connect) -> None:
    hold = Hold()
    with Server(workers=1, reader_grace=60) as server:
        server.script(Answer(then=hold))
        peer = connect(server)
        chat, prompt = prompted(peer)
        first, second = ask(peer, chat, prompt), ask(peer, chat, prompt)
        assert (state(server, first), state(server, second)) == ("in_progress", "pending")
        hold.release()
        assert read_stream(peer, chat, first)[-1]["event_type"] == "message"
        assert read_stream(peer, chat, second)[-1]["event_type"] == "message"


@pytest.mark.parametrize("torn", [True, False])
def test_a_deleted_chat_can_tear_down_its_worker(connect: Connect, torn: bool) -> None:
    deleted, bystander = Hold(), Hold()
    with Server(quirks=Quirks(delete_tears_worker=torn)) as server:
        server.script(Answer(then=deleted), Answer(("a ", "b"), after=1, then=bystander))
        peer, other = connect(server), connect(server, server.account("ann"))
        chat, _ = asked(peer)
        theirs = asked(other)
        with other.events(*theirs) as reply:
            stream = blocks(reply)
            next(stream)
            peer.delete(chat)
            deleted.release()
            if not torn:
                bystander.release()
            last = parse(b"".join(stream))[-1]
        assert last["event_type"] == ("error" if torn else "message")
        assert last.get("error", "Aborted due to worker error.") == "Aborted due to worker error."


def test_what_has_no_token_yet_is_requeued_when_its_worker_is_torn_down(connect: Connect) -> None:
    deleted, bystander = Hold(), Hold()
    with Server(workers=2, reader_grace=60, quirks=Quirks(delete_tears_worker=True)) as server:
        server.script(Answer(then=deleted), Answer(("a",), then=bystander), Answer(then=Freeze()))
        peer, other = connect(server), connect(server, server.account("ann"))
        chat, _ = asked(peer)
        theirs = asked(other)
        _, behind = asked(connect(server, server.account("bob")))
        peer.delete(chat)
        deleted.release()
        server.wait_until(lambda: state(server, behind) == "in_progress")
        bystander.release()
        assert [event["event_type"] for event in read_stream(other, *theirs)] == ["token", "message"]


def test_tokens_keep_their_distance(connect: Connect) -> None:
    with Server(token_delay=0.001, reader_grace=60) as server:
        peer = connect(server)
        with peer.events(*asked(peer)) as reply:
            assert sum(1 for _ in reply.iter_raw()) > 1
