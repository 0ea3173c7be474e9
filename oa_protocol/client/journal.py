"""What is still to be deleted, on disk: a chat is written down before it is made, and crossed out when it is gone.

A line is written before CreateChat is sent, gets the chat's id when it is known, and is removed when the chat is
confirmed gone, or was certainly never made. Whatever kills the process in between, the line stays, and ``sweep`` finds
it. The journal is an SQLite database that several processes may share. It holds no credentials and no text.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio import to_thread

from oa_protocol.bindings.base import Binding, Credentials

logger = logging.getLogger("oa_protocol")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS chats (
    line INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,
    api TEXT NOT NULL,
    base_url TEXT NOT NULL,
    account TEXT NOT NULL,
    chat_id TEXT,
    sent_at REAL NOT NULL,
    settled_at REAL
)
"""
_BUSY_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Line:
    """A chat that is, or may be, on the server.

    ``chat_id`` is None while nobody knows it. ``sent_at`` and ``settled_at`` are Unix times in seconds by this
    machine's clock: when the create was sent, and when it was given up, or None where its owner did not live to see it.
    ``account`` is a fingerprint of the credentials.
    """

    line: int
    owner: str
    api: str
    base_url: str
    account: str
    chat_id: str | None
    sent_at: float
    settled_at: float | None


def fingerprint(credentials: Credentials) -> str:
    """Return what tells one account's credentials from another's, and gives nothing away."""
    parts = [credentials.token or "", *(f"{name}={value}" for name, value in sorted(credentials.cookies.items()))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class Journal:
    """One owner's hand in the journal at ``path``; the file and its folder are made when the first line is written.

    All methods block for the time of a write to disk. Raises OSError or sqlite3.Error where the disk does not take it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._owner = ""
        self._lock: int | None = None
        self._locking = threading.Lock()
        self.path = Path(path)

    def creating(self, binding: Binding, credentials: Credentials) -> int:
        """Write down that a chat is about to be made; return the number of the line."""
        with self._locking:
            if self._lock is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._owners.mkdir(exist_ok=True)
                # An owner is never used again: a sweep may be about to remove the file of its lock.
                self._owner = uuid.uuid4().hex
                self._lock = _lock(self._owners / self._owner)
            owner = self._owner
        with self._database() as database:
            row = database.execute(
                "INSERT INTO chats (owner, api, base_url, account, sent_at) VALUES (?, ?, ?, ?, ?) RETURNING line",
                (owner, binding.api, binding.base_url, fingerprint(credentials), time.time()),
            ).fetchone()
        return int(row[0])

    def created(self, line: int, chat_id: str) -> None:
        """Write down the chat's id."""
        with self._database() as database:
            database.execute("UPDATE chats SET chat_id = ? WHERE line = ?", (chat_id, line))

    def unclear(self, line: int) -> None:
        """Write down that the create was given up, and may have made a chat."""
        with self._database() as database:
            database.execute("UPDATE chats SET settled_at = ? WHERE line = ?", (time.time(), line))

    def gone(self, line: int) -> None:
        """Cross the line out: the chat is confirmed gone, or was never made."""
        with self._database() as database:
            database.execute("DELETE FROM chats WHERE line = ?", (line,))

    def close(self) -> None:
        """Let go: what this owner leaves in the journal is free for ``sweep``."""
        with self._locking:
            owner, lock, self._lock = self._owner, self._lock, None
            if lock is not None:
                os.close(lock)
                self._forget([owner])

    def __del__(self) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def lines(self) -> list[Line]:
        """Return every line of every owner, oldest first."""
        if not self.path.exists():
            return []
        with self._database() as database:
            rows = database.execute(
                "SELECT line, owner, api, base_url, account, chat_id, sent_at, settled_at FROM chats ORDER BY line"
            )
            return [Line(*row) for row in rows]

    @contextmanager
    def abandoned(self) -> Generator[list[Line], None, None]:
        """Give the lines whose owners do not live any more, and hold these owners' locks meanwhile.

        Lines of living owners, this one among them, and lines that another sweep is at, are left out.
        """
        locks: dict[str, int] = {}
        try:
            for owner in {line.owner for line in self.lines()}:
                self._owners.mkdir(exist_ok=True)
                lock = _lock(self._owners / owner)
                if lock is not None:
                    locks[owner] = lock
            # Read again: a line may have been crossed out before its owner let go.
            yield [line for line in self.lines() if line.owner in locks]
        finally:
            for lock in locks.values():
                os.close(lock)
            self._forget(locks)

    def _forget(self, owners: Iterable[str]) -> None:
        """Remove the files of these owners' locks where no line needs them; a file too many does no harm."""
        with suppress(OSError, sqlite3.Error):
            remaining = {line.owner for line in self.lines()}
            for owner in owners:
                if owner not in remaining:
                    (self._owners / owner).unlink(missing_ok=True)

    @property
    def _owners(self) -> Path:
        return self.path.with_name(f"{self.path.name}.owners")

    @contextmanager
    def _database(self) -> Generator[sqlite3.Connection, None, None]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT, isolation_level=None)) as database:
                database.execute("PRAGMA synchronous = FULL")
                database.execute(_SCHEMA)
                yield database
        except sqlite3.Error as error:
            raise type(error)(f"{self.path}: {error}") from error


# Each returns a descriptor that holds the lock of ``path`` until it is closed, or None where another one holds it.
if sys.platform == "win32":  # pragma: no cover  # the same for another platform
    import msvcrt

    def _lock(path: Path) -> int | None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

else:
    import fcntl

    def _lock(path: Path) -> int | None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


class Entry:
    """One chat's line in the journal, written by worker threads; an interruption waits until it is written."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._line: int | None = None

    async def creating(self, binding: Binding, credentials: Credentials) -> None:
        """Write down that a chat may be made, before it can be."""
        self._line = await to_thread.run_sync(self._journal.creating, binding, credentials)

    async def settled(self, chat_id: str | None, *, is_unclear: bool) -> None:
        """Write down what became of the create."""
        if self._line is None:
            return
        with anyio.CancelScope(shield=True):
            if chat_id is not None:
                await to_thread.run_sync(self._journal.created, self._line, chat_id)
            elif is_unclear:
                await to_thread.run_sync(self._journal.unclear, self._line)
            else:
                await to_thread.run_sync(self._journal.gone, self._line)

    async def gone(self) -> None:
        """Cross the chat out. A line too many does no harm, because a sweep finds no chat and drops it."""
        if self._line is None:
            return
        try:
            await to_thread.run_sync(self._journal.gone, self._line)
        except Exception as error:
            logger.warning("cannot cross the chat out in the journal %s: %s", self._journal.path, error)
