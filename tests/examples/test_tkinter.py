"""The worker under Tcl's event loop, without a window; what it tells, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import pytest

from oa_protocol.server import Answer, Hold, WorkerError
from oa_protocol.tape import Recorder, load_tapes, normalize
from tests.examples.running import ENGINE, Site
from tests.examples.test_thread_pool import client_of

pytest.importorskip("_tkinter", reason="this Python was built without Tcl")

import tkinter as tk

from tests.examples import tkinter_worker

pytestmark = pytest.mark.clause("OA-7.2")

Tell = Callable[[str], object]


@cache
def tcl() -> tk.Tk:
    """Return one Tcl without windows for all tests, because it aborts the process if another thread deletes it."""
    return tk.Tcl()


def through_tkinter(site: Site, prompts: Sequence[str], tell: Tell, tape: Path) -> None:
    """Ask each prompt when the answer to the one before is there; there is no window, only Tcl's event loop."""
    remaining = list(prompts)
    root = tcl()
    worker: tkinter_worker.Worker

    def told(piece: str) -> None:
        tell(piece)
        if piece != "\n":
            return
        if remaining:
            worker.ask(remaining.pop(0))
        else:
            worker.close(lambda: root.setvar("closed", "1"))

    client = client_of(site)
    client.chat = partial(client.chat, tape=tape)  # type: ignore[method-assign]
    worker = tkinter_worker.Worker(root, client, told)
    worker.ask(remaining.pop(0))
    root.tk.call("vwait", "closed")  # tkwait is not there without windows


def test_it_holds_a_conversation_of_two_turns(site: Site, tmp_path: Path) -> None:
    site.script(Answer(pieces=("One ", "two.")), Answer(pieces=("Three.",)))
    told: list[str] = []
    through_tkinter(site, ["Count", "And on"], told.append, tmp_path / "tape")
    assert told == ["One ", "two.", "\n", "Three.", "\n"]
    assert site.chats == ()


def test_it_leaves_in_the_middle_of_an_answer(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    root = tcl()
    told: list[str] = []

    def tell(piece: str) -> None:
        told.append(piece)
        worker.close(lambda: root.setvar("closed", "1"))

    worker = tkinter_worker.Worker(root, client_of(site), tell)
    worker.ask("Count")
    root.tk.call("vwait", "closed")
    assert told == ["One "]
    assert site.chats == ()
    hold.release()


def test_it_shows_what_goes_wrong(site: Site) -> None:
    site.script(Answer(pieces=("One ",), after=1, then=WorkerError("out of memory")))
    root = tcl()
    told: list[str] = []

    def tell(piece: str) -> None:
        told.append(piece)
        if "out of memory" in piece:
            worker.close(lambda: root.setvar("closed", "1"))

    worker = tkinter_worker.Worker(root, client_of(site), tell)
    worker.ask("Count")
    root.tk.call("vwait", "closed")
    assert len(told) == 2


def test_its_conversation_has_the_same_tape_as_one_through_the_engine_alone(site: Site, tmp_path: Path) -> None:
    site.script(Answer(pieces=("One ", "two."), times=2))
    through_tkinter(site, ["Count"], print, tmp_path / "worker")
    ENGINE[0].converse(site.conversation(partial(Recorder, tape=tmp_path / "engine")), ["Count"], print)
    (worker,) = load_tapes(tmp_path / "worker")
    (engine,) = load_tapes(tmp_path / "engine")
    assert normalize(worker) == normalize(engine)
