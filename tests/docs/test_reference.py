"""The reference has each promised name: those in the packages' stubs."""

import re
from collections.abc import Iterator

import pytest

from tests.docs.readme import ROOT

REFERENCE = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
MODULES = re.findall(r"automodule:: (\S+)", REFERENCE)
NAMES = re.findall(r"auto(?:class|function|data):: (\S+)", REFERENCE)


def promised() -> Iterator[tuple[str, str]]:
    for stub in (ROOT / "oa_protocol").rglob("__init__.pyi"):
        yield from re.findall(
            r"^from (oa_protocol\.(?!_)\S+) import (\w+) as", stub.read_text(encoding="utf-8"), re.MULTILINE
        )


@pytest.mark.parametrize(("module", "name"), sorted(set(promised())))
def test_each_promised_name_is_in_the_reference(module: str, name: str) -> None:
    assert {module, f"{module}.{name}"} & {*MODULES, *NAMES}
