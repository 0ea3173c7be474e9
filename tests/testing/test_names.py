"""The kit's names: the modules that define them, and the cost of importing them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from oa_protocol import testing

WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"hypothesis", "pytest", "_pytest", "starlette", "uvicorn"}:
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Blocked())
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_explorer_and_playbooks_need_neither_hypothesis_nor_pytest() -> None:
    run(f"{WITHOUT}\nfrom oa_protocol.testing import Explorer, play\nfrom oa_protocol.testing.playbook import Reply")


def test_importing_the_kit_imports_nothing_of_it() -> None:
    program = "import sys, oa_protocol.testing; print(*sorted(name for name in sys.modules if name.startswith('oa_')))"
    assert run(program).split() == ["oa_protocol", "oa_protocol._lazy", "oa_protocol.testing"]


@pytest.mark.parametrize("name", testing.__all__)
def test_each_name_is_there_and_listed(name: str) -> None:
    assert getattr(testing, name)
    assert name in dir(testing)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Explorers'"):
        getattr(testing, "Explorers")  # noqa: B009 - the type checkers know that it is not there
