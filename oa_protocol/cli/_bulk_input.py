"""Reads the prompts of ``bulk``: lines, JSON lines or CSV. Each prompt has a key, which its result has, too."""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, Literal

import click
import msgspec

from oa_protocol.bindings.json import DecodeErrors
from oa_protocol.cli._prompts import MAX_PROMPT
from oa_protocol.cli._terminal import open_stream
from oa_protocol.client.bulk import BulkPrompt, Key

Format = Literal["lines", "jsonl", "csv"]

_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A JSON line, or a line of CSV."""

    prompt: str
    id: Key | None = None
    model: str | None = None
    system_prompt: str | None = None
    user_profile: str | None = None
    user_response_instructions: str | None = None
    sampling: dict[str, Any] | None = None
    plugins: list[dict[str, Any]] = []


def read_prompts(name: str, form: Format | None) -> list[BulkPrompt]:
    """Return the prompts in the file ``name``, or in stdin if that is ``-``.

    Raises:
        UsageError: The file can't be read, or a line of it can't be used.

    """
    text = _text(name)
    form = form or _SUFFIXES.get(Path(name).suffix.lower(), "lines")
    found: list[BulkPrompt] = []
    lines_of: dict[str, int] = {}
    numbers = Counter[str]()
    for number, entry in _entries(text, form):
        if len(entry.prompt.encode(errors="replace")) > MAX_PROMPT:
            raise _problem(name, number, f"the prompt is over {MAX_PROMPT // 1024**2} MiB")
        key = _hash(entry, lines_of, numbers) if entry.id is None else entry.id
        if str(key) in lines_of:
            raise _problem(name, number, f"the id {key!r} is that of line {lines_of[str(key)]}, too")
        lines_of[str(key)] = number
        fields = {field: getattr(entry, field) for field in entry.__struct_fields__ if field != "id"}
        found.append(BulkPrompt(key=key, **fields))
    return found


def _text(name: str) -> str:
    try:
        if name == "-":
            stdin = open_stream(sys.stdin)
            if stdin is None:
                raise click.UsageError("there are no prompts, because stdin is closed")
            return stdin.buffer.read().decode("utf-8-sig")
        return Path(name).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{name} is not UTF-8: byte {error.object[error.start]:#04x} at {error.start}") from None
    except OSError as error:
        raise click.UsageError(f"{name} can't be read: {error.strerror}") from None


def _entries(text: str, form: Format) -> Iterator[tuple[int, _Entry]]:
    """Yield the number of each line that isn't empty, and what it says."""
    if form == "csv":
        yield from _csv_entries(text)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        if form == "lines":
            yield number, _Entry(line.rstrip("\r"))
            continue
        try:
            yield number, msgspec.json.decode(line, type=_Entry)
        except DecodeErrors as error:
            raise _problem("the input", number, str(error)) from None


def _csv_entries(text: str) -> Iterator[tuple[int, _Entry]]:
    csv.field_size_limit(MAX_PROMPT)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            # An empty cell counts as left out. The key None is that of cells without a heading.
            fields = {name: cell for name, cell in row.items() if cell or name in ("prompt", None)}
            if None in fields:
                raise _problem("the input", reader.line_num, "it has more cells than the first line")
            yield reader.line_num, msgspec.convert(fields, _Entry)
    except (csv.Error, msgspec.ValidationError) as error:
        raise _problem("the input", reader.line_num, str(error)) from None


def _hash(entry: _Entry, taken: Container[str], numbers: Counter[str]) -> str:
    """Return a key that stays the same if lines are added or moved. Repeated prompts are numbered.

    ``numbers`` has the last number of each hash. Counting from 1 for each line would take too long.
    """
    key = hashlib.sha256(msgspec.json.encode(entry)).hexdigest()[:16]
    while True:
        numbers[key] += 1
        numbered = key if numbers[key] == 1 else f"{key}-{numbers[key]}"
        if numbered not in taken:
            return numbered


def _problem(name: str, number: int, problem: str) -> click.UsageError:
    return click.UsageError(f"line {number} of {name}: {problem}")
