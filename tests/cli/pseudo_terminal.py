"""A pseudo-terminal, and what somebody types and sees there."""

from __future__ import annotations

import codecs
import os
import select
import time
from types import TracebackType
from typing import Self

import pytest

from .command import PATIENCE

pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
TERMINAL = {"TERM": "xterm", "COLUMNS": "100"}
"""What the environment says of it."""


class Pseudo:
    """A pseudo-terminal; ``end`` is what the command gets."""

    def __init__(self) -> None:
        self._mine, self.end = pty.openpty()
        self.seen = ""
        self._passed = 0
        self._decode = codecs.getincrementaldecoder("utf-8")().decode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._mine)
        os.close(self.end)

    def type(self, text: str) -> None:
        os.write(self._mine, text.encode())

    def wait_for(self, text: str) -> str:
        """Read on until ``text`` is there, after what was waited for before; return what came up to its end."""
        ends = time.monotonic() + PATIENCE
        while (found := self.seen.find(text, self._passed)) < 0:
            assert select.select([self._mine], [], [], max(0, ends - time.monotonic()))[0], self.seen
            self.seen += self._decode(os.read(self._mine, 65536))
        begin, self._passed = self._passed, found + len(text)
        return self.seen[begin : self._passed]

    def rest(self) -> str:
        """Return everything that was shown, after all programs have stopped writing."""
        while select.select([self._mine], [], [], 0)[0]:
            self.seen += self._decode(os.read(self._mine, 65536))
        return self.seen
