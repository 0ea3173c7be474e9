"""The output of the command line: answers on stdout, and everything else on stderr."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

import click
import msgspec

if TYPE_CHECKING:
    from rich.status import Status

# Servers choose the texts that are printed. These characters could move the terminal's cursor, change its title, or
# make it send input as if the user had typed it.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Terminal:
    """Prints answers, notes and errors.

    Progress is shown only if stderr is a terminal, and neither ``json``, ``trace`` nor ``quiet`` is set. With
    ``trace``, an answer is printed in whole lines, because the trace's lines may appear in the same terminal at any
    time.

    Raises:
        UsageError: stdout is closed.

    """

    def __init__(self, *, json: bool = False, trace: bool = False, quiet: bool = False) -> None:
        if open_stream(sys.stdout) is None:
            raise click.UsageError("stdout is closed, so nothing can be printed")
        if reconfigure := getattr(sys.stdout, "reconfigure", None):
            reconfigure(errors="replace")
        self.shows_progress = is_terminal(sys.stderr) and not (json or trace or quiet)
        self._trace = trace
        self._quiet = quiet
        self._status: Status | None = None
        self._held = ""
        self._within_line = False
        self._notes_after_line: list[str] = []

    # ---- stdout

    def piece(self, text: str) -> None:
        """Print a piece of an answer.

        White space at the end of the piece is held back until the next piece, because the final text has none at its
        end.
        """
        text = self._held + text
        words = text.rstrip()
        if self._trace:
            words = words[: words.rfind("\n") + 1]
        self._held = text[len(words) :]
        if words:
            self._print(words)
            self._within_line = not words.endswith("\n")

    def end(self, text: str | None = None) -> None:
        """End an answer. ``text`` is its whole text, or None if it failed or was stopped."""
        held, self._held = self._held, ""
        rest = held if text is not None and text.endswith(held) else held.rstrip()
        if rest:
            self._print(rest)
            self._within_line = not rest.endswith("\n")
        if self._within_line:
            self._within_line = False
            self._print("\n")
        while self._notes_after_line:
            self.complain(self._notes_after_line.pop(0))

    def line(self, text: str) -> None:
        """Print a line."""
        self._print(f"{text}\n")

    def record(self, fields: dict[str, object]) -> None:
        """Print a JSON object as one line. It is ASCII, so that the encoding of stdout doesn't matter."""
        self._print(f"{json.dumps(msgspec.to_builtins(fields))}\n")

    def _print(self, text: str) -> None:
        self.clear()
        try:
            sys.stdout.write(printable(text) if is_terminal(sys.stdout) else text)
            sys.stdout.flush()
        except OSError as error:
            discard_stdout()
            if isinstance(error, BrokenPipeError):
                raise
            raise OSError(f"stdout: {error.strerror}") from None

    # ---- stderr

    def progress(self, text: str) -> None:
        """Show what is going on, unless part of a line of the answer is already printed."""
        if not self.shows_progress or self._within_line:
            return
        from rich.text import Text

        if self._status is None:
            from rich.console import Console

            self._status = Console(stderr=True).status("")
            self._status.start()
        # In a plain str, rich would look for markup.
        self._status.update(Text(printable(text)))

    def clear(self) -> None:
        """Remove the progress display."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    @property
    def visible_cursor(self) -> str:
        """The sequence that shows the cursor again if ``progress`` hides it. A process prints it before it quits."""
        return "" if self._status is None else "\x1b[?25h"

    def note(self, text: str) -> None:
        """Print a line that isn't an error on stderr, unless ``quiet`` is set."""
        if not self._quiet:
            self.complain(text)

    def complain(self, text: str) -> None:
        """Print an error on stderr. If part of a line of the answer is printed, wait until that answer ends."""
        if self._within_line:
            self._notes_after_line.append(text)
            return
        self.clear()
        _say(printable(text))

    @contextmanager
    def library_log(self) -> Generator[None]:
        """Show the library's warnings. With ``trace``, show all that it logs, with the seconds since the start."""
        logger = logging.getLogger("oa_protocol")
        handler, level, propagates = _Log(self, trace=self._trace), logger.level, logger.propagate
        # An embedded server logs the same requests. They would stand there twice.
        handler.addFilter(lambda record: record.name == logger.name or record.levelno >= logging.WARNING)
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG if self._trace else logging.WARNING)
        logger.propagate = False
        try:
            yield
        finally:
            logger.propagate = propagates
            logger.setLevel(level)
            logger.removeHandler(handler)


class _Log(logging.Handler):
    def __init__(self, terminal: Terminal, *, trace: bool) -> None:
        super().__init__()
        self._terminal = terminal
        self._trace = trace
        self._start = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(printable(record.getMessage()).split())
        prefix = f"{time.monotonic() - self._start:8.3f}  " if self._trace else "Warning: "
        self._terminal.complain(f"{prefix}{text}")


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether the stream is open and is a terminal."""
    stream = open_stream(stream)
    return stream is not None and stream.isatty()


def open_stream(stream: TextIO | None) -> TextIO | None:
    """Return a standard stream, or None if it is closed."""
    # Python sets a stream to None if it was closed before the start, although its annotation doesn't say so.
    return None if stream is None or stream.closed else stream


def printable(text: str) -> str:
    """Return ``text`` with its control characters replaced, except tabs and line feeds."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def discard_stdout() -> None:
    """Redirect stdout to the null device.

    Otherwise, Python would fail to flush the rest of its buffer at exit, and print an error.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _say(text: str) -> None:
    """Print a line on stderr. If that fails, go on, because the exit code still says how the work ended."""
    with suppress(OSError):
        click.echo(text, err=True)
