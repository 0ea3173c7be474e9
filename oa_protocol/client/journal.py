"""The journal: a file that lists the chats still to be deleted, and outlives the process.

A line is written before a create is sent. The chat's id is added when it is known. The line is removed when the chat is
confirmed gone, or was certainly never made. If the process is killed in between, the line stays, and ``sweep`` finds
it. The journal is an SQLite database that several processes may share. It has no credentials in it, and no text.

Each client that writes lines is an owner. It holds a lock on its own file until it is closed, or its process ends.
So others can find out whether it still uses its chats. These files are in one folder, whose name is in the journal. So
each owner is found, even if the journal is opened by different paths, for example by a symbolic link or a hard link.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from copy import copy
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple, cast

import anyio
from anyio import to_thread
from anyio.lowlevel import RunVar
from msgspec import convert

from oa_protocol.bindings.base import Binding, check_base_url
from oa_protocol.client._file_lock import Lock, is_held, lock_file
from oa_protocol.engine.errors import JournalError

logger = logging.getLogger("oa_protocol")

# The value of ``PRAGMA user_version``. Version 0.1 left it 0. Its table is the same, but its base URLs are not in the
# form that ``check_base_url`` gives them.
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

# An owner becomes the name of a file. Somebody may have written anything into the column, so it is checked.
_OWNER = re.compile(r"[0-9a-f]{32}")

# Journals have threads of their own, so that they never wait because the program keeps anyio's threads busy.
_THREADS = 40
_LIMITER: RunVar[anyio.CapacityLimiter] = RunVar("_oa_protocol_journal")
_TARDINESS = 0.5  # seconds that SQLite may be late on a busy machine
_LAST_PATIENCE = 0.25  # seconds to wait for another process while Python shuts down, because that blocks the loop

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


@dataclass(frozen=True, slots=True)
class Line:
    """A chat that is, or may be, on the server.

    Attributes:
        line: the line's number.
        owner: the name of the owner that wrote it.
        api: the API through which the chat was made.
        base_url: its server's base URL.
        account: the name of the account that made it, as a hash (see ``Accounts``).
        chat_id: its id, or None as long as that isn't known.
        sent_at: when the create was sent, as a Unix time in seconds by this machine's clock.
        settled_at: when the create was given up, by the same clock. None if it wasn't, or if its process died before.

    """

    line: int
    owner: str
    api: str
    base_url: str
    account: str
    chat_id: str | None
    sent_at: float
    settled_at: float | None

    def is_of(self, binding: Binding) -> bool:
        """Return whether the chat was made on the server of ``binding``, through its API."""
        return (self.api, self.base_url) == (binding.api, binding.base_url)


_COLUMNS = [field.name for field in fields(Line)]
_LEAST = 512  # bytes that an SQLite database has at least


class Journal:
    """One owner's part of a journal. The file and its folder are made when the first line is written.

    All methods except ``close`` block for the time of a write to disk. If another process holds the journal, they wait
    for it. They raise ``JournalError`` if the journal can't be used.

    Args:
        path: the journal's file.
        patience: how long to wait for another process or thread, in seconds.

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
            return _line(row)

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
        """Cross the line out, because the chat is confirmed gone, or was never made."""
        self._change("DELETE FROM chats", line)
        if line.owner == self._owner:
            self._open_lines.discard(line.line)

    def close(self) -> None:
        """Release the owner's lock at once. A ``sweep`` may then delete what this owner leaves in the journal."""
        with self._locking:
            if self._lock is not None:
                self._lock.close()
                self._lock = None
                # If lines are left, a sweep removes the file. In a forked child, the file still belongs to the parent.
                if not self._open_lines and self._process == os.getpid():
                    with suppress(OSError):  # a file that is left behind does no harm
                        self._lock_file.unlink()

    def lines(self, binding: Binding | None = None) -> list[Line]:
        """Return the lines of all owners, oldest first. With ``binding``, return only those of its server."""
        with self._errors():
            if not _exists(self.path):
                return []
        with self._database() as database:
            lines = [_line(row) for row in database.execute("SELECT * FROM chats ORDER BY line")]
        return [line for line in lines if binding is None or line.is_of(binding)]

    def elsewhere(self, binding: Binding) -> list[str]:
        """Return the base URLs of the lines that belong to other servers than that of ``binding``."""
        return sorted({line.base_url for line in self.lines() if not line.is_of(binding)})

    # ---- for a sweep

    def claim(self) -> Lock | None:
        """Take the lock that a sweep holds, and return it for ``release``. Return None if another sweep holds it."""
        with self._database() as database:
            folder = _folders(database, self.path)[0]
            folder.mkdir(exist_ok=True)
            return lock_file(folder / "sweep", os.O_CREAT)

    def release(self, claim: Lock, owners: Collection[str]) -> None:
        """Release the lock. Remove the files of those dead ``owners`` that no longer have lines."""
        with suppress(JournalError), self._database() as database:
            remaining = {owner for [owner] in database.execute("SELECT DISTINCT owner FROM chats")}
            for folder in _folders(database, self.path):
                for owner in owners:
                    if owner not in remaining and _OWNER.fullmatch(owner):
                        (folder / owner).unlink(missing_ok=True)
        claim.close()

    def living(self, owners: Iterable[str]) -> set[str]:
        """Return those of ``owners`` that are still alive, which means that their locks are held."""
        with self._database() as database:
            folders = _folders(database, self.path)
            return {
                owner
                for owner in owners
                if _OWNER.fullmatch(owner) and any(is_held(folder / owner) for folder in folders)
            }

    def forget(self, number: int) -> Line | None:
        """Cross out a line, and return it.

        Args:
            number: the line's number.

        Returns:
            The line, or None if there is none with this number.

        Raises:
            JournalError: the journal can't be used, or the line's owner is still alive.

        """
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
        """Return the owner. If there is none yet in this process, make one, and take its lock."""
        with self._locking:
            if self._lock is None or self._process != os.getpid():
                folder.mkdir(exist_ok=True)
                # It is always a new owner, because a sweep may be about to remove the file of an old one.
                self._owner = uuid.uuid4().hex
                self._lock_file = folder / self._owner
                self._lock = lock_file(self._lock_file, os.O_CREAT)
                self._process = os.getpid()
                self._open_lines = set()
            return self._owner

    def _change(self, what: str, line: Line, *values: object) -> None:
        """Change a line. Its owner is checked, too, because in a journal that was replaced its number may be another's.

        So no line of another owner is ever crossed out by mistake.
        """

        def change(database: sqlite3.Connection) -> None:
            database.execute(f"{what} WHERE line = ? AND owner = ?", (*values, line.line, line.owner))

        self._write(change)

    def _write(self, change: Callable[[sqlite3.Connection], _T]) -> _T:
        """Make a change, and return its result.

        Each transaction waits for the disk. So the changes that other threads ask for meanwhile are queued, and the
        next thread that gets the lock makes all of them in one transaction.
        """
        future: Future[_T] = Future()
        self._changes.append((change, future))
        if not self._writing.acquire(timeout=self.patience):
            future.cancel()
            raise self.error(f"writing to it takes more than {self.patience:g} s")
        try:
            if not future.done():  # otherwise another thread has made it
                self._write_all()
        finally:
            self._writing.release()
        if isinstance(error := future.exception(), JournalError):
            raise copy(error) from error  # several threads raise it, and each one's may get its own notes
        return future.result()

    def _write_all(self) -> None:
        asked = [self._changes.popleft() for _ in range(len(self._changes))]
        changes = [(change, future) for change, future in asked if future.set_running_or_notify_cancel()]
        try:
            with self._database() as database:
                database.execute("BEGIN IMMEDIATE")  # it waits for other processes now, and not at the first change
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
                # A line must be on the disk before its create is sent, even if the power fails.
                database.execute("PRAGMA synchronous = FULL")
                if _version(database) != _VERSION:
                    self._set_up(database)
                yield database

    def _set_up(self, database: sqlite3.Connection) -> None:
        """Make the tables. In a journal of version 0.1, make those that are missing."""
        database.execute("BEGIN IMMEDIATE")
        version = _version(database)
        if version not in (0, _VERSION) or (version == 0 and not self._is_new_or_ours(database)):
            raise JournalError(
                f"the journal {self.path} was made by another version of this package, or is not a journal"
            )
        if version == 0:
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            for line, base_url in database.execute("SELECT line, base_url FROM chats").fetchall():
                with suppress(ValueError, TypeError):  # a damaged line is found when it is read
                    database.execute("UPDATE chats SET base_url = ? WHERE line = ?", (check_base_url(base_url), line))
            database.execute("INSERT INTO home VALUES (?)", (str(self.path.resolve()),))
            database.execute(f"PRAGMA user_version = {_VERSION}")
        database.execute("COMMIT")

    def _is_new_or_ours(self, database: sqlite3.Connection) -> bool:
        """Return whether a database that names no version is empty, or is a journal of version 0.1."""
        if 0 < self.path.stat().st_size < _LEAST:  # SQLite takes a file that is too short for an empty database
            return False
        columns = [column for _, column, *_ in database.execute("PRAGMA table_info(chats)")]
        [tables] = database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()
        return columns == _COLUMNS if tables else True

    def error(self, why: str) -> JournalError:
        """Return the error to raise if the journal can't be used."""
        return JournalError(
            f"the journal {self.path} cannot be used: {why}. Choose another file for it, or do without a journal."
        )

    @contextmanager
    def _errors(self) -> Generator[None]:
        """Turn errors of the disk and of SQLite into a ``JournalError``, which names the journal.

        The original error may name a file beside the journal, for example the one of a lock.
        """
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


def _line(row: tuple[Any, ...]) -> Line:
    """Return a row as a line. Raises ValueError if it isn't one, because SQLite doesn't check the types of values."""
    try:
        return convert(dict(zip(_COLUMNS, row, strict=True)), Line)
    except ValueError as error:
        raise ValueError(f"its line {row[0]} is damaged: {error}") from None


def _version(database: sqlite3.Connection) -> int:
    [version] = database.execute("PRAGMA user_version").fetchone()
    return int(version)


def _folders(database: sqlite3.Connection, path: Path) -> tuple[Path, Path]:
    """Return the two folders in which owners may have their locks. New owners use the first one.

    Usually that is the folder beside the path by which the journal was first opened. If the journal has been moved
    since, that path no longer leads to it. Then new owners use the folder beside its new path, and older ones are still
    in the recorded one. The same goes for a journal whose folder has another path here, for example in a container.
    """
    match database.execute("SELECT path FROM home").fetchone():
        case (str(path_then),):
            home = Path(path_then)
        case _:
            raise ValueError("it is damaged, because it does not say where it was made")
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


async def in_thread(function: Callable[[*_Args], _T], *args: *_Args) -> _T:
    """Call ``function``, which uses the journal, in one of the journals' threads. A cancellation waits for it."""
    return await to_thread.run_sync(function, *args, limiter=_limiter())


def _limiter() -> anyio.CapacityLimiter:
    try:
        return _LIMITER.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_THREADS)
        _LIMITER.set(limiter)
        return limiter


class Entry:
    """One chat's line in the journal. It is written in threads, and each write is bounded by the journal's patience."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._creating: Line | None = None  # the line of the last create
        self._line: Line | None = None  # the line of the chat, once its id is known

    @property
    def has_chat(self) -> bool:
        """Whether the chat's id is written down, and the chat isn't crossed out."""
        return self._line is not None

    async def creating(self, binding: Binding, account: str) -> None:
        """Write down that a chat may be made, before it can be. A cancellation waits for that. Raises JournalError."""
        self._creating = await self._write(partial(self._journal.creating, binding, account), shield=True)

    async def settled(self, chat_id: str | None, *, is_unclear: bool, is_kept: bool) -> None:
        """Write down what became of the create. A cancellation waits for that. Raises JournalError."""
        line = cast("Line", self._creating)
        if chat_id is not None and not is_kept:
            self._line = line  # already while it is written, so that ``kept`` crosses it out
            await self._write(partial(self._journal.created, line, chat_id), shield=True)
        elif chat_id is None and is_unclear:
            await self._write(partial(self._journal.unclear, line), shield=True)
        else:
            await self._write(partial(self._journal.gone, line), shield=True)

    async def kept(self) -> None:
        """Cross the chat out, because a sweep mustn't delete it. A cancellation waits for that. Raises JournalError.

        The line of a create stays until ``settled``, because the create may be lost.
        """
        if self._line is not None:
            await self._write(partial(self._journal.gone, self._line), shield=True)
            self._line = None

    async def gone(self) -> None:
        """Cross the chat out. If that fails, it does no harm, because a sweep finds no chat and drops the line."""
        if self._line is None:
            return
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
        except RuntimeError:
            # Python shuts down, so no thread can be started, and writing blocks the loop. Only one write may wait a
            # little. If it fails, the others don't wait at all.
            self._journal.patience = min(self._journal.patience, _LAST_PATIENCE)
            try:
                return write()
            except JournalError:
                self._journal.patience = 0.0
                raise
        raise self._journal.error(f"writing to it takes more than {self._journal.patience:g} s")
