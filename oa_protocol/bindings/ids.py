"""The ids of Open Assistant: UUIDs in canonical spelling, and nothing else (OA-2.6)."""

from __future__ import annotations

import re

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


def is_id(text: str) -> bool:
    """Return whether ``text`` is a UUID in its canonical spelling."""
    return _UUID.fullmatch(text) is not None


def check_id(chat_or_message_id: str) -> str:
    """Return the id, if it is one: the website pastes ids into a path on its upstream server (WIRE 7).

    Raises:
        ValueError: it is no UUID.

    """
    if not is_id(chat_or_message_id):
        raise ValueError(f"not an id of this protocol (a UUID): {chat_or_message_id!r}")
    return chat_or_message_id
