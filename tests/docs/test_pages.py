"""Pages whose code is a program: each is run from its top to its end, as a reader would."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import anyio
import pytest

from oa_protocol.server import Server
from tests.docs.readme import ROOT

COOKIE = "next-auth.session-token"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("page", ["tutorial", "historic", "journal", "bulk", "telemetry", "watching", "branches"])
def test_the_page_runs_and_leaves_no_chat(
    page: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    with Server() as server:
        Path("cookies.txt").write_text(f"127.0.0.1\tFALSE\t/\tFALSE\t0\t{COOKIE}\t{server.cookies[COOKIE]}\n", "utf-8")
        names: dict[str, Any] = {"__name__": "page"}

        async def main() -> None:
            for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
                code = code.replace("https://oa.example.org", server.url)
                code = code.replace("your session token", server.cookies[COOKIE])
                running = eval(compile(code, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
                if inspect.isawaitable(running):
                    await running

        anyio.run(main, backend=backend)
        assert server.chats == ()
    said = capsys.readouterr().out
    assert said.strip()
    assert not re.search(r"[1-9]\d* chats left", said)
