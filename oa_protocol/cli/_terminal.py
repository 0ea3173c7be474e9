"""Where the CLI writes: answers on stdout and nothing else there, all the rest on stderr."""

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

# What could move a terminal's cursor, change its title or answer in the user's name. Servers choose these texts.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Terminal:
    """``progress`` shows only if it disturbs nothing: stderr is a terminal, and nobody wants it quiet.

    With ``trace`` an answer comes in whole lines, because the trace's lines come at any time, maybe on one terminal.

    Raises:
        UsageError: stdout is closed.

    """

    def __init__(self, *, json: bool = False, trace: bool = False, quiet: bool = False) -> None:
        if open_stream(sys.stdout) is None:
            raise click.UsageError("stdout is closed: there is nowhere to print to")
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
        """Print a piece of an answer. White space at its end waits for the next piece: answers end without any."""
        text = self._held + text
        words = text.rstrip()
        if self._trace:
            words = words[: words.rfind("\n") + 1]
        self._held = text[len(words) :]
        if words:
            self._print(words)
            self._within_line = not words.endswith("\n")

    def end(self, text: str | None = None) -> None:
        """End an answer, whose whole text is ``text`` if it came to a good end."""
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
        """Print a JSON object as one line, in ASCII: any stdout can carry that."""
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
        """Show what is going on, unless a line of the answer has begun."""
        if not self.shows_progress or self._within_line:
            return
        from rich.text import Text

        if self._status is None:
            from rich.console import Console

            self._status = Console(stderr=True).status("")
            self._status.start()
        # Not a plain str, in which rich would look for markup.
        self._status.update(Text(printable(text)))

    def clear(self) -> None:
        """Take away what ``progress`` shows."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    @property
    def visible_cursor(self) -> str:
        """What brings a terminal's cursor back, which ``progress`` hides; for a process that quits at once."""
        return "" if self._status is None else "\x1b[?25h"

    def note(self, text: str) -> None:
        """Say something in one line that is no error."""
        if not self._quiet:
            self.complain(text)

    def complain(self, text: str) -> None:
        """Say what went wrong, on a line of its own: if a line of the answer has begun, after that."""
        if self._within_line:
            self._notes_after_line.append(text)
            return
        self.clear()
        _say(printable(text))

    @contextmanager
    def library_log(self) -> Generator[None]:
        """Show the library's warnings, and with ``trace`` all that it logs, with the seconds since the start."""
        logger = logging.getLogger("oa_protocol")
        handler, level, propagates = _Log(self, trace=self._trace), logger.level, logger.propagate
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
    """Tell whether somebody sits there."""
    stream = open_stream(stream)
    return stream is not None and stream.isatty()


def open_stream(stream: TextIO | None) -> TextIO | None:
    """Return a standard stream, or None if it is closed."""
    # If it was closed when Python started, it is None, whatever the annotations say.
    return None if stream is None or stream.closed else stream


def printable(text: str) -> str:
    """Return ``text`` with control characters replaced, but for tabs and line ends."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def discard_stdout() -> None:
    """Send what is still buffered for a closed stdout nowhere, or Python complains of it when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _say(text: str) -> None:
    """Print a line on stderr. If nobody reads that any more, the work goes on, and its exit code tells the rest."""
    with suppress(OSError):
        click.echo(text, err=True)
