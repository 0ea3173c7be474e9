"""The folder of the vectors, in an installed package and in a checkout."""

from __future__ import annotations

from pathlib import Path

PLACES = (Path(__file__).parent / "cases", Path(__file__).parents[3] / "specs" / "vectors")


def folder() -> Path:
    """Return the folder with the vectors, and with the README.md that explains them.

    >>> sorted(path.name for path in folder().glob("s*.jsonl"))
    ['sse.jsonl', 'stream.jsonl']
    """
    return next(filter(Path.is_dir, PLACES))
