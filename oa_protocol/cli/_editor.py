"""Typed lines, with prompt_toolkit: editing, history and pasted blocks."""

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
    """Yield each line that the user types, until Ctrl-D, or Ctrl-C at an empty line.

    A pasted block is one line. The prompt is shown on stdout, or on stderr if stdout isn't a terminal.

    Args:
        terminal: Prints a note if the history can't be used.
        interrupts: Its ``signal`` is set if Ctrl-C at an empty line ends the input.
        history: The file that keeps the lines for later chats. None keeps them in memory only.

    """
    # Otherwise the editor asks the terminal for the cursor's position, to place a menu that we don't have. Some
    # terminals don't answer, and then a warning is shown.
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
            # The terminal is in raw mode while a line is edited, so the key Ctrl-C doesn't send a signal. A SIGINT
            # therefore comes from another process, and belongs to the handlers in ``_interrupts``.
            line = await session.prompt_async(handle_sigint=False, set_exception_handler=False)
        except EOFError:
            return
        except KeyboardInterrupt:
            if session.default_buffer.text:
                continue  # Ctrl-C drops the line, as it does in a shell
            interrupts.signal = signal.SIGINT
            return
        yield line


def _history(path: Path, terminal: Terminal) -> History:
    """Open a history file that only its user can read. If that fails, print a note and keep the lines in memory."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)  # the file may have existed with another mode
        path.open("ab").close()
    except OSError as error:
        terminal.note(
            f"Note: there is no history, because its file can't be used: {error}. --no-history turns this note off."
        )
        return InMemoryHistory()
    return _FileHistory(path)


class _FileHistory(FileHistory):
    def store_string(self, string: str) -> None:
        with suppress(OSError):  # a full disk must not end the chat
            super().store_string(string)
