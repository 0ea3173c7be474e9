"""What the journal costs a conversation: ``python -m tests.tools.benchmarks.journal [--runs 9]`` prints CPU in ms.

It counts the three writes and the threads that do them. Each transaction waits for the disk, so conversations that
write at the same time share one.
"""

import argparse
import asyncio
import statistics
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from oa_protocol import Website
from oa_protocol.client.journal import Entry, Journal

from .driver_server import CHAT

ROUNDS = 10


async def cpu(at_once: int) -> float:
    """Return ms for each conversation."""

    async def write(journal: Journal) -> None:
        for _ in range(ROUNDS):
            entry = Entry(journal)
            await entry.creating(Website("http://oa.example.org"), "account")
            await entry.settled(CHAT, is_unclear=False, is_kept=False)
            await entry.gone()

    with TemporaryDirectory() as folder, closing(Journal(Path(folder) / "journal")) as journal:
        began = time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(write(journal))
        return (time.process_time() - began) / (at_once * ROUNDS) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how many, of which the median counts")
    runs = parser.parse_args().runs
    for at_once in (1, 100):
        took = statistics.median(asyncio.run(cpu(at_once)) for _ in range(runs))
        print(f"{at_once} at once: {took:.2f} ms each")


if __name__ == "__main__":
    main()
