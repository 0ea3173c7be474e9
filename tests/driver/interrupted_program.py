"""A program that somebody interrupts: ``python -m tests.driver.interrupted_program BACKEND API``."""

import sys
from typing import cast

import anyio

from oa_protocol import Cleanup, Client

from .site import Api


async def main() -> None:
    async with Client(api=cast("Api", sys.argv[2]), cleanup=Cleanup(drain=0)) as client, client.chat() as chat:
        async for _ in chat.stream("Hello"):
            print("streaming", flush=True)


if __name__ == "__main__":
    anyio.run(main, backend=sys.argv[1])
