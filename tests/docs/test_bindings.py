"""Runs the page on bindings from its top to its end; what it quotes is what the files say."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest

from oa_protocol.bindings.base import Binding
from tests.docs.readme import ROOT

PAGE = ROOT / "docs" / "bindings.md"
TEXT = PAGE.read_text(encoding="utf-8")
CODE = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
EXAMPLES = ROOT / "tests" / "examples"
SMALLEST, LANGGRAPH = [(EXAMPLES / f"{name}_binding.py").read_text("utf-8") for name in ("smallest", "langgraph")]


def test_what_it_quotes_is_in_the_files() -> None:
    whole, *parts = [code for code in CODE if code in SMALLEST or code in LANGGRAPH]
    assert whole == SMALLEST
    assert [code.split("(")[0].strip() for code in parts] == ["def send_prompt", "def stream_decoder"]


def test_the_rest_of_it_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)  # msgspec looks there for the names in annotations
    for code in CODE:
        if code not in LANGGRAPH:
            exec(compile(code, PAGE.name, "exec"), vars(page))
    assert capsys.readouterr().out.splitlines() == [
        "POST https://talks.example.org/talks",
        "Created(chat_id='00000001')",
        "Token(text='Hello')",
        "Answered(message=Message(id='00000003', role='assistant', state='complete', parent_id=None, content='Hello'))",
    ]


def test_the_tables_name_each_method_of_a_binding() -> None:
    methods = {name for name in vars(Binding) if not name.startswith("_")} - {"api", "base_url"}
    assert {name for name in methods if f"`{name}`" not in TEXT} == set()
