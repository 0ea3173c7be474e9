"""Runs the engine over a tape, to see whether it still does the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from oa_protocol.tape.format import OUTPUTS, Json, Tape, given, new_conversation, take_step

_LINE = 2000


@dataclass(frozen=True, slots=True)
class Difference:
    """The first step at which the engine does something else than the tape says; ``str()`` tells it.

    ``number`` counts the steps from 1. ``expected`` and ``found`` are what came of the step, there and here: an
    ``intent``, ``events`` or an exception (``raises``), and the phase after it.
    """

    number: int
    step: Json
    expected: Json
    found: Json

    def __str__(self) -> str:
        done = given(self.step)
        return "\n".join(
            [
                f"step {self.number}: {_line(done) if done else 'the next intent'}",
                f"  expected: {_line(self.expected)}",
                f"  found:    {_line(self.found)}",
            ]
        )


def _line(fields: Json) -> str:
    """Return ``fields`` as JSON, the end left out where that is too long to read."""
    text = json.dumps(fields)
    return text if len(text) <= _LINE else f"{text[:_LINE]}… ({len(text):,} characters)"


def replay(tape: Tape) -> Difference | None:
    """Run the engine over ``tape``; return the first difference, or None where it does all the same.

    Raises ValueError or TypeError where the tape holds no conversation.
    """
    return first_difference(tape.steps, partial(take_step, new_conversation(tape.config)))


def first_difference(steps: Iterable[Json], answer: Callable[[Json], Json]) -> Difference | None:
    """Have each step done by ``answer``; return the first of which something else came than it says, or None."""
    for number, step in enumerate(steps, 1):
        expected = {name: step[name] for name in OUTPUTS if name in step}
        found = answer(given(step))
        if found != expected:
            return Difference(number, step, expected, found)
    return None
