"""A client's chats on tape, over both APIs and on both event loops."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import anyio
import pytest

from oa_protocol import Phase
from oa_protocol.engine.events import Token
from oa_protocol.server import Answer, Hold
from oa_protocol.tape import load_tapes, normalize, replay
from tests.driver.site import Site

from .taping import two_turns

pytestmark = pytest.mark.anyio


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    """How often it was said that there is no tape."""
    return sum("the tape cannot be written" in record.getMessage() for record in caplog.records)


async def test_a_whole_conversation_replays_equal(site: Site, tmp_path: Path) -> None:
    tape = await two_turns(site, tmp_path / "tape.jsonl")
    assert tape.config["api"] == site.api
    assert [step["input"]["text"] for step in tape.steps if "text" in step.get("input", {})] == ["Count", "And on"]
    assert tape.steps[-1]["phase"] == "DELETED"
    assert replay(tape) is None


async def test_it_has_no_credentials_and_all_of_the_texts(site: Site, tmp_path: Path) -> None:
    text = str(await two_turns(site, tmp_path / "tape.jsonl"))
    for secret in (site.server.token, *site.server.cookies.values()):
        assert secret not in text
    for content in ("Count", "One ", "And on", "Three."):
        assert content in text


async def test_two_recordings_of_one_conversation_have_one_normal_form(site: Site, tmp_path: Path) -> None:
    first = await two_turns(site, tmp_path / "first.jsonl")
    second = await two_turns(site, tmp_path / "second.jsonl")
    assert first != second
    assert normalize(first) == normalize(second)


async def test_a_tape_is_readable_while_its_chat_goes_on(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    async with site.client() as client, client.chat(tape=path) as chat:
        assert not path.exists()
        await chat.ask("Hello")
        (tape,) = load_tapes(path)
        assert any("Answered" in str(step) for step in tape.steps)
        assert replay(tape) is None


async def test_a_conversation_that_is_cancelled_is_on_tape_up_to_its_delete(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    with anyio.CancelScope() as scope:
        async with site.client() as client, client.chat(tape=path) as chat:
            async for event in chat.send("Count"):
                if isinstance(event, Token):
                    scope.cancel()
    hold.release()
    (tape,) = load_tapes(path)
    assert tape.steps[-1]["phase"] == "DELETED"
    assert replay(tape) is None


async def test_a_tape_that_cannot_be_written_costs_nothing_but_the_tape(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "oa_protocol"):
        async with site.client() as client, client.chat(tape=tmp_path) as chat:
            assert await chat.ask("Hello")
    assert chat.phase is Phase.DELETED
    assert warnings(caplog) == 1


async def test_a_file_that_is_closed_midway_costs_nothing_but_the_tape(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    file = io.StringIO()
    with caplog.at_level(logging.WARNING, "oa_protocol"):
        async with site.client() as client, client.chat(tape=file) as chat:
            await chat.ask("Hello")
            file.close()
    assert chat.phase is Phase.DELETED
    assert warnings(caplog) == 1
