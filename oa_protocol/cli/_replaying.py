"""The command ``replay``."""

from __future__ import annotations

from pathlib import Path

import click

from oa_protocol.cli._exit_codes import ExitCode
from oa_protocol.cli._terminal import Terminal
from oa_protocol.tape import Difference, parse_tapes, to_html, transcript
from oa_protocol.tape import replay as run
from oa_protocol.tape.har import parse_har


def replay(file: str, html: str | None = None) -> int:
    """Print each conversation in ``file``, and whether this engine does the same. Return the exit code.

    If ``html`` is a path, write a page with the conversations there.

    Raises:
        UsageError: The file can't be read, or contains no conversation.

    """
    terminal = Terminal()
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
        tapes = parse_har(text) if path.suffix.lower() == ".har" else parse_tapes(text)
        if not tapes:
            raise ValueError("there is nothing in it")
        differences = [run(tape) for tape in tapes]
        stories = [list(transcript(tape)) for tape in tapes]
        page = to_html(*tapes) if html else ""
    except (OSError, ValueError, TypeError) as error:
        raise click.UsageError(f"{file} cannot be replayed: {error}") from None
    if html:
        try:
            Path(html).write_text(page, encoding="utf-8")
        except OSError as error:
            raise click.UsageError(f"the page cannot be written: {error}") from None
    try:
        for tape, story, difference in zip(tapes, stories, differences, strict=True):
            for line in (*filter(None, [tape.name]), *story, _verdict(difference), ""):
                terminal.line(line)
    except BrokenPipeError:
        return ExitCode.STDOUT_CLOSED
    except OSError as error:
        terminal.complain(f"Error: {error}")
        return ExitCode.OTHER
    return ExitCode.OTHER if any(differences) else ExitCode.DONE


def _verdict(difference: Difference | None) -> str:
    return "This engine does the same." if difference is None else f"This engine does something else:\n{difference}"
