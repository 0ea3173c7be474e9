"""The thread that carries operations out, struck where no program can be made to strike it on purpose."""

import time

import pytest

from oa_protocol.client import _loop_thread as loop_thread
from oa_protocol.client._loop_thread import LoopThread

from .clients import threads_of_clients


async def nothing() -> None: ...


async def one() -> int:
    return 1


@pytest.mark.parametrize("has_started", [False, True])
def test_an_interruption_as_the_thread_starts_leaves_no_thread_and_the_next_call_another_chance(
    monkeypatch: pytest.MonkeyPatch, has_started: bool
) -> None:
    class Struck(loop_thread._Thread):  # pyright: ignore[reportPrivateUsage]  # what is struck is inside
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
