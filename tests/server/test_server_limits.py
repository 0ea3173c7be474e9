"""What a server that runs for long doesn't keep, and what it says about its health."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import httpx
import pytest

from oa_protocol import __version__
from oa_protocol.server import Answer, Server, chats, inference, work

from .conftest import Connect
from .helpers import Inference, Peer, Website, asked, new_chat, parse, prompted, read_stream, state


def test_its_health_has_counts_and_needs_no_credentials(inference: Inference) -> None:
    server = inference.server
    asked(inference)
    reply = httpx.get(f"{server.url}/health")
    counts = {"chats": 1, "accounts": 1, "waiting": 0, "running": 1, "requests": 1, "workers": 0}
    assert reply.json() == {"status": "ok", "version": __version__, **counts}
    assert httpx.head(f"{server.url}/health").content == b""
    assert [record.step for record in server.requests] == ["create", "prompt", "request"]


def test_the_chats_that_were_used_least_recently_are_forgotten(monkeypatch: pytest.MonkeyPatch, peer: Peer) -> None:
    monkeypatch.setattr(chats, "CHATS_LIMIT", 2)
    first, second = new_chat(peer), new_chat(peer)
    peer.prompt(first, content="used later")
    third = new_chat(peer)
    assert [peer.chat(chat).status_code for chat in (first, second, third)] == [200, 404, 200]


def test_chats_that_are_too_long_together_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, server: Server, peer: Peer
) -> None:
    monkeypatch.setattr(chats, "MEMORY_LIMIT", 10_000)
    first, second = new_chat(peer), new_chat(peer)
    peer.prompt(first, content="x" * 4000)
    peer.prompt(second, content="x" * 20_000)  # more than all may have, but it is in use
    assert [chat.id for chat in server.chats] == [second]


def test_a_chat_that_is_too_long_is_full(monkeypatch: pytest.MonkeyPatch, peer: Peer) -> None:
    monkeypatch.setattr(chats, "CHAT_LIMIT", 4000)
    chat, prompt = prompted(peer, "x" * 4000)
    reply = peer.request(chat, parent_id=prompt, model_config_name="_lorem")
    assert (reply.status_code, reply.json().popitem()[1]) == (413, "Maximum number of messages reached for this chat")


def test_no_stream_is_kept_for_a_reader_who_can_no_longer_come(connect: Connect) -> None:
    with Server(reader_grace=0) as server:
        peer = connect(server)
        chat, message = asked(peer)
        server.wait_until(lambda: state(server, message) == "complete")
        assert not server._live.state.streams
        assert peer.message(chat, message).json()["content"]


def test_of_too_many_unread_events_the_oldest_are_lost(
    monkeypatch: pytest.MonkeyPatch, server: Server, peer: Peer
) -> None:
    monkeypatch.setattr(work, "UNREAD_LIMIT", 3)
    server.script(Answer(pieces=tuple("abcd")))
    chat, message = asked(peer)
    while server._live.state.streams[message].text != "abcd":
        httpx.get(f"{server.url}/health")
    *tokens, last = read_stream(peer, chat, message)
    assert [event["text"] for event in tokens] == ["c", "d"]
    assert last["message"]["content"] == "abcd"


def test_an_answer_without_an_end_is_aborted(monkeypatch: pytest.MonkeyPatch, server: Server, peer: Peer) -> None:
    monkeypatch.setattr(work, "ANSWER_LIMIT", 10)
    server.script(Answer(pieces=("Hello ",) * 3))
    *_, last = read_stream(peer, *asked(peer))
    assert (last["event_type"], last["error"]) == ("error", "The answer is longer than 10 characters.")


def test_deleted_messages_do_not_fill_the_queue_for_ever(monkeypatch: pytest.MonkeyPatch, connect: Connect) -> None:
    monkeypatch.setattr(work, "QUEUE_LIMIT", 2)
    with Server(workers=0) as server:
        peer = connect(server)
        for _ in range(4):
            peer.delete(asked(peer)[0])
        asked(peer)
        asked(peer)
        chat, prompt = prompted(peer)
        reply = peer.request(chat, parent_id=prompt, model_config_name="_lorem")
        assert reply.status_code == 503


def test_the_website_reads_on_only_once_for_all_clients_that_left() -> None:
    with Server(workers=0, pending_interval=0.01) as server:
        website = Website(server)
        with website.http:
            chat, message = asked(website)
            for _ in range(5):
                with website.events(chat, message) as reply:
                    assert parse(next(reply.iter_raw()))
            server.wait_until(lambda: server.under_way == 0)
            assert len(server._app._drained) == 1
            website.delete(chat)
            while server._app._drained:
                httpx.get(f"{server.url}/health")


def test_there_are_only_so_many_accounts(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setattr(inference, "ACCOUNTS_LIMIT", 2)
    login = f"{server.url}/auth/callback/debug?code="
    assert [httpx.get(login + name).status_code for name in ("ann", "bob", "ann")] == [200, 503, 200]
