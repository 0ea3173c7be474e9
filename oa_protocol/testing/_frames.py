"""Tracebacks for users of the kit, which show the lines that they wrote."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

_HIDDEN = (f"{Path(__file__).parent}{os.sep}", f"{sysconfig.get_path('stdlib')}{os.sep}")
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

E = TypeVar("E", bound=BaseException)


def from_user_code(failure: E) -> E:
    """Leave only the user's frames in the tracebacks of ``failure``, its causes and its members. Return ``failure``.

    The frames of this kit, of Python, and of installed packages are left out.
    """
    failure.with_traceback(_of_user(failure.__traceback__))
    if earlier := failure.__cause__ or failure.__context__:
        from_user_code(earlier)
    members: Sequence[BaseException] = getattr(failure, "exceptions", ())  # those of a group
    for member in members:
        from_user_code(member)
    return failure


def _of_user(entry: TracebackType | None) -> TracebackType | None:
    entries: list[TracebackType] = []
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    kept: TracebackType | None = None
    for entry in reversed(entries):
        if _is_user_file(entry.tb_frame.f_code.co_filename):
            kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return kept


def _is_user_file(name: str) -> bool:
    return not name.startswith(_HIDDEN) and not any(folder in name for folder in _INSTALLED)
