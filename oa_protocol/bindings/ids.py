"""The ids of Open Assistant, which are UUIDs in their canonical form (OA-2.6)."""

from __future__ import annotations

import re

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


def is_id(text: str) -> bool:
    """Return whether ``text`` is a UUID in its canonical form."""
    return _UUID.fullmatch(text) is not None


def check_id(chat_or_message_id: str) -> str:
    """Return the id unchanged, if it is one.

    The website pastes ids into a path on its upstream server unescaped (WIRE 7), so only an id may be sent.

    Raises:
        ValueError: the text isn't a UUID in its canonical form.

    """
    if not is_id(chat_or_message_id):
        raise ValueError(f"not an id of this protocol (a UUID): {chat_or_message_id!r}")
    return chat_or_message_id
