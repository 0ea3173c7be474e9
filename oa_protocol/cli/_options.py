"""The options that several commands share. Only click is imported here, so that ``--help`` and completion are quick."""

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


output = _together(
    click.option("--json", is_flag=True, help="Print JSON, one object a line (ask, chat: the events)."),
    click.option(
        "--trace",
        is_flag=True,
        help="Show phases, intents and replies on stderr. The answer then comes a line at a time.",
    ),
    click.option("--quiet", is_flag=True, help="Show errors on stderr, but no progress and no notes."),
)

connection = _together(
    click.option(
        "--url", metavar="URL", envvar="OA_URL", show_envvar=True, help="The server.  [default: an embedded one]"
    ),
    click.option(
        "--api",
        type=click.Choice(["website", "inference"]),
        default="website",
        show_default=True,
        help="The API that it speaks.",
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
    click.option("--proxy", metavar="URL", callback=_proxy, help="A proxy.  [default: HTTPS_PROXY and its like]"),
)

journal = click.option(
    "--journal",
    metavar="FILE",
    envvar="OA_JOURNAL",
    show_envvar=True,
    help="Where chats are noted until they are deleted, for `sweep`; '' for nowhere.  [default: journal.sqlite3 in your"
    " state folder]",
)

recording = click.option(
    "--tape",
    metavar="FILE",
    callback=_tape,
    help="Record the conversation, for `replay` and for bug reports: prompts and answers, but no credentials.",
)

answer = _together(
    click.option("--model", metavar="NAME", help="The model.  [default: OA_SFT_Llama_30B_6]"),
    click.option("--system-prompt", metavar="TEXT", help="What the model is told first."),
    click.option("--temperature", type=float, help="Above 0: the higher, the more varied the answer."),
    click.option("--top-k", type=int, help="Choose among the K likeliest tokens."),
    click.option("--top-p", type=float, help="Choose among tokens whose chances add up to P."),
    click.option("--typical-p", type=float, help="The same, with the most typical tokens first."),
    click.option("--repetition-penalty", type=float, help="Above 1: repeat less."),
    click.option("--max-new-tokens", type=int, help="End the answer after so many tokens."),
    click.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        help="Give up if the answer takes longer. It may wait in a queue first.  [default: no limit]",
    ),
)
