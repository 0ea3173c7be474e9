"""Ids and times as the Open Assistant server makes them."""

import secrets
import threading
import time
from datetime import UTC, datetime


class Identifiers:
    """Time-ordered UUIDs in the server's own form, which is not that of RFC 9562.

    The first 36 bits are seconds, the next 24 (around the version, 7) the fraction of the second; then come the
    variant, 14 bits of zero, and 48 random bits. Each id is greater than the one before it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def new(self) -> str:
        """The next id."""
        with self._lock:
            self._last = max(self._last + 1, (time.time_ns() << 24) // 1_000_000_000)
            ticks = self._last
        high = ticks >> 12
        digits = f"{high:012x}7{ticks & 0xFFF:03x}8000{secrets.token_hex(6)}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def now() -> str:
    """The time as the server writes it: naive UTC with microseconds."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
