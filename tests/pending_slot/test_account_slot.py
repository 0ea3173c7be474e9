"""Clients that share an account's slot, whatever it is made of: one message waits at a time, and chats are deleted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from oa_protocol import AccountSlot, Chat, Client, ClosedError, InProcessSlot, LockFileSlot, SlotError
from oa_protocol.engine.events import Queued
from oa_protocol.server import Answer, Echo, Hold, Never
from tests.driver.site import Site, settle
from tests.sync.clients import client_of

pytestmark = [pytest.mark.anyio, pytest.mark.clause("OA-4.8")]

ONE_WORKER = pytest.mark.parametrize("site", [{"model": Echo(), "workers": 1}], indirect=True)
ECHO = pytest.mark.parametrize("site", [{"model": Echo()}], indirect=True)


@pytest.fixture(params=["in process", "lock file"])
def slots(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], AccountSlot]:
    """Makes the slot of one more client."""
    shared = InProcessSlot()
    return (lambda: shared) if request.param == "in process" else (lambda: LockFileSlot(tmp_path / "slots"))


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oa_protocol.client._pending_slot._WATCH_EVERY", 0.01)


async def queued(chat: Chat) -> None:
    """Ask, and stop to read when the answer is known to wait."""
    async for event in chat.send("first"):
        if isinstance(event, Queued):
            return


@ONE_WORKER
async def test_clients_of_one_account_cancel_none_of_each_others_messages(
    site: Site, slots: Callable[[], AccountSlot]
) -> None:
    texts: list[str] = []

    async def ask(client: Client, prompt: str) -> None:
        async with client.chat() as chat:
            texts.append(await chat.ask(prompt))

    async with (
        site.client(slot=slots()) as one,
        site.client(slot=slots()) as other,
        anyio.create_task_group() as group,
    ):
        for number in range(4):
            group.start_soon(ask, one, f"one {number}")
            group.start_soon(ask, other, f"other {number}")
    assert sorted(texts) == sorted(f"{name} {number}" for name in ("one", "other") for number in range(4))


@ONE_WORKER
@pytest.mark.usefixtures("quick_looks")
async def test_a_holder_whose_owner_has_paused_leaves_when_a_worker_has_begun(
    site: Site, slots: Callable[[], AccountSlot]
) -> None:
    hold = Hold()
    site.script(Answer(then=hold))
    async with (
        site.client() as stranger,
        site.client(slot=slots()) as one,
        site.client(slot=slots()) as other,
        stranger.chat() as busy,
        one.chat() as a,
        other.chat() as b,
        anyio.create_task_group() as group,
    ):
        group.start_soon(busy.ask, "busy")
        await site.reached("request")
        await queued(a)
        group.start_soon(b.ask, "second")
        await site.reached("chat", 2)  # a look, and another one
        assert site.steps.count("request") == 2
        hold.release()
        await site.reached("request", 3)


@ECHO
async def test_a_chat_that_is_closed_while_it_waits_or_holds_lets_the_others_enter(
    site: Site, slots: Callable[[], AccountSlot]
) -> None:
    site.script(Answer(then=Never()))
    async with (
        site.client(slot=slots()) as one,
        site.client(slot=slots()) as other,
        one.chat() as a,
        other.chat() as b,
        other.chat() as c,
    ):
        await queued(a)
        async with anyio.create_task_group() as group:
            scope = anyio.CancelScope()

            async def impatient() -> None:
                with scope:
                    await b.ask("given up")

            group.start_soon(impatient)
            await site.reached("prompt", 2)
            await settle()
            scope.cancel()
            group.start_soon(c.ask, "third")
            await site.reached("prompt", 3)
            assert site.steps.count("request") == 1
            await a.aclose()
    assert site.steps.count("request") == 2


@ECHO
async def test_an_account_of_another_name_does_not_wait(site: Site, slots: Callable[[], AccountSlot]) -> None:
    other = site.server.account("other")
    theirs: dict[str, Any] = {"cookies": other.cookies} if site.api == "website" else {"token": other.token}
    site.script(Answer(then=Never()))
    async with (
        site.client(slot=slots()) as one,
        site.client(slot=slots(), **theirs) as another,
        one.chat() as a,
        another.chat() as b,
    ):
        await queued(a)
        assert await b.ask("second") == "second"


class Broken:
    """A slot of somebody's own that fails."""

    def __init__(self, *, entering: bool) -> None:
        self._entering = entering

    async def enter(self, account: str) -> None:
        if self._entering:
            raise OSError("the scheduler is gone")

    async def leave(self, account: str) -> None:
        raise OSError("the scheduler is gone")


@ECHO
async def test_a_slot_that_cannot_be_entered_is_an_error_and_the_chat_is_deleted(site: Site) -> None:
    async with site.client(slot=Broken(entering=True)) as client, client.chat() as chat:
        for _ in range(2):
            with pytest.raises(SlotError, match=r"can't be entered: OSError: the scheduler is gone\. The answer"):
                await chat.ask("Hello") if chat.answer is None else await anext(chat.answer)
        assert len(site.chats) == 1
    assert site.steps.count("request") == 0


@ECHO
async def test_a_slot_that_cannot_be_left_is_logged_and_the_answers_come(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "oa_protocol"):
        async with site.client(slot=Broken(entering=False)) as client, client.chat() as chat:
            assert [await chat.ask(text) for text in ("one", "two")] == ["one", "two"]
    assert caplog.messages == ["the slot of an account can't be left: OSError: the scheduler is gone"] * 2


@ECHO
async def test_a_look_that_fails_is_logged_and_made_again(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, quick_looks: None
) -> None:
    looks = 0

    async def look(client: Client, conversation: object) -> bool:
        nonlocal looks
        looks += 1
        raise ZeroDivisionError("a transport of somebody's own")

    monkeypatch.setattr(Client, "_is_waiting", look)
    site.script(Answer(then=Never()))
    async with site.client(slot=InProcessSlot()) as client, client.chat() as chat:
        await queued(chat)
        while looks < 2:
            await anyio.sleep(0.001)
    assert "looking for the holder of the slot failed: a transport of somebody's own" in caplog.messages


class Slow:
    """A slot that takes its time, and notes what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.may_enter, self.may_leave = anyio.Event(), anyio.Event()

    async def enter(self, account: str) -> None:
        self.calls.append("enter")
        with anyio.CancelScope(shield=True):
            await self.may_enter.wait()
        self.calls.append("entered")

    async def leave(self, account: str) -> None:
        self.calls.append("leave")
        await self.may_leave.wait()
        self.calls.append("left")


@ECHO
async def test_a_client_asks_its_slot_for_one_thing_at_a_time_and_waits_for_it_in_the_end(site: Site) -> None:
    slot = Slow()
    async with (
        site.client(slot=slot) as client,
        client.chat() as a,
        client.chat() as b,
        anyio.create_task_group() as group,
    ):
        group.start_soon(a.ask, "first")
        await site.reached("prompt")
        group.start_soon(b.ask, "second")
        await site.reached("prompt", 2)
        while not slot.calls:
            await anyio.sleep(0.001)
        await settle()
        assert slot.calls == ["enter"]
        slot.may_enter.set()
        while "leave" not in slot.calls:
            await anyio.sleep(0.001)
        await settle()
        assert slot.calls == ["enter", "entered", "leave"]
        slot.may_leave.set()
    assert slot.calls == ["enter", "entered", "leave", "left"] * 2


@ECHO
async def test_a_chat_that_is_closed_while_its_slot_is_entered_requests_nothing(site: Site) -> None:
    slot = Slow()
    slot.may_leave.set()
    async with site.client(slot=slot) as client, client.chat() as chat, anyio.create_task_group() as group:

        async def ask() -> None:
            with pytest.raises(ClosedError):
                await chat.ask("first")

        group.start_soon(ask)
        while not slot.calls:
            await anyio.sleep(0.001)
        group.start_soon(chat.aclose)
        await settle()
        slot.may_enter.set()  # it can't be cancelled, so it is entered although nobody needs it any more
    assert site.steps.count("request") == 0
    assert slot.calls == ["enter", "entered", "leave", "left"]


@ONE_WORKER
async def test_threads_of_one_account_share_a_lock_file(site: Site, tmp_path: Path) -> None:
    def ask(prompt: str) -> str:
        with client_of(site, slot=LockFileSlot(tmp_path)) as client, client.chat() as chat:
            return chat.ask(prompt)

    texts: list[str] = []

    async def in_thread(prompt: str) -> None:
        texts.append(await anyio.to_thread.run_sync(ask, prompt))

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(in_thread, str(number))
    assert sorted(texts) == ["0", "1", "2"]
