"""Runs the page on embedding from its top to its end, as a reader would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from oa_protocol.server import Server
from tests.docs.readme import ROOT

PAGE = ROOT / "docs" / "embedding.md"
TEXT = PAGE.read_text(encoding="utf-8")
CODE = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
LINKS = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", TEXT)


def test_the_page_runs_and_leaves_no_chat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with Server() as server:
        cookies = [f"127.0.0.1\tFALSE\t/\tFALSE\t0\t{name}\t{value}\n" for name, value in server.cookies.items()]
        Path("cookies.txt").write_text("".join(cookies), "utf-8")
        names: dict[str, Any] = {"__name__": "page"}
        for code in CODE:
            exec(compile(code.replace("https://oa.example.org", server.url), PAGE.name, "exec"), names)
        assert [request.step for request in server.requests].count("events") == 2
        assert server.chats == ()
    assert "Deleted" in capsys.readouterr().out


@pytest.mark.parametrize("target", sorted(set(LINKS)))
def test_each_link_leads_somewhere(target: str) -> None:
    assert (PAGE.parent / target).exists()
