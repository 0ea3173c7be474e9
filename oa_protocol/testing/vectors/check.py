"""Compares an engine's answers with what a conformance vector expects."""

from __future__ import annotations

from typing import Protocol

from oa_protocol.tape.format import Json, Tape
from oa_protocol.tape.replay import Difference, first_difference


class Answers(Protocol):
    """An engine to check: ``Engine``, ``Program``, or one of your own.

    >>> class Mute:
    ...     def answer(self, line):
    ...         return {}
    >>> print(check(Tape({"limit": 8}, ({"feed": "data: a"},)), Mute()))
    None
    """

    def answer(self, line: Json) -> Json:
        """Return the engine's answer to a line of a case."""
        ...


def check(case: Tape, engine: Answers) -> Difference | None:
    """Send the lines of ``case`` to ``engine``. Return the first difference, or None if all answers are right.

    If the engine refuses a valid configuration, or accepts an invalid one, the configuration is the step that differs.

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
