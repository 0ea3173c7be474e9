"""An engine in another process: a line in, a line out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from subprocess import PIPE, Popen, TimeoutExpired
from threading import Thread
from typing import IO, cast

from oa_protocol.tape.format import Json, to_line


class _NoAnswer(Exception):
    """The program gave none. The message says why."""


class Program:
    """An engine in another process: ``command`` is started, reads lines, and answers each with one.

    If it gives no answer, ``{"no_answer": …}`` stands for one, the program is ended, and the next case starts it again.

    Args:
        command: starts the program.
        deadline: how long an answer may take, in seconds.

    Raises:
        OSError: the program can't be started.


    >>> import sys
    >>> program = Program([sys.executable, "-m", "oa_protocol.testing.vectors", "answer"])
    >>> program.answer({"config": {"limit": 8}})
    {}
    >>> program.close()

    """

    def __init__(self, command: Sequence[str], *, deadline: float = 60.0) -> None:
        self._command = command
        self._deadline = deadline
        self._running = _Running(command)

    def answer(self, line: Json) -> Json:
        """Return the program's answer to a line of a case."""
        if "config" in line and self._running.has_ended:
            self._running = _Running(self._command)
        try:
            return self._running.answer(line, self._deadline)
        except _NoAnswer as error:
            return {"no_answer": str(error)}

    def close(self) -> None:
        """End the program, which has nothing more to answer."""
        self._running.end(self._deadline)


class _Running:
    """The program, from its start to its end."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, encoding="utf-8", errors="replace")  # noqa: S603  # to run a command is what this is for
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        self.has_ended = False

    def answer(self, line: Json, deadline: float) -> Json:
        if self.has_ended:
            raise _NoAnswer("it has ended")
        try:
            self._input.write(to_line(line))
            self._input.flush()
        except OSError:
            raise _NoAnswer(f"it ended, with exit code {self.end(deadline)}") from None
        try:
            text = self._lines.get(timeout=deadline)
        except Empty:
            self._process.kill()
            self.end(deadline)
            raise _NoAnswer(f"it did not answer in {deadline:g} s") from None
        if not text:
            raise _NoAnswer(f"it ended, with exit code {self.end(deadline)}")
        return self._parse(text, deadline)

    def _parse(self, text: str, deadline: float) -> Json:
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            self.end(deadline)
            raise _NoAnswer(f"it wrote something else than a JSON object: {text.rstrip()!r}")
        return cast("Json", found)

    @property
    def _input(self) -> IO[str]:
        return cast("IO[str]", self._process.stdin)

    def _read(self) -> None:
        """Pass on what the program writes, and at its end an empty text."""
        with cast("IO[str]", self._process.stdout) as output:
            for line in output:
                self._lines.put(line)
        self._lines.put("")

    def end(self, deadline: float) -> int:
        """Close the program's input, and have it end, if need be by force; return its exit code."""
        self.has_ended = True
        with suppress(OSError):  # the program was no longer there to read it
            self._input.close()
        try:
            self._process.wait(deadline)
        except TimeoutExpired:
            self._process.kill()
        code = self._process.wait()
        self._reader.join()
        return code
