"""Every MUST of specs/protocol.md has a test, and every test's clauses exist."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

TESTS = Path(__file__).parent
SPECIFICATION = TESTS.parent / "specs" / "protocol.md"

_NUMBER = re.compile(r"OA-\d+\.\d+")
_CLAUSE = re.compile(rf"\*\*({_NUMBER.pattern})\*\*")


def clauses() -> dict[str, str]:
    """The clauses' numbers and texts: a clause reaches to the next one, or to the next heading."""
    found: dict[str, str] = {}
    for section in SPECIFICATION.read_text(encoding="utf-8").split("\n## "):
        parts = _CLAUSE.split(section)[1:]
        for number, text in zip(parts[::2], parts[1::2], strict=True):
            assert number not in found, f"{number} stands there twice"
            found[number] = text
    return found


def marks() -> dict[str, set[str]]:
    """The numbers in every ``clause(…)`` of the tests, and the files they are in, whatever is selected to run.

    The conformance vectors name their clauses themselves.
    """
    found: dict[str, set[str]] = {}
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "clause":
                for argument in node.args:
                    if isinstance(argument, ast.Constant):
                        found.setdefault(str(argument.value), set()).add(path.name)
    for path in sorted((SPECIFICATION.parent / "vectors").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            for number in json.loads(line).get("clause", ()):
                found.setdefault(number, set()).add(path.name)
    return found


def _in_order(numbers: set[str]) -> list[str]:
    return sorted(numbers, key=lambda number: [int(part) for part in number.removeprefix("OA-").split(".")])


def test_every_must_has_a_test() -> None:
    musts = {number for number, text in clauses().items() if "MUST" in text}
    missing = _in_order(musts - marks().keys())
    assert not missing, f"no test is marked with {', '.join(missing)}"


def test_every_mark_names_a_clause() -> None:
    odd = {mark: files for mark, files in marks().items() if mark not in clauses()}
    assert not odd, f"no such clause: {odd}"


def test_every_clause_that_is_cited_exists() -> None:
    cited = {
        (number, path.name)
        for path in sorted((TESTS.parent / "oa_protocol").rglob("*.py"))
        for number in _NUMBER.findall(path.read_text(encoding="utf-8"))
    }
    odd = {(number, name) for number, name in cited if number not in clauses()}
    assert not odd, f"no such clause: {odd}"
