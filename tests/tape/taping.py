"""Conversations to record: the conformance vectors, and one of a client."""

from __future__ import annotations

import io
from pathlib import Path

from oa_protocol.server import Answer
from oa_protocol.tape import Recorder, Tape, load_tapes, parse_tapes
from oa_protocol.tape.format import Json, new_conversation, take_step
from tests.driver.site import Site
from tests.tools.vectors.files import PATH

CASES = {
    case.name: case
    for topic in ("conversations", "recovery", "deleting")
    for case in load_tapes(PATH / f"{topic}.jsonl")
}
ONE_TURN = CASES["one turn with the website"]
OPENED = next(number for number, step in enumerate(ONE_TURN.steps, 1) if step["phase"] == "STREAMING")
"""How many of its steps there are until its stream is open."""


def recorder(config: Json, file: io.StringIO) -> Recorder:
    """A recorder of what ``config`` makes."""
    made = new_conversation(config)
    settings = made.settings
    return Recorder(
        settings.binding,
        made.credentials,
        settings.options,
        retries=settings.retries,
        timeouts=settings.timeouts,
        cleanup=settings.cleanup,
        tape=file,
    )


def record(case: Tape) -> str:
    """The text of the tape of a recorder to which the same happened."""
    file = io.StringIO()
    conversation = recorder(case.config, file)
    for step in case.steps:
        take_step(conversation, step)
    return file.getvalue()


def recorded(case: Tape) -> Tape:
    """The tape of a recorder to which the same happened."""
    (tape,) = parse_tapes(record(case))
    return tape


async def two_turns(site: Site, path: Path) -> Tape:
    """The tape of a conversation of two turns."""
    site.script(Answer(pieces=("One ", "two.")), Answer(pieces=("Three.",)))
    async with site.client() as client, client.chat(tape=path) as chat:
        assert await chat.ask("Count") == "One two."
        assert await chat.ask("And on") == "Three."
    (tape,) = load_tapes(path)
    return tape
