from __future__ import annotations

import re
import subprocess
import sys

import pytest

import oa_protocol as package
from oa_protocol.cli._exit_codes import ExitCode

from .command import PATIENCE, environment, oa_protocol, process


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"], ["--version"]])
def test_help_imports_nothing_that_a_command_needs(arguments: list[str]) -> None:
    done = python(
        f"import sys; from oa_protocol.cli import main; sys.argv[1:] = {arguments}\n"
        "try: main()\n"
        "finally: print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    assert done.returncode == 0
    heavy = {"anyio", "asyncio", "httpx", "msgspec", "prompt_toolkit", "rich", "starlette", "transitions", "uvicorn"}
    assert heavy.isdisjoint(done.stderr.split())


def test_help_lists_the_exit_codes_and_the_environment() -> None:
    done = oa_protocol("--help")
    listed = re.findall(r"^ +(\d+)  (.+)$", done.out, re.MULTILINE)
    assert listed == [(str(code.value), code.meaning) for code in ExitCode]
    for said in ("OA_URL", "OA_COOKIES", "OA_TOKEN", "NO_COLOR", "_OA_PROTOCOL_COMPLETE=bash_source"):
        assert said in done.out
    assert all(len(line) < 81 for line in done.out.splitlines())


def test_without_a_command_the_help_is_shown_and_it_is_a_usage_error() -> None:
    done = oa_protocol()
    assert (done.code, done.out) == (2, "")
    assert "Commands:" in done.err


def test_version() -> None:
    assert oa_protocol("--version").out == f"oa-protocol {package.__version__}\n"


def test_completion() -> None:
    environ = {"_OA_PROTOCOL_COMPLETE": "bash_complete", "COMP_WORDS": "oa-protocol mo", "COMP_CWORD": "1"}
    assert process(env=environ).out == "plain,models\n"


@pytest.mark.parametrize("package", ["click", "starlette", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(package: str) -> None:
    done = python(
        f"import sys; sys.modules[{package!r}] = None; sys.argv[1:] = ['ask', 'x']\n"
        "from oa_protocol.cli import main; main()"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"oa-protocol needs the package {package}, which isn't installed. Run: pip install 'oa_protocol[cli]'\n"
    )
