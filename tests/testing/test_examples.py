"""Every public name of the kit has an example in its docstring, and it runs."""

from __future__ import annotations

import doctest
import json
import re
from types import ModuleType
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

import oa_protocol
from oa_protocol import server, tape, testing
from oa_protocol.bindings.sse import SSEDecoder
from oa_protocol.engine import events, inputs, intents
from oa_protocol.testing import playbook, servers, strategies, vectors

FEW = hypothesis.settings(max_examples=20, derandomize=True, deadline=None, database=None)


def given(strategy: Any) -> Any:
    """As ``hypothesis.given``, with few examples."""

    def decorate(test: Any) -> Any:
        wrap: Any = hypothesis.given
        return FEW(wrap(strategy)(test))

    return decorate


def names_of(*modules: ModuleType) -> dict[str, object]:
    return {name: getattr(module, name) for module in modules for name in dir(module) if name[0].isalpha()}


# What the examples take for granted: the names that the kit is about.
NAMES = {
    **names_of(server, tape, oa_protocol, events, intents, strategies, testing, playbook, vectors, servers, inputs),
    "st": st,
    "given": given,
    "json": json,
    "pytest": pytest,
    "SSEDecoder": SSEDecoder,
}


def examples(of: object, name: str) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(recurse=False).find(of, name, module=False, globs=NAMES)
    return [test for test in found if test.examples]


def run(tests: list[doctest.DocTest]) -> None:
    for test in tests:
        runner = doctest.DebugRunner(optionflags=doctest.ELLIPSIS)
        runner.run(test)


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for module in (testing, strategies, vectors) for name in module.__all__]
    + [(servers, "vectors_for")],
    ids=lambda value: value if isinstance(value, str) else value.__name__.rpartition(".")[2],
)
def test_a_public_name_has_an_example_that_runs(module: ModuleType, name: str) -> None:
    found = examples(getattr(module, name), name)
    assert found, f"{name} has no example in its docstring"
    run(found)


@pytest.fixture(scope="module")
def script() -> str:
    """The playbook in the module's docstring."""
    found = examples(playbook, "playbook")
    run(found)
    return "\n".join(example.source for test in found for example in test.examples)


WORDS = [name for name in playbook.__all__ if name not in testing.__all__]


@pytest.mark.parametrize("name", WORDS)
def test_every_word_of_a_playbook_is_in_one_that_runs(script: str, name: str) -> None:
    assert re.search(rf"\b{name}\(", script)
