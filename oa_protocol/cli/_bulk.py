"""The command ``bulk``."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import cast

import anyio
import click
from msgspec.structs import replace

from oa_protocol.cli._bulk_input import Format, read_prompts
from oa_protocol.cli._bulk_output import Results
from oa_protocol.cli._exit_codes import ExitCode
from oa_protocol.cli._interrupts import heartbeat
from oa_protocol.cli._session import Session, Settings
from oa_protocol.client.bulk import Bulk, BulkPrompt
from oa_protocol.client.client import Client
from oa_protocol.engine.errors import AnswerFailed, AuthenticationError

_SHOWS_EVERY = 0.25  # seconds


def bulk(
    settings: Settings,
    source: str,
    out: str,
    *,
    form: Format | None,
    concurrency: int,
    retry_failed: bool,
    accounts: str | None,
) -> int:
    """Ask the prompts in ``source`` that have no result in ``out`` yet. Return the exit code.

    Args:
        settings: The options.
        source: The path of the prompts, or ``-`` for stdin.
        out: The path of the results.
        form: How the prompts are written. By default, the name of their file says so.
        concurrency: How many are asked at a time for each account.
        retry_failed: Whether those whose last result is a failure are asked again.
        accounts: The path of a file with the credentials of several accounts, or None.

    Raises:
        UsageError: The options, the prompts or the accounts can't be used.
        ClickException: The results can't be used.

    """
    if Path(out).exists() and source != "-" and Path(source).exists() and Path(source).samefile(out):
        raise click.UsageError("IN and OUT are the same file")
    session = _BulkSession(settings, read_prompts(source, form), read_accounts(accounts))
    with Results(Path(out)) as results:
        return session.ask_all(results, concurrency, retry_failed=retry_failed)


def read_accounts(name: str | None) -> list[str]:
    """Return the credentials in a file, one for each line. Lines that begin with ``#`` are comments."""
    if name is None:
        return []
    path = Path(name)
    try:
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise click.UsageError(f"other users can read {name}, which has credentials in it. Run: chmod 600 {name}")
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--accounts: {name} can't be read: {getattr(error, 'strerror', error)}") from None
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise click.UsageError(f"--accounts: {name} has no accounts in it")
    return found


class _BulkSession(Session):
    """One run. Ctrl-C ends it when the prompts that are under way are finished."""

    def __init__(self, settings: Settings, prompts: Sequence[BulkPrompt], accounts: Sequence[str]) -> None:
        super().__init__(settings)
        self._prompts = prompts
        self._accounts = accounts
        self._clients: Sequence[Client] = ()
        self._bulks: list[Bulk] = []
        self._answered = self._failed = 0
        self._failure: Exception | None = None

    def ask_all(self, results: Results, concurrency: int, *, retry_failed: bool) -> int:
        """Ask, and print a summary. Return the exit code."""
        if results.was_torn:
            self.terminal.note(f"The last line of {results.path} was incomplete. Its prompt is asked again.")
        skipped = {key for key, failed in results.done.items() if not (failed and retry_failed)}
        todo = [prompt for prompt in self._prompts if str(prompt.key) not in skipped]
        began = time.monotonic()
        with ExitStack() as stack:
            clients = self._clients = self._begin(stack, self._connect_all)
            code = self._carry_out(partial(self._ask, clients, results, concurrency, todo), clients)
            leaked = sum(len(client.leaked) for client in clients)
            try:
                self._summarize(len(todo), time.monotonic() - began, leaked, results)
            except BrokenPipeError:
                return code or ExitCode.STDOUT_CLOSED
            except OSError as error:
                self.terminal.complain(f"Error: {error}")
                return code or ExitCode.OTHER
        return code

    def _connect_all(self, stack: ExitStack) -> list[Client]:
        if not self._accounts:
            return [self._connect(stack)]
        settings = self._settings
        if settings.url is None:
            raise click.UsageError("--accounts needs a server: give its --url, or set OA_URL")
        if settings.cookies or settings.token:
            raise click.UsageError("--accounts can't go with --cookies or --token-file")
        if settings.api == "inference":
            return [self._client(settings.url, None, token) for token in self._accounts]
        return [self._client(settings.url, cookies, None) for cookies in self._accounts]

    async def _ask(self, clients: Sequence[Client], results: Results, concurrency: int, todo: list[BulkPrompt]) -> None:
        prompts = (self._with_options(prompt) for prompt in todo)  # the accounts share it
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            stack.enter_context(heartbeat(loop))
            for client in clients:
                await stack.enter_async_context(client)
                self._bulks.append(client.bulk(prompts, concurrency=concurrency))
            stack.enter_context(self.interrupts.cancelling(lambda: loop.call_soon_threadsafe(self._stop)))
            async with anyio.create_task_group() as group:
                group.start_soon(self._show_progress, len(todo))
                async with anyio.create_task_group() as readers:
                    for number, bulk in enumerate(self._bulks, 1):
                        readers.start_soon(self._read, bulk, number, results, readers.cancel_scope)
                group.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        if self._failed:
            raise AnswerFailed(
                f"{self._failed} of {self._failed + self._answered} prompts failed. --retry-failed asks them again."
            )

    async def _read(self, bulk: Bulk, number: int, results: Results, readers: anyio.CancelScope) -> None:
        several = len(self._bulks) > 1
        try:
            async for result in bulk:
                results.write(result, number if several else None)
                if result.error is None:
                    self._answered += 1
                else:
                    self._failed += 1
        except Exception as error:
            self._failure = self._failure or error
            if several and isinstance(error, AuthenticationError):
                self.terminal.complain(f"Account {number} in --accounts can't be used. The others go on.")
            else:
                readers.cancel()

    def _with_options(self, prompt: BulkPrompt) -> BulkPrompt:
        """Return the prompt with the options of the command line, unless it has its own."""
        settings = self._settings
        return replace(
            prompt,
            model=prompt.model or settings.model,
            system_prompt=prompt.system_prompt or settings.system_prompt,
            sampling=settings.sampling | cast("dict[str, float]", prompt.sampling or {}),
        )

    def _stop(self) -> None:
        for bulk in self._bulks:
            bulk.stop()
        running = sum(len(bulk.running) for bulk in self._bulks)
        self.terminal.note(f"Finishing the prompts that are under way: {running}. Ctrl-C again quits at once.")

    async def _show_progress(self, total: int) -> None:
        if not self.terminal.shows_progress:
            return
        from oa_protocol.cli._bulk_progress import ProgressBar

        bar = ProgressBar(total)
        try:
            while True:
                waiting = [key for bulk in self._bulks for key in bulk.waiting]
                bar.show(self._answered + self._failed, self._failed, waiting)
                await anyio.sleep(_SHOWS_EVERY)
        finally:
            bar.close()

    def _summarize(self, total: int, seconds: float, leaked: int, results: Results) -> None:
        """Print the summary. The note comes first, because stdout may be closed or full. Raises OSError then."""
        finished = self._answered + self._failed
        before = len(self._prompts) - total
        text = f"{self._answered} answered, {self._failed} failed, {before} done before, {total - finished} not asked;"
        self.terminal.note(f"{text} {seconds:.1f} s.")
        if self._settings.json:
            self.terminal.record(
                {
                    "answered": self._answered,
                    "failed": self._failed,
                    "done_before": before,
                    "not_asked": total - finished,
                    "left_behind": leaked,
                    "seconds": round(seconds, 3),
                    "out": str(results.path),
                }
            )

    def _last_words(self) -> str:
        left = [record.chat_id for client in self._clients for record in client.leaked]
        running = [chat.id for bulk in self._bulks for chat in bulk.running.values()]
        # A chat that is just being left may be in both.
        ids = left + [chat_id for chat_id in running if chat_id is None or chat_id not in left]
        said = [f"Maybe left behind: chat {chat_id or '(id unknown)'}" for chat_id in ids]
        # The progress bar hides the cursor.
        cursor = "\x1b[?25h" if self.terminal.shows_progress else ""
        return cursor + "\n".join([*said, self._remedy] if said else ["Interrupted."]).rstrip()

    @property
    def _remedy(self) -> str:
        if self._settings.url is None or self._settings.journal == "":
            return ""
        return "To delete it, run `oa-protocol sweep` with the same --url, --api and credentials."
