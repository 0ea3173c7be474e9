import ast
import inspect
from pathlib import Path

import anyio
import pytest

from oa_protocol.server import Server
from tests.docs.readme import COMMANDS, PYTHON, README, ROOT

COOKIE = "next-auth.session-token"


def runs(server: Server, code: str) -> object:
    """Run a block as it is printed, but for the server and its cookie."""
    code = code.replace("https://oa.example.org", server.url).replace("http://127.0.0.1:8000", server.url)
    compiled = compile(code, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return eval(compiled, {"__name__": "readme"})


TESTS = [code for code in PYTHON if "def test_" in code]
PROGRAMS = [code for code in PYTHON if code not in TESTS]

pytest_plugins = ["pytester"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("code", PROGRAMS, ids=range(len(PROGRAMS)))
def test_each_block_of_python_runs_and_leaves_no_chat(
    code: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with Server() as server:
        Path("cookies.txt").write_text(f"127.0.0.1\tFALSE\t/\tFALSE\t0\t{COOKIE}\t{server.cookies[COOKIE]}\n", "utf-8")

        async def main() -> None:
            running = runs(server, code)
            if inspect.isawaitable(running):
                await running

        anyio.run(main, backend=backend)
        assert any(request.step == "create" for request in server.requests) or "ReplyReceived" in code
        assert not server.chats
    assert capsys.readouterr().out.strip()


def test_each_test_passes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_readme="\n\n".join(TESTS))
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) <= 150


def test_ci_runs_the_printed_test_command() -> None:
    assert [command for command in COMMANDS if command.startswith("pip install nox && nox")] == [COMMANDS[1]]
    assert "pip install nox && nox" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
