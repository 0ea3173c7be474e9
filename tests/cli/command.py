"""Runs ``oa-protocol`` in this process, or in a process of its own if that makes a difference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner

from oa_protocol.cli._commands import run
from oa_protocol.server import Server

COMMAND = (sys.executable, "-c", "from oa_protocol.cli import main; main()")
PATIENCE = 30
LEAVES_OUT = (
    "OA_URL",
    "OA_COOKIES",
    "OA_TOKEN",
    "OA_JOURNAL",
    "OA_WORKER_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_API_KEY",
    "OPENAI_MODEL",
    "NO_COLOR",
    "FORCE_COLOR",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
)


@dataclass(frozen=True)
class Done:
    """A process that ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON lines on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]


def credentials(server: Server) -> dict[str, str]:
    """The environment in which ``oa-protocol`` talks to ``server``."""
    cookies = "; ".join(f"{name}={value}" for name, value in server.cookies.items())
    return {"OA_URL": server.url, "OA_COOKIES": cookies, "OA_TOKEN": server.token}


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what the CLI reads, and ``extra``."""
    return {name: value for name, value in os.environ.items() if name not in LEAVES_OUT} | dict(extra or {})


def oa_protocol(*arguments: str, stdin: str | bytes = b"", env: Mapping[str, str] | None = None) -> Done:
    """Run the command in this process, for that is quicker."""
    runner = CliRunner()
    with runner.isolation(stdin, dict.fromkeys(LEAVES_OUT) | dict(env or {})) as (out, err, _):
        code = run(arguments)
        sys.stdout.flush()
        return Done(code, out.getvalue().decode(), err.getvalue().decode())


def process(*arguments: str, stdin: str | bytes = b"", env: Mapping[str, str] | None = None) -> Done:
    """Run the command as a process of its own."""
    content = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*COMMAND, *arguments], input=content, env=environment(env), capture_output=True, timeout=PATIENCE
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


RUNNING: list[subprocess.Popen[bytes]] = []


def started(
    arguments: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Start the command."""
    process = subprocess.Popen([*COMMAND, *arguments], env=environment(env), stdin=stdin, stdout=stdout, stderr=stderr)
    RUNNING.append(process)
    return process


def ended(process: subprocess.Popen[bytes]) -> Done:
    """What came of a started command, whose output until now was read by others."""
    out, err = process.communicate(timeout=PATIENCE)
    return Done(process.returncode, (out or b"").decode(), (err or b"").decode())
