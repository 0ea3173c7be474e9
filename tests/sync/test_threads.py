"""The client's own thread, and several threads that share a client."""

from __future__ import annotations

import gc
import linecache
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from oa_protocol import ChatLeakedWarning, LocalProtocolError, Phase, sync
from oa_protocol.server import Answer, Fault, Hold, Reply
from tests.driver.site import Site

from .clients import client_of, threads_of_clients


def ended(threads: set[threading.Thread]) -> bool:
    """Wait for the end of these threads, and tell whether it came."""
    for thread in threads:
        thread.join(10)
    return not any(thread.is_alive() for thread in threads)


def test_no_thread_is_started_before_one_is_needed(site: Site) -> None:
    before = threads_of_clients()
    with client_of(site) as client:
        chat = client.chat()
        chat.send("Hello")
        chat.stream("Hello")
        assert (repr(client), repr(chat), client.leaked) == (repr(client), "<Chat None START>", [])
        assert threads_of_clients() <= before
    assert threads_of_clients() <= before


def test_one_thread_serves_all_chats_and_none_is_left_when_the_client_is_closed(site: Site) -> None:
    before = threads_of_clients()
    with client_of(site) as client:
        for _ in range(3):
            with client.chat() as chat:
                chat.ask("Hello")
        started = threads_of_clients() - before
        assert [thread.name for thread in started] == ["oa_protocol.sync"]
    assert ended(started)


def test_threads_share_a_client_each_with_a_chat_of_its_own(site: Site) -> None:
    def converse(number: int) -> str:
        with client.chat() as chat:
            return chat.ask(f"Prompt {number}") and chat.ask(f"And {number}")

    with client_of(site) as client, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(converse, range(20)))
    assert len(site.prompts()) == 40
    assert client.leaked == []


class Waiting:
    """A thread that waits for an answer which does not come before ``hold`` is released."""

    def __init__(self, site: Site, work: Callable[[], object]) -> None:
        self.hold = Hold()
        site.script(Answer(pieces=("One ", "two."), after=1, then=self.hold))
        self._pool = ThreadPoolExecutor(1)
        self.ended = self._pool.submit(work)
        site.server.wait_for("events")

    def is_told(self, words: str) -> None:
        with pytest.raises(LocalProtocolError, match=words):
            self.ended.result(10)
        self.hold.release()
        self._pool.shutdown()


@pytest.mark.clause("OA-6.11")
def test_a_waiting_thread_gets_an_error_if_another_one_closes_its_chat(site: Site) -> None:
    with client_of(site) as client:
        chat = client.chat()
        waiting = Waiting(site, lambda: chat.ask("Hello"))
        chat.close()
        waiting.is_told("the chat (was closed while it was in use|is closed)")
        assert chat.phase is Phase.DELETED


@pytest.mark.clause("OA-6.11")
def test_a_waiting_thread_gets_an_error_if_another_one_closes_the_client(site: Site) -> None:
    client = client_of(site)

    def work() -> None:
        with client.chat() as chat:
            chat.ask("Hello")

    waiting = Waiting(site, work)
    client.close()
    waiting.is_told("the chat (was closed while it was in use|is closed)")
    assert site.chats == ()


@pytest.mark.clause("OA-6.11")
def test_two_threads_cannot_use_one_chat_at_once(site: Site) -> None:
    with client_of(site) as client, client.chat() as chat:
        waiting = Waiting(site, lambda: chat.ask("Hello"))
        with pytest.raises(LocalProtocolError, match="in use"):
            chat.ask("And me?")
        waiting.hold.release()
        assert waiting.ended.result(10) == "One two."


def test_what_is_no_chats_ends_with_the_client(site: Site) -> None:
    hold = Hold()
    site.script(Fault("models", before=hold))
    client = client_of(site)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(client.models)
        site.server.wait_for("models")
        client.close()
        with pytest.raises(LocalProtocolError, match="the client is closed, or was closed while"):
            asking.result(10)
    hold.release()


def test_a_closed_client_carries_out_nothing_more(site: Site) -> None:
    client = client_of(site)
    chat = client.chat()
    client.close()
    for ask in (client.models, lambda: chat.ask("Hello")):
        with pytest.raises(LocalProtocolError, match="the client is closed"):
            ask()
    client.close()
    chat.close()
    assert site.steps == []


def test_many_threads_may_close_one_client(site: Site) -> None:
    client = client_of(site)
    chats = [client.chat() for _ in range(4)]
    for chat in chats:
        chat.ask("Hello")
    closers = [*(chat.close for chat in chats), client.close, client.close, client.close]
    with ThreadPoolExecutor(8) as pool:
        closing = [pool.submit(close) for close in closers]
    assert [each.result() for each in closing] == [None] * 7
    assert site.chats == ()


def test_it_may_block_an_event_loop(site: Site, anyio_backend: str) -> None:
    async def main() -> None:
        with client_of(site) as client, client.chat() as chat:
            assert chat.ask("Hello")

    anyio.run(main, backend=anyio_backend)


def test_a_client_that_is_garbage_is_closed(site: Site) -> None:
    before = threads_of_clients()
    client = client_of(site)
    chats = [client.chat()]
    chats[0].ask("Hello")
    started = threads_of_clients() - before
    name = str(chats[0].id)
    client.models()  # and the loop has let go of what it did before
    gone = weakref.ref(client)
    del client
    assert gone() is not None  # its chat is still here
    with pytest.warns(ResourceWarning, match=f"unclosed <Chat {name} ANSWERED>: use `with client.chat\\(\\)`"):
        chats.clear()
    assert gone() is None
    assert ended(started)
    assert site.chats == ()


def test_a_chat_without_a_prompt_needs_no_closing(site: Site) -> None:
    client = client_of(site)
    client.chat()
    del client
    gc.collect()


def leave_with(site: Site, leave: Callable[[sync.Client, sync.Chat], Any]) -> pytest.WarningsRecorder:
    site.script(Fault("delete", before=Reply(500, b"no"), times=3))
    client = client_of(site)
    chat = client.chat()
    chat.ask("Hello")
    site.left = {chat.id}
    with pytest.warns(ChatLeakedWarning, match=str(chat.id)) as caught:
        leave(client, chat)
    client.close()
    assert [record.chat_id for record in client.leaked] == [chat.id]
    return caught


def leave_chat(client: sync.Client, chat: sync.Chat) -> None:
    with chat:
        pass  # this chat


def close_chat(client: sync.Client, chat: sync.Chat) -> None:
    chat.close()  # this chat


def leave_client(client: sync.Client, chat: sync.Chat) -> None:
    with client:
        pass  # this chat


def close_client(client: sync.Client, chat: sync.Chat) -> None:
    client.close()  # this chat


@pytest.mark.clause("OA-7.2")
@pytest.mark.parametrize("leave", [leave_chat, close_chat, leave_client, close_client])
def test_the_warning_of_a_chat_left_behind_points_to_who_left_it(
    site: Site, leave: Callable[[sync.Client, sync.Chat], None]
) -> None:
    (warning,) = leave_with(site, leave)
    assert warning.filename == __file__
    line = warning.lineno
    assert "this chat" in linecache.getline(__file__, line) + linecache.getline(__file__, line + 1)


@pytest.mark.clause("OA-7.2")
def test_the_exception_in_flight_names_a_chat_left_behind(site: Site) -> None:
    def fail() -> None:
        with client_of(site) as client, client.chat() as chat:
            chat.ask("Hello")
            site.left = {chat.id}
            raise ZeroDivisionError

    site.script(Fault("delete", before=Reply(500, b"no"), times=3))
    with pytest.warns(ChatLeakedWarning), pytest.raises(ZeroDivisionError) as caught:
        fail()
    (note,) = caught.value.__notes__
    assert str(site.left.copy().pop()) in note
