"""However a conversation is left, each example deletes its chat or names it, in the time that ``Cleanup`` allows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partialmethod
from itertools import count
from typing import Any

import pytest

from oa_protocol import Cleanup, Phase, Timeouts
from oa_protocol.engine.events import Event, Token
from oa_protocol.engine.intents import Intent
from oa_protocol.server import Answer, Fault, Hang, Hold, Step
from tests.examples.running import ENGINE, PATIENT, Example, Site

pytestmark = pytest.mark.clause("OA-7.2")

each_example = pytest.mark.parametrize("example", ENGINE, ids=repr)

GENEROUS = 30.0  # seconds, for what takes one on an idle machine


class Boom(Exception):
    pass


def fail(*_: object) -> None:
    raise Boom


def leave(example: Example, how: str) -> Callable[[], bool]:
    """Return what leaves a conversation, to be called in the example's thread. It returns whether to stop."""

    def interrupt() -> bool:
        example.interrupt()
        return False

    def raise_error() -> bool:
        raise Boom

    return {"break": lambda: True, "exception": raise_error, "interruption": interrupt}[how]


# ---- a DELETE that hangs


@pytest.mark.clause("OA-7.6")
@each_example
def test_if_every_delete_hangs_it_ends_in_time_and_names_the_chat(site: Site, example: Example) -> None:
    site.endless = True
    site.script(Fault("delete", before=Hang(), times=1000))
    conversation = site.conversation(cleanup=Cleanup(timeout=1.0))
    began = time.monotonic()
    example.converse(conversation, ["Count"], print)
    assert time.monotonic() - began < GENEROUS
    assert conversation.phase is Phase.LEAKED
    assert tuple(leaked.chat_id for leaked in conversation.leaked) == site.chats != ()
    site.left = set(site.chats)


@each_example
def test_if_one_delete_hangs_the_chat_is_deleted(site: Site, example: Example) -> None:
    site.script(Fault("delete", before=Hang()))
    conversation = site.conversation(cleanup=Cleanup(timeout=6.0))
    example.converse(conversation, ["Count"], print)
    assert conversation.phase is Phase.DELETED
    assert site.steps.count("delete") == 2


# ---- at every point


@pytest.mark.parametrize("how", ["break", "exception", "interruption"])
@each_example
def test_it_is_left_at_every_event(site: Site, example: Example, how: str) -> None:
    site.endless = True
    for number in count(1):
        site.script(Answer(pieces=("One ", "two.")))
        conversation = site.conversation()
        remaining = iter(range(number - 1, -1, -1))

        def tell(_: Event, remaining: Any = remaining) -> bool:
            return leave(example, how)() if next(remaining, None) == 0 else False

        with suppress(Boom, example.interruption):
            example.converse(conversation, ["Count"], tell)
        assert conversation.phase in (Phase.DELETED, Phase.NEVER_CREATED)
        assert site.chats == ()
        if next(remaining, None) is not None:
            return  # there was no such event


class Countdown:
    """Calls ``at_last`` just before a driver carries out the intent of this number."""

    def __init__(self, example: Example, number: int, at_last: Callable[[], object]) -> None:
        self.carry_out: Callable[[Any, Intent | None], Any] = example.module.Driver.carry_out
        self.remaining = number
        self.at_last = at_last

    def __call__(self, driver: Any, intent: Intent | None) -> Any:
        if intent is not None:
            self.remaining -= 1
            if self.remaining == 0:
                self.at_last()
        return self.carry_out(driver, intent)


@pytest.mark.parametrize("how", ["exception", "interruption"])
@each_example
def test_it_is_left_at_every_intent(site: Site, example: Example, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    site.endless = True
    for number in count(1):
        site.script(Answer(pieces=("One ", "two.")))
        countdown = Countdown(example, number, leave(example, how))
        conversation = site.conversation(cleanup=Cleanup(drain=0.05, timeout=0.5 if how == "exception" else 60.0))
        with monkeypatch.context() as patch, suppress(Boom, example.interruption):
            patch.setattr(example.module.Driver, "carry_out", partialmethod(countdown))
            example.converse(conversation, ["Count"], print)
        assert conversation.is_over
        named = {leaked.chat_id for leaked in conversation.leaked}
        assert set(site.chats) - site.left <= named
        if how == "interruption":
            assert not named
        site.left = set(site.chats)
        if countdown.remaining > 0:
            return  # there was no such intent


# ---- again and again, while the server is waited for

STEPS: list[Step] = ["create", "prompt", "request", "events", "message", "delete"]


def held(site: Site, step: Step) -> Hold:
    """Hold a step, and the DELETE. The message is read if its owner leaves in the middle of the answer."""
    hold = Hold()
    if step == "message":
        site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    if step != "delete":
        site.script(Fault(step, before=hold))
    site.script(Fault("delete", before=hold))
    return hold


def beside(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


@pytest.mark.clause("OA-4.3")
@pytest.mark.parametrize("step", STEPS)
@each_example
def test_it_is_interrupted_again_and_again(site: Site, example: Example, step: Step) -> None:
    hold = held(site, step)

    def interrupt() -> None:
        if step == "message":
            site.server.wait_for("events")
            example.interrupt()
        site.server.wait_for(step)
        for _ in range(3):
            example.interrupt()
        hold.release()

    interrupting = beside(interrupt)
    conversation = site.conversation(cleanup=Cleanup(drain=1.0, timeout=PATIENT.timeout))
    with pytest.raises(example.interruption):
        example.converse(conversation, ["Count"], print)
    interrupting.join()
    assert conversation.phase is Phase.DELETED
    assert site.chats == ()


@pytest.mark.clause("OA-4.3")
@each_example
def test_an_interruption_brings_the_deadline_of_a_create_forward(site: Site, example: Example) -> None:
    site.script(Fault("create", before=Hang()))
    conversation = site.conversation(timeouts=Timeouts(reply=3600.0), cleanup=Cleanup(timeout=1.0), retries=0)

    def interrupt() -> None:
        site.server.wait_for("create")
        example.interrupt()

    interrupting = beside(interrupt)
    began = time.monotonic()
    with pytest.raises(example.interruption):
        example.converse(conversation, ["Count"], print)
    assert time.monotonic() - began < GENEROUS
    interrupting.join()
    assert [leaked.chat_id for leaked in conversation.leaked] == [None]


@each_example
def test_an_error_of_the_driver_itself_on_the_way_out_leaves_the_chat_named(
    site: Site, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.script(Answer(pieces=("One ", "two.")))
    conversation = site.conversation()

    def tell(event: Event) -> None:
        if isinstance(event, Token):
            monkeypatch.setattr(example.module.Driver, "carry_out", fail)
            raise Boom

    with pytest.raises(Boom):
        example.converse(conversation, ["Count"], tell)
    assert [leaked.chat_id for leaked in conversation.leaked] == list(site.chats)
    site.left = set(site.chats)
