"""What is said of the invariants is what they check."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from oa_protocol.testing._model.invariants import INVARIANTS
from tests.testing.test_explorer import test_whatever_happens_every_promise_is_kept as exhaustive

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def clauses(text: str) -> set[str]:
    return set(re.findall(r"OA-\d+\.\d+", text))


# That nothing raises needs no invariant.
CHECKED = clauses(" ".join(invariant.__doc__ or "" for invariant in INVARIANTS)) | {"OA-6.11"}


def test_each_invariant_names_its_clause() -> None:
    assert all(clauses(invariant.__doc__ or "") for invariant in INVARIANTS)


def test_the_clauses_that_are_checked_are_those_that_the_documentation_lists() -> None:
    (table,) = re.findall(r"^\| promise \| clauses \|\n(.*?)\n\n", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert clauses(table) == CHECKED


def test_the_exhaustive_search_is_marked_with_what_it_checks() -> None:
    marks: Iterable[object] = getattr(exhaustive, "pytestmark")  # noqa: B009 - the type checkers know no marks
    assert clauses(str([getattr(mark, "args") for mark in marks])) == CHECKED  # noqa: B009
