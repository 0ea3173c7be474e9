"""The table of phases, what the engine relies on in the library that keeps it, and the table of steps."""

import gc
import logging
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
from transitions import MachineError

from oa_protocol import Conversation, Website
from oa_protocol.engine.intents import Exchange
from oa_protocol.engine.phases import MACHINE, TERMINAL, TRANSITIONS, Phase, Trigger, check_phases, fire
from oa_protocol.engine.steps import STEPS, Step, check_steps
from oa_protocol.tape._phases_svg import phases_svg
from tests.tools.phases import PAGE, PICTURE, phases_md


class Model:
    """Anything with a phase."""

    def __init__(self, phase: Phase = Phase.START) -> None:
        self.phase = phase


def test_anything_with_a_phase_is_moved() -> None:
    model = Model()
    fire(Trigger.CREDENTIALS_LOADED, model)
    assert model.phase is Phase.COOKIES
    assert MACHINE.models == []


def test_the_machine_keeps_no_reference_to_what_it_moved() -> None:
    model = Model()
    fire(Trigger.CREDENTIALS_LOADED, model)
    watched = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert watched() is None
    finally:
        gc.enable()


def test_a_transition_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fire(Trigger.CREDENTIALS_LOADED, Model())
    assert caplog.records == []


@pytest.mark.parametrize("trigger", Trigger)
@pytest.mark.parametrize("phase", Phase)
def test_the_machine_is_the_table(trigger: Trigger, phase: Phase) -> None:
    targets = {target for row, sources, target in TRANSITIONS if row is trigger and phase in sources}
    model = Model(phase)
    if targets:
        fire(trigger, model)
        assert {model.phase} == targets
    else:
        with pytest.raises(MachineError):
            fire(trigger, model)
        assert model.phase is phase


def test_a_move_that_the_table_does_not_have_names_trigger_and_phase() -> None:
    with pytest.raises(MachineError, match="ANSWERED is not possible in phase START"):
        fire(Trigger.ANSWERED, Model())


def test_nothing_leaves_a_terminal_phase() -> None:
    assert not any(TERMINAL & set(sources) for _, sources, _ in TRANSITIONS)


def test_every_trigger_has_its_row() -> None:
    assert [trigger for trigger, _, _ in TRANSITIONS] == list(Trigger)


def test_the_drawing_is_the_table() -> None:
    """``python -m tests.tools.phases`` draws it anew."""
    assert PAGE.read_text(encoding="utf-8") == phases_md()
    assert PICTURE.read_text(encoding="utf-8") == phases_svg()


@pytest.mark.parametrize(
    ("forgotten", "named"),
    [({Phase.POLLING}, "POLLING"), ({Phase.POLLING, Phase.DELETING}, "POLLING, DELETING, DeleteChat")],
    ids=["a phase", "an exchange, too"],
)
def test_a_table_of_steps_that_forgets_a_phase_or_an_exchange_is_refused(forgotten: set[Phase], named: str) -> None:
    steps: dict[Phase, Sequence[Step]] = {phase: row for phase, row in STEPS.items() if phase not in forgotten}
    with pytest.raises(TypeError, match=f"^STEPS has no row for {named}$"):
        check_steps(steps)
    check_steps(STEPS)


def test_a_table_of_transitions_that_forgets_a_phase_is_refused() -> None:
    grouped = set(Phase) - {Phase.POLLING, Phase.DRAINING}
    unreached = [row for row in TRANSITIONS if row[2] is not Phase.LEAKED]
    with pytest.raises(TypeError, match=r"^POLLING, DRAINING is in no group; LEAKED is never reached$"):
        check_phases(grouped, unreached)


def test_an_exchange_that_does_not_say_what_is_true_of_it_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^Rename doesn't say is_write, is_counted$"):
        type("Rename", (Exchange,), {"doing": "renaming the chat"})


def test_an_exchange_that_no_request_spells_is_refused() -> None:
    conversation: Any = Conversation(Website("http://oa.test"))
    with pytest.raises(TypeError, match=r"^no request spells Exchange$"):
        conversation._spell(Exchange)
