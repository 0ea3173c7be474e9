"""Lines that somebody types: editing, history and pasted blocks, all of it prompt_toolkit's."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.output import create_output

from oa_protocol.cli._interrupts import Interrupts
from oa_protocol.cli._terminal import Terminal, is_terminal


async def typed_lines(terminal: Terminal, interrupts: Interrupts, history: Path | None) -> AsyncIterator[str]:
    """Yield what is typed, a pasted block as one line, until Ctrl-D, or Ctrl-C at an empty line.

    ``history`` is the file that keeps the lines for the next time. The prompt is shown on stdout, or on stderr if
    stdout is no terminal.
    """
    # The editor would ask the terminal where its cursor is, only to know how much space a menu has.
    os.environ["PROMPT_TOOLKIT_NO_CPR"] = "1"
    session: PromptSession[str] = PromptSession(
        [("ansicyan", "> ")],
        history=InMemoryHistory() if history is None else _history(history, terminal),
        output=None if is_terminal(sys.stdout) else create_output(sys.stderr),
        enable_suspend=True,
        reserve_space_for_menu=0,
    )
    while True:
        try:
            # A signal is for our own handlers: the key Ctrl-C is none while a line is edited.
            line = await session.prompt_async(handle_sigint=False, set_exception_handler=False)
        except EOFError:
            return
        except KeyboardInterrupt:
            if session.default_buffer.text:
                continue  # as in a shell, it drops the line
            interrupts.signal = signal.SIGINT
            return
        yield line


def _history(path: Path, terminal: Terminal) -> History:
    """Open a history that only its user can read; if that can't be, say so, and keep the lines for this time only."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)  # it may have been there already
        path.open("ab").close()
    except OSError as error:
        terminal.note(f"Note: there is no history: {error}. --no-history does without.")
        return InMemoryHistory()
    return _FileHistory(path)


class _FileHistory(FileHistory):
    def store_string(self, string: str) -> None:
        with suppress(OSError):  # a full disk must not end the chat
            super().store_string(string)
