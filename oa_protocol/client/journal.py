"""What is still to be deleted, on disk: a chat is written down before it is made, and crossed out when it is gone.

A line is written before CreateChat is sent, gets the chat's id when it is known, and is removed when the chat is
confirmed gone, or was certainly never made. Whatever kills the process in between, the line stays, and ``sweep`` finds
it. The journal is an SQLite database that several processes may share. It holds no credentials and no text.

An owner of lines holds the lock of a file for as long as it lives. These files are in one folder, which the journal
itself names, so that each owner is found whatever the journal is called: by a symbolic or a hard link, or by a path
that was relative to another folder.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import anyio
from anyio import to_thread
from anyio.lowlevel import RunVar

from oa_protocol.bindings.base import Binding, check_base_url
from oa_protocol.engine.errors import JournalError

logger = logging.getLogger("oa_protocol")

# What ``PRAGMA user_version`` says. Version 0.1 left it 0; its table is the same, but has base URLs as they were given.
_VERSION = 2
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
);
CREATE INDEX IF NOT EXISTS owners ON chats (owner);
CREATE TABLE IF NOT EXISTS home (path TEXT NOT NULL);
"""

# What is in the column may be anything, and only this becomes the name of a file.
_OWNER = re.compile(r"[0-9a-f]{32}")

# The journal's own threads, so that it never waits for those that the program keeps busy.
_THREADS = 40
_LIMITER: RunVar[anyio.CapacityLimiter] = RunVar("_oa_protocol_journal")
_TARDINESS = 0.5  # what SQLite's waiting may take longer on a busy machine
_LAST_PATIENCE = 0.25

_T = TypeVar("_T")
_P = ParamSpec("_P")


@dataclass(frozen=True, slots=True)
class Line:
    """A chat that is, or may be, on the server.

    ``chat_id`` is None while nobody knows it. ``sent_at`` and ``settled_at`` are Unix times in seconds by this
    machine's clock: when the create was sent, and when it was given up, or None if its owner did not live to see it.
    ``account`` names the account that made it, hashed (see ``Accounts``).
    """

    line: int
    owner: str
    api: str
    base_url: str
    account: str
    chat_id: str | None
    sent_at: float
    settled_at: float | None


class Journal:
    """One owner's part of the journal at ``path``. The file and its folder are made when the first line is written.

    All methods but ``close`` block for the time of a write to disk, and for at most ``patience`` seconds while another
    process holds the journal. They raise JournalError if the journal can't be used.
    """

    def __init__(self, path: str | os.PathLike[str], *, patience: float = 10.0) -> None:
        self.path = Path(path).absolute()
        self.patience = patience
        self._owner = ""
        self._lock: Lock | None = None
        self._lock_file = self.path
        self._process = 0
        self._open_lines: set[int] = set()
        self._locking = threading.Lock()
        self._writing = threading.Lock()
        self._changes: deque[tuple[Callable[[sqlite3.Connection], Any], Future[Any]]] = deque()

    def creating(self, binding: Binding, account: str) -> Line:
        """Write down that a chat is about to be made for ``account``."""

        def insert(database: sqlite3.Connection) -> Line:
            owner = self._begin(_folders(database, self.path)[0])
            row = database.execute(
                "INSERT INTO chats (owner, api, base_url, account, sent_at) VALUES (?, ?, ?, ?, ?) RETURNING *",
                (owner, binding.api, binding.base_url, account, time.time()),
            ).fetchone()
            return Line(*row)

        line = self._write(insert)
        self._open_lines.add(line.line)
        return line

    def created(self, line: Line, chat_id: str) -> None:
        """Write down the chat's id."""
        self._change("UPDATE chats SET chat_id = ?", line, chat_id)

    def unclear(self, line: Line) -> None:
        """Write down that the create was given up, and may have made a chat."""
        self._change("UPDATE chats SET settled_at = ?", line, time.time())

    def gone(self, line: Line) -> None:
        """Cross the line out: the chat is confirmed gone, or was never made."""
        self._change("DELETE FROM chats", line)
        if line.owner == self._owner:
            self._open_lines.discard(line.line)

    def close(self) -> None:
        """Let go, at once: what this owner leaves in the journal is free for ``sweep``."""
        with self._locking:
            if self._lock is not None:
                self._lock.close()
                self._lock = None
                if not self._open_lines and self._process == os.getpid():  # after a fork the owner is the parent
                    with suppress(OSError):  # a file too many does no harm
                        self._lock_file.unlink()

    def lines(self, binding: Binding | None = None) -> list[Line]:
        """Return the lines of all owners, oldest first; with ``binding`` only those of its server."""
        rows = self._read("SELECT * FROM chats WHERE ? IS NULL OR (api = ? AND base_url = ?) ORDER BY line", binding)
        return [Line(*row) for row in rows]

    def elsewhere(self, binding: Binding) -> list[str]:
        """Return the base URLs of lines that aren't of the server of ``binding``."""
        query = "SELECT DISTINCT base_url FROM chats WHERE ? IS NULL OR api != ? OR base_url != ? ORDER BY base_url"
        return [base_url for [base_url] in self._read(query, binding)]

    # ---- for a sweep

    def claim(self) -> Lock | None:
        """Take the lock that a sweep holds, to be given to ``release``; None if another sweep holds it."""
        with self._database() as database:
            folder = _folders(database, self.path)[0]
            folder.mkdir(exist_ok=True)
            return _lock(folder / "sweep", os.O_CREAT)

    def release(self, claim: Lock, owners: Collection[str]) -> None:
        """Let go of the lock, and remove the files of those dead ``owners`` who have no lines any more."""
        with suppress(JournalError), self._database() as database:
            remaining = {owner for [owner] in database.execute("SELECT DISTINCT owner FROM chats")}
            for folder in _folders(database, self.path):
                for owner in owners:
                    if owner not in remaining and _OWNER.fullmatch(owner):
                        (folder / owner).unlink(missing_ok=True)
        claim.close()

    def living(self, owners: Iterable[str]) -> set[str]:
        """Return those of ``owners`` who live: somebody holds their locks."""
        with self._database() as database:
            folders = _folders(database, self.path)
            return {
                owner
                for owner in owners
                if _OWNER.fullmatch(owner) and any(_is_held(folder / owner) for folder in folders)
            }

    def forget(self, number: int) -> Line | None:
        """Cross out the line with this number, and return it; None if there is none. Its owner must not live."""
        for line in self.lines():
            if line.line == number:
                if self.living([line.owner]):
                    raise JournalError(
                        f"line {number} of the journal {self.path} is in use: the process that wrote it still runs"
                    )
                self.gone(line)
                return line
        return None

    # ---- inside

    def _begin(self, folder: Path) -> str:
        """Take the lock of an owner, if this process has none, and return the owner."""
        with self._locking:
            if self._lock is None or self._process != os.getpid():
                folder.mkdir(exist_ok=True)
                # An owner is never used again: a sweep may be about to remove the file of its lock.
                self._owner = uuid.uuid4().hex
                self._lock_file = folder / self._owner
                self._lock = _lock(self._lock_file, os.O_CREAT)
                self._process = os.getpid()
                self._open_lines = set()
            return self._owner

    def _read(self, query: str, binding: Binding | None) -> list[tuple[Any, ...]]:
        """Read lines with a query that has a binding's API, again its API, and its base URL."""
        with self._errors():
            if not _exists(self.path):
                return []
        server = (None, None, None) if binding is None else (binding.api, binding.api, binding.base_url)
        with self._database() as database:
            return database.execute(query, server).fetchall()

    def _change(self, what: str, line: Line, *values: object) -> None:
        """Change a line. A journal that was replaced may have its number again, for a line of another owner."""

        def change(database: sqlite3.Connection) -> None:
            database.execute(f"{what} WHERE line = ? AND owner = ?", (*values, line.line, line.owner))

        self._write(change)

    def _write(self, change: Callable[[sqlite3.Connection], _T]) -> _T:
        """Make a change. What other threads ask for meanwhile becomes one transaction, because a disk is slow."""
        future: Future[_T] = Future()
        self._changes.append((change, future))
        if not self._writing.acquire(timeout=self.patience):
            future.cancel()
            raise self.error(f"writing to it takes more than {self.patience:g} s")
        try:
            if not future.done():
                self._write_all()
        finally:
            self._writing.release()
        if isinstance(error := future.exception(), JournalError):
            raise copy(error) from error  # it is that of all who asked, and each may get notes of its own
        return future.result()

    def _write_all(self) -> None:
        asked = [self._changes.popleft() for _ in range(len(self._changes))]
        changes = [(change, future) for change, future in asked if future.set_running_or_notify_cancel()]
        try:
            with self._database() as database:
                database.execute("BEGIN IMMEDIATE")
                results = [change(database) for change, _ in changes]
                database.execute("COMMIT")
        except BaseException as error:
            for _, future in changes:
                future.set_exception(error)
        else:
            for (_, future), result in zip(changes, results, strict=True):
                future.set_result(result)

    @contextmanager
    def _database(self) -> Generator[sqlite3.Connection]:
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=self.patience, isolation_level=None)) as database:
                database.execute("PRAGMA synchronous = FULL")
                if _version(database) != _VERSION:
                    self._set_up(database)
                yield database

    def _set_up(self, database: sqlite3.Connection) -> None:
        """Make the tables, or those that version 0.1 hadn't."""
        database.execute("BEGIN IMMEDIATE")
        version = _version(database)
        if version not in (0, _VERSION):
            raise JournalError(f"the journal {self.path} is of another version of this package, or no journal at all")
        if version == 0:
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            for line, base_url in database.execute("SELECT line, base_url FROM chats").fetchall():
                with suppress(ValueError):
                    database.execute("UPDATE chats SET base_url = ? WHERE line = ?", (check_base_url(base_url), line))
            database.execute("INSERT INTO home VALUES (?)", (str(self.path.resolve()),))
            database.execute(f"PRAGMA user_version = {_VERSION}")
        database.execute("COMMIT")

    def error(self, why: str) -> JournalError:
        """Return the error that says why the journal can't be used."""
        return JournalError(
            f"the journal {self.path} cannot be used: {why}. Choose another file for it, or do without a journal."
        )

    @contextmanager
    def _errors(self) -> Generator[None]:
        """Turn what the disk and SQLite raise into an error that names the journal, and not a file beside it."""
        try:
            yield
        except (OSError, sqlite3.Error, ValueError) as error:  # the last is of a name that no file can have
            why = str(error.strerror or error) if isinstance(error, OSError) else str(error)
            if "locked" in why:
                why = (
                    f"another process has held it for {self.patience:g} s"
                    if self.patience
                    else "another process holds it"
                )
            raise self.error(why) from error


def _version(database: sqlite3.Connection) -> int:
    [version] = database.execute("PRAGMA user_version").fetchone()
    return int(version)


def _folders(database: sqlite3.Connection, path: Path) -> tuple[Path, Path]:
    """Return where owners have their locks; new ones in the first.

    It is beside the journal's first name, as long as that is the same file. If somebody has moved the journal since,
    older owners are still there. If the journal's folder has another name here, as in a container, the second is it.
    """
    [home] = map(Path, database.execute("SELECT path FROM home").fetchone())
    here = path.resolve()
    recorded, beside = Path(f"{home}.owners"), Path(f"{here}.owners")
    with suppress(OSError):
        if home.samefile(here):
            return recorded, beside
    return beside, recorded


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


class Lock:
    """A file that is locked, until ``close`` or the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Let go. May be called again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    __del__ = close


def _is_held(path: Path) -> bool:
    try:
        lock = _lock(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:  # of another user, who may live
        return True
    if lock is not None:
        lock.close()
    return lock is None


def _lock(path: Path, flags: int = 0) -> Lock | None:
    """Lock ``path``; return None if another one holds it."""
    descriptor = os.open(path, os.O_RDWR | flags, 0o600)
    lock = Lock(descriptor)
    try:
        _lock_descriptor(descriptor)
    except _HELD:
        lock.close()
        return None
    return lock


if sys.platform == "win32":  # pragma: no cover  # the same for another platform
    import msvcrt

    _HELD = PermissionError

    def _lock_descriptor(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    _HELD = BlockingIOError

    def _lock_descriptor(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def in_thread(function: Callable[_P, _T], *args: _P.args, **keywords: _P.kwargs) -> _T:
    """Call ``function``, which uses the journal, in a thread of the journals' own; a cancellation waits for it."""
    return await to_thread.run_sync(partial(function, *args, **keywords), limiter=_limiter())


def _limiter() -> anyio.CapacityLimiter:
    try:
        return _LIMITER.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_THREADS)
        _LIMITER.set(limiter)
        return limiter


class Entry:
    """One chat's line in the journal. It is written by threads, each time within the journal's ``patience``."""

    _line: Line  # of the last create

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def creating(self, binding: Binding, account: str) -> None:
        """Write down that a chat may be made, before it can be. An interruption waits for that. Raises JournalError."""
        self._line = await self._write(partial(self._journal.creating, binding, account), shield=True)

    async def settled(self, chat_id: str | None, *, is_unclear: bool) -> None:
        """Write down what became of the create. An interruption waits for that. Raises JournalError."""
        if chat_id is not None:
            await self._write(partial(self._journal.created, self._line, chat_id), shield=True)
        elif is_unclear:
            await self._write(partial(self._journal.unclear, self._line), shield=True)
        else:
            await self._write(partial(self._journal.gone, self._line), shield=True)

    async def gone(self) -> None:
        """Cross the chat out. A line too many does no harm, because a sweep finds no chat and drops it."""
        try:
            await self._write(partial(self._journal.gone, self._line), shield=False)
        except Exception as error:
            logger.warning("the chat is gone, but still in the journal: %s", error)

    async def _write(self, write: Callable[[], _T], *, shield: bool) -> _T:
        try:
            with anyio.move_on_after(self._journal.patience + _TARDINESS, shield=shield):
                return await to_thread.run_sync(write, abandon_on_cancel=True, limiter=_limiter())
        except JournalError:
            raise
        except RuntimeError:  # no thread can be started, because Python shuts down: only once, a short wait is in order
            self._journal.patience = min(self._journal.patience, _LAST_PATIENCE)
            try:
                return write()
            except JournalError:
                self._journal.patience = 0.0
                raise
        raise self._journal.error(f"writing to it takes more than {self._journal.patience:g} s")
