"""Runs the page on tapes from its top to its end, as a reader would."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import anyio
import pytest

from oa_protocol.server import Server
from oa_protocol.tape import load_tapes, replay
from tests.tape.test_har import captured

PAGE = Path(__file__).parents[2] / "docs" / "tapes.md"
TEXT = PAGE.read_text(encoding="utf-8")
CODE = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_page_runs_and_leaves_no_chat(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("browser.har").write_text(captured("happy_path"), "utf-8")
    with Server() as server:
        cookies = [f"127.0.0.1\tFALSE\t/\tFALSE\t0\t{name}\t{value}\n" for name, value in server.cookies.items()]
        Path("cookies.txt").write_text("".join(cookies), "utf-8")
        names: dict[str, Any] = {"__name__": "page"}

        async def main() -> None:
            for code in CODE:
                code = code.replace("https://oa.example.org", server.url)
                running = eval(compile(code, PAGE.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
                if inspect.isawaitable(running):
                    await running

        anyio.run(main, backend=backend)
        assert server.requests
        assert not server.chats
    told = capsys.readouterr().out
    assert "a secret" not in told
    assert '"next-auth.session-token": "secret-1"' in told
    (from_browser,) = load_tapes("06b02a54-89e8-7932-8000-0fb1fa73d8de.jsonl")
    assert replay(from_browser) is None
