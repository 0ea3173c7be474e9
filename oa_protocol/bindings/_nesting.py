"""A limit for how deeply JSON from a server may be nested.

JSON decoders recurse, also into fields that nobody reads. From Python 3.12 on, their limit fits the stack of a main
thread, but not the smaller stacks that other threads may have: 100,000 brackets crash Python 3.13 in a thread with 256
KiB. So the depth is checked before anything is decoded.
"""

from __future__ import annotations

import re

MAX_NESTING = 500
"""How many arrays and objects may be inside one another. What is no longer than this can't be nested more deeply."""

TOO_DEEP = f"more than {MAX_NESTING} arrays and objects are inside one another"

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def is_nested_too_deeply(text: bytes) -> bool:
    """Return whether more than ``MAX_NESTING`` arrays and objects are inside one another."""
    if text.count(b"[") + text.count(b"{") <= MAX_NESTING:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", text)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_NESTING:
            return True
    return False
