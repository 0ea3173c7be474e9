"""The progress of ``bulk`` on stderr."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from oa_protocol.cli._terminal import printable

_NAMED = 3
_LONGEST = 20


class ProgressBar:
    """A bar with the rate, the time left, the failures, and who is waiting for a worker."""

    def __init__(self, total: int) -> None:
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
        )
        self._task = self._progress.add_task("", total=total, rate="", state="")
        self._progress.start()

    def show(self, finished: int, failed: int, waiting: Sequence[object]) -> None:
        """Show how many are finished, how many of them have failed, and the keys of those that wait."""
        speed = self._progress.tasks[0].speed
        self._progress.update(
            self._task,
            completed=finished,
            rate="" if speed is None else f"{speed:.1f}/s",
            state=Text(printable(_state(failed, waiting))),
            refresh=True,
        )

    def close(self) -> None:
        """Remove it."""
        self._progress.stop()


def _state(failed: int, waiting: Sequence[object]) -> str:
    parts = [f"{failed} failed"] if failed else []
    if waiting:
        names = ", ".join(str(key)[:_LONGEST] for key in waiting[:_NAMED])
        more = f" and {len(waiting) - _NAMED} more" if len(waiting) > _NAMED else ""
        parts.append(f"waiting for a worker: {names}{more}")
    return "; ".join(parts)
