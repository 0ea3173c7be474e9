"""The command ``serve``."""

from __future__ import annotations

import logging
import shlex
import signal
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager

import click

from oa_protocol.cli._exit_codes import ExitCode
from oa_protocol.cli._terminal import Terminal
from oa_protocol.server import Model, Server


def serve(model: Model, port: int, token_delay: float, workers: int, allowed_hosts: Iterable[str]) -> int:
    """Run the embedded server until SIGINT or SIGTERM arrives. Return the exit code."""
    terminal = Terminal()
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
        with _requests_on(terminal):
            _tell(terminal, server)
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
    for name, value in (("OA_URL", server.url), ("OA_COOKIES", cookies), ("OA_TOKEN", server.token)):
        terminal.line(f"export {name}={shlex.quote(value)}")
    terminal.note(
        f"Both APIs are on {server.url} until you press Ctrl-C. Paste the lines above into another terminal, and then"
        " try: oa-protocol ask Hello (with --api inference, it uses the token)."
    )


@contextmanager
def _requests_on(terminal: Terminal) -> Generator[None]:
    """Show the log of the server and its model on stderr: a line for each request, warnings and errors."""
    logger, handler = logging.getLogger("oa_protocol"), _Lines(terminal)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Lines(logging.Handler):
    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.complain(self.format(record))
