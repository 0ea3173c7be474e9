"""The commands and their options. Only click is imported here, so that ``--help`` and completion are quick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from oa_protocol import __version__
from oa_protocol.cli._exit_codes import ExitCode, table
from oa_protocol.cli._options import answer, connection, journal, output, recording

if TYPE_CHECKING:
    from oa_protocol.cli._session import Settings

_LOOPBACK = ("127.0.0.1", "localhost")

_EPILOG = f"""\
\b
Exit codes, the first that applies:
{table()}

\b
Environment:
  OA_URL      the server's URL
  OA_COOKIES  the path of a cookies file, or a Cookie header's value
  OA_TOKEN    a bearer token
  OA_JOURNAL  the journal's path; empty is none
  NO_COLOR    no colours

\b
Completion: eval "$(_OA_PROTOCOL_COMPLETE=bash_source oa-protocol)"
(or zsh_source; fish: _OA_PROTOCOL_COMPLETE=fish_source oa-protocol | source)
"""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default this process's; return the exit code."""
    try:
        return int(group.main(arguments, prog_name="oa-protocol", standalone_mode=False) or 0)
    except click.ClickException as error:
        click.echo(f"Error: {error.format_message()}", err=True)
        # Click's own errors are of a class for each kind; a plain one is ours, and says itself what to do.
        if isinstance(error, click.UsageError) and type(error) is not click.UsageError and error.ctx is not None:
            click.echo(f"`{error.ctx.command_path} --help` lists what it takes.", err=True)
        return error.exit_code
    except click.Abort:  # a Ctrl-C that came before or after the work itself
        return ExitCode.INTERRUPTED
    except OSError as error:
        from oa_protocol.cli._terminal import discard_stdout

        discard_stdout()
        # One with a number is the help's, which couldn't be printed; the commands give theirs a text.
        click.echo(f"Error: {f'stdout: {error.strerror}' if error.errno else error}", err=True)
        return ExitCode.OTHER


def _loopback(context: click.Context, option: click.Parameter, value: str) -> str:
    del context, option
    if value not in _LOOPBACK:
        raise click.BadParameter(
            "it has no TLS and shows its credentials: it listens on loopback only, 127.0.0.1 or localhost."
        )
    return value


@click.group(epilog=_EPILOG, invoke_without_command=True)
@click.version_option(__version__, prog_name="oa-protocol", message="%(prog)s %(version)s")
@click.pass_context
def group(context: click.Context) -> None:
    """Talk to an Open Assistant server. Every chat that is made is deleted at the end, whatever the end is."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(ExitCode.USAGE)


@group.command(epilog="`oa-protocol --help` has the exit codes.")
@click.argument("prompt", required=False)
@answer
@recording
@connection
@journal
@output
def ask(prompt: str | None, **options: Any) -> int:  # noqa: ANN401  # named in Settings
    """Print the answer to PROMPT, as it comes.

    What is piped in belongs to the prompt: PROMPT comes first, then an empty line, then the text of stdin. Without
    PROMPT, or if it is -, the prompt is stdin alone. For example: cat log | oa-protocol ask "Summarize:"
    """
    from oa_protocol.cli import _session

    return _session.ask(_settings(options), prompt)


@group.command(
    epilog="At a terminal you can edit the line, a pasted block is one prompt, and the Up key brings back what you"
    " typed, also the next time: it is kept in chat_history in your state folder (on Linux ~/.local/state/oa-protocol),"
    " which only you can read. If you pipe prompts in, each line is one. `oa-protocol --help` has the exit codes."
)
@answer
@recording
@connection
@journal
@click.option("--history/--no-history", default=True, help="Keep what is typed for the next time.  [default: history]")
@output
def chat(**options: Any) -> int:  # noqa: ANN401  # named in Settings
    """Converse in one chat, which is deleted when you leave.

    Ctrl-C stops an answer; at an empty line it leaves, as Ctrl-D and /exit do. /help lists the commands. An answer that
    fails ends the chat.
    """
    from oa_protocol.cli import _session

    return _session.chat(_settings(options))


@group.command(epilog="`oa-protocol --help` has the exit codes.")
@connection
@output
def models(**options: Any) -> int:  # noqa: ANN401  # named in Settings
    """List the models that the server offers, one a line."""
    from oa_protocol.cli import _session

    return _session.models(_settings(options))


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
@connection
@journal
@output
def sweep(grace: float, forget: tuple[int, ...], **options: Any) -> int:  # noqa: ANN401  # named in Settings
    """Delete the chats that dead processes left on the server."""
    from oa_protocol.cli import _session

    return _session.sweep(_settings(options), grace, forget)


@group.command(
    epilog="The exit code is 1 if this engine does something else than the tape says. FILE may also be a browser's"
    " recording of a website; its name must end in .har."
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def replay(file: str) -> int:
    """Print what a tape recorded, and whether this engine still does the same."""
    from oa_protocol.cli import _replaying

    return _replaying.replay(file)


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
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="How many answers run at a time. With 0, none ever does.",
)
@click.option(
    "allowed_hosts",
    "--allow-host",
    metavar="NAME",
    multiple=True,
    help="A name that requests may use for this server, besides localhost and 127.0.0.1. Others get a 403.",
)
def serve(port: int, host: str, model: str, token_delay: float, workers: int, allowed_hosts: tuple[str, ...]) -> int:
    """Run the embedded server, both APIs on one port, until Ctrl-C. It keeps everything in memory.

    stderr gets a line for each request: method, path, status and milliseconds.
    """
    from oa_protocol.cli import _serving

    del host  # checked: the server listens on 127.0.0.1, which is what both names mean
    return _serving.serve(port, model, token_delay, workers, allowed_hosts)


def _settings(options: dict[str, Any]) -> Settings:
    from oa_protocol.cli._session import Settings

    return Settings(**options)
