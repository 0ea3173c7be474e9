"""Describes this machine for the server, which keeps the description, but doesn't use it."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from typing import Any


def hardware() -> dict[str, Any]:
    """Return all the fields that the server wants. What the standard library doesn't know is 0."""
    system, _, release, version, machine, processor = platform.uname()
    processors = os.cpu_count() or 1
    return {
        "uname_sysname": system,
        "uname_release": release,
        "uname_version": version,
        "uname_machine": machine,
        "uname_processor": processor,
        "cpu_count_physical": processors,
        "cpu_count_logical": processors,
        "cpu_freq_max": 0.0,
        "cpu_freq_min": 0.0,
        "mem_total": _memory(),
        "swap_total": 0,
        "gpus": [],
    }


def _memory() -> int:
    with suppress(AttributeError, OSError, ValueError):  # Windows has no sysconf
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0
