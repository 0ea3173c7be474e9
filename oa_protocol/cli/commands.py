"""The commands and their options. Only click is imported here, so that ``--help`` and completion are quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from oa_protocol import __version__

if TYPE_CHECKING:
    from oa_protocol.cli.session import Settings

_Command = TypeVar("_Command", bound=Callable[..., Any])

_MAX_TOKEN = 64 * 1024
_LOOPBACK = ("127.0.0.1", "localhost")

_EPILOG = """\
\b
Exit codes, the first that applies:
    2  usage: an option, the prompt or stdin cannot be used
  130  interrupted (by a signal other than Ctrl-C: 128 and its number)
    3  credentials are missing, or the server rejects them
    4  the server is busy or limits requests (HTTP 429, 503)
    5  the answer failed
    6  a chat is, or may be, left on the server; stderr names it
  141  stdout was closed, as `head` does
    1  anything else

\b
Environment:
  OA_URL      the server's URL
  OA_COOKIES  the path of a cookies file, or a Cookie header's value
  OA_TOKEN    a bearer token
  OA_JOURNAL  the journal's path; empty is none
  NO_COLOR    no colours on stderr

\b
Completion: eval "$(_OA_PROTOCOL_COMPLETE=bash_source oa-protocol)"
(or zsh_source; fish: _OA_PROTOCOL_COMPLETE=fish_source oa-protocol | source)
"""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default this process's; return the exit code."""
    try:
        return int(group.main(arguments, prog_name="oa-protocol", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:  # a Ctrl-C that came before or after the work itself
        return 130
    except OSError as error:  # the help could not be printed; the commands tell their own
        from oa_protocol.cli.terminal import discard_stdout

        discard_stdout()
        click.echo(f"Error: stdout: {error.strerror}", err=True)
        return 1


def _together(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _cookies(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    del context, option
    # A value that is no path may be the secret itself: it is not repeated.
    if value is not None and not value.startswith("browser:") and not os.path.exists(value):  # noqa: PTH110  # pathlib costs time in --help
        raise click.BadParameter(
            "give the path of an existing file, or browser:NAME. A cookie itself would show in the list of processes:"
            " put it into OA_COOKIES."
        )
    return value


def _token(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    del context, option
    if value is None:
        return None
    try:
        with open(value, encoding="ascii", errors="replace") as file:  # noqa: PTH123  # pathlib costs time in --help
            token = file.read(_MAX_TOKEN).strip()
    except (OSError, ValueError):
        raise click.BadParameter(
            "give the path of a file that can be read. A token itself would show in the list of processes: put it into"
            " OA_TOKEN."
        ) from None
    if not token:
        raise click.BadParameter("the file is empty.")
    return token


def _proxy(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    del context, option
    if value is not None and "@" in value:
        raise click.BadParameter(
            "a password would show in the list of processes: put the proxy's URL into HTTPS_PROXY or HTTP_PROXY."
        )
    return value


def _tape(context: click.Context, option: click.Parameter, value: str | None) -> IO[str] | None:
    del option
    if value is None:
        return None
    try:
        file = open(value, "w", encoding="utf-8", newline="\n")  # noqa: PTH123, SIM115  # pathlib costs time in --help
    except OSError as error:
        raise click.BadParameter(f"the file cannot be written: {error.strerror}.") from None
    context.call_on_close(partial(_close, file))
    return file


def _close(file: IO[str]) -> None:
    with suppress(OSError):  # that the disk is full has been told
        file.close()


def _loopback(context: click.Context, option: click.Parameter, value: str) -> str:
    del context, option
    if value not in _LOOPBACK:
        raise click.BadParameter(
            "it has no TLS and shows its credentials: it listens on loopback only, 127.0.0.1 or localhost."
        )
    return value


_output = _together(
    click.option("--json", is_flag=True, help="JSON on stdout, an object a line (ask, chat: the events)."),
    click.option("--trace", is_flag=True, help="Show phases, intents and replies on stderr as they pass."),
    click.option("--quiet", is_flag=True, help="No progress and no notes on stderr; errors still."),
)

_connection = _together(
    click.option("--url", metavar="URL", envvar="OA_URL", show_envvar=True, help="The server. None: the embedded one."),
    click.option(
        "--api", type=click.Choice(["website", "inference"]), default="website", show_default=True, help="Its API."
    ),
    click.option(
        "--cookies",
        metavar="FILE|browser:NAME",
        callback=_cookies,
        help="Cookies for the website: cookies.txt, a JSON export, a HAR file, or a browser's own.  [env var:"
        " OA_COOKIES, which may also hold a Cookie header's value]",
    ),
    click.option(
        "token",
        "--token-file",
        metavar="FILE",
        callback=_token,
        help="A file with a bearer token in it.  [env var: OA_TOKEN, which holds the token itself]",
    ),
    click.option("--proxy", metavar="URL", callback=_proxy, help="A proxy. None: the environment's."),
)

_journal = click.option(
    "--journal",
    metavar="FILE",
    envvar="OA_JOURNAL",
    show_envvar=True,
    help="Where chats stand until they are deleted, for `sweep`. None: in the user's state folder; '': nowhere.",
)

_recording = click.option(
    "--tape",
    metavar="FILE",
    callback=_tape,
    help="Record the conversation, for `replay` and for bug reports: prompts and answers, but no credentials.",
)

_answer = _together(
    click.option("--model", metavar="NAME", help="The model. None: the historic OA_SFT_Llama_30B_6."),
    click.option("--system-prompt", metavar="TEXT", help="What the model is told beforehand."),
    click.option("--temperature", type=float),
    click.option("--top-k", type=int),
    click.option("--top-p", type=float),
    click.option("--typical-p", type=float),
    click.option("--repetition-penalty", type=float),
    click.option("--max-new-tokens", type=int),
    click.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        help="How long to wait for an answer. None: for ever, for it may merely be queued.",
    ),
)


@click.group(epilog=_EPILOG)
@click.version_option(__version__, prog_name="oa-protocol", message="%(prog)s %(version)s")
def group() -> None:
    """Talk to an Open Assistant server. Every chat that is made is deleted at the end, whatever the end is."""


@group.command(epilog="`oa-protocol --help` has the exit codes.")
@click.argument("prompt", required=False)
@_answer
@_recording
@_connection
@_journal
@_output
def ask(prompt: str | None, **options: Any) -> int:  # noqa: ANN401  # named in Settings
    """Print the answer to PROMPT, as it comes. Without PROMPT, or with -, the prompt is read from stdin."""
    from oa_protocol.cli import session

    settings = _settings(options)
    if prompt is None and sys.stdin is not None and sys.stdin.isatty():
        raise click.UsageError("there is no prompt: give PROMPT, or pipe it in")
    return session.ask(settings, None if prompt == "-" else prompt)


@group.command(epilog="`oa-protocol --help` has the exit codes.")
@_answer
@_recording
@_connection
@_journal
@_output
def chat(**options: Any) -> int:  # noqa: ANN401  # named in Settings
    """Converse in one chat: a line is a prompt. Ctrl-D or /quit ends it; an answer that fails does, too."""
    from oa_protocol.cli import session

    return session.chat(_settings(options))


@group.command(epilog="`oa-protocol --help` has the exit codes.")
@_connection
@_output
def models(**options: Any) -> int:  # noqa: ANN401  # named in Settings
    """List the models that the server offers, one a line."""
    from oa_protocol.cli import session

    return session.models(_settings(options))


@group.command(
    epilog="Chats of processes that still run are left alone, and so are chats that may be somebody else's. stdout gets"
    " the ids that were deleted. Exit code 6 if something is, or may be, left; chats in use don't count."
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="A chat whose id was never learned is left alone while it is younger.",
)
@click.option(
    "--forget",
    metavar="LINE",
    type=click.IntRange(min=1),
    multiple=True,
    help="Drop this line of the journal, and sweep nothing. For a chat that you have looked at yourself.",
)
@_connection
@_journal
@_output
def sweep(grace: float, forget: tuple[int, ...], **options: Any) -> int:  # noqa: ANN401  # named in Settings
    """Delete the chats that dead processes left on the server."""
    from oa_protocol.cli import session

    return session.sweep(_settings(options), grace, forget)


@group.command(
    epilog="Exit code 1 where the engine does something else than the tape says. FILE may also be a browser's"
    " recording of a website, with a name that ends in .har."
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def replay(file: str) -> int:
    """Tell a tape as a story; see whether this engine does the same."""
    from oa_protocol.cli import replaying

    return replaying.replay(file)


@group.command(
    epilog="stdout gets OA_URL, OA_COOKIES and OA_TOKEN as lines for a shell: paste them into another terminal, and"
    " ask, chat and models talk to this server. Ctrl-C is its proper end: exit code 0."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 takes a free one.", show_default=True)
@click.option(
    "--host", default="127.0.0.1", callback=_loopback, show_default=True, help="Loopback only: it is for developing."
)
@click.option("--model", type=click.Choice(["lorem", "echo"]), default="lorem", show_default=True, help="Who answers.")
@click.option(
    "--token-delay",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=0.05,
    show_default=True,
    help="Between two tokens.",
)
def serve(port: int, host: str, model: str, token_delay: float) -> int:
    """Run the embedded server, both APIs on one port, until Ctrl-C. It keeps everything in memory."""
    from oa_protocol.cli import serving

    del host  # checked: the server listens on 127.0.0.1, which is what both names mean
    return serving.serve(port, model, token_delay)


def _settings(options: dict[str, Any]) -> Settings:
    from oa_protocol.cli.session import Settings

    return Settings(**options)
