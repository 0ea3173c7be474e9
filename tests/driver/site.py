"""A running server and the clients of one of its two APIs, with what is to be asked afterwards."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import anyio.lowlevel
import anyio.to_thread
import sniffio
import trio

from oa_protocol import Cleanup, Client, Timeouts
from oa_protocol.server import FindingKind, Scripted, Server, Step
from oa_protocol.transports import TransportFactory

Api = Literal["website", "inference"]

PATIENCE = 60.0
"""Seconds after which something will not happen any more, on however busy a machine."""

HASTY = Cleanup(drain=0.05, timeout=PATIENCE)


class Site:
    """``left`` names the chats that the test expects to be left behind; there must be no others.

    With ``endless`` the script may have more than was used. ``transport`` is the clients', and None the default one.
    ``allowed`` is what the verdict on the clients may find. The delays are a hundredth of the usual ones, and the time
    for draining may be over before an answer is asked for. ``left`` says which chats may be left.
    """

    def __init__(self, server: Server, api: Api) -> None:
        self.server = server
        self.api: Api = api
        self.left: set[str | None] = set()
        self.endless = False
        self.allowed: set[FindingKind] = {"chat left", "deleted while running", "no back-off"}
        self.transport: TransportFactory | None = None

    @property
    def credentials(self) -> dict[str, Any]:
        return {"cookies": self.server.cookies} if self.api == "website" else {"token": self.server.token}

    def client(
        self,
        *,
        timeouts: Timeouts | None = None,
        cleanup: Cleanup = HASTY,
        retries: int = 2,
        **settings: Any,
    ) -> Client:
        settings = {**self.credentials, "transport": self.transport, **settings}
        return Client(self.server.url, api=self.api, timeouts=timeouts, cleanup=cleanup, retries=retries, **settings)

    def write_cookies(self, path: Path) -> Path:
        """Write a cookies.txt with the cookies that are good now."""
        lines = [f"127.0.0.1\tFALSE\t/\tFALSE\t0\t{name}\t{value}\n" for name, value in self.server.cookies.items()]
        path.write_text("# Netscape HTTP Cookie File\n" + "".join(lines))
        return path

    def script(self, *scripted: Scripted) -> None:
        self.server.script(*scripted)

    async def reached(self, step: Step, count: int = 1) -> None:
        """Return when ``count`` requests for ``step`` have arrived."""
        await anyio.to_thread.run_sync(self.server.wait_for, step, count, PATIENCE)

    async def until(self, predicate: Callable[[], bool]) -> None:
        await anyio.to_thread.run_sync(self.server.wait_until, predicate, PATIENCE)

    @property
    def chats(self) -> tuple[str, ...]:
        return tuple(chat.id for chat in self.server.chats)

    @property
    def steps(self) -> list[Step]:
        """What was asked for so far."""
        return [request.step for request in self.server.requests]

    def bodies(self, step: Step) -> list[dict[str, Any]]:
        return [json.loads(request.body) for request in self.server.requests if request.step == step]

    def assert_clean(self) -> None:
        """Assert that the clients did nothing wrong on the wire."""
        findings = [finding for finding in self.server.verdict() if finding.kind not in self.allowed]
        assert not findings, "\n".join(map(str, findings))

    def prompts(self) -> list[str]:
        """The contents of all prompts sent."""
        return [body["content"] for body in self.bodies("prompt")]


async def settle() -> None:
    """Let every other task come to its next wait."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


def living_tasks() -> int:
    if sniffio.current_async_library() == "trio":
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())
