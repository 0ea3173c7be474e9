"""A comparison of header fields, for transports that mustn't change them."""

from __future__ import annotations

from collections.abc import Iterable

ADDED = ("host", "content-length", "connection")
"""The header fields that HTTP itself needs, and that a transport adds."""


def changed_fields(before: Iterable[tuple[str, str]], after: Iterable[tuple[str, str]]) -> str:
    """Return which fields have changed, in words, or that the order has changed, or "". Names may be in any case.

    >>> changed_fields([("accept", "*/*"), ("x-one", "1")], [("Accept", "*/*"), ("x-one", "2")])
    "its field x-one was ['1'], and became ['2']"
    """
    old, new = ([(name.lower(), value) for name, value in fields] for fields in (before, after))
    changes: list[str] = []
    for name in dict.fromkeys(name for name, _ in (*old, *new)):
        was, became = ([value for other, value in fields if other == name] for fields in (old, new))
        if was != became:
            changes.append(f"its field {name} was {was}, and became {became}")
    if not changes and old != new:
        return f"its fields were in this order: {_names(old)}, and then in this: {_names(new)}"
    return "; ".join(changes)


def _names(fields: list[tuple[str, str]]) -> str:
    return ", ".join(name for name, _ in fields)
