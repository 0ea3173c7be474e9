"""One chat's line: what is written down in which case, and what a cancellation waits for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from oa_protocol.bindings.website import Website
from oa_protocol.client.journal import Entry, Journal, in_thread
from tests.driver.site import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.clause("OA-9.1")]

BINDING = Website("http://oa.example.org")
CHAT = "00000000-0000-0000-0000-000000000001"

Step = Callable[[Entry], Awaitable[None]]


def creating(entry: Entry) -> Awaitable[None]:
    return entry.creating(BINDING, "an account")


def created(entry: Entry) -> Awaitable[None]:
    return entry.settled(CHAT, is_unclear=False, is_kept=False)


def created_and_kept(entry: Entry) -> Awaitable[None]:
    return entry.settled(CHAT, is_unclear=False, is_kept=True)


def unclear(entry: Entry) -> Awaitable[None]:
    return entry.settled(None, is_unclear=True, is_kept=False)


def never_made(entry: Entry) -> Awaitable[None]:
    return entry.settled(None, is_unclear=False, is_kept=False)


def kept(entry: Entry) -> Awaitable[None]:
    return entry.kept()


def gone(entry: Entry) -> Awaitable[None]:
    return entry.gone()


def written(journal: Journal) -> list[tuple[str | None, bool]]:
    """The ids of the lines, and whether their creates were given up."""
    return [(line.chat_id, line.settled_at is not None) for line in journal.lines()]


@pytest.mark.parametrize(
    ("before", "step", "lines", "has_chat"),
    [
        ([], creating, [(None, False)], False),
        ([creating], created, [(CHAT, False)], True),
        ([creating], created_and_kept, [], False),
        ([creating], unclear, [(None, True)], False),
        ([creating], never_made, [], False),
        ([creating], kept, [(None, False)], False),
        ([creating, created], kept, [], False),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_a_cancellation_waits_until_it_is_written(
    tmp_path: Path, before: list[Step], step: Step, lines: list[tuple[str | None, bool]], has_chat: bool
) -> None:
    journal = Journal(tmp_path / "journal")
    entry = Entry(journal)
    for each in before:
        await each(entry)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await step(entry)
    assert (written(journal), entry.has_chat) == (lines, has_chat)
    journal.close()


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_chat_that_is_gone_is_crossed_out_unless_that_is_cancelled(tmp_path: Path, is_cancelled: bool) -> None:
    journal = Journal(tmp_path / "journal")
    entry = Entry(journal)
    await creating(entry)
    await created(entry)
    with anyio.CancelScope() as scope:
        if is_cancelled:
            scope.cancel()
        await gone(entry)
    assert written(journal) == ([(CHAT, False)] if is_cancelled else [])
    journal.close()


async def test_a_chat_that_is_gone_and_cannot_be_crossed_out_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "journal")
    entry = Entry(journal)
    await creating(entry)
    await created(entry)
    journal.close()
    journal.path.write_bytes(b"this is something else " * 1000)
    await gone(entry)
    [record] = caplog.records
    why = f"the journal {journal.path} cannot be used: file is not a database. "
    advice = "Choose another file for it, or do without a journal."
    assert record.getMessage() == f"the chat is gone, but still in the journal: {why}{advice}"


@pytest.mark.clause("OA-9.4")
async def test_a_program_that_keeps_its_threads_busy_does_not_hold_up_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    limiter = anyio.to_thread.current_default_thread_limiter()
    tokens = [object() for _ in range(int(limiter.total_tokens))]
    for token in tokens:
        limiter.acquire_on_behalf_of_nowait(token)
    with anyio.fail_after(PATIENCE):
        await creating(Entry(journal))
        assert len(await in_thread(journal.lines)) == 1
        assert await in_thread(journal.lines, Website("http://elsewhere.example.org")) == []
    for token in tokens:
        limiter.release_on_behalf_of(token)
    journal.close()
