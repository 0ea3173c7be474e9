"""The reference has each promised name: those in the packages' stubs."""

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import get_args

import pytest

from oa_protocol import Cleanup, Event, LeakRecord, Message, Timeouts
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


EVENTS_PAGE = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")


def test_one_page_has_all_events_with_their_fields() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", EVENTS_PAGE, re.MULTILINE))
    for kind in (*get_args(Event), Message, LeakRecord):
        assert tuple(re.findall(r"`(\w+)`", rows[kind.__name__])) == kind.__struct_fields__


def test_one_page_has_all_settings_of_time_with_their_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (None|\d+) \|", EVENTS_PAGE, re.MULTILINE)
    settings = [(field.name, field.default) for kind in (Timeouts, Cleanup) for field in fields(kind)]
    assert [(name, None if value == "None" else float(value)) for name, value in rows] == settings
