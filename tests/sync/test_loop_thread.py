"""Interruptions of the thread that carries operations out, at places that a program can't interrupt on purpose."""

import os
import time
from typing import Any, cast

import pytest

from oa_protocol import ChatLeakedWarning, LocalProtocolError, sync
from oa_protocol.client import _loop_thread as loop_thread
from oa_protocol.client._loop_thread import LoopThread
from oa_protocol.server import Server
from tests.programs import program

from .clients import threads_of_clients


async def nothing() -> None: ...


async def one() -> int:
    return 1


@pytest.mark.parametrize("has_started", [False, True])
def test_an_interruption_as_the_thread_starts_leaves_no_thread_and_the_next_call_another_chance(
    monkeypatch: pytest.MonkeyPatch, has_started: bool
) -> None:
    class Struck(loop_thread._Thread):  # pyright: ignore[reportPrivateUsage]  # the interrupted class is private
        def start(self) -> None:
            monkeypatch.undo()
            if has_started:
                super().start()
            else:
                self.loop.close()
            raise KeyboardInterrupt

    before = threads_of_clients()
    thread = LoopThread(nothing, patience=1)
    monkeypatch.setattr(loop_thread, "_Thread", Struck)
    with pytest.raises(KeyboardInterrupt):
        thread.run(one)
    assert thread.run(one) == 1
    thread.stop()
    thread.join()
    for orphan in threads_of_clients() - before:
        orphan.join(10)
    assert threads_of_clients() <= before


def test_an_interruption_at_the_end_of_the_program_has_the_other_threads_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joined: list[str] = []

    class Running(LoopThread):
        def __init__(self, name: str) -> None:
            super().__init__(nothing, patience=1)
            self.name = name

        def stop(self) -> None:
            assert not joined

        def join(self, deadline: float | None = None) -> None:
            assert deadline is not None
            assert deadline <= time.monotonic() + 1
            joined.append(self.name)
            raise KeyboardInterrupt(self.name)

    monkeypatch.setattr(loop_thread, "_RUNNING", [Running("first"), Running("second")])
    with pytest.raises(KeyboardInterrupt, match="first"):
        loop_thread._stop_all()  # pyright: ignore[reportPrivateUsage]  # an atexit hook
    assert joined == ["first", "second"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.usefixtures("no_environment")
def test_a_thread_that_died_is_named_and_so_is_the_chat() -> None:
    with Server() as server:
        client = sync.Client(server.url, cookies=server.cookies)
        chat = client.chat()
        chat.ask("Hello")
        died = cast("Any", client)._thread._thread
        died.soon(died.loop.stop)
        died.join(30)
        with pytest.raises(LocalProtocolError, match=r"thread has died of .*: make another client"):
            chat.ask("And?")
        with pytest.warns(ChatLeakedWarning, match=str(chat.id)):
            client.close()
        assert [record.chat_id for record in client.leaked] == [chat.id]


FORKS = """
import os
from oa_protocol import LocalProtocolError, sync
client = sync.Client()
chat = client.chat()
chat.ask("Hello")
child = os.fork()
if child == 0:
    for call in (lambda: chat.ask("And?"), client.models):
        try:
            call()
        except LocalProtocolError as error:
            print(error, flush=True)
    client.close()
    os._exit(0)
os.waitpid(child, 0)
print(len(chat.ask("And?")) > 0)
client.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_client_that_was_used_before_a_fork_says_so_and_leaves_the_chat_to_the_parent() -> None:
    with Server() as server:
        with program(server, "website", "-W", "ignore", "-c", FORKS) as running:
            out, errors = running.communicate(timeout=30)
        first, second, parent = out.splitlines()
        assert "before the process was forked" in first == second
        assert (parent, errors) == ("True", "")
        assert server.chats == ()
