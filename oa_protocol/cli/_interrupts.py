"""Ctrl-C and other signals.

The first one ends the work, and the chat is still deleted. A second one quits the process at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

_HEARTBEAT = 1.0

_Handler = Callable[[int, FrameType | None], Any] | int | None


class Interrupts:
    """Handles the signals that end a program, while its context is open. It works in the main thread only.

    ``signal`` is the first signal that arrived. ``last_words`` returns the text that is printed on stderr if a second
    signal quits the process.
    """

    def __init__(self, last_words: Callable[[], str]) -> None:
        self.signal: int | None = None
        self._last_words = last_words
        self._cancel: Callable[[], object] | None = None
        self._stop: Callable[[], object] | None = None
        self._previous: dict[int, _Handler] = {}

    @property
    def exit_code(self) -> int:
        """The exit code for the signal that arrived."""
        return 128 + (self.signal or signal.SIGINT)

    def __enter__(self) -> Self:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows doesn't have all of them
            # A signal that is ignored stays ignored. For example, nohup ignores SIGHUP.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def cancelling(self, cancel: Callable[[], object]) -> Generator[None]:
        """Let the first signal call ``cancel`` instead of raising KeyboardInterrupt.

        ``cancel`` must be safe to call in a signal handler.
        """
        self._cancel = cancel
        try:
            yield
        finally:
            self._cancel = None

    @contextmanager
    def stopping(self, stop: Callable[[], object]) -> Generator[None]:
        """Let the first Ctrl-C call ``stop``, which ends only a part of the work. The next one is handled as usual."""
        self._stop = stop
        try:
            yield
        finally:
            self._stop = None

    @contextmanager
    def raising(self) -> Generator[None]:
        """Let a signal raise KeyboardInterrupt, even within ``cancelling``.

        This is for calls that block the event loop, such as reading a line: the loop can't cancel those.
        """
        cancel, self._cancel = self._cancel, None
        try:
            if self.signal is not None:
                # The signal arrived earlier, but the loop hasn't run the cancellation yet, and is about to be blocked.
                raise KeyboardInterrupt
            yield
        finally:
            self._cancel = cancel

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGINT and self._stop is not None and self.signal is None:
            stop, self._stop = self._stop, None
            stop()
            return
        if self.signal is not None:
            # This doesn't use sys.stderr, because the signal may have arrived in the middle of a write to it.
            # And it doesn't raise an exception, because cleaning up is shielded, and would hold the exception back.
            try:
                os.write(2, f"\n{self._last_words()}\n".encode(errors="replace"))
            finally:  # even if stderr is closed
                os._exit(self.exit_code)
        self.signal = number
        if self._cancel is None:
            raise KeyboardInterrupt
        self._cancel()


@contextmanager
def heartbeat(loop: asyncio.AbstractEventLoop) -> Generator[None]:
    """Wake ``loop`` once a second.

    Without this, a signal that arrives just before the loop sleeps is noticed only when something else wakes the loop.
    """
    timer: deque[asyncio.TimerHandle] = deque(maxlen=1)

    def beat() -> None:
        timer.append(loop.call_later(_HEARTBEAT, beat))

    beat()
    try:
        yield
    finally:
        timer.pop().cancel()
