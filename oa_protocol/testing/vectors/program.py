"""An engine in another process, which answers each line with a line."""

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
    """The program didn't answer. The message says why."""


class Program:
    """An engine in another process. The program reads lines, and answers each one with a line.

    If the program doesn't answer, the answer is ``{"no_answer": …}``. Then the program is ended, and the next case
    starts it again.

    Args:
        command: the command that starts the program.
        deadline: how many seconds an answer may take.

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
        """End the program."""
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
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self.end(deadline)
            raise _NoAnswer(f"it wrote something that is not a JSON object: {text.rstrip()!r}")
        return cast("Json", found)

    @property
    def _input(self) -> IO[str]:
        return cast("IO[str]", self._process.stdin)

    def _read(self) -> None:
        """Put each line of the program's output into the queue, and an empty text at its end.

        This runs in its own thread, because a read from a pipe can't have a timeout on every platform.
        """
        with cast("IO[str]", self._process.stdout) as output:
            for line in output:
                self._lines.put(line)
        self._lines.put("")

    def end(self, deadline: float) -> int:
        """Close the program's input, wait until the program ends, or kill it, and return its exit code."""
        self.has_ended = True
        with suppress(OSError):  # The program may have ended already.
            self._input.close()
        try:
            self._process.wait(deadline)
        except TimeoutExpired:
            self._process.kill()
        code = self._process.wait()
        self._reader.join()
        return code
