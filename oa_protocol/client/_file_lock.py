"""Locks on files. The operating system releases them when their process ends, even if it is killed."""

from __future__ import annotations

import os
import sys
from pathlib import Path


class Lock:
    """A file that is locked until ``close``, or until the process ends, even if it is killed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Unlock it. It may be called again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    __del__ = close


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock of the file ``path``."""
    try:
        lock = lock_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:  # it belongs to another user, so whether its process runs is unknown
        return True
    if lock is not None:
        lock.close()
    return lock is None


def lock_file(path: Path, flags: int = 0) -> Lock | None:
    """Lock the file ``path``. Return None if another process holds its lock."""
    descriptor = os.open(path, os.O_RDWR | flags, 0o600)
    lock = Lock(descriptor)
    if not lock_descriptor(descriptor):
        lock.close()
        return None
    return lock


def lock_descriptor(descriptor: int) -> bool:
    """Lock an open file until it is closed. Return False if it is locked already."""
    try:
        _lock(descriptor)
    except _HELD:
        return False
    return True


if sys.platform == "win32":  # pragma: no cover  # the same for another platform
    import msvcrt

    _HELD = PermissionError

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    _HELD = BlockingIOError

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
