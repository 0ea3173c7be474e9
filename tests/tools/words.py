"""Counts words that this project's prose tends to overuse: ``python tests/tools/words.py``.

The limits are twice what well-written projects use (h11, websockets, anyio, httpx, trio and others).
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

LIMITS = {"where": 18, "nobody": 1, "told": 1, "whoever": 1}
"""How often a word may occur in 10,000 words."""

_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
_WORD = re.compile(r"[A-Za-z']+")


def prose() -> Iterator[tuple[Path, str]]:
    """Yield each file with what a person reads in it: a page without its code, docstrings and comments."""
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("specs/**/*.md")):
        yield path, _CODE.sub(" ", path.read_text(encoding="utf-8"))
    for path in sorted(ROOT.glob("oa_protocol/**/*.py")):
        source = path.read_text(encoding="utf-8")
        yield path, _CODE.sub(" ", "\n".join((*_docstrings(source), *_comments(source))))


def _docstrings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text
            case _:
                pass


def _comments(source: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string.lstrip("# ")


def main() -> int:
    """Print each word that is over its limit, with the files that have most of it. Return the exit code."""
    found: dict[str, list[tuple[int, Path]]] = {word: [] for word in LIMITS}
    total = 0
    for path, text in prose():
        words = [word.lower() for word in _WORD.findall(text)]
        total += len(words)
        for word, places in found.items():
            places.append((words.count(word), path.relative_to(ROOT)))
    over = 0
    for word, places in found.items():
        rate = sum(count for count, _ in places) * 10_000 / total
        if rate > LIMITS[word]:
            over += 1
            worst = ", ".join(f"{path} ({count})" for count, path in sorted(places, reverse=True)[:8] if count)
            print(f"{word!r}: {rate:.1f} in 10,000 words, at most {LIMITS[word]}: {worst}")
    return int(over > 0)


if __name__ == "__main__":
    sys.exit(main())
