"""Where the CLI reads and writes: answers on stdout and nothing else there, all the rest on stderr."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, TextIO

import click
import msgspec

if TYPE_CHECKING:
    from rich.status import Status

    from oa_protocol.cli._interrupts import Interrupts

_PROMPT = "> "
_QUIT = "/quit"
_MAX_PROMPT = 8 * 1024 * 1024  # bytes; servers take less

# What could move a terminal's cursor, change its title or answer in the user's name. Servers choose these texts.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Terminal:
    """``progress`` and ``note`` show only where they disturb nothing: stderr is a terminal, and nobody wants it quiet.

    Raises UsageError where stdout is closed.
    """

    def __init__(self, *, json: bool = False, trace: bool = False, quiet: bool = False) -> None:
        if _standard(sys.stdout) is None:
            raise click.UsageError("stdout is closed: there is nowhere to print to")
        if reconfigure := getattr(sys.stdout, "reconfigure", None):
            reconfigure(errors="replace")
        self.json = json
        self._quiet = quiet
        self._has_progress = is_terminal(sys.stderr) and not (json or trace or quiet)
        self._status: Status | None = None
        self._held = ""
        self._within_line = False

    # ---- stdout

    def piece(self, text: str) -> None:
        """Print a piece of an answer. White space at its end waits for the next piece: answers end without any."""
        text = self._held + text
        words = text.rstrip()
        self._held = text[len(words) :]
        if words:
            self._print(words)
            self._within_line = True

    def end(self, text: str | None = None) -> None:
        """End an answer, whose whole text is ``text`` if it came to a good end."""
        held, self._held = self._held, ""
        if text is not None and held and text.endswith(held):
            self._print(held)
            self._within_line = not held.endswith("\n")
        if self._within_line:
            self._within_line = False
            self._print("\n")

    def line(self, text: str) -> None:
        """Print a line."""
        self._print(f"{text}\n")

    def record(self, fields: dict[str, object]) -> None:
        """Print a JSON object as one line, in ASCII: any stdout can carry that."""
        sys.stdout.write(f"{json.dumps(msgspec.to_builtins(fields))}\n")
        sys.stdout.flush()

    def _print(self, text: str) -> None:
        self.clear()
        sys.stdout.write(printable(text) if is_terminal(sys.stdout) else text)
        sys.stdout.flush()

    # ---- stderr

    def progress(self, text: str) -> None:
        """Show what is going on, unless a line of the answer has begun."""
        if not self._has_progress or self._within_line:
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
        """Say what went wrong."""
        self.clear()
        _say(printable(text))

    # ---- stdin

    def prompt(self) -> str:
        """Return all of stdin. Raises UsageError where it is closed, endless or no UTF-8."""
        content = _stdin().buffer.read(_MAX_PROMPT + 1)
        if len(content) > _MAX_PROMPT:
            raise click.UsageError(f"the prompt on stdin is over {_MAX_PROMPT // 1024**2} MiB")
        return _decoded(content).removesuffix("\n").removesuffix("\r")

    def prompts(self, interrupts: Interrupts) -> Iterator[str]:
        """Return the lines of stdin up to its end or /quit; empty ones do not count. Raises UsageError as above."""
        source = _stdin()
        # With both ends on the terminal nothing but the eye reads stdout, and line editing must know of the prompt.
        edits = is_terminal(source) and is_terminal(sys.stdout)
        if edits:
            _load_readline()
        while True:
            try:
                with interrupts.raising():
                    line = f"{input(_PROMPT)}\n" if edits else self._read_line(source)
            except (EOFError, KeyboardInterrupt):
                line = ""
            if not line and is_terminal(sys.stderr):
                click.echo(err=True)  # the prompt still stands there
            if not line or line.strip() == _QUIT:
                return
            if line.strip():
                yield line.rstrip("\r\n")

    def _read_line(self, source: TextIO) -> str:
        if is_terminal(sys.stderr):
            click.echo(_PROMPT, nl=False, err=True)
        line = source.buffer.readline(_MAX_PROMPT + 1)
        if len(line) > _MAX_PROMPT:
            raise click.UsageError(f"a prompt on stdin is over {_MAX_PROMPT // 1024**2} MiB")
        return _decoded(line)


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether somebody sits there."""
    stream = _standard(stream)
    return stream is not None and stream.isatty()


def printable(text: str) -> str:
    """Return ``text`` with control characters replaced, but for tabs and line ends."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def discard_stdout() -> None:
    """Send what is still buffered for a closed stdout nowhere, or Python complains of it when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextmanager
def tracing(enabled: bool) -> Generator[None]:
    """Show the library's log on stderr, one line a record, with the seconds since the start."""
    if not enabled:
        yield
        return
    logger = logging.getLogger("oa_protocol")
    handler, level = _Trace(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


class _Trace(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._start = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(printable(record.getMessage()).split())
        _say(f"{time.monotonic() - self._start:8.3f}  {text}")


def _say(text: str) -> None:
    """Print a line on stderr. Where nobody reads that any more, the work goes on, and its exit code tells the rest."""
    with suppress(OSError):
        click.echo(text, err=True)


def _standard(stream: TextIO | None) -> TextIO | None:
    # Python has None for a standard stream that was closed when it started, whatever the annotations say.
    return None if stream is None or stream.closed else stream


def _stdin() -> TextIO:
    source = _standard(sys.stdin)
    if source is None:
        raise click.UsageError("there is no prompt, and stdin is closed")
    return source


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"stdin is not UTF-8: byte {content[error.start]:#04x} at {error.start}") from None


def _load_readline() -> None:
    # It hooks itself into input(). Not every system has it, and input() does without.
    with suppress(ImportError):
        import_module("readline")
