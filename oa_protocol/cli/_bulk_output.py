"""The results of ``bulk``: JSON lines, which are appended whole, and read again by the next run.

Each line is one write, so a process that is killed leaves whole lines, or at most one torn line at the end, which the
next run removes. The operating system has each line at once. It is on the disk within a second, so a power failure can
lose the results of that second, and their prompts are asked again.
"""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click
import msgspec

from oa_protocol.bindings.json import DecodeErrors
from oa_protocol.client._file_lock import lock_descriptor
from oa_protocol.client.bulk import BulkResult

_SYNCS_EVERY = 1.0  # seconds
_START = b'{"id":'
_BLANK = b"\0 \t\r\n"  # A power failure can leave NULs at the end of a file.


class Results:
    """The file of the results. Only one process at a time can open it.

    Attributes:
        done: the ids that have a result, as strings, and whether the last result of each is a failure.
        was_torn: whether a torn line was removed.

    Raises:
        ClickException: The file can't be used, or another process uses it.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, bool] = {}
        self.was_torn = False
        self._synced_at = time.monotonic()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
            try:
                if not stat.S_ISREG(os.fstat(self._file).st_mode):
                    raise click.ClickException(f"{path} is no file that the next run could read. Choose another one.")
                if not lock_descriptor(self._file):
                    raise click.ClickException(
                        f"another process writes to {path}. Wait for it, or choose another file."
                    )
                self._read()
            except BaseException:
                os.close(self._file)
                raise
        except OSError as error:
            raise click.ClickException(f"{path} can't be used: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)

    def write(self, result: BulkResult, account: int | None) -> None:
        """Append a result. ``account`` is the number of its account, if there are several. Raises OSError."""
        error = None if result.error is None else {"type": type(result.error).__name__, "message": str(result.error)}
        fields: dict[str, Any] = {"id": result.key, "text": result.text, "error": error, "tries": result.tries}
        fields |= {"begun_at": round(result.begun_at, 3), "seconds": round(result.seconds, 3)}
        fields["waited"] = None if result.waited is None else round(result.waited, 3)
        if account is not None:
            fields["account"] = account
        line = f"{json.dumps(fields, ensure_ascii=False, separators=(',', ':'))}\n".encode(errors="replace")
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(f"{self.path}: the disk is full")
            if time.monotonic() - self._synced_at > _SYNCS_EVERY:
                os.fsync(self._file)
                self._synced_at = time.monotonic()
        except OSError as error:
            raise OSError(f"{self.path}: {error.strerror or error}") from None
        self.done[str(result.key)] = error is not None

    def _read(self) -> None:
        end = 0
        with open(self._file, "rb", closefd=False) as file:
            file.seek(0)
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    self._repair(number, line, end)
                    break
                end += len(line)
                if not line.strip(_BLANK):
                    continue
                try:
                    fields = msgspec.json.decode(line)
                    self.done[str(fields["id"])] = fields["error"] is not None
                except (*DecodeErrors, LookupError, TypeError):
                    raise self._foreign(number) from None

    def _repair(self, number: int, line: bytes, end: int) -> None:
        """Remove the last line, which a killed process has left incomplete. A file of another kind stays as it is."""
        if line.strip(_BLANK) and line[: len(_START)] != _START[: len(line)]:
            raise self._foreign(number)
        os.ftruncate(self._file, end)
        self.was_torn = True

    def _foreign(self, number: int) -> click.ClickException:
        return click.ClickException(f"line {number} of {self.path} is no result of bulk. Choose another file.")
