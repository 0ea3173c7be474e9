"""Each example holds whole conversations, over both APIs, and leaves no chat, whatever happens."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from twisted.internet.defer import CancelledError, Deferred

from oa_protocol import AnswerFailed
from oa_protocol.engine.events import Answered, Event, Token
from oa_protocol.server import Answer, Close, Fault, Hold, Server, Step, StreamFault, WorkerError
from tests.driver.site import Site, settle
from tests.examples import asyncio_aiohttp, running, thread_pool, twisted_agent
from tests.programs import Program, program
from tests.sync.clients import client_of

pytestmark = pytest.mark.clause("OA-7.2")


class Boom(Exception):
    pass


@pytest.mark.parametrize("hold", running.ALL)
def test_a_conversation_of_two_turns(site: Site, hold: running.Hold, tmp_path: Path) -> None:
    site.script(Answer(pieces=("One ", "two.")), Answer(pieces=("Three.",)))
    told: list[Event] = []
    hold(site, ["Count", "And on"], told.append, tmp_path / "tape")
    assert [event.text for event in told if isinstance(event, Answered)] == ["One two.", "Three."]
    assert "".join(event.text for event in told if isinstance(event, Token)) == "One two.Three."
    assert site.prompts() == ["Count", "And on"]
    assert site.chats == ()


@pytest.mark.parametrize("hold", running.ALL)
def test_an_exception_in_the_middle_of_an_answer(site: Site, hold: running.Hold, tmp_path: Path) -> None:
    def fail(event: Event) -> None:
        if isinstance(event, Token):
            raise Boom

    site.script(Answer(pieces=("One ", "two.")))
    with pytest.raises(Boom):
        hold(site, ["Count"], fail, tmp_path / "tape")
    assert site.chats == ()


@pytest.mark.clause("OA-6.5")
@pytest.mark.parametrize("hold", running.ENGINE)
def test_a_stream_that_breaks(site: Site, hold: running.Hold, tmp_path: Path) -> None:
    site.script(Answer(pieces=("One ", "two.")), StreamFault(after_events=1, then=Close()))
    told: list[Event] = []
    hold(site, ["Count"], told.append, tmp_path / "tape")
    assert [event.text for event in told if isinstance(event, Answered)] == ["One two."]


@pytest.mark.clause("OA-6.5")
@pytest.mark.parametrize("hold", running.ENGINE)
def test_a_stream_that_breaks_before_its_first_byte_is_not_opened_again(
    site: Site, hold: running.Hold, tmp_path: Path
) -> None:
    site.script(Answer(pieces=("One ", "two.")), StreamFault(then=Close()))
    told: list[Event] = []
    hold(site, ["Count"], told.append, tmp_path / "tape")
    assert [event.text for event in told if isinstance(event, Answered)] == ["One two."]
    assert site.steps.count("events") == 1


@pytest.mark.clause("OA-6.6")
@pytest.mark.parametrize("hold", running.ENGINE)
def test_a_stream_that_falls_silent(
    site: Site, hold: running.Hold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_client.TIMEOUT", "asyncio_aiohttp.IDLE", "twisted_agent.IDLE"):
        monkeypatch.setattr(f"tests.examples.{name}", 2.0)
    silence = Hold()
    site.script(Answer(pieces=("One ", "two.")), StreamFault(after_events=1, then=silence))
    told: list[Event] = []
    hold(site, ["Count"], told.append, tmp_path / "tape")
    assert [event.text for event in told if isinstance(event, Answered)] == ["One two."]
    silence.release()


@pytest.mark.clause("OA-6.1")
@pytest.mark.parametrize("hold", running.ENGINE)
def test_replies_that_are_lost(site: Site, hold: running.Hold, tmp_path: Path) -> None:
    site.script(Fault("prompt", after=Close()), Fault("request", after=Close()), Fault("delete", after=Close()))
    told: list[Event] = []
    hold(site, ["Count"], told.append, tmp_path / "tape")
    assert isinstance(told[-1], Answered)
    assert site.steps.count("prompt") == 1


@pytest.mark.parametrize("hold", running.ALL)
def test_an_answer_that_fails(site: Site, hold: running.Hold, tmp_path: Path) -> None:
    site.script(Answer(pieces=("One ",), after=1, then=WorkerError("out of memory")))
    with pytest.raises(AnswerFailed, match="out of memory"):
        hold(site, ["Count"], print, tmp_path / "tape")


def test_a_conversation_that_fails_ends_those_beside_it(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ",), after=1, then=WorkerError("out of memory")), Answer(then=hold))

    def await_the_other(event: Event) -> None:
        if isinstance(event, Token):
            site.server.wait_until(lambda: site.server.unused_faults == ())

    with pytest.raises(AnswerFailed, match="out of memory"):
        thread_pool.converse_all(client_of(site), [["Count"], ["And wait"]], await_the_other)
    hold.release()


STEPS: list[Step] = ["create", "prompt", "request", "events", "message", "delete"]


def held(site: Site, step: Step) -> Hold:
    """Hold a step; that it comes to reading the message, its owner leaves in the middle of the answer."""
    hold = Hold()
    if step == "message":
        site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    site.script(Fault(step, before=hold))
    return hold


@pytest.mark.clause("OA-4.3")
@pytest.mark.parametrize("step", STEPS)
def test_asyncio_cancels_the_task_again_and_again(site: Site, step: Step, tmp_path: Path) -> None:
    hold = held(site, step)

    async def main() -> None:
        talk = asyncio_aiohttp.converse(running.conversation(site, tmp_path / "tape"), ["Count"], print)
        talking = asyncio.create_task(talk)
        if step == "message":
            await site.reached("events")
            talking.cancel()
        await site.reached(step)
        for _ in range(3):
            talking.cancel()
            await settle()
        hold.release()
        with pytest.raises(asyncio.CancelledError):
            await talking

    asyncio.run(main())
    assert site.chats == ()


@pytest.mark.clause("OA-4.3")
@pytest.mark.parametrize("step", STEPS)
def test_twisted_cancels_the_deferred_again_and_again(site: Site, step: Step, tmp_path: Path) -> None:
    hold = held(site, step)
    talking: list[Deferred[None]] = []

    def begin() -> None:
        talk = twisted_agent.converse(running.conversation(site, tmp_path / "tape"), ["Count"], print)
        talking.append(Deferred.fromCoroutine(talk))

    running.in_reactor(begin)
    if step == "message":
        site.server.wait_for("events")
        running.in_reactor(talking[0].cancel)
    site.server.wait_for(step)
    for _ in range(3):
        running.in_reactor(talking[0].cancel)
    hold.release()
    with pytest.raises(CancelledError):
        running.in_reactor(lambda: talking[0])
    assert site.chats == ()


PROGRAMS = ["http_client", "asyncio_aiohttp", "twisted_agent"]


def is_told(running: Program, words: str) -> None:
    assert running.stdout is not None
    assert any(words in line for line in running.stdout)


@pytest.mark.parametrize("name", [*PROGRAMS, "thread_pool"])
def test_it_runs_as_a_program(name: str, server: Server) -> None:
    with program(server, "website", "-u", "-m", f"tests.examples.{name}") as running:
        out, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (0, "")
    assert out.strip()
    assert server.chats == ()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as POSIX does")
@pytest.mark.parametrize("name", PROGRAMS)
def test_its_chat_is_deleted_when_it_is_interrupted_in_the_middle_of_an_answer(name: str) -> None:
    hold = Hold()
    # Pings: a signal that comes just before a read is noticed after it.
    with Server(ping_interval=0.2) as server:
        server.script(Answer(pieces=("One ", "two."), after=1, then=hold))
        with program(server, "website", "-u", "-m", f"tests.examples.{name}") as running:
            is_told(running, "Token")
            running.send_signal(signal.SIGINT)
            server.wait_for("message")  # it waits for the answer to end, since deleting would break others'
            hold.release()
            running.communicate(timeout=60)
        assert running.returncode != 0
        assert server.chats == ()


@pytest.mark.clause("OA-4.3")
@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as POSIX does")
@pytest.mark.parametrize("name", PROGRAMS)
def test_its_chat_is_deleted_when_it_is_interrupted_while_the_chat_is_made(name: str, server: Server) -> None:
    hold = Hold()
    server.script(Fault("create", after=hold))
    with program(server, "website", "-u", "-m", f"tests.examples.{name}") as running:
        server.wait_for("create")
        running.send_signal(signal.SIGINT)
        hold.release()
        running.communicate(timeout=60)
    assert running.returncode != 0
    assert server.chats == ()
