"""Which files a prompt passes on its way, from ``ask`` to the DELETE: ``python -m tests.tools.measure_path``.

The transport's files aren't counted. The server's aren't either, because it runs in a thread of its own, and only the
client's thread is watched. Another conversation comes first, so that what is imported or cached once doesn't count.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import oa_protocol
from oa_protocol import Client
from oa_protocol.server import Server

PACKAGE = Path(oa_protocol.__file__).parent

Met = dict[str, list[str]]
"""The files in the order in which they are met, and the functions of each."""


@contextmanager
def watched() -> Generator[Met]:
    """Note each function of the package that this thread calls."""
    met: Met = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(PACKAGE)):
            functions = met.setdefault(Path(code.co_filename).relative_to(PACKAGE).as_posix(), [])
            if code.co_qualname not in functions:
                functions.append(code.co_qualname)

    sys.setprofile(note)
    try:
        yield met
    finally:
        sys.setprofile(None)


async def _ask(client: Client) -> Met:
    chat = client.chat()
    async with chat:
        with watched() as met:
            assert await chat.ask("Hello")
            await chat.aclose()
    return met


async def _follow(server: Server) -> Met:
    async with Client(server.url, cookies=server.cookies) as client:
        await _ask(client)
        return await _ask(client)


def follow() -> Met:
    """Hold a conversation with an embedded server, and return what was met on the way, without the transport."""
    with Server() as server:
        met = asyncio.run(_follow(server))
        assert [record.step for record in server.requests].count("delete") == 2
    return {file: functions for file, functions in met.items() if not file.startswith("transports/")}


if __name__ == "__main__":
    path = follow()
    for file, functions in path.items():
        print(f"{file:<28} {len(functions):>3}  {', '.join(functions[:4])}{' …' if len(functions) > 4 else ''}")
    print(f"{len(path)} files, {sum(map(len, path.values()))} functions")
