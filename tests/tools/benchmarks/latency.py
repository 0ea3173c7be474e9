"""How long a token takes to the caller: ``python -m tests.tools.benchmarks.latency [--runs 9]``.

The server's token is the time at which it was written. Both processes read the same clock (``time.monotonic``). The
figures are medians of each stream's median. The raw reader is what a relay without this package would be: it splits the
stream at line ends, and nothing else.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from urllib.parse import urlsplit

from oa_protocol import Client
from oa_protocol.transports.fast.httptools import HttptoolsTransport
from oa_protocol.transports.httpx import HttpxTransport

from .driver_contenders import COOKIE
from .driver_server import Plan, served

PLAN = Plan(tokens=400, interval=0.005, is_stamped=True)

Read = Callable[[str], AsyncGenerator[float]]
"""Yields how old each token is when the caller gets it, in seconds."""


async def raw(url: str) -> AsyncGenerator[float]:
    """A reader of asyncio's, and the five lines that a relay needs."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(b"GET /api/chat/events?x HTTP/1.1\r\nhost: x\r\n\r\n")
    async for line in reader:
        if line.startswith(b"data: "):
            event = json.loads(line[6:])
            if event["event_type"] == "token":
                yield time.monotonic() - float(event["text"])
    writer.close()


def ours(transport: Callable[[], HttptoolsTransport | HttpxTransport], turn: float | None) -> Read:
    """This package's client. With ``turn``, the caller waits in turns of that many seconds, as a relay does."""

    async def read(url: str) -> AsyncGenerator[float]:
        async with Client(url, cookies=dict([COOKIE]), transport=transport) as client, client.chat() as chat:
            stream = chat.stream("Hello")
            while True:
                waiting: Awaitable[str] = anext(stream)
                try:
                    text = await (asyncio.wait_for(waiting, turn) if turn else waiting)
                except TimeoutError:
                    continue
                except StopAsyncIteration:
                    return
                yield time.monotonic() - float(text)

    return read


CONTENDERS: dict[str, Read] = {
    "a raw asyncio reader": raw,
    "httptools": ours(HttptoolsTransport, None),
    "httptools, in turns of 0.2 s": ours(HttptoolsTransport, 0.2),
    "httpx": ours(HttpxTransport, None),
}


async def measure(read: Read, url: str) -> float:
    """Return the median of one stream, in µs. Its first token comes with the head, and doesn't count."""
    ages = [age async for age in read(url)]
    return statistics.median(ages[1:]) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how many, of which the median counts")
    runs = parser.parse_args().runs
    figures: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with served(PLAN) as site:
        for _ in range(runs):
            for name, read in CONTENDERS.items():  # side by side, for the machine may have other things to do
                figures[name].append(asyncio.run(measure(read, site.url)))
    print("| who | µs | ÷ the raw reader |")
    print("| --- | --- | --- |")
    for name, took in figures.items():
        ratio = statistics.median(mine / raw for mine, raw in zip(took, figures["a raw asyncio reader"], strict=True))
        print(f"| {name} | {statistics.median(took):.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
