"""``oa-protocol serve``."""

from __future__ import annotations

import shlex
import signal
import time

import click

from oa_protocol.server import Echo, Lorem, Server


def serve(port: int, model: str, token_delay: float) -> int:
    """Run the embedded server until a signal comes; return the exit code."""
    server = Server(Echo() if model == "echo" else Lorem(), port=port, token_delay=token_delay)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with server:
            _tell(server)
            while True:
                # Unlike a lock's wait, a signal ends this on every system; one that comes just before, late.
                time.sleep(1)
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        raise click.ClickException(f"the server cannot listen on port {port}: {error.strerror or error}") from error


def _tell(server: Server) -> None:
    cookies = "; ".join(f"{name}={value}" for name, value in server.cookies.items())
    for name, value in (("OA_URL", server.url), ("OA_COOKIES", cookies), ("OA_TOKEN", server.token)):
        click.echo(f"export {name}={shlex.quote(value)}")
    click.echo(
        f"Both APIs are on {server.url}, for the credentials above, until Ctrl-C. In another terminal, paste those"
        " lines; then: oa-protocol ask Hello (--api inference uses the token).",
        err=True,
    )
