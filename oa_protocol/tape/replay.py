"""Runs the engine over a tape, to check that it still does the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from oa_protocol.tape.format import OUTPUTS, Json, Tape, given, new_conversation, take_step

_LINE = 2000


@dataclass(frozen=True, slots=True)
class Difference:
    """The first step whose outcome differs from the tape. ``str()`` describes it.

    Attributes:
        number: the step's number, counted from 1.
        step: the step itself.
        expected: the step's outcome on the tape: an ``intent``, ``events`` or an exception (``raises``), and the
            ``phase`` and the ``deadline`` after it.
        found: the step's outcome now, in the same form.

    """

    number: int
    step: Json
    expected: Json
    found: Json

    def __str__(self) -> str:
        done = given(self.step)
        asks = done.keys() <= {"now"}
        return "\n".join(
            [
                f"step {self.number}: {'the next intent' if asks else _line(done)}",
                f"  expected: {_line(self.expected)}",
                f"  found:    {_line(self.found)}",
            ]
        )


def _line(fields: Json) -> str:
    """Return ``fields`` as JSON, shortened if it is too long to read."""
    text = json.dumps(fields)
    return text if len(text) <= _LINE else f"{text[:_LINE]}… ({len(text):,} characters)"


def replay(tape: Tape) -> Difference | None:
    """Run the engine over ``tape``. Return the first difference, or None if there is none.

    Raises:
        ValueError: the tape isn't that of a conversation.
        TypeError: an argument in the tape's ``config`` has the wrong type.

    """
    return first_difference(tape.steps, partial(take_step, new_conversation(tape.config)))


def first_difference(steps: Iterable[Json], answer: Callable[[Json], Json]) -> Difference | None:
    """Call ``answer`` for each step. Return the first step whose outcome isn't the expected one, or None."""
    for number, step in enumerate(steps, 1):
        expected = {name: step[name] for name in OUTPUTS if name in step}
        found = answer(given(step))
        if found != expected:
            return Difference(number, step, expected, found)
    return None
