"""Ctrl-C: the first one ends the work, which then still deletes its chat; a second one quits."""

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
    """Takes the signals that end a program, while its context is open. Main thread only.

    ``signal`` is the first one that came. ``last_words`` says what is on stderr if a second one quits the process.
    """

    def __init__(self, last_words: Callable[[], str]) -> None:
        self.signal: int | None = None
        self._last_words = last_words
        self._cancel: Callable[[], object] | None = None
        self._stop: Callable[[], object] | None = None
        self._previous: dict[int, _Handler] = {}

    @property
    def exit_code(self) -> int:
        """What the process exits with."""
        return 128 + (self.signal or signal.SIGINT)

    def __enter__(self) -> Self:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has fewer
            # One that is ignored, as under nohup, stays so.
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
        """Have the first signal call ``cancel``, fit for a signal handler, instead of raising KeyboardInterrupt."""
        self._cancel = cancel
        try:
            yield
        finally:
            self._cancel = None

    @contextmanager
    def stopping(self, stop: Callable[[], object]) -> Generator[None]:
        """Have a Ctrl-C call ``stop`` instead, once: it ends a part of the work, and the work goes on."""
        self._stop = stop
        try:
            yield
        finally:
            self._stop = None

    @contextmanager
    def raising(self) -> Generator[None]:
        """Raise KeyboardInterrupt, within ``cancelling``: for what blocks the event loop, such as reading a line."""
        cancel, self._cancel = self._cancel, None
        try:
            if self.signal is not None:
                raise KeyboardInterrupt  # the loop, about to be blocked, has not yet come to the cancellation
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
            # Not sys.stderr: the signal may have come in the middle of a write to it.
            os.write(2, f"\n{self._last_words()}\n".encode(errors="replace"))
            os._exit(self.exit_code)
        self.signal = number
        if self._cancel is None:
            raise KeyboardInterrupt
        self._cancel()


@contextmanager
def heartbeat(loop: asyncio.AbstractEventLoop) -> Generator[None]:
    """Wake ``loop`` once a second: a signal that comes just before it sleeps is noticed only when it wakes."""
    timer: deque[asyncio.TimerHandle] = deque(maxlen=1)

    def beat() -> None:
        timer.append(loop.call_later(_HEARTBEAT, beat))

    beat()
    try:
        yield
    finally:
        timer.pop().cancel()
