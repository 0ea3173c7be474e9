"""Programs of their own, against a server of the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

from oa_protocol.server import Server
from tests.driver.site import Api

Program = subprocess.Popen[str]


@contextmanager
def program(server: Server, api: Api, *command: str, url: str | None = None) -> Generator[Program]:
    """Start ``python COMMAND…`` with the server's URL and credentials in its environment."""
    cookies = "; ".join("=".join(pair) for pair in server.cookies.items())
    credentials = {"OA_COOKIES": cookies} if api == "website" else {"OA_TOKEN": server.token}
    with subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "OA_URL": url or server.url, **credentials, "NO_PROXY": "*"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def ends_by_keyboard_interrupt(running: Program) -> str:
    """Wait for the program's end, which is that of any program after Ctrl-C; return its last words."""
    _, errors = running.communicate(timeout=30)
    assert running.returncode == -signal.SIGINT
    assert errors.strip().endswith("KeyboardInterrupt")
    assert "ExceptionGroup" not in errors
    return errors
