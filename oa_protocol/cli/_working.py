"""The command ``worker``."""

from __future__ import annotations

import asyncio
import os

import click

from oa_protocol.cli._exit_codes import ExitCode
from oa_protocol.cli._interrupts import Interrupts, heartbeat
from oa_protocol.cli._terminal import Terminal
from oa_protocol.engine.errors import AuthenticationError, OAError
from oa_protocol.models import Model
from oa_protocol.worker import UpgradeRequired, Worker


def work(model: Model, url: str, model_config: str, parallel: int) -> int:
    """Run a worker until SIGINT or SIGTERM arrives, or the server ends it. Return the exit code.

    Raises:
        UsageError: The URL, the key or the name of the model can't be used.

    """
    key = os.environ.get("OA_WORKER_KEY", "")
    if not key:
        raise click.UsageError("put the key with which the server knows this worker into OA_WORKER_KEY")
    return _Working(model, url, key, model_config, parallel).run()


class _Working:
    def __init__(self, model: Model, url: str, key: str, model_config: str, parallel: int) -> None:
        self._terminal = Terminal()
        self._interrupts = Interrupts(lambda: f"Quit at once. {self._worker.running} answers were cut.")
        self._said = ""
        try:
            self._worker = Worker(
                url, model, api_key=key, model_config=model_config, parallel=parallel, on_change=self._show
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from error

    def run(self) -> int:
        code = ExitCode.DONE
        try:
            with self._interrupts, self._terminal.library_log():
                asyncio.run(self._run())
        except AuthenticationError as error:
            self._terminal.complain(f"Error: {error} It is in OA_WORKER_KEY.")
            code = ExitCode.CREDENTIALS
        except UpgradeRequired as error:
            self._terminal.complain(f"Error: {error} Another version of oa_protocol may.")
            code = ExitCode.UPGRADE
        except OAError as error:
            self._terminal.complain(f"Error: {error}")
            code = ExitCode.OTHER
        except KeyboardInterrupt:  # before the event loop ran
            pass
        self._terminal.clear()
        worker = self._worker
        self._terminal.note(f"{worker.answered} answered, {worker.failed} failed.")
        return code

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        with heartbeat(loop), self._interrupts.cancelling(lambda: loop.call_soon_threadsafe(self._worker.stop)):
            await self._worker.run()

    def _show(self) -> None:
        """Show on a terminal what the worker does now, and elsewhere a line when the connection changes."""
        worker = self._worker
        match worker.state:
            case "connecting" | "ended":
                text = ""
            case "connected":
                text = "connected"
            case "waiting":
                text = f"not connected ({worker.trouble or 'the server closed the connection'}); trying again"
            case "stopping":
                text = f"finishing {worker.running} answers (Ctrl-C again quits at once)"
        if not text:
            return
        if self._terminal.shows_progress:
            self._terminal.progress(
                f"{text}: {worker.running} running, {worker.answered} answered, {worker.failed} failed"
            )
        elif text != self._said and worker.state != "stopping":
            self._said = text
            self._terminal.note(f"{text[0].upper()}{text[1:]}.")
