"""The same conversation has the same tape, whoever drives it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import pytest

from oa_protocol import Client
from oa_protocol.server import Answer, Close, Fault, PluginStep, StreamFault
from oa_protocol.tape import Tape, load_tapes, normalize, replay
from tests.driver.site import HASTY, Site
from tests.examples import running

pytestmark = pytest.mark.clause("OA-7.2")


def through_client(backend: str, site: Site, prompts: Sequence[str], tell: running.Tell, tape: Path) -> None:
    async def converse() -> None:
        client = Client(site.server.url, api=site.api, cleanup=HASTY, **site.credentials)
        async with client, client.chat(tape=tape) as chat:
            for prompt in prompts:
                async for event in chat.send(prompt):
                    tell(event)

    anyio.run(converse, backend=backend)


DRIVERS: list[running.Hold] = [*running.ALL, partial(through_client, "asyncio"), partial(through_client, "trio")]


def recorded(site: Site, hold: running.Hold, tape: Path) -> Tape:
    """The tape of three turns: with a plugin, with a stream that breaks, and with replies that are lost."""
    plugin = PluginStep(thought="a", action="b", input="c", response="d")
    site.script(Answer(pieces=("One ", plugin, "two.")), Answer(pieces=("Three ", "four.")), Answer(pieces=("Five.",)))
    site.script(
        StreamFault(then=Close(), skip=1),
        Fault("prompt", after=Close(), skip=2),
        Fault("delete", after=Close()),
    )
    hold(site, ["Count", "And on", "And on"], print, tape)
    (found,) = load_tapes(tape)
    return found


@pytest.mark.parametrize("hold", DRIVERS[1:], ids=[*(hold.__name__ for hold in running.ALL[1:]), "asyncio", "trio"])
def test_the_same_conversation_has_the_same_tape(site: Site, hold: running.Hold, tmp_path: Path) -> None:
    first = recorded(site, DRIVERS[0], tmp_path / "first")
    second = recorded(site, hold, tmp_path / "second")
    assert normalize(first).steps == normalize(second).steps
    assert normalize(first).config == normalize(second).config
    assert replay(second) is None
