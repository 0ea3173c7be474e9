"""What ``ask``, ``chat`` and ``models`` do, and what they exit with."""

from __future__ import annotations

import asyncio
import re
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TextIO

import anyio
import click
from msgspec.structs import asdict
from platformdirs import user_state_path

from oa_protocol.bindings.json import SamplingParameters
from oa_protocol.cli.interrupts import Interrupts, heartbeat
from oa_protocol.cli.terminal import Terminal, discard_stdout, tracing
from oa_protocol.client.client import Answer, Chat, Client
from oa_protocol.client.journal import Journal
from oa_protocol.engine.errors import (
    AnswerFailed,
    ApiError,
    AuthenticationError,
    ChatLeakedWarning,
    HTTPStatusError,
    JournalError,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options, under their names on the command line. ``models`` has none of an answer's."""

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

    @property
    def sampling(self) -> dict[str, float]:
        """The sampling parameters that were given."""
        names = SamplingParameters.__struct_fields__
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def ask(settings: Settings, prompt: str | None) -> int:
    """Print the answer to ``prompt``, which is on stdin if None; return the exit code. Raises UsageError."""
    session = _Session(settings)
    prompt = session.terminal.prompt() if prompt is None else prompt
    if not prompt.strip():
        raise click.UsageError("the prompt is empty")
    return session.run(lambda client: session.converse(client, [prompt]))


def chat(settings: Settings) -> int:
    """Have the lines of stdin answered in one chat; return the exit code. Raises UsageError."""
    session = _Session(settings)
    prompts = session.terminal.prompts(session.interrupts)
    return session.run(lambda client: session.converse(client, prompts))


def models(settings: Settings) -> int:
    """Print the models; return the exit code. Raises UsageError."""
    session = _Session(settings)
    return session.run(session.list_models)


def sweep(settings: Settings, grace: float, forget: Sequence[int]) -> int:
    """Delete what was left behind, or forget lines of the journal; return the exit code. Raises UsageError."""
    if settings.journal == "":
        raise click.UsageError("there is no journal to sweep: --journal or OA_JOURNAL is empty")
    session = _Session(settings)
    if forget:
        return session.forget(forget)
    if settings.url is None:
        raise click.UsageError("there is no server to sweep: give --url, or set OA_URL")
    return session.run(lambda client: session.sweep(client, grace))


class _Session:
    """One run of a command."""

    def __init__(self, settings: Settings) -> None:
        self.terminal = Terminal(json=settings.json, trace=settings.trace, quiet=settings.quiet)
        self.interrupts = Interrupts(self._last_words)
        self._settings = settings
        self._chat: Chat | None = None

    def run(self, work: Work) -> int:
        """Have a client do the work; return the exit code. Raises UsageError."""
        with ExitStack() as stack:
            stack.enter_context(tracing(self._settings.trace))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", ChatLeakedWarning)  # it is told in better words
            try:
                client = self._connect(stack)
            except ValueError as error:
                raise click.UsageError(str(error)) from None
            failure: BaseException | None = None
            try:
                with self.interrupts:
                    anyio.run(self._run_interruptibly, work, client)
            except (Exception, KeyboardInterrupt) as error:
                failure = error
            self.terminal.clear()
            for record in client.leaked:
                self.terminal.complain(f"Left behind: chat {record.chat_id or '(id unknown)'}: {record.reason}")
            return self._conclude(failure, leaked=bool(client.leaked))

    async def converse(self, client: Client, prompts: Iterable[str]) -> None:
        """Have ``prompts`` answered in one chat, which is deleted in the end."""
        settings = self._settings
        chat = self._chat = client.chat(
            settings.model, sampling=settings.sampling, system_prompt=settings.system_prompt, tape=settings.tape
        )
        try:
            async with chat:
                try:
                    for prompt in prompts:
                        await self._answer(chat.send(prompt))
                except OAError as error:
                    self._record("failed", error=type(error).__name__, message=str(error))
                    raise
                finally:
                    if chat.id is not None:
                        again = " (Ctrl-C again quits at once)" if self.interrupts.signal else ""
                        self.terminal.progress(f"deleting the chat…{again}")
        finally:
            match chat.phase:
                case Phase.DELETED:
                    self._record("deleted", chat_id=chat.id)
                case Phase.LEAKED:
                    self._record("leaked", records=client.leaked)
                case _:
                    self._record("never_created")

    async def list_models(self, client: Client) -> None:
        """Print the models."""
        self.terminal.progress("asking for the models…")
        for model in await client.models():
            if self._settings.json:
                self.terminal.record(asdict(model))
            else:
                self.terminal.line("\t".join(filter(None, (model.name, model.description))))

    async def sweep(self, client: Client, grace: float) -> None:
        """Delete what was left behind, and print it."""
        self.terminal.progress("deleting what was left behind…")
        swept = await client.sweep(grace=grace)
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
                "If you have looked at a line of the journal, `oa-protocol sweep --forget LINE` drops it."
            )
        elif not swept.deleted and not swept.in_use:
            self.terminal.note(f"Nothing is left on {self._settings.url}, says the journal {self._journal}")
        for base_url in swept.elsewhere:
            self.terminal.note(
                f"The journal also has chats on {base_url}: sweep it, too, with that --url and its --api"
            )
        client.leaked.extend(swept.leaked)

    def forget(self, lines: Iterable[int]) -> int:
        """Drop lines of the journal, whose owners must not live; return the exit code."""
        journal, code = Journal(self._journal), 0
        for number in lines:
            try:
                line = journal.forget(number)
            except JournalError as error:
                return self._conclude(error, leaked=False)
            if line is None:
                self.terminal.complain(f"Error: there is no line {number} in the journal {journal.path}")
                code = 1
            else:
                self.terminal.note(f"Dropped line {number}: chat {line.chat_id or '(id unknown)'} on {line.base_url}")
        return code

    @property
    def _journal(self) -> str | Path:
        return _default_journal() if self._settings.journal is None else self._settings.journal

    def _connect(self, stack: ExitStack) -> Client:
        """Return a client of the server that is named, or of an embedded one, which lives as long as ``stack``."""
        settings = self._settings
        timeouts = Timeouts(answer=settings.timeout)
        if settings.url is not None:
            return Client(
                settings.url,
                api=settings.api,
                cookies=settings.cookies,
                token=settings.token,
                proxy=settings.proxy,
                timeouts=timeouts,
                journal=self._journal or None,
            )
        if settings.cookies or settings.token or settings.proxy:
            raise click.UsageError(
                "--cookies, --token-file and --proxy are for a server that --url or OA_URL names, and there is neither"
            )

        from oa_protocol.server import Server
        from oa_protocol.transports.default import default_transport_factory

        server = stack.enter_context(Server())
        self.terminal.note(f"No --url and no OA_URL: talking to an embedded server, {server.url}")
        return Client(
            server.url,
            api=settings.api,
            cookies="; ".join(f"{name}={value}" for name, value in server.cookies.items()),
            token=server.token if settings.api == "inference" else "",
            transport=default_transport_factory(),  # a proxy that the environment names knows nothing of our loopback
            timeouts=timeouts,
        )

    async def _run_interruptibly(self, work: Work, client: Client) -> None:
        loop = asyncio.get_running_loop()
        with (
            heartbeat(loop),
            anyio.CancelScope() as scope,
            self.interrupts.cancelling(lambda: loop.call_soon_threadsafe(scope.cancel)),
        ):
            async with client:
                await work(client)

    async def _answer(self, answer: Answer) -> None:
        self.terminal.progress("connecting…")
        text: str | None = None
        try:
            async for event in answer:
                if self._settings.json:
                    self._record(_name(event), **asdict(event))
                else:
                    self._show(event)
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
            case Queued(queue_position=position, queue_size=size):
                self.terminal.progress(f"waiting for a worker: position {position} of {size}…")
            case PluginStep(current_plugin_action_taken=action, current_plugin_thought=thought):
                self.terminal.progress(f"a plugin is at work: {action or thought or ''}…")
            case Token(text=text):
                self.terminal.piece(text)
            case Corrected(text=text, cut=True):
                raise AnswerFailed(
                    "the stream was cut, and the final text does not continue what was printed; --json has both",
                    text=text,
                )
            case Corrected():
                self.terminal.note("Note: the final text differs from what was printed; --json has both.")
            case _:
                pass

    def _record(self, event: str, **fields: object) -> None:
        if self._settings.json:
            self.terminal.record({"event": event, **fields})

    def _conclude(self, failure: BaseException | None, *, leaked: bool) -> int:
        """Return the exit code, having said why; the first that applies. Raises UsageError."""
        if isinstance(failure, ValueError):  # the library's word for what it was given
            raise click.UsageError(str(failure)) from None
        if isinstance(failure, (click.ClickException, ImportError)):
            raise failure
        if self.interrupts.signal is not None or isinstance(failure, KeyboardInterrupt):
            return self.interrupts.exit_code
        if isinstance(failure, BrokenPipeError):
            discard_stdout()
        elif isinstance(failure, (OAError, OSError)):
            self.terminal.complain(f"Error: {failure}")
        elif failure is not None:
            self.terminal.complain(f"Error: unexpected {type(failure).__name__}: {failure} (--trace shows where)")
            if self._settings.trace:
                self.terminal.complain("".join(traceback.format_exception(failure)))
        match failure:
            case JournalError():
                self.terminal.complain("Here the journal is --journal or OA_JOURNAL, and --journal '' does without.")
                return 1
            case AuthenticationError():
                self.terminal.complain("Here credentials are --cookies or OA_COOKIES, and --token-file or OA_TOKEN.")
                return 3
            case ApiError(status=429 | 503) | HTTPStatusError(status=429 | 503):
                return 4
            case AnswerFailed():
                return 5
            case _ if leaked:
                return 6
            case None:
                return 0
            case BrokenPipeError():
                return 141
            case _:
                return 1

    def _last_words(self) -> str:
        chat = self._chat
        if chat is None or chat.phase in (Phase.DELETED, Phase.NEVER_CREATED):
            return f"{self.terminal.visible_cursor}Interrupted."
        return f"{self.terminal.visible_cursor}Left behind, maybe: chat {chat.id or '(id unknown)'}"


def _default_journal() -> Path:
    return user_state_path("oa-protocol", appauthor=False) / "journal.sqlite3"


def _name(event: Event) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
