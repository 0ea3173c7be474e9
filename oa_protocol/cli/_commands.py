"""The commands and their options.

This module imports only click, so that ``--help`` and completion are quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from oa_protocol import __version__
from oa_protocol.cli._exit_codes import ExitCode, table
from oa_protocol.cli._options import answer, answers, connection, connection_to_chats, journal, output, recording

if TYPE_CHECKING:
    from oa_protocol.cli._session import Settings

_LOOPBACK = ("127.0.0.1", "localhost")

_EPILOG = f"""\
\b
Exit codes (if more than one applies, the first in this list):
{table()}

\b
Environment:
  OA_URL      the server's URL
  OA_COOKIES  the path of a cookies file, or the value of a Cookie header
  OA_TOKEN    a bearer token
  OA_JOURNAL  the journal's path; if it is empty, there is no journal
  OPENAI_BASE_URL, OPENAI_API_KEY, OPENAI_MODEL
              the endpoint, key and model of --answers openai
  OA_WORKER_KEY
              the key with which the server knows the worker
  NO_COLOR    if it is set, nothing is colored

\b
Completion, for the startup file of your shell:
  bash  eval "$(_OA_PROTOCOL_COMPLETE=bash_source oa-protocol)"
  zsh   eval "$(_OA_PROTOCOL_COMPLETE=zsh_source oa-protocol)"
  fish  _OA_PROTOCOL_COMPLETE=fish_source oa-protocol | source
"""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. By default, the arguments are those of this process."""
    try:
        return int(group.main(arguments, prog_name="oa-protocol", standalone_mode=False) or 0)
    except click.ClickException as error:
        click.echo(f"Error: {error.format_message()}", err=True)
        # Click raises subclasses, which don't say what to do next. A plain UsageError is ours, and its text says so.
        if isinstance(error, click.UsageError) and type(error) is not click.UsageError and error.ctx is not None:
            click.echo(f"`{error.ctx.command_path} --help` lists its options.", err=True)
        return error.exit_code
    except click.Abort:  # Ctrl-C before or after the command's own work
        return ExitCode.INTERRUPTED
    except OSError as error:
        from oa_protocol.cli._terminal import discard_stdout

        discard_stdout()
        # Printing the help failed if the error has an errno. The commands raise theirs with a text of their own.
        click.echo(f"Error: {f'stdout: {error.strerror}' if error.errno else error}", err=True)
        return ExitCode.OTHER


def _loopback(context: click.Context, option: click.Parameter, value: str) -> str:
    del context, option
    if value not in _LOOPBACK:
        raise click.BadParameter(
            "use 127.0.0.1 or localhost. The server has no TLS and prints its credentials, so it listens on loopback"
            " only."
        )
    return value


@click.group(epilog=_EPILOG, invoke_without_command=True)
@click.version_option(__version__, prog_name="oa-protocol", message="%(prog)s %(version)s")
@click.pass_context
def group(context: click.Context) -> None:
    """Talk to an Open Assistant server.

    Every chat is deleted at the end, even after an error or Ctrl-C. If a chat may be left behind, stderr names it.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(ExitCode.USAGE)


@group.command(epilog="`oa-protocol --help` lists the exit codes.")
@click.argument("prompt", required=False)
@answer
@answers
@recording
@connection
@journal
@output
def ask(prompt: str | None, **options: Any) -> int:  # noqa: ANN401  # named in Settings
    """Print the answer to PROMPT as it arrives.

    Text that you pipe in becomes part of the prompt: PROMPT comes first, then an empty line, then the text from stdin.
    If you leave PROMPT out, or if it is -, the prompt is stdin alone. For example:

    cat log | oa-protocol ask "Summarize:"
    """
    from oa_protocol.cli import _session

    return _session.ask(_settings(options), prompt)


@group.command(
    epilog="At a terminal, you can edit the line, a pasted block is one prompt, and the Up key brings back earlier"
    " prompts, even from earlier chats. They are kept in the file chat_history in your state folder"
    " (~/.local/state/oa-protocol on Linux), and only you can read it. If you pipe prompts in, each line is one prompt."
    " `oa-protocol --help` lists the exit codes."
)
@answer
@answers
@recording
@connection
@journal
@click.option("--history/--no-history", default=True, help="Keep your prompts for later chats.  [default: history]")
@click.option("--keep", is_flag=True, help="Keep the chat on the server when you leave. /keep does the same later.")
@click.option("--open", metavar="ID", help="Go on with a chat that exists already. It is kept.")
@output
def chat(**options: Any) -> int:  # noqa: ANN401  # named in Settings
    """Converse in one chat, which is deleted when you leave, unless you keep it.

    Ctrl-C stops an answer. At an empty line, Ctrl-C, Ctrl-D or /exit leaves the chat. /help lists the commands. If an
    answer fails, the chat ends.
    """
    from oa_protocol.cli import _session

    return _session.chat(_settings(options))


@group.command(
    epilog="A prompt in a JSON line or in CSV has the fields prompt, id, model, system_prompt, user_profile and"
    " user_response_instructions. JSON lines also have sampling and plugins. Each result has the id of its prompt. A"
    " prompt without an id gets a hash of itself. The exit code is 5 if a prompt failed. `oa-protocol --help` lists the"
    " other exit codes."
)
@click.argument("source", metavar="IN", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.argument("out", metavar="OUT", type=click.Path(dir_okay=False))
@click.option(
    "form",
    "--format",
    type=click.Choice(["lines", "jsonl", "csv"]),
    help="How IN is written.  [default: by its name; .jsonl, .ndjson and .csv, and otherwise one prompt per line]",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="How many prompts are asked at a time, for each account.",
)
@click.option("--retry-failed", is_flag=True, help="Ask those prompts again whose last result is a failure.")
@click.option(
    "--accounts",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="A file with several accounts that share the work: on each line a bearer token, or for the website the path of"
    " a cookies file or the value of a Cookie header. Only you may be able to read it.",
)
@answer
@connection
@journal
@output
def bulk(
    source: str,
    out: str,
    form: Literal["lines", "jsonl", "csv"] | None,
    concurrency: int,
    retry_failed: bool,
    accounts: str | None,
    **options: Any,  # noqa: ANN401  # named in Settings
) -> int:
    """Ask all prompts in the file IN, and append the answers to the file OUT, as JSON lines.

    If you run it again, it goes on where it stopped. Ctrl-C finishes the prompts that are under way, and a second
    Ctrl-C quits at once. If IN is -, it is stdin.
    """
    from oa_protocol.cli import _bulk

    return _bulk.bulk(
        _settings(options),
        source,
        out,
        form=form,
        concurrency=concurrency,
        retry_failed=retry_failed,
        accounts=accounts,
    )


@group.command(epilog="`oa-protocol --help` lists the exit codes.")
@connection
@output
def models(**options: Any) -> int:  # noqa: ANN401  # named in Settings
    """List the models that the server offers, one per line."""
    from oa_protocol.cli import _session

    return _session.models(_settings(options))


@group.command(epilog="`oa-protocol --help` lists the exit codes.")
@click.option("--hidden", is_flag=True, help="List hidden chats, too.")
@connection_to_chats
@output
def chats(hidden: bool, **options: Any) -> int:  # noqa: ANN401  # named in Settings
    """List your chats on the server, the newest first.

    Each line has the id, the date and the beginning of the title, with tabs in between.
    """
    from oa_protocol.cli import _session

    return _session.chats(_settings(options), hidden=hidden)


@group.command(epilog="`oa-protocol --help` lists the exit codes.")
@click.argument("chat_id", metavar="ID")
@connection_to_chats
@output
def show(chat_id: str, **options: Any) -> int:  # noqa: ANN401  # named in Settings
    """Print the chat ID as Markdown, or all of its messages as JSON."""
    from oa_protocol.cli import _session

    return _session.show(_settings(options), chat_id)


@group.command(epilog="The exit code is 6 if a chat is, or may be, left on the server.")
@click.argument("chat_ids", metavar="ID...", nargs=-1, required=True)
@connection_to_chats
@output
def delete(chat_ids: tuple[str, ...], **options: Any) -> int:  # noqa: ANN401  # named in Settings
    """Delete the chats with these IDs. The ids of deleted chats are printed.

    If an answer is running, its end is waited for, because deleting the chat breaks other users' answers.
    """
    from oa_protocol.cli import _session

    return _session.delete(_settings(options), chat_ids)


@group.command(
    epilog="The chats of running processes are left alone, and so are chats that may be somebody else's. The ids of"
    " deleted chats are printed on stdout. The exit code is 6 if a chat is, or may be, left on the server. Chats in use"
    " don't count."
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="If the id of a chat was never received, leave the chat alone until it is this old.",
)
@click.option(
    "--forget",
    metavar="LINE",
    type=click.IntRange(min=1),
    multiple=True,
    help="Drop this line of the journal instead of sweeping, if you checked its chat yourself. Repeatable.",
)
@connection_to_chats
@journal
@output
def sweep(grace: float, forget: tuple[int, ...], **options: Any) -> int:  # noqa: ANN401  # named in Settings
    """Delete the chats that killed processes left behind."""
    from oa_protocol.cli import _session

    return _session.sweep(_settings(options), grace, forget)


@group.command(
    epilog="The exit code is 1 if this engine doesn't do what the tape recorded. TAPE can also be a browser's recording"
    " of a website, if its name ends in .har."
)
@click.argument("file", metavar="TAPE", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--html", type=click.Path(dir_okay=False), metavar="FILE", help="Also write a page with diagrams to FILE."
)
def replay(file: str, html: str | None) -> int:
    """Print a tape, and check this engine against it."""
    from oa_protocol.cli import _replaying

    return _replaying.replay(file, html)


@group.command(
    epilog="OA_URL, OA_COOKIES, OA_TOKEN and OA_WORKER_KEY are printed on stdout as lines for a shell. Paste them into"
    " another terminal, and the other commands use this server there."
    " If you end the server with Ctrl-C, the exit code is 0."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="The port. 0 means any free port.", show_default=True
)
@click.option(
    "--host", default="127.0.0.1", callback=_loopback, show_default=True, help="The host: 127.0.0.1 or localhost."
)
@answers
@click.option(
    "--token-delay",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="The pause between two tokens.  [default: 0.05 for lorem and echo, otherwise none]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="How many answers are written at a time. With 0, only workers that connect to it answer.",
)
@click.option(
    "allowed_hosts",
    "--allow-host",
    metavar="NAME",
    multiple=True,
    help="Another name that requests may use for this server, besides localhost and 127.0.0.1. A request with any"
    " other name gets a 403. Repeatable.",
)
@click.option(
    "--log",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
    show_default=True,
    help="Where to write a line for each request: time, method, path, status and milliseconds. - is stderr. You may"
    " move the file away at any time, and a new one is begun.",
)
@click.option("--watch", is_flag=True, help="Print the URL of a live page that shows every conversation.")
def serve(
    port: int,
    host: str,
    answers: str | None,
    gguf: str | None,
    token_delay: float | None,
    workers: int,
    allowed_hosts: tuple[str, ...],
    log: str,
    watch: bool,
) -> int:
    """Run the embedded server until you press Ctrl-C.

    It serves both APIs on one port, and keeps everything in memory. If that becomes too much, the chats that were used
    least recently are forgotten. /health says whether it runs, and how busy it is.
    """
    from oa_protocol.cli import _serving
    from oa_protocol.cli._answers import model_of

    del host  # it was only checked, because both names mean 127.0.0.1, on which the server always listens
    if token_delay is None:
        token_delay = 0.05 if answers in (None, "lorem", "echo") else 0.0
    return _serving.serve(model_of(answers, gguf), port, token_delay, workers, allowed_hosts, log, watched=watch)


@group.command(
    epilog="The first Ctrl-C or SIGTERM lets the answers that are being written end, for at most 30 seconds. A second"
    " one quits at once. The exit code is 0 after a signal, and if the server terminates the worker."
    " `oa-protocol --help` lists the others."
)
@click.argument("url", metavar="WS_URL")
@answers
@click.option(
    "--model-config",
    metavar="NAME",
    default="OA_SFT_Llama_30B_6",
    show_default=True,
    help="The model for which the server's users choose this worker. The server has to know it.",
)
@click.option(
    "--parallel",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many messages are answered at a time.",
)
def worker(url: str, answers: str | None, gguf: str | None, model_config: str, parallel: int) -> int:
    """Answer the messages of an inference server.

    WS_URL is the server's URL, for example ws://127.0.0.1:8000. OA_WORKER_KEY is the key with which the server knows
    this worker. If the connection ends, it is made anew. stderr shows what the worker does.
    """
    from oa_protocol.cli import _working
    from oa_protocol.cli._answers import model_of

    return _working.work(model_of(answers, gguf), url, model_config, parallel)


def _settings(options: dict[str, Any]) -> Settings:
    from oa_protocol.cli._session import Settings

    return Settings(**options)
