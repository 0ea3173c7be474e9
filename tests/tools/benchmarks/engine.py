"""The engine beside other readers of the same stream, a whole conversation, and what it takes to start.

``python -m tests.tools.benchmarks.engine [--runs 9] [--tokens 50000]`` prints tables of medians. All times are CPU.
Each time is taken in a process of its own, and the contenders take turns, so that what else the machine does is shared
by them.
"""

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.inputs import Close, Prompt, ReplyReceived, StreamEnded, StreamOpened
from tests.engine.stories import ANSWER, CHAT, COOKIES, PROMPT, WEBSITE, complete, final

from .engine_contenders import CONTENDERS, WORDS, Read, cut, events_of, msgspec_alone, payloads_of

REPLIES = [b'{"id": "%s"}' % made.encode() for made in (CHAT, PROMPT, ANSWER)]
HEADERS = [("date", "Sun, 22 Nov 2026 08:33:18 GMT"), ("content-type", "application/json")]
TOKENS = events_of(100)
FINAL = b"data: %s\r\n\r\n" % json.dumps(final(complete("".join(WORDS) * 10))).encode()

LIMIT = "msgspec's decoding alone"

T = TypeVar("T")


def in_a_process_of_its_own(work: Callable[..., T], *arguments: object) -> T:
    """What one contender leaves behind in memory is not to slow down the next."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


# ---- reading a stream

CUTS = ("4 KiB chunks", "one event a chunk")
READERS = {**CONTENDERS, LIMIT: msgspec_alone}


def print_streams(runs: int, tokens: int) -> None:
    print(f"A stream of {tokens:,} tokens in memory: thousand tokens a second; time, with {LIMIT} as 1")
    print()
    print(f"| | {' | '.join(f'{name} | time' for name in CUTS)} |")
    print(f"| --- |{' --- | --- |' * len(CUTS)}")
    measured = [{name: in_a_process_of_its_own(seconds_a_token, name, tokens) for name in READERS} for _ in range(runs)]
    for name in READERS:
        cells: list[str] = []
        for cut_number in range(len(measured[0][name])):
            took = statistics.median(run[name][cut_number] for run in measured)
            ratio = statistics.median(run[name][cut_number] / run[LIMIT][0] for run in measured)
            cells.append(f"{1e-3 / took:,.0f} | {ratio:.1f}")
        print(f"| {name} | {' | '.join(cells)} |{' | |' if name == LIMIT else ''}")
    print()


def seconds_a_token(name: str, tokens: int) -> tuple[float, ...]:
    """For each of CUTS."""
    _read(name, tokens // 10)
    return tuple(took / tokens for took in _read(name, tokens))


def _read(name: str, tokens: int) -> list[float]:
    events = events_of(tokens)
    spellings = (payloads_of(events),) if name == LIMIT else (cut(events, 4096), events)
    return [_cpu(READERS[name], chunks, tokens) for chunks in spellings]


def _cpu(read: Read, chunks: Sequence[bytes], tokens: int) -> float:
    gc.collect()
    began = time.process_time()
    events = read(chunks)
    took = time.process_time() - began
    assert events == tokens
    return took


# ---- a whole conversation


def answered() -> Conversation:
    """A conversation between two turns, after an answer of 100 tokens that came one by one."""
    conversation = Conversation(WEBSITE.binding, COOKIES)
    conversation.handle(Prompt("Hello"), 0.0)
    for reply in REPLIES:
        conversation.next_intent(0.0)
        conversation.handle(ReplyReceived(200, HEADERS, reply), 0.0)
    conversation.next_intent(0.0)
    conversation.handle(StreamOpened(), 0.0)
    for event in (*TOKENS, FINAL):
        conversation.receive_stream_data(event, 0.0)
    conversation.next_intent(0.0)
    conversation.handle(StreamEnded(), 0.0)
    return conversation


def converse() -> Conversation:
    """A whole conversation, with its DELETE."""
    conversation = answered()
    conversation.handle(Close(), 0.0)
    conversation.next_intent(0.0)
    conversation.handle(ReplyReceived(200, HEADERS, b""), 0.0)
    return conversation


def heap_of_a_conversation(conversations: int = 200) -> float:
    """Bytes that are allocated for a conversation between two turns, its ids among them."""
    kept: list[Conversation | None] = [None] * conversations
    answered()
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(conversations):
        kept[number] = answered()
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / conversations


def print_conversations(runs: int) -> None:
    print("| what | median | target |")
    print("| --- | --- | --- |")
    took = statistics.median(in_a_process_of_its_own(seconds_a_conversation, 500) for _ in range(runs))
    print(f"| a whole conversation, 100 tokens one by one: µs | {took * 1e6:.0f} | ≤ 130 |")
    print(f"| heap between two turns: bytes (tracemalloc) | {heap_of_a_conversation():.0f} | ≤ 512 |")


def seconds_a_conversation(times: int) -> float:
    converse()
    gc.collect()
    began = time.process_time()
    for _ in range(times):
        converse()
    return (time.process_time() - began) / times


# ---- starting

COMMANDS = {
    "import oa_protocol": ("≤ 40", ["-c", "import oa_protocol"]),
    "oa-protocol --help, over bare Python": ("≤ 80", [str(Path(sys.executable).with_name("oa-protocol")), "--help"]),
}


def print_starts(runs: int) -> None:
    for what, (target, command) in COMMANDS.items():
        took = statistics.median(_cpu_of_process(command) - _cpu_of_process(["-c", "pass"]) for _ in range(runs))
        print(f"| {what}: ms | {took * 1e3:.0f} | {target} |")


def _cpu_of_process(arguments: Sequence[str]) -> float:
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="how many, of which the median counts")
    parser.add_argument("--tokens", type=int, default=50_000, help="how long the stream is")
    options = parser.parse_args(arguments)
    print_streams(options.runs, options.tokens)
    print_conversations(options.runs)
    print_starts(options.runs)


if __name__ == "__main__":
    main()
