"""Every fault that the historic client is known to have left chats behind on, or lost its answer by, met by this one.

``python -m tests.tools.fault_table [--times 20]`` prints the table.
"""

import argparse
import json
import re
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import anyio

from oa_protocol import ChatLeakedWarning, Cleanup, Client, OAError, OpenAssistant, Timeouts
from oa_protocol.server import (
    Answer,
    AnswerRequest,
    Close,
    End,
    Fault,
    Hold,
    Raw,
    Reply,
    Reset,
    Scripted,
    Send,
    Server,
    Step,
    StreamFault,
    WorkerError,
)
from tests.driver.site import Api, Site

PIECES = ("Un ", "deux ", "trois.")
FULL = "".join(PIECES)
ALWAYS = 1000
"""More times than anything is tried."""

Script = Callable[[Api], tuple[Scripted, ...]]
Caller = Callable[[Client, Site], Awaitable[str]]
"""Holds a conversation; returns the answer, or what the caller did instead."""

LEFT = "left by itself"


class Boom(Exception):
    pass


@dataclass(frozen=True)
class Row:
    """``historic`` is what was measured with the historic client: chats left of 20, and what its caller saw."""

    fault: str
    historic: tuple[int, str]
    script: Script
    caller: Caller


@dataclass
class Outcome:
    """What came of one row: ``left`` chats on the server, those ``named`` among them, and what each caller saw."""

    left: int
    named: int
    unnamed: set[str]
    seen: list[str]


# ---- callers


async def ask(client: Client, site: Site) -> str:
    async with client, client.chat() as chat:
        return await chat.ask("Hello")


async def wrong_model(client: Client, site: Site) -> str:
    async with client, client.chat("no-such-model") as chat:
        return await chat.ask("Hello")


async def breaks(client: Client, site: Site) -> str:
    async with client, client.chat() as chat:
        async for _ in chat.stream("Hello"):
            break
    return LEFT


async def breaks_and_closes(client: Client, site: Site) -> str:
    cleanup = Cleanup(drain=0.2)
    pieces = OpenAssistant.create_async_generator(
        "", [{"role": "user", "content": "Hello"}], base_url=site.server.url, api=site.api, cleanup=cleanup,
        **site.credentials,
    )  # fmt: skip
    async for _ in pieces:
        break
    await cast("AsyncGenerator[str]", pieces).aclose()
    return LEFT


async def body_raises(client: Client, site: Site) -> str:
    async with client, client.chat() as chat:
        async for _ in chat.stream("Hello"):
            raise Boom("the body's own")
    raise AssertionError


async def runs_out_of_time(client: Client, site: Site) -> str:
    with anyio.fail_after(0.2):
        return await ask(client, site)


def cancelled_at(step: Step) -> Caller:
    async def cancelled(client: Client, site: Site) -> str:
        count = site.steps.count(step)
        async with anyio.create_task_group() as group:
            group.start_soon(ask, client, site)
            await site.reached(step, count + 1)
            group.cancel_scope.cancel()
            site.server.release()
        return LEFT

    return cancelled


# ---- faults


def fault(step: Step, outcome: Reply | Reset | Raw | Close, times: int = 1, *, carried_out: bool = False) -> Script:
    if carried_out:
        return lambda api: (Fault(step, after=outcome, times=times),)
    return lambda api: (Fault(step, before=outcome, times=times),)


def words(step: Step, status: int, times: int = 1) -> Script:
    def script(api: Api) -> tuple[Scripted, ...]:
        body = json.dumps({"detail" if api == "inference" else "message": "no such luck"}).encode()
        return (Fault(step, before=Reply(status, body, (("content-type", "application/json"),)), times=times),)

    return script


def stream(*actions: Send | End | Reset | Close, after: int | None = None) -> Script:
    return lambda api: (StreamFault(after_events=after, then=actions),)


def held(step: Step) -> Script:
    return lambda api: (Fault(step, before=Hold()),)


ISE = Reply(500, b"Internal Server Error")
NO_SPACE = (*(b"data:" + json.dumps({"event_type": "token", "text": piece}).encode() + b"\n\n" for piece in PIECES),)


def no_space(api: Api) -> tuple[Scripted, ...]:
    return (StreamFault(after_events=0, then=(*(Send(data) for data in NO_SPACE), End())),)


def nothing(api: Api) -> tuple[Scripted, ...]:
    return ()


def paused(api: Api) -> tuple[Scripted, ...]:
    return (Answer(pieces=PIECES, after=1, then=Hold()),)


def worker_error(api: Api) -> tuple[Scripted, ...]:
    return (Answer(pieces=PIECES, after=1, then=WorkerError("Aborted due to worker error.")),)


_CONNECTION = "connection error"
_WRONG = "wrong exception"
_EMPTY = "empty success"
_SHORT = "truncated success"
_AFTER = "exception after the whole text"

ROWS = (
    Row("create: reply lost", (20, _CONNECTION), fault("create", Reset(), carried_out=True), ask),
    Row("create: reply lost each time", (20, _CONNECTION), fault("create", Reset(), ALWAYS, carried_out=True), ask),
    Row("prompt: 500", (20, _WRONG), fault("prompt", ISE), ask),
    Row("prompt: 500 each time", (20, _WRONG), fault("prompt", ISE, ALWAYS), ask),
    Row("prompt: error JSON", (20, "KeyError, text lost"), words("prompt", 400), ask),
    Row("prompt: reset", (20, _CONNECTION), fault("prompt", Reset()), ask),
    Row("prompt: reset, carried out", (20, _CONNECTION), fault("prompt", Reset(), carried_out=True), ask),
    Row("request: 500", (20, _WRONG), fault("request", ISE), ask),
    Row("request: 500 each time", (20, _WRONG), fault("request", ISE, ALWAYS), ask),
    Row("request: error JSON", (20, _WRONG), words("request", 400), ask),
    Row("request: reset", (20, _WRONG), fault("request", Reset()), ask),
    Row("request: reset, carried out", (20, _WRONG), fault("request", Reset(), carried_out=True), ask),
    Row("request: no id", (20, _WRONG), fault("request", Reply(200, b"{}"), ALWAYS, carried_out=True), ask),
    Row("request: unknown model", (20, _WRONG), nothing, wrong_model),
    Row("events: 500", (0, _EMPTY), fault("events", ISE), ask),
    Row("events: error JSON, 400", (0, _EMPTY), words("events", 400), ask),
    Row("events: error JSON, 200", (0, _EMPTY), words("events", 200), ask),
    Row("events: empty", (0, _EMPTY), fault("events", Reply(200)), ask),
    Row("events: `data:` without a space", (0, _EMPTY), no_space, ask),
    Row("events: clean early end", (0, _SHORT), stream(End(), after=1), ask),
    Row("events: `error` event", (0, _SHORT), worker_error, ask),
    Row("events: reset at the head", (20, _CONNECTION), fault("events", Reset()), ask),
    Row("events: reset midway", (20, _CONNECTION), stream(Reset(), after=1), ask),
    Row(
        "events: ping whose data is not JSON",
        (20, "JSONDecodeError"),
        stream(Send(b"event: ping\r\ndata: 2026-11-22 08:33:18.087159\r\n\r\n"), after=1),
        ask,
    ),
    Row("delete: 500", (20, _AFTER), fault("delete", ISE), ask),
    Row("delete: 500 each time", (20, _AFTER), fault("delete", ISE, ALWAYS), ask),
    Row("delete: error JSON", (20, _AFTER), words("delete", 400), ask),
    Row("delete: reset", (20, _AFTER), fault("delete", Reset()), ask),
    Row("delete: reset each time", (20, _AFTER), fault("delete", Reset(), ALWAYS), ask),
    Row("delete: reset, carried out", (20, _AFTER), fault("delete", Reset(), carried_out=True), ask),
    Row("cancelled while creating", (20, "–"), held("create"), cancelled_at("create")),
    Row("cancelled while prompting", (20, "–"), held("prompt"), cancelled_at("prompt")),
    Row("cancelled while requesting", (20, "–"), held("request"), cancelled_at("request")),
    Row("cancelled while streaming", (20, "–"), paused, cancelled_at("events")),
    Row("cancelled while deleting", (20, "–"), held("delete"), cancelled_at("delete")),
    Row("timeout", (20, "–"), paused, runs_out_of_time),
    Row("break", (20, "–"), paused, breaks),
    Row("break and aclose, of the generator", (20, "–"), paused, breaks_and_closes),
    Row("body raises", (20, "–"), paused, body_raises),
)


# ---- running them


class Trois:
    async def answer(self, request: AnswerRequest) -> AsyncGenerator[str, None]:
        for piece in PIECES:
            yield piece


async def run_row(row: Row, api: Api, times: int) -> Outcome:
    """Have ``times`` conversations meet the fault, one after the other, each on a server of its own."""
    outcome = Outcome(0, 0, set(), [])
    for _ in range(times):
        async with Server(Trois(), pending_interval=0.02, reader_grace=0.2) as server:
            site = Site(server, api)
            site.script(*row.script(api))
            client = site.client(cleanup=Cleanup(drain=0.2), timeouts=Timeouts(poll=5.0))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    outcome.seen.append(await row.caller(client, site))
                except (OAError, Boom, TimeoutError) as error:
                    outcome.seen.append(f"{type(error).__name__}: {error}")
            await site.until(partial(_is_quiet, server))
            named = {record.chat_id for record in client.leaked}
            left = set(site.chats)
            unclear = sum(record.chat_id is None for record in client.leaked)
            outcome.left += len(left)
            outcome.named += len(left & named) + min(unclear, len(left - named))
            outcome.unnamed |= left - named if len(left - named) > unclear else set()
            told = any(issubclass(one.category, ChatLeakedWarning) for one in caught)
            assert told == bool(client.leaked), f"{row.fault}: {client.leaked}"
    return outcome


def _is_quiet(server: Server) -> bool:
    return server.connections == 0


def is_honest(seen: str) -> bool:
    """Whether that is the whole answer, the caller's own doing, or an exception in words: no answer cut short."""
    return seen in (FULL, LEFT) or ": " in seen


def line(row: Row, api: Api, outcome: Outcome, times: int) -> str:
    shown = dict.fromkeys("the whole answer" if seen == FULL else _short(seen) for seen in outcome.seen)
    left, saw = row.historic
    ours = f"{outcome.left} of {times}" + (f", {outcome.named} named" if outcome.left else "")
    return f"| {row.fault} | {left} of 20 | {saw} | {api} | {ours} | {'; '.join(shown)} |"


def _short(seen: str) -> str:
    return re.sub(r"http://127\.0\.0\.1:\d+", "the server", seen).replace("|", "/")[:150]


async def print_table(times: int) -> None:
    print("| fault | historic client: left | its caller saw | API | this client: left | its caller sees |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in ROWS:
        lines = {api: line(row, api, await run_row(row, api, times), times) for api in APIS}
        website, inference = lines["website"], lines["inference"]
        if website.replace("| website |", "| both |") == inference.replace("| inference |", "| both |"):
            print(website.replace("| website |", "| both |"), flush=True)
        else:
            print(website, inference, sep="\n", flush=True)


APIS: tuple[Api, ...] = ("website", "inference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    arguments = parser.parse_args()
    anyio.run(print_table, arguments.times, backend=arguments.backend)


if __name__ == "__main__":
    main()
