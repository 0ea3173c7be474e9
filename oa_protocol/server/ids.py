"""Ids, times and credentials in the form of the Open Assistant server. All functions are pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2s

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the server writes naive UTC


def ticks_at(now: int) -> int:
    """Convert a time from nanoseconds to ticks of 2**-24 s."""
    return (now << 24) // 1_000_000_000


def timed_id(ticks: int, salt: str) -> str:
    """Return a UUID in the server's own form, which is not that of RFC 9562.

    The first 36 bits are seconds. The next 24 bits are the fraction of the second, with the version (7) in between.
    Then come the variant, 14 zero bits, and 48 bits that look random.
    """
    return _uuid(f"{ticks >> 12:012x}7{ticks & 0xFFF:03x}8000{digest(f'{salt}/{ticks}')[:12]}")


def placed_id(chat: int, position: int = 0) -> str:
    """Return a UUID made from the number of a chat and the position of a message in it (0 for the chat itself)."""
    return _uuid(f"{chat:08x}{position:04x}70008000000000000000")


def placed_chat(chat_id: str) -> int:
    """Return the chat's number from an id that ``placed_id`` made."""
    return int(chat_id[:8], 16)


def timestamp(now: int) -> str:
    """Return the time as the server writes it: naive UTC with microseconds."""
    return (_EPOCH + timedelta(microseconds=now // 1000)).isoformat(timespec="microseconds")


def digest(text: str) -> str:
    """Return 64 hexadecimal digits that depend only on ``text``."""
    return blake2s(text.encode()).hexdigest()


def _uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
