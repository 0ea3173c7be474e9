"""Print how many mutants the tests kill, and which new ones survive: ``python -m tests.tools.mutants``.

``mutmut run`` has written its results to ``mutants/``. The survivors that are known are in ``mutants.toml`` beside this
file, each with a reason. Those that are equivalent don't count, because no test can tell them from the original.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections import Counter
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant

RESULTS = Path("mutants")
KNOWN = Path(__file__).with_suffix(".toml")
LEAST = 0.95
"""The share of the mutants which aren't equivalent that the tests must kill."""

_SURVIVED = (0, 5, 33)  # Either all tests passed, or no test calls the function.
_CAST = re.compile(r'cast\((None|"[^"]*"), ')
_NAME = re.compile(r"oa_protocol\.(?P<module>.+)\.x(?:ǁ(?P<cls>\w+)ǁ|_)(?P<function>\w+)__mutmut_\d+")

Survivor = tuple[str, str]
"""The function, and the line that differs from the original. It has a minus in front if a line is missing."""


def known() -> dict[Survivor, bool]:
    """Return the survivors that are known, and whether each is equivalent."""
    entries = tomllib.loads(KNOWN.read_text("utf-8"))["survivor"]
    return {(entry["in"], line): entry["equivalent"] for entry in entries for line in entry["lines"]}


def describe(name: str, path: str) -> Survivor:
    """Return how ``mutants.toml`` names a mutant. mutmut's own name has a number that changes with the function."""
    found = _NAME.fullmatch(name)
    assert found is not None, name
    removed, added = difference(name, path)
    return ".".join(filter(None, found.groups())), added or f"-{removed}"


def difference(name: str, path: str) -> tuple[str, str]:
    """Return the lines of the original that a mutant changes, and the mutant's lines."""
    changes = [line for line in get_diff_for_mutant(name, path=path).splitlines()[2:] if line[0] in "+-"]
    removed, added = (" ".join(line[1:].strip() for line in changes if line[0] == sign) for sign in "-+")
    return removed, added


def differs_in_cast(name: str, path: str) -> bool:
    """Return whether a mutant is equivalent because only the type in a ``cast`` differs, which isn't evaluated."""
    removed, added = (_CAST.sub("cast(", lines) for lines in difference(name, path))
    return removed == added


def main() -> int:
    """Print a table and the new survivors. Return the exit code."""
    listed, unseen = known(), set(known())
    total, new = Counter[str](), list[Survivor]()
    print(f"{'module':24} mutants killed equivalent score")
    for results in sorted(RESULTS.glob("oa_protocol/**/*.meta")):
        path = str(results.relative_to(RESULTS).with_suffix(""))
        codes: dict[str, int | None] = json.loads(results.read_text("utf-8"))["exit_code_by_key"]
        alive = [name for name, code in codes.items() if code in _SURVIVED]
        survivors = [describe(name, path) for name in alive if not differs_in_cast(name, path)]
        equivalent = len(alive) - len(survivors) + sum(listed.get(survivor, False) for survivor in survivors)
        row = Counter(
            mutants=len(codes),
            unchecked=sum(code is None for code in codes.values()),
            alive=len(alive) - equivalent,
            equivalent=equivalent,
        )
        new += [survivor for survivor in survivors if survivor not in listed]
        unseen -= set(survivors)
        total += row
        print_row(path, row)
    print_row("all", total)
    for function, line in new:
        print(f"new: {function}: {line}")
    for function, line in sorted(unseen):
        print(f"killed, so it needn't be listed: {function}: {line}")
    return int(bool(new) or total["unchecked"] > 0 or score(total) < LEAST)


def killed(row: Counter[str]) -> int:
    """Return how many mutants a test has failed with."""
    return row["mutants"] - row["alive"] - row["equivalent"] - row["unchecked"]


def score(row: Counter[str]) -> float:
    """Return the share of the mutants that aren't equivalent which are killed."""
    return killed(row) / max(row["mutants"] - row["equivalent"], 1)


def print_row(name: str, row: Counter[str]) -> None:
    """Print a row of the table, unless the module has no mutants."""
    if row["mutants"]:
        module = name.removeprefix("oa_protocol/")
        print(f"{module:24} {row['mutants']:7} {killed(row):6} {row['equivalent']:10} {score(row):.1%}")


if __name__ == "__main__":
    sys.exit(main())
