"""Each link of a page into the project leads somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs.readme import ROOT

LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")
PAGES = [
    path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("specs/**/*.md"))
]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_each_link_leads_somewhere(page: Path) -> None:
    place = ROOT / page
    assert [link for link in LINK.findall(place.read_text("utf-8")) if not (place.parent / link).exists()] == []
