"""Many prompts, measured against ``oa-protocol serve --workers 8 --token-delay 0.005`` in a process of its own.

``python -m tests.tools.bulk cpu`` compares the CPU of ``client.bulk`` with that of a client alone, a conversation.
``python -m tests.tools.bulk kill`` kills ``oa-protocol bulk`` three times on the way, and counts what is lost: nothing.
``python -m tests.tools.bulk shells`` asks from eight shells at once, with and without a slot that they share.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio

from oa_protocol import Client, LockFileSlot

COMMAND = [sys.executable, "-c", "from oa_protocol.cli import main; main()"]
SERVE = ["serve", "--workers", "8", "--token-delay", "0.005"]


@contextmanager
def serving(*options: str) -> Generator[dict[str, str]]:
    """Run the server, and yield the environment of its clients."""
    process = subprocess.Popen(
        [*COMMAND, *SERVE, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    lines = [shlex.split(process.stdout.readline())[1] for _ in range(3)]
    yield {**os.environ, **dict(line.split("=", 1) for line in lines)}
    process.send_signal(signal.SIGINT)
    process.wait()


def prompts(count: int) -> list[str]:
    return [f"Prompt {number}" for number in range(count)]


# ---- CPU


async def alone(client: Client, count: int, concurrency: int) -> None:
    """What one writes without ``bulk``: some tasks, each of which takes the next prompt."""
    source = iter(prompts(count))

    async def work(source: Iterator[str]) -> None:
        for prompt in source:
            async with client.chat() as chat:
                await chat.ask(prompt)

    async with client, anyio.create_task_group() as group:
        for _ in range(concurrency):
            group.start_soon(work, source)


async def in_bulk(client: Client, count: int, concurrency: int) -> None:
    async with client:
        async for result in client.bulk(prompts(count), concurrency=concurrency):
            assert result.error is None


def measure(what: str, count: int, concurrency: int) -> None:
    """Print the CPU seconds of ``count`` conversations; this runs in a process of its own."""
    cookies = os.environ["OA_COOKIES"]
    with tempfile.TemporaryDirectory() as folder:
        safe: dict[str, Any] = {"journal": Path(folder, "journal"), "slot": LockFileSlot(folder)}
        client = Client(os.environ["OA_URL"], cookies=cookies, **(safe if what.endswith("safe") else {}))
        function = in_bulk if what.startswith("bulk") else alone
        anyio.run(function, client, 5, 1)  # imports, and the first connection
        client = Client(os.environ["OA_URL"], cookies=cookies, **(safe if what.endswith("safe") else {}))
        before = resource.getrusage(resource.RUSAGE_SELF)
        anyio.run(function, client, count, concurrency)
        after = resource.getrusage(resource.RUSAGE_SELF)
    print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def cpu(count: int, rounds: int) -> None:
    """Measure in turns, because the machine's load changes."""
    kinds = ("alone", "bulk", "alone, safe", "bulk, safe")
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    command: list[float] = []
    with serving() as environment, tempfile.TemporaryDirectory() as folder:
        environment["XDG_STATE_HOME"] = folder
        source = Path(folder, "in.txt")
        source.write_text("\n".join(prompts(count)))
        for turn in range(rounds):
            for kind in kinds:
                arguments = [sys.executable, "-m", "tests.tools.bulk", "measure", "--what", kind, "--count", str(count)]
                done = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True)
                found[kind].append(float(done.stdout) / count * 1000)
                print(f"{kind}: {found[kind][-1]:.2f} ms", flush=True)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [*COMMAND, "bulk", source, Path(folder, f"out-{turn}"), "--quiet"], env=environment, check=True
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            command.append(used / count * 1000)
    for kind, values in {**found, "oa-protocol bulk, with its start": command}.items():
        each = ", ".join(f"{value:.2f}" for value in values)
        print(f"{kind:34} {statistics.median(values):6.2f} ms of CPU a conversation (median of {each})")
    for one, other in (("bulk", "alone"), ("bulk, safe", "alone, safe")):
        ratios = [a / b for a, b in zip(found[one], found[other], strict=True)]
        print(f"{one} / {other}: {statistics.median(ratios):.3f}")


# ---- kill


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill(count: int) -> None:
    with serving() as environment, tempfile.TemporaryDirectory() as folder:
        environment["XDG_STATE_HOME"] = folder
        source, out = Path(folder, "in.txt"), Path(folder, "out.jsonl")
        source.write_text("\n".join(prompts(count)))
        command = [*COMMAND, "bulk", str(source), str(out), "--quiet"]
        for quarter in (1, 2, 3):
            with subprocess.Popen(command, env=environment) as process:
                while lines(out) < count * quarter // 4:
                    time.sleep(0.01)
                process.kill()
            print(f"killed with {lines(out)} results")
        subprocess.run(command, env=environment, check=True)
        results = [json.loads(line) for line in out.read_text().splitlines()]
        failed = sum(result["error"] is not None for result in results)
        print(f"{len(results)} results, {len({one['id'] for one in results})} ids, {failed} failed")
        swept = subprocess.run(
            [*COMMAND, "sweep", "--grace", "0"], env=environment, check=False, capture_output=True, text=True
        )
        print(f"{len(swept.stdout.splitlines())} chats deleted by the sweep, exit code {swept.returncode}")
        print(swept.stderr.strip())
        again = subprocess.run([*COMMAND, "sweep"], env=environment, check=False, capture_output=True, text=True)
        print(re.sub(r"on http\S+ ", "", again.stderr.strip()).partition(",")[0])
        left(environment)


def left(environment: dict[str, str]) -> None:
    """Print how many chats the account has, according to the server."""
    import http.client
    from urllib.parse import urlsplit

    connection = http.client.HTTPConnection(urlsplit(environment["OA_URL"]).netloc)
    connection.request("GET", "/chats", headers={"Authorization": f"Bearer {environment['OA_TOKEN']}"})
    reply = connection.getresponse()
    body = reply.read()
    print(f"chats on the server: {len(json.loads(body)['chats']) if reply.status == 200 else body!r}")


# ---- shells


def shells(count: int) -> None:
    """Eight at a time, two workers: so messages do wait."""
    ask = " ".join(map(shlex.quote, [*COMMAND, "ask", "--quiet", "--journal", ""]))
    for name in ("a shared slot", "no slot"):
        with serving("--workers", "2") as environment, tempfile.TemporaryDirectory() as folder:
            environment["XDG_STATE_HOME"] = folder
            if name == "no slot":
                Path(folder, "oa-protocol").write_text("so no folder can be made there")
            one = shlex.quote(f"{ask} $0 >/dev/null 2>&1 </dev/null; echo $?")
            script = f"seq {count} | xargs -P 8 -n 1 sh -c {one}"
            began = time.monotonic()
            done = subprocess.run(script, shell=True, env=environment, capture_output=True, text=True, check=True)
            codes = done.stdout.split()
            seconds = time.monotonic() - began
            print(f"{name}: {codes.count('0')} of {count} answered, {codes.count('5')} failed, {seconds:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("cpu", "kill", "shells", "measure"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--what", dest="kind", default="bulk", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    match arguments.what:
        case "cpu":
            cpu(arguments.count, arguments.rounds)
        case "kill":
            kill(arguments.count)
        case "shells":
            shells(min(arguments.count, 80))
        case _:
            measure(arguments.kind, arguments.count, 8)


if __name__ == "__main__":
    main()
