"""Runs the README's first command in a new environment, as a newcomer would. It installs: it is not among the tests."""

import os
import subprocess
import sys
from pathlib import Path

from tests.docs.readme import COMMANDS, ROOT


def test_the_first_command_prints_an_answer_that_went_through_all_phases(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path)], check=True)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        COMMANDS[0], shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    for phase in ("START", "CHAT_CREATED", "PROMPTED", "ASSISTANT_REQUESTED", "STREAMING", "ANSWERED", "DELETED"):
        assert phase in done.stderr


def test_the_vectors_are_installed(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path)], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(ROOT)], check=True)
    told = subprocess.run(
        [python, "-m", "oa_protocol.testing.vectors", "folder"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"README.md", "sse.jsonl"} <= {path.name for path in Path(told.stdout.strip()).iterdir()}
