"""Slots: let only one conversation of an account wait for a worker at a time, across clients, processes and machines.

A new request for an answer cancels the account's other waiting ones (OA-4.7). The chats of one client always take
turns. If other clients use the same account, give all of them the same slot::

    slot = LockFileSlot("~/.local/state/my-program/slots")
    client = Client("https://oa.example.org", token="…", slot=slot)
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from threading import get_ident
from typing import Protocol

import anyio

from oa_protocol.client._background import spawn
from oa_protocol.client._file_lock import Lock, is_held, lock_file

_POLLS_EVERY = 0.01  # seconds, for each one who is ahead
_SLOWEST_POLL = 0.25
_RENEWS_EVERY = 5.0
_STALE = 60.0
_GATE = "gate"
_PLACE = re.compile(r"[0-9]{12}-[0-9a-f]{32}")  # somebody may have put other files into the folder


class AccountSlot(Protocol):
    """Lets one conversation of an account at a time wait for a worker.

    A client enters before it requests an answer. It leaves as soon as a worker has begun, the answer is over, or the
    chat is closed. It also leaves if a worker has begun, and the chat's owner has paused and can't notice that. One
    client has at most one ``enter`` or ``leave`` under way at a time.
    """

    async def enter(self, account: str) -> None:
        """Wait until no other message of the account waits for a worker, and enter.

        If this is cancelled or raises, the slot is not entered. The client raises a ``SlotError`` then.

        Args:
            account: names the account and its server. It has no credentials in it, and it is the same in each process.

        """

    async def leave(self, account: str) -> None:
        """Let the next one enter. This follows each ``enter`` that has returned. If it raises, that is logged."""


class InProcessSlot:
    """A slot for several clients in one event loop. The first one who comes is served first."""

    def __init__(self) -> None:
        self._accounts: dict[str, anyio.Semaphore] = {}

    async def enter(self, account: str) -> None:
        """Wait until no other client's message of the account waits for a worker."""
        await self._accounts.setdefault(account, anyio.Semaphore(1)).acquire()

    async def leave(self, account: str) -> None:
        """Let the next client enter."""
        self._accounts[account].release()


class LockFileSlot:
    """A slot for all processes of a machine that use the same folder, and for all threads and event loops in them.

    The first one who comes is served first. A process that dies loses its place at once, because the operating system
    unlocks its file. A process that is stopped, or whose event loop is blocked, loses it after 60 seconds.

    Args:
        folder: where the files are. It is made, and only its user can read it. The files are empty, and their names
            don't give the account away.

    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).expanduser().absolute()
        # Several may hold the slot if it was taken from a stopped one. A scope can be cancelled only in its own thread.
        self._held: defaultdict[tuple[int, str], list[tuple[Ticket, anyio.CancelScope]]] = defaultdict(list)

    def ticket(self, account: str) -> Ticket:
        """Return a place in the account's queue, for programs that have no event loop of anyio's."""
        return Ticket(self._folder / hashlib.sha256(account.encode()).hexdigest()[:32])

    async def enter(self, account: str) -> None:
        """Wait until no other message of the account waits for a worker. Raises OSError if the folder can't be used."""
        ticket = self.ticket(account)
        try:
            while ahead := ticket.ahead():  # noqa: ASYNC110  # no event can come from another process
                await anyio.sleep(min(ahead * _POLLS_EVERY, _SLOWEST_POLL))
        except BaseException:
            ticket.close()
            raise
        scope = anyio.CancelScope()
        self._held[get_ident(), account].append((ticket, scope))
        spawn(_keep(ticket, scope), lambda: None)

    async def leave(self, account: str) -> None:
        """Let the next one enter."""
        ticket, scope = self._held[get_ident(), account].pop()
        scope.cancel()
        ticket.close()


class Ticket:
    """A place in the queue for an account's slot. Make one with ``LockFileSlot.ticket``. No call of it waits.

    Each place is a locked file with a number as its name. The first place whose process is alive has the slot.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder
        self._lock: Lock | None = None
        self._renewed_at = 0.0

    def ahead(self) -> int:
        """Return how many are before this one, or a little more. If it is 0, the slot is yours until ``close``.

        Call this again and again while you wait, and at least every 30 seconds while you have the slot. Otherwise the
        others take you for stopped, and pass you.

        Raises:
            OSError: the folder can't be used.

        """
        if self._lock is None or time.time() - self._renewed_at > _STALE:
            # A ticket that has gone stale may have been passed, so it would come back in the middle of others' turns.
            self.close()
            if not self._draw():
                return 1
        try:
            self.renew()
            return self._count()
        except FileNotFoundError:  # somebody has removed the files, so the next call takes another place
            self.close()
            return 1

    def _count(self) -> int:
        before = [path for path in self._places() if path.name < self._path.name]
        for number, path in enumerate(before):
            if _is_waiting(path):
                return len(before) - number
            with suppress(OSError):  # its process has died, or is stopped, and another process may have removed it
                if not is_held(path):
                    path.unlink()
        return 0

    def renew(self) -> None:
        """Show the others that this process still runs."""
        now = time.time()
        if now - self._renewed_at > _RENEWS_EVERY:
            os.utime(self._path, (now, now))
            self._renewed_at = now

    def close(self) -> None:
        """Give up the place, or the slot. You may call it again."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with suppress(OSError):
                self._path.unlink()
            lock.close()
            with suppress(OSError):  # Windows removes only files that are closed
                self._path.unlink()

    def _draw(self) -> bool:
        """Take the next number. Return False if another one is just doing so."""
        for folder in (self._folder.parent, self._folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        gate = lock_file(self._folder / _GATE, os.O_CREAT)
        if gate is None:
            return False
        try:
            last = max((path.name for path in self._places()), default="0")
            # The rest of the name makes sure that no file ever has the name of an earlier one.
            path = self._folder / f"{int(last.partition('-')[0]) + 1:012}-{uuid.uuid4().hex}"
            lock = lock_file(path, os.O_CREAT)
            self._path, self._lock, self._renewed_at = path, lock, 0.0
        finally:
            gate.close()
        return lock is not None

    def _places(self) -> list[Path]:
        return sorted(path for path in self._folder.iterdir() if _PLACE.fullmatch(path.name))


def _is_waiting(path: Path) -> bool:
    """Return whether the process with this place is alive, and isn't stopped."""
    try:
        return time.time() - path.stat().st_mtime <= _STALE and is_held(path)
    except FileNotFoundError:
        return False


async def _keep(ticket: Ticket, scope: anyio.CancelScope) -> None:
    """Renew the ticket until ``scope`` is cancelled."""
    with scope, suppress(OSError):  # without its file, it is merely passed after a while
        while True:
            await anyio.sleep(_RENEWS_EVERY)
            ticket.renew()
