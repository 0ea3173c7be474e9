"""The command ``serve``."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, nullcontext, suppress
from logging.handlers import WatchedFileHandler

import click

from oa_protocol.cli._exit_codes import ExitCode
from oa_protocol.cli._terminal import Terminal
from oa_protocol.server import Model, Server
from oa_protocol.watching import watch


def serve(
    model: Model,
    port: int,
    token_delay: float,
    workers: int,
    allowed_hosts: Iterable[str],
    log: str,
    *,
    watched: bool = False,
) -> int:
    """Run the embedded server, with a live page if ``watched``, until SIGINT or SIGTERM. Return the exit code."""
    terminal = Terminal()
    handler = _handler(terminal, log)
    server = Server(model, port=port, token_delay=token_delay, workers=workers, allowed_hosts=allowed_hosts)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = ExitCode.DONE
    try:
        try:
            server.start()
        except OSError as error:
            raise click.ClickException(
                f"the server cannot listen on port {port}: {error.strerror or error}. --port 0 picks a free port."
            ) from error
        with _logging(handler), watch(server) if watched else nullcontext() as page:
            _tell(terminal, server)
            if page is not None:
                terminal.note(f"Watch it at {page.url}")
            while True:
                # A signal interrupts a sleep on every system, but not every wait for a lock. If it arrives just before
                # the sleep, it is noticed up to a second late.
                time.sleep(1)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        code = ExitCode.STDOUT_CLOSED
    except OSError as error:  # stdout can't be written
        terminal.complain(f"Error: {error}")
        code = ExitCode.OTHER
    finally:
        server.stop()
    left = len(server.chats)
    terminal.note(f"{left} {'chat' if left == 1 else 'chats'} left.")
    return code


def _tell(terminal: Terminal, server: Server) -> None:
    cookies = "; ".join(f"{name}={value}" for name, value in server.cookies.items())
    for name, value in (
        ("OA_URL", server.url),
        ("OA_COOKIES", cookies),
        ("OA_TOKEN", server.token),
        ("OA_WORKER_KEY", server.worker_key),
    ):
        terminal.line(f"export {name}={shlex.quote(value)}")
    terminal.note(
        f"Both APIs are on {server.url} until you press Ctrl-C. Paste the lines above into another terminal, and then"
        " try: oa-protocol ask Hello (with --api inference, it uses the token)."
    )


def _handler(terminal: Terminal, log: str) -> logging.Handler:
    if log == "-":
        return _Lines(terminal)
    try:
        return _File(terminal, log)
    except OSError as error:
        raise click.BadParameter(f"{log} can't be written: {error.strerror}.", param_hint="--log") from None


@contextmanager
def _logging(handler: logging.Handler) -> Generator[None]:
    """Write the log of the server and its model: a line for each request, warnings and errors."""
    logger = logging.getLogger("oa_protocol")
    formatter = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with suppress(OSError):  # the disk is full
            handler.close()


class _Lines(logging.Handler):
    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.complain(self.format(record))


class _File(WatchedFileHandler):
    """A file that is opened anew after it was moved away. If it can't be written, say so once, and go on serving."""

    def __init__(self, terminal: Terminal, path: str) -> None:
        super().__init__(path, encoding="utf-8")
        self._terminal = terminal
        self._failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        del record
        if not self._failed:
            self._failed = True
            self._terminal.complain(f"Warning: the log can't be written to {self.baseFilename}: {sys.exception()}")
