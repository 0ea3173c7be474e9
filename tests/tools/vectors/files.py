"""The files of specs/vectors that are written by ``python -m tests.tools.vectors``, and their texts."""

from collections.abc import Callable, Iterator
from pathlib import Path

from . import branches, configurations, conversations, deleting, errors, limits, misuse, recovery, stream
from .notation import Case

PATH = Path(__file__).parents[3] / "specs" / "vectors"


def _text(cases: Callable[[], Iterator[Case]]) -> str:
    return "".join(str(case) for case in cases())


FILES: dict[str, str] = {
    f"{module.__name__.rpartition('.')[2]}.jsonl": _text(module.cases)
    for module in (branches, configurations, conversations, deleting, errors, limits, misuse, recovery, stream)
}
