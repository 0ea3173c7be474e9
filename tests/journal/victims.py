"""Programs that are about to be killed: ``python -m tests.journal.victims`` forks one for each line it reads.

A line is JSON: the arguments of `Order`, or ``{"reap": PID}``. A victim prints its pid and what it does on stdout, and
``reaped`` follows when it is dead.
"""

import importlib
import json
import os
import sys
from dataclasses import dataclass
from typing import Any, Literal

import anyio

from oa_protocol import Cleanup, Client, Timeouts

Stop = Literal["", "leave", "pause"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a victim is to do: hold a conversation of two turns.

    With ``stop`` it leaves after the first token, or pauses for ever after the first answer.
    """

    backend: str
    api: Literal["website", "inference"]
    url: str
    cookies: dict[str, str]
    token: str
    journal: str
    stop: Stop


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def converse(order: Order) -> None:
    credentials: dict[str, Any] = {"cookies": order.cookies} if order.api == "website" else {"token": order.token}
    async with (
        Client(
            order.url,
            api=order.api,
            journal=order.journal,
            timeouts=Timeouts(),
            cleanup=Cleanup(drain=60.0, timeout=120.0),
            **credentials,
        ) as client,
        client.chat() as chat,
    ):
        async for _ in chat.stream("Hello"):
            say("token")
            if order.stop == "leave":
                return
        say("answered")
        if order.stop == "pause":
            await anyio.sleep_forever()
        await chat.ask("And again?")


def main() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        if "reap" in command:
            os.waitpid(command["reap"], 0)
            say("reaped")
            continue
        pid = os.fork()
        if pid == 0:
            order = Order(**command)
            anyio.run(converse, order, backend=order.backend)
            say("ended")
            os._exit(0)
        say(str(pid))


if __name__ == "__main__":
    for module in ("anyio._backends._asyncio", "anyio._backends._trio", "oa_protocol.transports.httpx"):
        importlib.import_module(module)  # once, not in each victim
    main()
