"""The page on the testing kit: its blocks are a test file, and its tests pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from oa_protocol.testing import explore
from oa_protocol.testing.servers import vectors_for

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
TEXT = PAGE.read_text(encoding="utf-8")
CODE = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)

pytest_plugins = ["pytester"]


def test_the_page_is_a_test_file_that_passes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_page="\n\n".join(CODE))
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--hypothesis-seed=0")
    # The suite for servers runs on each vector.
    done.assert_outcomes(passed=13 + len(list(vectors_for("inference"))))


def test_the_page_has_each_option_of_the_explorer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        explore.main(["--help"])
    options = set(re.findall(r"^ +(?:-h, )?(--[a-z]+)", capsys.readouterr().out, re.MULTILINE))
    assert set(re.findall(r"^\| `(--[a-z]+)` \|", TEXT, re.MULTILINE)) == options - {"--help"}
