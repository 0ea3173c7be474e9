"""Reads prompts: from an argument and stdin, from the lines of a pipe, or from typed lines."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple, TextIO

import click

from oa_protocol.cli._interrupts import Interrupts
from oa_protocol.cli._terminal import Terminal, is_terminal, open_stream

MAX_PROMPT = 8 * 1024 * 1024
"""The longest prompt that is read, in bytes. Servers accept less."""

BETWEEN = "\n\n"
"""The separator between the argument and the text from stdin: an empty line."""

_PATIENCE = 2.0

_HELP = """\
/help        show this list
/regenerate  ask for another answer to the last prompt
/edit TEXT   send TEXT in place of the last prompt
/branch      list the branches of the chat; /branch 2 goes on with the second one
/keep        keep the chat on the server when you leave
/exit        leave, and delete the chat (also /quit or Ctrl-D)
//           at the start of a line: send the line as a prompt, with only one /
Ctrl-C stops an answer. At an empty line, it leaves. A pasted block is one prompt."""


_COMMANDS = ("regenerate", "edit", "branch", "keep")


class Command(NamedTuple):
    """A line that is a command about the chat itself: its name without the slash, and the rest of the line."""

    name: str
    rest: str = ""


def one_prompt(argument: str | None, terminal: Terminal) -> str:
    """Return the prompt of ``ask``.

    It is the argument, followed by the text that is piped in. If the argument is None or ``-``, it is stdin alone.

    Raises:
        UsageError: There is no prompt, or it can't be used.

    """
    if argument is None and is_terminal(sys.stdin):
        raise click.UsageError("there is no prompt: give PROMPT, or pipe it in")
    if argument is None or argument == "-":
        prompt = _whole_stdin(_stdin(), terminal)
    else:
        source = None if is_terminal(sys.stdin) else open_stream(sys.stdin)
        piped = "" if source is None else _whole_stdin(source, terminal)
        prompt = f"{argument}{BETWEEN}{piped}" if piped.strip() else argument
    if not prompt.strip():
        raise click.UsageError("the prompt is empty")
    return prompt


async def chat_prompts(
    terminal: Terminal, interrupts: Interrupts, history: Path | None, *, typed: bool
) -> AsyncIterator[str | Command]:
    """Yield the prompts and commands of ``chat``, until stdin ends or ``/exit`` is read. Skip empty lines.

    Raises:
        UsageError: stdin is closed, a line is too long or isn't UTF-8, or an unknown command is piped in.

    """
    if typed:
        from oa_protocol.cli._editor import typed_lines

        lines = typed_lines(terminal, interrupts, history)
    else:
        lines = _piped_lines(interrupts)
    async for line in lines:
        words = line.strip()
        if words.startswith("//"):
            yield line.replace("//", "/", 1)
        elif not words.startswith("/") or "\n" in words:  # a pasted block is never a command
            if words:
                yield line
        elif words in ("/exit", "/quit"):
            return
        elif words == "/help":
            terminal.complain(_HELP)
        elif (name := words.split()[0][1:]) in _COMMANDS:
            yield Command(name, words.removeprefix(f"/{name}").strip())
        else:
            problem = (
                f"unknown command {words.split()[0]}: /help lists the commands, and // starts a prompt with a slash"
            )
            if not typed:
                raise click.UsageError(problem)
            terminal.complain(problem.capitalize())


def are_typed() -> bool:
    """Tell whether a user types the prompts, and can see what is typed."""
    return is_terminal(sys.stdin) and (is_terminal(sys.stdout) or is_terminal(sys.stderr))


async def _piped_lines(interrupts: Interrupts) -> AsyncIterator[str]:
    source = _stdin()
    while True:
        try:
            with interrupts.raising():  # reading blocks the event loop, so a cancellation wouldn't arrive
                line = source.buffer.readline(MAX_PROMPT + 1)
        except KeyboardInterrupt:
            return
        if not line:
            return
        yield _decoded(line, "a prompt on stdin").rstrip("\r\n")


def _whole_stdin(source: TextIO, terminal: Terminal) -> str:
    # In a service or a shell's loop, stdin may be open although nothing will be piped in. Reading then never ends, so
    # say what we are waiting for.
    text = (
        "Waiting for the end of stdin, because it is part of the prompt. If you don't pipe anything in, add: </dev/null"
    )
    timer = threading.Timer(_PATIENCE, terminal.note, [text])
    timer.daemon = True
    timer.start()
    try:
        content = source.buffer.read(MAX_PROMPT + 1)
    finally:
        timer.cancel()
    return _decoded(content, "the prompt on stdin").removesuffix("\n").removesuffix("\r")


def _stdin() -> TextIO:
    source = open_stream(sys.stdin)
    if source is None:
        raise click.UsageError("there is no prompt, because stdin is closed")
    return source


def _decoded(content: bytes, what: str) -> str:
    if len(content) > MAX_PROMPT:
        raise click.UsageError(f"{what} is over {MAX_PROMPT // 1024**2} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"stdin is not UTF-8: byte {content[error.start]:#04x} at {error.start}") from None
