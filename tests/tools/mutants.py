"""Change the code in small ways, and print how many of these mutants the tests notice.

``python -m tests.tools.mutants [GROUP…]`` runs mutmut in ``build/mutation``. If it is run again, it goes on there, and
judges the survivors anew. A mutant that the tests don't notice survives. The survivors that are known are in
``mutants.toml`` beside this file, each with a reason. Those that are equivalent don't count, because no test can tell
them from the original.
"""

# Only ``nox -s mutation`` installs mutmut.
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mutmut.mutation.diff_apply import get_diff_for_mutant

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "mutation"
KNOWN = Path(__file__).with_suffix(".toml")
LEAST = 0.95
"""The share of the mutants which aren't equivalent that the tests must kill."""

MEMORY = Path("/dev/shm")  # The journal waits for the disk after each line, and memory is faster.


class Group(NamedTuple):
    """Some modules, and the tests that judge them: quick ones, because each mutant is judged by all that reach it."""

    modules: list[str]
    tests: list[str]


def _test_files(folder: str, *names: str) -> list[str]:
    return [f"tests/{folder}/test_{name}.py" for name in names]


_SLOW = [
    "draining_leaves",
    "fifty",
    "hangs_leaves",
    "hundred",
    "several_processes",
    "takes_no_longer",
    "thousands",
]
_NOT_SLOW = " and ".join(f"not {name}" for name in _SLOW)

GROUPS = {
    "bindings": Group(["bindings/*.py"], ["tests/bindings", *_test_files("engine", "branches", "messages", "misuse")]),
    "engine": Group(
        ["engine/*.py"],
        ["tests/engine", *_test_files("bindings", "own_binding"), "--deselect=tests/engine/test_totality.py"],
    ),
    "journal": Group(
        ["client/journal.py"],
        [*_test_files("journal", "entry", "journal"), "-k", f"not inference and (entry or not trio) and {_NOT_SLOW}"],
    ),
    "driver": Group(
        ["client/_driver.py", "client/_shield.py"],
        [
            *_test_files("driver", "shield", "exits", "exits_asyncio", "deadlines", "interrupted_steps"),
            *_test_files("client", "conversations", "user_code", "leaving", "kept_chats", "branches", "resume"),
            *_test_files("client", "many_chats"),
            "tests/driver/test_recovery.py::test_a_stream_that_falls_silent_is_polled",
            *_test_files("pending_slot", "account_slot", "pending_slot"),
            *("-k", f"not inference and not httpx and {_NOT_SLOW}"),
        ],
    ),
    "sweep": Group(
        ["client/sweep.py"], [*_test_files("journal", "sweep_rules", "sweep"), "-k", f"not trio and {_NOT_SLOW}"]
    ),
}

_SETTINGS = """
[tool.mutmut]
source_paths = ["oa_protocol"]
only_mutate = {modules}
also_copy = ["specs", "docs", "README.md", "CHANGELOG.md", "noxfile.py"]
do_not_mutate_patterns = ["assert_never"]
pytest_add_cli_args = ["--timeout=20", "-p", "no:cacheprovider", "--hypothesis-profile=brief"]
pytest_add_cli_args_test_selection = {tests}
timeout_constant = 10.0
timeout_multiplier = 3.0
"""

_SURVIVED = (0, 5, 33)  # Either all tests passed, or no test calls the function.
_CAST = re.compile(r'cast\((None|"[^"]*"), ')
_SQL = re.compile(r'"(BEGIN|COMMIT|DELETE|INSERT|PRAGMA|SELECT|UPDATE) ?')
_NAME = re.compile(r"oa_protocol\.(?P<module>.+)\.x(?:ǁ(?P<cls>\w+)ǁ|_)(?P<function>\w+)__mutmut_\d+")

Survivor = tuple[str, str]
"""The function, and the line that differs from the original. It has a minus in front if a line is missing."""


def run(name: str) -> Path:
    """Run mutmut on a copy of the project, and return the copy's folder."""
    group, folder = GROUPS[name], WORK / name
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, folder / file)
    modules = json.dumps([f"oa_protocol/{module}" for module in group.modules])
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as settings:
        settings.write(_SETTINGS.format(modules=modules, tests=json.dumps(group.tests)))
    forget_survivors(folder / "mutants")
    environment = os.environ | ({"TMPDIR": str(MEMORY)} if MEMORY.is_dir() else {})
    # Many tests wait for time to pass: twice as many processes as processors keep these busy.
    children = 2 * (os.cpu_count() or 1)
    subprocess.run(["mutmut", "run", f"--max-children={children}"], cwd=folder, check=True, env=environment)
    return folder


def forget_survivors(mutants: Path) -> None:
    """Let survivors be judged anew, and let mutmut find out anew which test reaches what, because tests change."""
    (mutants / "mutmut-stats.json").unlink(missing_ok=True)
    for file in mutants.glob("**/*.meta"):
        found = json.loads(file.read_text("utf-8"))
        codes: dict[str, int | None] = found["exit_code_by_key"]
        found["exit_code_by_key"] = {name: None if code in _SURVIVED else code for name, code in codes.items()}
        file.write_text(json.dumps(found), "utf-8")


def known() -> dict[Survivor, bool]:
    """Return the survivors that are known, and whether each is equivalent."""
    entries = tomllib.loads(KNOWN.read_text("utf-8"))["survivor"]
    return {(entry["in"], line): entry["equivalent"] for entry in entries for line in entry["lines"]}


class Module(NamedTuple):
    """The results of one module: how many mutants there are, and the survivors, each with true if it is equivalent."""

    name: str
    mutants: int
    unchecked: int
    survivors: list[tuple[Survivor, bool]]

    def row(self) -> Counter[str]:
        """Return the module's numbers."""
        equivalent = sum(is_equivalent for _, is_equivalent in self.survivors)
        killed = self.mutants - self.unchecked - len(self.survivors)
        return Counter(mutants=self.mutants, killed=killed, equivalent=equivalent)


def results(folder: Path, listed: dict[Survivor, bool]) -> Iterator[Module]:
    """Yield the results of each module that was mutated in a copy of the project."""
    os.chdir(folder)  # mutmut looks for its files here
    for file in sorted(Path("mutants").glob("oa_protocol/**/*.meta")):
        path = str(file.relative_to("mutants").with_suffix(""))
        codes: dict[str, int | None] = json.loads(file.read_text("utf-8"))["exit_code_by_key"]
        survivors = [judge(name, path, listed) for name, code in codes.items() if code in _SURVIVED]
        if codes:
            yield Module(path, len(codes), sum(code is None for code in codes.values()), survivors)


def judge(name: str, path: str, listed: dict[Survivor, bool]) -> tuple[Survivor, bool]:
    """Return how ``mutants.toml`` names a survivor, because mutmut's names change, and whether it is equivalent."""
    found = _NAME.fullmatch(name)
    assert found is not None, name
    changes = [line for line in get_diff_for_mutant(name, path=path).splitlines()[2:] if line[0] in "+-"]
    removed, added = (" ".join(line[1:].strip() for line in changes if line[0] == sign) for sign in "-+")
    survivor = ".".join(filter(None, found.groups())), added or f"-{removed}"
    only_a_type = _CAST.sub("cast(", removed) == _CAST.sub("cast(", added)  # ``cast`` doesn't look at its type
    only_case = removed.casefold() == added.casefold() and _SQL.search(removed) is not None
    return survivor, only_a_type or only_case or listed.get(survivor, False)


def line(name: str, row: Counter[str]) -> str:
    """Return a line of the table."""
    score = row["killed"] / max(row["mutants"] - row["equivalent"], 1)
    return f"{name:33} {row['mutants']:7} {row['killed']:6} {row['equivalent']:10} {score:6.1%}"


def main(names: list[str]) -> int:
    """Run groups, and print a table and the new survivors. Return the exit code."""
    listed, new, total = known(), list[Survivor](), Counter[str]()
    folders = [run(name) for name in names or GROUPS]
    modules = [module for folder in folders for module in results(folder, listed)]
    print(f"{'module':33} mutants killed equivalent  score")
    for module in modules:
        total += module.row()
        print(line(module.name, module.row()))
        new += [
            survivor for survivor, is_equivalent in module.survivors if not is_equivalent and survivor not in listed
        ]
    print(line("all", total))
    for function, changed in new:
        print(f"new: {function}: {changed}")
    is_complete = not any(module.unchecked for module in modules)
    return int(bool(new) or not is_complete or total["killed"] < LEAST * (total["mutants"] - total["equivalent"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
