"""The options that several commands share.

This module imports only click, so that ``--help`` and completion are quick.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import IO, Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

_MAX_TOKEN = 64 * 1024


def _together(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _cookies(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    del context, option
    # The value isn't repeated in the message. If it isn't a path, it may be the secret itself.
    if value is not None and not value.startswith("browser:") and not os.path.exists(value):  # noqa: PTH110  # pathlib costs time in --help
        raise click.BadParameter(
            "give the path of an existing file, or browser:NAME. Put the cookie itself into OA_COOKIES, because other"
            " users can see the arguments of a process."
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
            "give the path of a readable file. Put the token itself into OA_TOKEN, because other users can see the"
            " arguments of a process."
        ) from None
    if not token:
        raise click.BadParameter("the file is empty.")
    return token


def _journal(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    del context, option
    # click takes an empty variable for a missing one, but an empty name means that there is no journal.
    return "" if value is None and os.environ.get("OA_JOURNAL") == "" else value


def _proxy(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    del context, option
    if value is not None and "@" in value:
        raise click.BadParameter(
            "put a URL that has a password into HTTPS_PROXY or HTTP_PROXY, because other users can see the arguments of"
            " a process."
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
    with suppress(OSError):  # if the disk is full, an earlier write has already failed with an error
        file.close()


output = _together(
    click.option("--json", is_flag=True, help="Print JSON, one object per line."),
    click.option(
        "--trace",
        is_flag=True,
        help="Show phases, intents and replies on stderr. The answer is then printed one line at a time.",
    ),
    click.option("--quiet", is_flag=True, help="Show only errors on stderr, and no progress and no notes."),
)

_server = _together(
    click.option(
        "--api",
        type=click.Choice(["website", "inference"]),
        default="website",
        show_default=True,
        help="The API that the server speaks.",
    ),
    click.option(
        "--cookies",
        metavar="FILE|browser:NAME",
        callback=_cookies,
        help="Cookies for the website: from cookies.txt, a browser extension's JSON, a HAR file, or the browser NAME"
        " itself.  [env var: OA_COOKIES, which can also hold the value of a Cookie header]",
    ),
    click.option(
        "token",
        "--token-file",
        metavar="FILE",
        callback=_token,
        help="A file that contains a bearer token.  [env var: OA_TOKEN, which holds the token itself]",
    ),
    click.option(
        "--proxy", metavar="URL", callback=_proxy, help="The URL of a proxy.  [default: from HTTPS_PROXY or HTTP_PROXY]"
    ),
)


def _url(default: str) -> Callable[[_Command], _Command]:
    return click.option(
        "--url", metavar="URL", envvar="OA_URL", show_envvar=True, help=f"The server's base URL.  [{default}]"
    )


connection = _together(_url("default: an embedded server"), _server)
connection_to_chats = _together(_url("required"), _server)
"""An embedded server that has just begun has no chats, so these commands need another one."""

journal = click.option(
    "--journal",
    metavar="FILE",
    callback=_journal,
    envvar="OA_JOURNAL",
    show_envvar=True,
    help="The file that lists each chat until it is deleted, so that `sweep` can find it. With '', there is none."
    "  [default: journal.sqlite3 in your state folder]",
)

recording = click.option(
    "--tape",
    metavar="FILE",
    callback=_tape,
    help="Record the conversation in FILE, for `replay` and for bug reports. FILE contains prompts and answers, but no"
    " credentials.",
)

answers = _together(
    click.option(
        "--answers",
        type=click.Choice(["lorem", "echo", "openai", "gguf"]),
        help="What writes the answers: lorem (Latin words), echo (repeats the prompt), openai (a model behind the"
        " OpenAI-compatible endpoint that OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL name) or gguf (a model in a"
        " file, offline).  [default: lorem]",
    ),
    click.option("--gguf", metavar="FILE", help="The file of the model, for --answers gguf."),
)

answer = _together(
    click.option("--model", metavar="NAME", help="The model that answers.  [default: OA_SFT_Llama_30B_6]"),
    click.option("--system-prompt", metavar="TEXT", help="Instructions that come before the prompt."),
    click.option("--temperature", type=float, help="Above 0. The higher, the more varied the answer."),
    click.option("--top-k", type=int, help="Choose among the K most likely tokens."),
    click.option("--top-p", type=float, help="Choose among the most likely tokens whose probabilities add up to P."),
    click.option("--typical-p", type=float, help="Like --top-p, but with the most typical tokens."),
    click.option("--repetition-penalty", type=float, help="Above 1, the model repeats itself less."),
    click.option("--max-new-tokens", type=int, help="End the answer after this many tokens."),
    click.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        help="Give up if the answer takes longer. Time in the server's queue counts, too.  [default: no limit]",
    ),
)
