"""The same conversation has the same tape, whichever example drives it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import pytest

from oa_protocol import Client, sync
from oa_protocol.server import Answer, Close, Fault, PluginStep, StreamFault
from oa_protocol.tape import Recorder, Tape, load_tapes, normalize, replay
from tests.examples import thread_pool
from tests.examples.running import ENGINE, PATIENT, Example, Site

pytestmark = pytest.mark.clause("OA-7.2")

PROMPTS = ["Count", "And on", "And on"]

Record = Callable[[Site, Path], object]
"""Holds the conversation, and records it."""


def through_engine(example: Example, site: Site, tape: Path) -> None:
    example.converse(site.conversation(partial(Recorder, tape=tape)), PROMPTS, print)


def through_client(backend: str, site: Site, tape: Path) -> None:
    async def converse() -> None:
        client = Client(site.server.url, cleanup=PATIENT, **site.access)
        async with client, client.chat(tape=tape) as chat:
            for prompt in PROMPTS:
                async for event in chat.send(prompt):
                    print(event)

    anyio.run(converse, backend=backend)


def through_thread_pool(site: Site, tape: Path) -> None:
    client = sync.Client(site.server.url, cleanup=PATIENT, **site.access)
    client.chat = partial(client.chat, tape=tape)  # type: ignore[method-assign]
    thread_pool.converse_all(client, [PROMPTS], print)


OTHERS: dict[str, Record] = {
    **{repr(example): partial(through_engine, example) for example in ENGINE[1:]},
    "thread_pool": through_thread_pool,
    "asyncio": partial(through_client, "asyncio"),
    "trio": partial(through_client, "trio"),
}


def recorded(site: Site, record: Record, tape: Path) -> Tape:
    """The tape of three turns: with a plugin, with a stream that breaks, and with replies that are lost."""
    plugin = PluginStep(thought="a", action="b", input="c", response="d")
    site.script(Answer(pieces=("One ", plugin, "two.")), Answer(pieces=("Three ", "four.")), Answer(pieces=("Five.",)))
    site.script(
        StreamFault(then=Close(), skip=1),
        Fault("prompt", after=Close(), skip=2),
        Fault("delete", after=Close()),
    )
    record(site, tape)
    (found,) = load_tapes(tape)
    return found


@pytest.mark.parametrize("record", OTHERS.values(), ids=OTHERS)
def test_the_same_conversation_has_the_same_tape(site: Site, record: Record, tmp_path: Path) -> None:
    first = recorded(site, partial(through_engine, ENGINE[0]), tmp_path / "first")
    second = recorded(site, record, tmp_path / "second")
    assert normalize(first).steps == normalize(second).steps
    assert normalize(first).config == normalize(second).config
    assert replay(second) is None
