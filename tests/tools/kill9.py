"""kill -9 at every point of a conversation, and then a sweep: ``python -m tests.tools.kill9 --times 200``."""

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import anyio

from oa_protocol import Client
from oa_protocol.client.sweep import SweepResult
from oa_protocol.server import Answer, Fault, Hold, Lorem, Never, Reset, Scripted, Server, Step, StreamFault
from tests.journal.victims import Order, Stop

Api = Literal["website", "inference"]


@dataclass(frozen=True, slots=True)
class Point:
    """When a victim is killed: after its ``count``-th request for ``step`` arrived, or when it prints ``saying``."""

    name: str
    script: tuple[Scripted, ...] = ()
    step: Step | None = None
    count: int = 1
    saying: str = ""
    stop: Stop = ""


def _around(step: Step, name: str, skip: int = 0) -> list[Point]:
    return [
        Point(f"{name}, not carried out", (Fault(step, before=Hold(), skip=skip),), step, skip + 1),
        Point(f"{name}, reply held", (Fault(step, after=Hold(), skip=skip),), step, skip + 1),
    ]


def _held_answer() -> Answer:
    return Answer(pieces=("one ", "two"), after=1, then=Hold())


def points() -> list[Point]:
    """All points but the random one; a `Hold` can be used once, so these are new ones."""
    return [
        *_around("create", "create"),
        *_around("prompt", "prompt"),
        *_around("request", "request"),
        Point("stream asked for", (Fault("events", before=Hold()),), "events"),
        Point("answer waits", (Answer(then=Never()),), "events"),
        Point("in mid-stream", (_held_answer(),), saying="token"),
        Point("polling", (_held_answer(), StreamFault(after_events=1, then=Reset())), "message"),
        Point("between turns", saying="answered", stop="pause"),
        *_around("prompt", "second prompt", 1),
        *_around("request", "second request", 1),
        Point("draining", (_held_answer(),), "message", stop="leave"),
        *_around("delete", "delete"),
    ]


class Killer:
    """Starts victims of one server, and kills them; all share one journal."""

    def __init__(self, server: Server, journal: Path, victims: subprocess.Popen[str]) -> None:
        self._server = server
        self._journal = journal
        self._victims = victims

    def kill_at(self, point: Point, api: Api, backend: str) -> None:
        """Kill a victim at ``point``; then let the server go on with what it held. Each API has its own account."""
        server = self._server
        chats = len(server.chats)
        before = 0 if point.step is None else sum(one.step == point.step for one in server.requests)
        server.script(*point.script)
        pid = self._start(api, backend, point.stop)
        if point.step is not None:
            server.wait_for(point.step, before + point.count)
        while point.saying and self._hear() != point.saying:
            pass
        self._kill(pid)
        server.release()
        # What it held is carried out, before the next victim's script can be taken for it.
        server.wait_until(lambda: server.under_way == 0)
        assert point.name.startswith("delete") or len(server.chats) > chats, point
        assert server.unused_faults == (), point

    def kill_after(self, seconds: float, api: Api, backend: str) -> None:
        """Kill a victim at whatever point it has come to."""
        pid = self._start(api, backend, "")
        time.sleep(seconds)
        self._kill(pid)

    def _start(self, api: Api, backend: str, stop: Stop) -> int:
        server = self._server
        self._tell(
            asdict(
                Order(
                    backend=backend,
                    api=api,
                    url=server.url,
                    cookies=server.account(api).cookies,
                    token=server.account(api).token,
                    journal=str(self._journal),
                    stop=stop,
                )
            )
        )
        return int(self._hear())

    def _kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self._tell({"reap": pid})
        while self._hear() != "reaped":
            pass

    def _tell(self, command: dict[str, object]) -> None:
        assert self._victims.stdin is not None
        self._victims.stdin.write(json.dumps(command) + "\n")
        self._victims.stdin.flush()

    def _hear(self) -> str:
        assert self._victims.stdout is not None
        line = self._victims.stdout.readline()
        assert line, "the victims' parent is gone"
        return line.strip()


@contextmanager
def killer(journal: Path) -> Generator[tuple[Killer, Server]]:
    """A server and what kills its clients."""
    with (
        Server(model=Lorem(sentences=1), token_delay=0.002, pending_interval=0.02, reader_grace=0.1) as server,
        subprocess.Popen(
            [sys.executable, "-m", "tests.journal.victims"],
            # What is to be killed measures no coverage: that slows it down, and is lost.
            env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
            | {"NO_PROXY": "*"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as victims,
    ):
        yield Killer(server, journal, victims), server
        assert victims.stdin is not None
        victims.stdin.close()


async def sweep(server: Server, journal: Path, api: Api) -> SweepResult:
    """Sweep what the victims of one API left; nothing is too young."""
    account = server.account(api)
    credentials: dict[str, Any] = {"cookies": account.cookies} if api == "website" else {"token": account.token}
    async with Client(server.url, api=api, journal=journal, **credentials) as client:
        return await client.sweep(grace=0)


def main() -> int:
    """Kill as many as asked for, at each point in turn and at random moments; sweep; count what is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    choice = random.Random(arguments.seed)
    killed: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.sqlite3"
        with killer(journal) as (victims, server):
            apis: tuple[Api, ...] = ("website", "inference")
            kinds = itertools.cycle(itertools.product(apis, ("asyncio", "trio")))
            names = itertools.cycle([point.name for point in points()] + ["random moment"] * 4)
            for name, (api, backend) in itertools.islice(zip(names, kinds, strict=False), arguments.times):
                if name == "random moment":
                    victims.kill_after(choice.uniform(0.0, 0.15), api, backend)
                else:
                    [point] = [point for point in points() if point.name == name]
                    victims.kill_at(point, api, backend)
                killed[f"{name} ({api})"] += 1
            for name, count in sorted(killed.items()):
                print(f"{count:4} {name}")
            left = len(server.chats)
            print(f"{left} chats on the server before the sweep")
            swept = [anyio.run(sweep, server, journal, api) for api in apis]
            print(f"{sum(len(one.deleted) for one in swept)} deleted or found gone by the sweep")
            phases = len({name.rpartition(" (")[0] for name in killed})
            print(f"{killed.total()} killed, {phases} phases, {len(server.chats)} chats left")
            return 1 if server.chats else 0


if __name__ == "__main__":
    sys.exit(main())
