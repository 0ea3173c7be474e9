"""The pages on real answers: their programs run, with a scripted endpoint in place of Ollama."""

from __future__ import annotations

import ast
import re
from typing import Any

import anyio
import pytest

from tests.docs.readme import ROOT
from tests.models.endpoint import GOOD, Endpoint

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
OLLAMA = (ROOT / "docs" / "ollama.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_programs_print_answers(backend: str, no_environment: None, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}

    async def main() -> None:
        for code in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
            code = code.replace("http://localhost:11434", endpoint.url)
            await eval(compile(code, "models.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)

    with Endpoint(GOOD) as endpoint:
        anyio.run(main, backend=backend)
    assert capsys.readouterr().out == "One two.\n3 words.\n5 words.\n"


def test_ollama_takes_five_commands() -> None:
    assert len(re.findall(r"^\$ ", OLLAMA, re.MULTILINE)) == 5
