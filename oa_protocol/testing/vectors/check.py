"""Compares an engine's answers with what a conformance vector expects."""

from __future__ import annotations

from typing import Protocol

from oa_protocol.tape.format import Json, Tape
from oa_protocol.tape.replay import Difference, first_difference


class Answers(Protocol):
    """An engine to check: this package's, a program's, or your own.

    >>> class Mute:
    ...     def answer(self, line):
    ...         return {}
    >>> print(check(Tape({"limit": 8}, ({"feed": "data: a"},)), Mute()))
    None
    """

    def answer(self, line: Json) -> Json:
        """Return what came of a line of a case."""
        ...


def check(case: Tape, engine: Answers) -> Difference | None:
    """Have ``engine`` answer ``case``. Return the first difference, or None if it conforms.

    If the configuration itself is refused, or isn't although it should be, that is the difference, and its step is the
    configuration.

    >>> prompt = {"now": 0, "input": {"type": "Prompt", "text": "Hello"}, "phase": "START", "deadline": None}
    >>> asks = {"now": 0, "intent": None, "phase": "START", "deadline": None}
    >>> case = Tape({"api": "website", "base_url": "http://oa.test"}, (prompt, asks))
    >>> print(check(case, Engine()))
    step 2: the next intent
      expected: {"intent": null, "phase": "START", "deadline": null}
      found:    {"intent": {"kind": "LoadCredentials", "refused": false}, "phase": "START", "deadline": null}
    """
    begin: Json = {"config": case.config}
    if case.raises:
        begin["raises"] = case.raises
    return first_difference([begin], engine.answer) or first_difference(case.steps, engine.answer)
