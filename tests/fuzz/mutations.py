"""Changes valid input a little, so that a reader gets past its first checks before something is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.]*|\btrue\b|\bfalse\b|\bnull\b|\{[^{}]*\}|\[[^][]*\]|[\w./:%-]+')
"""A JSON value that has no others in it, or a word."""

_ODD = (
    b"null", b"true", b"0", b"-1", b"1e999", b"NaN", b"9" * 30, b"9" * 400, b'""', b'"x"', b'"\\ud800"', b'"\\u0000"',
    b"[]", b"[[]]", b"{}", b'{"a": 1}', b"[" * 400 + b"]" * 400, b"[" * 2000, b"", b"x", b"\0", b"\xff",
    b"\xef\xbb\xbf", b"\r", b"\n", b"\t", b"%00", b";", b"Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
)  # fmt: skip
"""What is put in the place of a value, or in between."""


def mutate(data: bytes, random: Random) -> bytes:
    """Return ``data`` with one change."""
    return random.choice(_CHANGES)(data, random)


def _flip_a_bit(data: bytes, random: Random) -> bytes:
    if not data:
        return data
    place = random.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]


def _cut_off(data: bytes, random: Random) -> bytes:
    return data[: random.randint(0, len(data))]


def _cut_out(data: bytes, random: Random) -> bytes:
    start, end = _slice(data, random)
    return data[:start] + data[end:]


def _repeat(data: bytes, random: Random) -> bytes:
    start, end = _slice(data, random)
    place = random.randint(0, len(data))
    return data[:place] + data[start:end] + data[place:]


def _insert(data: bytes, random: Random) -> bytes:
    place = random.randint(0, len(data))
    return data[:place] + random.choice(_ODD) + data[place:]


def _replace_a_value(data: bytes, random: Random) -> bytes:
    values = list(_VALUE.finditer(data))
    if not values:
        return data
    start, end = random.choice(values).span()
    return data[:start] + random.choice(_ODD) + data[end:]


def _slice(data: bytes, random: Random) -> tuple[int, int]:
    start = random.randint(0, len(data))
    return start, random.randint(start, len(data))


_CHANGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip_a_bit, _cut_off, _cut_out, _repeat, _insert, _replace_a_value, _replace_a_value, _replace_a_value,
)  # fmt: skip
