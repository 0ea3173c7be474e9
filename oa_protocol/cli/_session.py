"""The commands that need a client, and their exit codes."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import traceback
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TextIO, TypeVar

import anyio
import click
from msgspec.structs import asdict
from platformdirs import user_state_path

from oa_protocol.bindings.json import SamplingParameters
from oa_protocol.cli import _chats
from oa_protocol.cli._branches import Branches
from oa_protocol.cli._exit_codes import ExitCode
from oa_protocol.cli._interrupts import Interrupts, heartbeat
from oa_protocol.cli._prompts import Command, are_typed, chat_prompts, one_prompt
from oa_protocol.cli._terminal import Terminal
from oa_protocol.cli._words import in_our_words
from oa_protocol.client.answer import Answer
from oa_protocol.client.chat import Chat
from oa_protocol.client.client import Client
from oa_protocol.client.journal import Journal
from oa_protocol.client.slots import LockFileSlot
from oa_protocol.engine.errors import (
    AnswerFailed,
    ApiError,
    AuthenticationError,
    ChatLeakedWarning,
    HTTPStatusError,
    JournalError,
    LocalProtocolError,
    OAError,
)
from oa_protocol.engine.events import (
    Corrected,
    Created,
    Event,
    PluginStep,
    Prompted,
    Queued,
    Requested,
    Token,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.engine.timers import Timeouts

Work = Callable[[Client], Awaitable[None]]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options, under their names on the command line. Those that a command doesn't have keep their defaults."""

    url: str | None
    api: Literal["website", "inference"]
    cookies: str | None
    token: str | None = field(repr=False)
    proxy: str | None
    json: bool
    trace: bool
    quiet: bool
    journal: str | None = None
    tape: TextIO | None = None
    model: str | None = None
    system_prompt: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    timeout: float | None = None
    answers: str | None = None
    gguf: str | None = None
    history: bool = False
    keep: bool = False
    open: str | None = None

    @property
    def sampling(self) -> dict[str, float]:
        """The sampling parameters that are set."""
        names = SamplingParameters.__struct_fields__
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def ask(settings: Settings, argument: str | None) -> int:
    """Print the answer to ``argument`` and the text that is piped in. Return the exit code.

    Raises:
        UsageError: The options, the prompt or stdin can't be used.

    """
    session = Session(settings)
    prompt = one_prompt(argument, session.terminal)

    async def prompts() -> AsyncIterator[str | Command]:
        yield prompt

    return session.run(lambda client: session.converse(client, prompts()))


def chat(settings: Settings) -> int:
    """Print the answers to the lines of stdin, all in one chat. Return the exit code.

    Raises:
        UsageError: The options or stdin can't be used.

    """
    session = Session(settings, typed=are_typed())
    return session.run(lambda client: session.converse(client, session.chat_prompts()))


def models(settings: Settings) -> int:
    """Print the server's models. Return the exit code.

    Raises:
        UsageError: The options can't be used.

    """
    session = Session(settings)
    return session.run(session.list_models)


def chats(settings: Settings, *, hidden: bool) -> int:
    """List the account's chats. Return the exit code.

    Raises:
        UsageError: There is no server, or the options can't be used.

    """
    work = partial(_chats.list_chats, json=settings.json, hidden=hidden)
    return _about_chats(settings, work)


def show(settings: Settings, chat_id: str) -> int:
    """Print a chat. Return the exit code.

    Raises:
        UsageError: There is no server, or the id or the options can't be used.

    """
    return _about_chats(settings, partial(_chats.show, chat_id=chat_id, json=settings.json))


def delete(settings: Settings, chat_ids: Sequence[str]) -> int:
    """Delete chats. Return the exit code.

    Raises:
        UsageError: There is no server, or an id or the options can't be used.

    """
    return _about_chats(settings, partial(_chats.delete, chat_ids=chat_ids, json=settings.json))


def _about_chats(settings: Settings, work: Callable[[Client, Terminal], Awaitable[None]]) -> int:
    if settings.url is None:
        raise click.UsageError("there is no server that has chats: give --url, or set OA_URL")
    session = Session(settings)
    return session.run(lambda client: work(client, session.terminal))


def sweep(settings: Settings, grace: float, forget: Sequence[int]) -> int:
    """Delete chats that were left behind, or drop lines of the journal. Return the exit code.

    Args:
        settings: The options.
        grace: The age in seconds below which a chat without a known id is left alone.
        forget: The numbers of the lines to drop. If there are any, nothing is swept.

    Raises:
        UsageError: There is no server or no journal, or the options can't be used.

    """
    if settings.journal == "":
        raise click.UsageError("there is no journal to sweep, because --journal or OA_JOURNAL is empty")
    session = Session(settings)
    if forget:
        return session.forget(forget)
    if settings.url is None:
        raise click.UsageError("there is no server to sweep: give --url, or set OA_URL")
    return session.run(lambda client: session.sweep(client, grace))


class Session:
    """One run of a command. If its prompts are ``typed``, Ctrl-C stops only the answer, and the chat goes on."""

    def __init__(self, settings: Settings, *, typed: bool = False) -> None:
        self.terminal = Terminal(json=settings.json, trace=settings.trace, quiet=settings.quiet)
        self.interrupts = Interrupts(self._last_words)
        self._settings = settings
        self._typed = typed
        self._stopped: Answer | None = None
        self._chat: Chat | None = None

    def run(self, work: Work) -> int:
        """Run ``work`` with a client, and name the chats that are left. Return the exit code.

        Raises:
            UsageError: The options can't be used.

        """
        with ExitStack() as stack:
            client = self._begin(stack, self._connect)
            return self._carry_out(partial(self._run_interruptibly, work, client), [client])

    def _begin(self, stack: ExitStack, connect: Callable[[ExitStack], _T]) -> _T:
        """Return what ``connect`` returns. Until ``stack`` is closed, the library's log goes to the terminal."""
        stack.enter_context(self.terminal.library_log())
        stack.enter_context(warnings.catch_warnings())
        # The chats that it names are printed below, in the command line's words.
        warnings.simplefilter("ignore", ChatLeakedWarning)
        try:
            return connect(stack)
        except ValueError as error:
            raise click.UsageError(in_our_words(error)) from None

    def _carry_out(self, work: Callable[[], Awaitable[None]], clients: Sequence[Client]) -> int:
        """Run ``work``, and name the chats that the clients leave behind. Return the exit code."""
        failure: BaseException | None = None
        try:
            with self.interrupts:
                anyio.run(work)
        except (Exception, KeyboardInterrupt) as error:
            failure = error
        self.terminal.clear()
        leaked = [record for client in clients for record in client.leaked]
        for record in leaked:
            self.terminal.complain(f"Left behind: chat {record.chat_id or '(id unknown)'}: {record.reason}")
        if leaked and self._remedy:
            self.terminal.complain(self._remedy)
        return self._conclude(failure, leaked=bool(leaked))

    def chat_prompts(self) -> AsyncIterator[str | Command]:
        """Return the prompts that the user types or pipes in."""
        history = _state_path() / "chat_history" if self._typed and self._settings.history else None
        return chat_prompts(self.terminal, self.interrupts, history, typed=self._typed)

    async def converse(self, client: Client, prompts: AsyncIterator[str | Command]) -> None:
        """Print the answers to ``prompts``, all in one chat, and delete the chat in the end, unless it is kept."""
        chat = self._chat = await self._begin_chat(client)
        answer = self._answer_until_stopped if self._typed else self._answer
        branches = Branches(chat, self.terminal)
        try:
            async with chat:
                try:
                    async for prompt in prompts:
                        asked: Answer | None = None
                        try:
                            asked = await branches.ask(prompt)
                            if asked is not None:
                                await answer(asked)
                        except (ValueError, OAError) as error:
                            # It isn't possible, no server can store it, or a command about the chat failed. A user at a
                            # terminal can type another line.
                            goes_on = asked is None or isinstance(error, ValueError | LocalProtocolError)
                            if not self._typed or chat.phase is Phase.FAILED or not goes_on:
                                raise
                            self.terminal.complain(f"Error: {in_our_words(error)}")
                except OAError as error:
                    self._record("failed", error=type(error).__name__, message=str(error))
                    raise
                finally:
                    if chat.id is not None and not chat.is_kept:
                        again = " (Ctrl-C again quits at once)" if self.interrupts.signal else ""
                        self.terminal.progress(f"deleting the chat…{again}")
        finally:
            match chat.phase:
                case Phase.DELETED:
                    self._record("deleted", chat_id=chat.id)
                case Phase.KEPT:
                    self._record("kept", chat_id=chat.id)
                    self.terminal.note(f"Kept: chat {chat.id}")
                case Phase.LEAKED:
                    self._record("leaked", records=client.leaked)
                case _:
                    self._record("never_created")

    async def _begin_chat(self, client: Client) -> Chat:
        settings = self._settings
        if settings.open is not None:
            self.terminal.progress("reading the chat…")
        begin = client.chat if settings.open is None else partial(client.open, settings.open)
        chat = begin(
            settings.model,
            sampling=settings.sampling,
            system_prompt=settings.system_prompt,
            keep=settings.keep or settings.open is not None,
            tape=settings.tape,
        )
        return chat if isinstance(chat, Chat) else await chat

    async def list_models(self, client: Client) -> None:
        """Print the models."""
        self.terminal.progress("asking for the models…")
        for model in await client.models():
            if self._settings.json:
                self.terminal.record(asdict(model))
            else:
                self.terminal.line("\t".join(filter(None, (model.name, model.description))))

    async def sweep(self, client: Client, grace: float) -> None:
        """Delete chats that were left behind, and print their ids."""
        self.terminal.progress("deleting what was left behind…")
        swept = await client.sweep(grace=grace)
        client.leaked.extend(swept.leaked)  # first, because printing can fail, and they are named all the same
        for chat_id in swept.deleted:
            if self._settings.json:
                self.terminal.record({"event": "deleted", "chat_id": chat_id})
            else:
                self.terminal.line(chat_id)
        for record in swept.in_use:
            self._record("in_use", chat_id=record.chat_id, reason=record.reason)
            self.terminal.note(f"In use: chat {record.chat_id or '(id unknown)'}: {record.reason}")
        if swept.leaked:
            self._record("leaked", records=swept.leaked)
            self.terminal.note(
                "If you checked the chat of a line yourself, `oa-protocol sweep --forget LINE` drops that line."
            )
        elif not swept.deleted and not swept.in_use:
            self.terminal.note(f"Nothing is left on {self._settings.url}, according to the journal {self._journal}")
        for base_url in swept.elsewhere:
            self.terminal.note(
                f"The journal also lists chats on {base_url}. To delete them, sweep with that --url and its --api."
            )

    def forget(self, lines: Iterable[int]) -> int:
        """Drop lines of the journal, unless the process that owns one still runs. Return the exit code."""
        journal, code = Journal(self._journal), ExitCode.DONE
        for number in lines:
            try:
                line = journal.forget(number)
            except JournalError as error:
                return self._conclude(error, leaked=False)
            if line is None:
                self.terminal.complain(f"Error: there is no line {number} in the journal {journal.path}")
                code = ExitCode.OTHER
            else:
                self.terminal.note(f"Dropped line {number}: chat {line.chat_id or '(id unknown)'} on {line.base_url}")
        return code

    @property
    def _journal(self) -> str | Path:
        return _state_path() / "journal.sqlite3" if self._settings.journal is None else self._settings.journal

    def _connect(self, stack: ExitStack) -> Client:
        """Return a client of the user's server, or of an embedded one that runs until ``stack`` is closed."""
        settings = self._settings
        if settings.url is not None:
            if settings.answers or settings.gguf:
                raise click.UsageError(
                    "--answers and --gguf are for the embedded server, but --url or OA_URL names another one"
                )
            return self._client(settings.url, settings.cookies, settings.token)
        if settings.cookies or settings.token or settings.proxy:
            raise click.UsageError("--cookies, --token-file and --proxy need a server: give its --url, or set OA_URL")

        from oa_protocol.cli._answers import model_of
        from oa_protocol.server import Server
        from oa_protocol.transports.default import default_transport_factory

        if settings.gguf:
            self.terminal.progress("loading the model…")
        server = stack.enter_context(Server(model_of(settings.answers, settings.gguf)))
        self.terminal.note(f"No --url and no OA_URL: talking to an embedded server at {server.url}")
        return Client(
            server.url,
            api=settings.api,
            cookies="; ".join(f"{name}={value}" for name, value in server.cookies.items()),
            token=server.token if settings.api == "inference" else "",
            # An explicit transport ignores the proxy in the environment, which can't reach our loopback.
            transport=default_transport_factory(),
            timeouts=Timeouts(answer=settings.timeout),
        )

    def _client(self, url: str, cookies: str | None, token: str | None) -> Client:
        """Return a client of the user's server. It shares the account with the other processes of this user."""
        return Client(
            url,
            api=self._settings.api,
            cookies=cookies,
            token=token,
            proxy=self._settings.proxy,
            timeouts=Timeouts(answer=self._settings.timeout),
            journal=self._journal or None,
            slot=_account_slot(self.terminal),
        )

    async def _run_interruptibly(self, work: Work, client: Client) -> None:
        # A signal's handler may run in the middle of any other call, so it must not cancel the scope itself. It only
        # asks the loop to do so, by ``call_soon_threadsafe``.
        loop = asyncio.get_running_loop()
        with (
            heartbeat(loop),
            anyio.CancelScope() as scope,
            self.interrupts.cancelling(lambda: loop.call_soon_threadsafe(scope.cancel)),
        ):
            async with client:
                await work(client)

    async def _answer_until_stopped(self, answer: Answer) -> None:
        loop = asyncio.get_running_loop()
        with (
            anyio.CancelScope() as scope,
            self.interrupts.stopping(lambda: loop.call_soon_threadsafe(scope.cancel)),
        ):
            if self._stopped is not None:
                # The server still writes the stopped answer, and a chat can have only one answer at a time.
                self.terminal.progress("waiting for the stopped answer to end…")
                async for _ in self._stopped:
                    pass  # the user stopped this answer, so the rest isn't printed
                self._stopped = None
            await self._answer(answer)
        if scope.cancelled_caught:
            self._stopped = self._stopped or answer
            self._record("stopped")
            self.terminal.note(
                "Stopped. The server still writes this answer to its end, and the next prompt waits for that."
                " Press Ctrl-C again, or Ctrl-D, to leave."
            )

    async def _answer(self, answer: Answer) -> None:
        self.terminal.progress("connecting…")
        text: str | None = None
        queued = False
        try:
            async for event in answer:
                if self._settings.json:
                    self._record(_name(event), **asdict(event))
                    continue
                self._show(event)
                if isinstance(event, Queued) and event.queue_position and not (queued or self.terminal.shows_progress):
                    queued = True
                    self.terminal.note(f"Waiting for a worker: position {event.queue_position} of {event.queue_size}.")
            text = answer.text
        finally:
            self.terminal.end(text)

    def _show(self, event: Event) -> None:
        match event:
            case Created():
                self.terminal.progress("sending the prompt…")
            case Prompted():
                self.terminal.progress("requesting an answer…")
            case Requested():
                self.terminal.progress("waiting for the answer…")
            case Queued(queue_position=position, queue_size=size) if position:  # at 0, a worker has it already
                self.terminal.progress(f"waiting for a worker: position {position} of {size}…")
            case PluginStep(current_plugin_action_taken=action, current_plugin_thought=thought):
                self.terminal.progress(f"a plugin is at work: {action or thought or ''}…")
            case Token(text=text):
                self.terminal.piece(text)
            case Corrected(text=text, cut=True):
                raise AnswerFailed(
                    "the stream was cut, and the final text does not continue the printed one; --json prints both",
                    text=text,
                )
            case Corrected():
                self.terminal.note("Note: the final text differs from what was printed. --json prints both.")
            case _:
                pass

    def _record(self, event: str, **fields: object) -> None:
        if self._settings.json:
            self.terminal.record({"event": event, **fields})

    def _conclude(self, failure: BaseException | None, *, leaked: bool) -> int:
        """Print what went wrong, if anything did. Return the exit code.

        Raises:
            UsageError: The library refused a value that an option gave.

        """
        if isinstance(failure, ValueError):  # the library refused an argument
            raise click.UsageError(in_our_words(failure)) from None
        if isinstance(failure, (click.ClickException, ImportError)):
            raise failure
        if self.interrupts.signal is not None or isinstance(failure, KeyboardInterrupt):
            return self.interrupts.exit_code
        if failure is not None:
            self._explain(failure)
        match failure:
            case AuthenticationError():
                return ExitCode.CREDENTIALS
            case ApiError(status=429 | 503) | HTTPStatusError(status=429 | 503):
                return ExitCode.BUSY
            case AnswerFailed():
                return ExitCode.ANSWER_FAILED
            case _ if leaked:
                return ExitCode.LEFT_BEHIND
            case None:
                return ExitCode.DONE
            case BrokenPipeError():
                return ExitCode.STDOUT_CLOSED
            case _:
                return ExitCode.OTHER

    def _explain(self, failure: BaseException) -> None:
        complain = self.terminal.complain
        match failure:
            case BrokenPipeError():
                pass  # the program that reads our stdout closed it, so it doesn't want to know
            case AuthenticationError():
                said = in_our_words(failure)
                complain(f"Error: {said}")
                if "OA_" not in said:
                    complain("Give credentials with --cookies or OA_COOKIES, or with --token-file or OA_TOKEN.")
            case JournalError():
                complain(f"Error: {failure}")
                complain("You choose the journal with --journal or OA_JOURNAL. --journal '' runs without one.")
            case OAError() | OSError():
                complain(f"Error: {in_our_words(failure)}")
            case _:
                complain(f"Error: unexpected {type(failure).__name__}: {failure} (--trace shows where)")
                if self._settings.trace:
                    complain("".join(traceback.format_exception(failure)))

    def _last_words(self) -> str:
        chat = self._chat
        if chat is None or chat.phase in (Phase.DELETED, Phase.NEVER_CREATED) or (chat.id and chat.is_kept):
            return f"{self.terminal.visible_cursor}Interrupted."
        said = f"{self.terminal.visible_cursor}Maybe left behind: chat {chat.id or '(id unknown)'}"
        return f"{said}\n{self._remedy}".rstrip()

    @property
    def _remedy(self) -> str:
        """How to delete a chat that this run leaves behind, as one line. It is empty if the journal doesn't list it."""
        if self._chat is None or self._settings.url is None or self._settings.journal == "":
            return ""
        return "To delete it, run `oa-protocol sweep` with the same --url, --api and credentials."


def _state_path() -> Path:
    """Return the folder for what the command line keeps. Raises UsageError if the user has no home directory."""
    with suppress(RuntimeError):  # newer versions of platformdirs raise it if there is no home directory
        path = user_state_path("oa-protocol", appauthor=False)
        if path.parts[0] != "~":  # older ones return this
            return path
    raise click.UsageError("there is no home directory: set HOME, XDG_STATE_HOME or OA_JOURNAL (for the journal)")


def _account_slot(terminal: Terminal) -> LockFileSlot | None:
    """Return the slot that all processes of this user share, so that they don't cancel one another's requests."""
    try:
        folder = _state_path() / "slots"
    except click.UsageError:
        problem = "there is no home directory"
    else:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                return LockFileSlot(folder)
            problem = f"{folder}: {os.strerror(errno.EACCES)}"
        except OSError as error:
            problem = f"{folder}: {error.strerror}"
    terminal.note(f"Other processes that use this account aren't waited for, because {problem}.")
    return None


def _name(event: Event) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
