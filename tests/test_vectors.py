"""The conformance vectors of specs/vectors; README.md there says how they are to be read."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from oa_protocol.tape import Tape, load_tapes
from oa_protocol.tape.format import Json, decode_bytes
from oa_protocol.testing.vectors import Engine, check
from tests.bindings.whatwg import EventStream
from tests.test_clauses import clauses
from tests.testing.test_planted_bugs import PLANTED, Planted, planted
from tests.tools.vectors.files import FILES, PATH

PATHS = sorted(PATH.glob("*.jsonl"))
CASES = [(path.stem, case) for path in PATHS for case in load_tapes(path)]
README = (PATH / "README.md").read_text(encoding="utf-8")


def params() -> list[Any]:
    """The cases, each marked with the clauses that it names."""
    return [
        pytest.param(case, id=f"{stem}: {case.name}", marks=pytest.mark.clause(*case.clause)) for stem, case in CASES
    ]


@pytest.mark.parametrize("case", params())
def test_this_packages_engine_conforms(case: Tape) -> None:
    difference = check(case, Engine())
    assert difference is None, str(difference)


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_what_the_generator_writes(name: str) -> None:
    assert (PATH / name).read_text(encoding="utf-8") == FILES[name], "run: python -m tests.tools.vectors"


def test_each_case_has_a_name_of_its_own() -> None:
    names = Counter(case.name for _, case in CASES)
    assert [name for name, times in names.items() if times > 1] == []


def test_every_clause_has_a_vector_or_a_reason_why_not() -> None:
    shown = {number for _, case in CASES for number in case.clause}
    not_shown = set(re.findall(r"^\| (OA-\d+\.\d+) \|", README, re.MULTILINE))
    assert shown | not_shown == clauses().keys()
    assert not shown & not_shown


class LiteralReading:
    """The WHATWG algorithm word by word, as an engine: it can answer what is said of the bytes of a stream alone."""

    def answer(self, line: Json) -> Json:
        if "config" in line:
            self.stream = EventStream()
            return {}
        already = len(self.stream.payloads)
        self.stream.feed(decode_bytes(line["feed"]))
        payloads = self.stream.payloads[already:]
        return {"payloads": payloads} if payloads else {}


@pytest.mark.parametrize("case", [case for stem, case in CASES if stem == "sse" and "OA-5.2" in case.clause])
def test_the_literal_reading_of_the_algorithm_conforms(case: Tape) -> None:
    difference = check(case, LiteralReading())
    assert difference is None, str(difference)


def test_the_exchange_in_the_readme_is_a_real_one() -> None:
    engine = Engine()
    lines = re.findall(r"^→ (.*)\n← (.*)$", README, re.MULTILINE)
    assert len(lines) == 4
    for asked, answer in lines:
        assert engine.answer(json.loads(asked)) == json.loads(answer)


@pytest.mark.parametrize("bug", PLANTED, ids=lambda case: case.bug.__name__)
def test_an_engine_with_a_bug_differs(bug: Planted) -> None:
    with planted(bug.bug):
        assert any(check(case, Engine()) for stem, case in CASES if stem != "limits")
