"""The runner of the conformance vectors: it reports every way in which an engine in another process goes wrong."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from oa_protocol.tape import load_tapes
from oa_protocol.testing.vectors import Program, check
from oa_protocol.testing.vectors.__main__ import main
from oa_protocol.testing.vectors.files import PLACES
from tests.tools.vectors.files import PATH

CASES = """\
{"clause": ["OA-5.2", "OA-5.3"], "name": "first", "config": {"limit": 8}}
{"feed": "data: a\\n\\n", "payloads": ["a"]}
{"feed": "data: b\\n\\n", "payloads": ["b"]}
{"clause": ["OA-5.2"], "name": "second", "config": {"limit": 8}}
{"feed": "data: c\\n\\n", "payloads": ["c"]}
"""

# As somebody would write it who has read specs/vectors/README.md, for these two cases.
ENGINE = """\
import json, os, sys

for line in sys.stdin:
    step = json.loads(line)
    answer = {{"payloads": [step["feed"][6:-2]]}} if "feed" in step else {{}}
    {wrong}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    path = tmp_path / "cases.jsonl"
    path.write_text(CASES, encoding="utf-8")
    return path


def engine(wrong: str = "pass") -> list[str]:
    return [sys.executable, "-c", ENGINE.format(wrong=wrong)]


def test_this_packages_engine_in_a_process_of_its_own_conforms_to_all_vectors() -> None:
    module = [sys.executable, "-m", "oa_protocol.testing.vectors"]
    done = subprocess.run([*module, "check", "--", *module, "answer"], capture_output=True, text=True, check=False)
    number = sum(len(load_tapes(path)) for path in PATH.glob("*.jsonl"))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{number} cases, 0 of them differ\n", "")


def test_the_vectors_are_in_the_package_and_the_runner_finds_them(capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[2]
    build = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]
    installed, in_checkout = PLACES
    assert build["wheel"]["force-include"] == {"specs/vectors": installed.relative_to(root).as_posix()}
    assert main(["folder"]) == 0
    assert capsys.readouterr().out == f"{in_checkout}\n"


def test_an_engine_that_conforms(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(cases), "--", *engine()]) == 0
    assert capsys.readouterr().out == "2 cases, 0 of them differ\n"


def test_a_wrong_answer_is_reported_with_its_case_clauses_and_step_and_the_others_go_on(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = 'if step.get("feed", "").startswith("data: b"): answer = {"payloads": ["x"]}'
    assert main(["check", str(cases), "--", *engine(wrong)]) == 1
    assert capsys.readouterr().out == (
        "cases.jsonl: first (OA-5.2, OA-5.3)\n"
        'step 2: {"feed": "data: b\\n\\n"}\n'
        '  expected: {"payloads": ["b"]}\n'
        '  found:    {"payloads": ["x"]}\n'
        "\n"
        "2 cases, 1 of them differ\n"
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ('if "data: b" in line: sys.exit(3)', "it ended, with exit code 3"),
        ('if "data: b" in line: os.close(1); continue', "it ended, with exit code 0"),
        ('if "data: b" in line: print("Hello!")', "it wrote something that is not a JSON object: 'Hello!'"),
        ('if "data: b" in line: answer = ["b"]', "it wrote something that is not a JSON object: '[\"b\"]'"),
        ('if "data: b" in line: print("[" * 100_000)', "it wrote something that is not a JSON object"),
        ('if "data: b" in line: sys.stdout.buffer.write(b"\\xff\\n")', "it wrote something that is not a JSON object"),
    ],
    ids=[
        "crashes",
        "closes its output",
        "says something else",
        "answers no object",
        "nests deeply",
        "says what is no text",
    ],
)
def test_no_answer_is_reported_and_the_program_is_started_again_for_the_next_case(
    cases: Path, capsys: pytest.CaptureFixture[str], wrong: str, told: str
) -> None:
    assert main(["check", str(cases), "--", *engine(wrong)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("cases.jsonl: first (OA-5.2, OA-5.3)\nstep 2: ")
    assert f'  found:    {{"no_answer": "{told}' in out.replace('\\"', '"')
    assert out.endswith("2 cases, 1 of them differ\n")


def test_an_engine_that_ends_at_once_differs_in_every_case(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(cases), "--", sys.executable, "-c", "raise SystemExit(4)"]) == 1
    out = capsys.readouterr().out
    assert out.count('{"no_answer": "it ended, with exit code 4"}') == 2
    assert out.endswith("2 cases, 2 of them differ\n")


def test_an_engine_that_hangs_is_ended(cases: Path) -> None:
    (first, _) = load_tapes(cases)
    program = Program([sys.executable, "-c", "import time\nwhile True: time.sleep(60)"], deadline=0.1)
    difference = check(first, program)
    assert difference is not None
    assert difference.found == {"no_answer": "it did not answer in 0.1 s"}
    program.close()


def test_a_difference_of_megabytes_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "long.jsonl"
    long = '"payloads": ["' + "a" * 10_000 + '"]'
    path.write_text('{"clause": [], "name": "long", "config": {"limit": 8}}\n{"feed": "x", ' + long + "}\n", "utf-8")
    assert main(["check", str(path), "--", *engine()]) == 1
    (expected,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  expected: ")]
    assert len(expected) < 2100
    assert expected.endswith("a… (10,018 characters)")


def test_a_step_of_the_next_intent_has_only_the_time_for_the_engine(tmp_path: Path) -> None:
    (head, step) = PATH.joinpath("conversations.jsonl").read_text("utf-8").splitlines()[:2]
    path = tmp_path / "asking.jsonl"
    path.write_text(f"{head}\n{step}\n", "utf-8")
    told = 'answer = {"intent": None, "phase": "START", "deadline": None} if step == {"now": 0} else {}'
    assert main(["check", str(path), "--", *engine(told)]) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["check", "CASES"], "the COMMAND that starts the engine is missing: write it after --"),
        (["check", "CASES", "--"], "the COMMAND that starts the engine is missing: write it after --"),
        (["check", "missing.jsonl", "--", "true"], "missing.jsonl"),
        (["check", "CASES", "--", "/missing/engine"], "/missing/engine"),
        (["check", "PYTHON", "--", "true"], "not JSON"),
    ],
)
def test_if_nothing_can_be_checked_the_exit_code_is_2(
    cases: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    files = {"CASES": str(cases), "PYTHON": __file__}
    with pytest.raises(SystemExit) as ended:
        main([files.get(argument, argument) for argument in arguments])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
