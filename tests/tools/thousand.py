"""A thousand conversations, cancelled all at once while they stream.

``python -m tests.tools.thousand [--backend trio] [--api inference] [--count 1000] [--drain 5]``
"""

import argparse
import multiprocessing
import resource
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import anyio

from oa_protocol import ChatLeakedWarning, Cleanup, Client, Timeouts
from oa_protocol.server import Answer, Freeze, Hold, Server
from tests.driver.site import Api

PIECES = ("One ", "two.")


@dataclass
class Result:
    """``left`` counts chats on the server, ``named`` the records on ``client.leaked``; times are in seconds."""

    streaming: int
    left: int
    named: int
    starting: float
    cleaning: float


def serve(count: int, drained: bool, pipe: Connection) -> None:
    """The server, in a process of its own: whatever is asked for over the pipe is answered."""
    hold = Hold()
    with Server(workers=count) as server:
        server.script(Answer(pieces=PIECES, after=1, then=hold if drained else Freeze(), times=count))
        pipe.send((server.url, server.cookies, server.token))
        while (asked := pipe.recv()) != "stop":
            if asked == "release":
                hold.release()
            else:
                pipe.send(len(server.chats))


@contextmanager
def served(count: int, *, drained: bool) -> Generator[Connection]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(count, drained, there), daemon=True)
    process.start()
    try:
        yield here
        here.send("stop")
        process.join(20)
    finally:
        process.kill()
        process.join()
        here.close()
        there.close()


async def cancel_all_at_once(count: int, api: Api, drain: float) -> Result:
    """With ``drain`` the answers end right after the cancellation, else they never would."""
    with served(count, drained=drain > 0) as pipe:
        url, cookies, token = pipe.recv()
        credentials: dict[str, Any] = {"cookies": cookies} if api == "website" else {"token": token}
        cleanup = Cleanup(drain=drain, timeout=60.0)
        client = Client(url, api=api, cleanup=cleanup, timeouts=Timeouts(idle=300.0), **credentials)
        streaming = 0
        all_stream = anyio.Event()

        async def converse() -> None:
            nonlocal streaming
            async with client.chat() as chat:
                async for _ in chat.stream("Hello"):
                    streaming += 1
                    if streaming == count:
                        all_stream.set()

        began = cancelled = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ChatLeakedWarning)
            async with client, anyio.create_task_group() as group:
                for _ in range(count):
                    group.start_soon(converse)
                await all_stream.wait()
                cancelled = time.monotonic()
                group.cancel_scope.cancel()
                if drain:
                    pipe.send("release")
        ended = time.monotonic()
        pipe.send("count")
        return Result(streaming, pipe.recv(), len(client.leaked), cancelled - began, ended - cancelled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--api", choices=("website", "inference"), default="website")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--drain", type=float, default=0.0)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    result = anyio.run(cancel_all_at_once, arguments.count, arguments.api, arguments.drain, backend=arguments.backend)
    print(
        f"{arguments.backend}, {arguments.api}, {arguments.count} conversations, drain {arguments.drain:g} s: {result}"
    )


if __name__ == "__main__":
    main()
