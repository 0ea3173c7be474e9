"""Puts a tape into words: who did what, the outcome, and the phase afterwards."""

from __future__ import annotations

from collections.abc import Iterator

from oa_protocol.tape._words import happenings, title_of
from oa_protocol.tape.format import Tape


def transcript(tape: Tape) -> Iterator[str]:
    """Yield the conversation in words, with a line for each step, and one line for all pieces of a stream.

    Steps are numbered from 1, as in ``replay``. If a step changed the phase, the new one is in brackets. Calls of
    ``next_intent`` that returned None are left out, and so is a ``TimePassed`` without effect.

    Raises:
        ValueError: a step isn't a step of a conversation.

    """
    yield title_of(tape)
    for each in happenings(tape):
        moved = f"  [{each.phase}]" if each.moved else ""
        yield f"{each.number:>4}. {each.who:<8} {'; '.join((each.what, *each.news))}{moved}"
