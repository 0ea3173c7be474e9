"""One message waits at a time: the chats of one client share a slot, and none of them keeps it without need."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

from oa_protocol import AnswerFailed, Chat, LocalProtocolError, Timeouts
from oa_protocol.client._pending_slot import PendingSlot
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.events import Queued, Requested, Token
from oa_protocol.engine.intents import RequestAssistant
from oa_protocol.server import Answer, Echo, Fault, Hold, Never, Reply, WorkerError
from tests.driver.site import Site, settle

pytestmark = [pytest.mark.anyio, pytest.mark.clause("OA-4.7")]

ECHO = pytest.mark.parametrize("site", [{"model": Echo()}], indirect=True)
ONE_WORKER = pytest.mark.parametrize("site", [{"model": Echo(), "workers": 1}], indirect=True)
NO_WORKERS = pytest.mark.parametrize("site", [{"model": Echo(), "workers": 0}], indirect=True)


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> list[PendingSlot]:
    """Waiters look all the time; the slots at which they have done so, each time."""
    look, found = vars(PendingSlot)["_probe_holder"], list[PendingSlot]()

    async def noted(slot: PendingSlot) -> None:
        await look(slot)
        found.append(slot)

    monkeypatch.setattr("oa_protocol.client._pending_slot._PROBE_EVERY", 0.01)
    monkeypatch.setattr(PendingSlot, "_probe_holder", noted)
    return found


@pytest.fixture
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who passes, does so because somebody let it through."""
    monkeypatch.setattr("oa_protocol.client._pending_slot._PROBE_EVERY", 1000.0)


def states(site: Site) -> list[str]:
    """The states of all answers there are, in the order of their chats."""
    return [message.state for chat in site.server.chats for message in chat.messages if message.role == "assistant"]


async def is_requested(site: Site, count: int = 1) -> None:
    await site.until(lambda: len(states(site)) == count)


@pytest.fixture(autouse=True)
def arrivals(monkeypatch: pytest.MonkeyPatch) -> list[Conversation]:
    """The conversations that have come to a slot so far."""
    enter, found = PendingSlot.enter, list[Conversation]()

    async def noted(slot: PendingSlot, conversation: Conversation) -> None:
        found.append(conversation)
        await enter(slot, conversation)

    monkeypatch.setattr(PendingSlot, "enter", noted)
    return found


async def come(arrivals: list[Conversation], count: int) -> None:
    """Return when there are ``count`` arrivals, and each of them waits or has passed."""
    while len(arrivals) < count:
        await anyio.sleep(0.001)


async def queued(chat: Chat, text: str = "first") -> None:
    """Ask, and stop to read when the answer is known to wait."""
    async for event in chat.send(text):
        if isinstance(event, Queued):
            return


async def queued_or_closed(chat: Chat, text: str) -> None:
    with suppress(LocalProtocolError):
        await queued(chat, text)


@ONE_WORKER
@pytest.mark.usefixtures("no_looks")
async def test_a_request_waits_until_the_answer_before_it_has_begun_and_no_longer(
    site: Site, arrivals: list[Conversation]
) -> None:
    begin, end = Hold(), Hold()
    # Somebody else's answer keeps the only worker busy: ours waits for it.
    site.script(Answer(then=begin), Answer(pieces=("one ", "two"), after=1, then=end))
    texts: list[str] = []

    async with site.client() as stranger, site.client() as client:

        async def ask(chat: Chat, prompt: str) -> None:
            texts.append(await chat.ask(prompt))

        async with stranger.chat() as busy, client.chat() as a, client.chat() as b, anyio.create_task_group() as group:
            group.start_soon(ask, busy, "busy")
            await is_requested(site)
            group.start_soon(ask, a, "first")
            await is_requested(site, 2)
            group.start_soon(ask, b, "second")
            await come(arrivals, 3)
            assert states(site) == ["in_progress", "pending"]
            begin.release()
            await is_requested(site, 3)  # while the first one is at work
            assert states(site)[1:] == ["in_progress", "pending"]
            end.release()
    assert sorted(texts) == ["busy", "one two", "second"]


@pytest.mark.clause("OA-6.9")
@pytest.mark.usefixtures("no_looks")
async def test_the_time_at_the_slot_is_time_that_an_answer_takes(site: Site) -> None:
    site.script(Answer(then=Never()))
    async with site.client(timeouts=Timeouts(answer=0.2)) as client, client.chat() as a, client.chat() as b:
        await queued(a)  # and its owner pauses, so that it holds the slot
        with pytest.raises(AnswerFailed, match="in the time allowed"):
            await b.ask("second")
    assert site.steps.count("request") == 1


@ECHO
@pytest.mark.usefixtures("no_looks")
async def test_answers_at_work_run_side_by_side(site: Site) -> None:
    holds = [Hold() for _ in range(5)]
    site.script(*(Answer(pieces=("a ", "b"), after=1, then=hold) for hold in holds))
    texts: list[str] = []

    async with site.client() as client:

        async def ask() -> None:
            async with client.chat() as chat:
                texts.append(await chat.ask("x"))

        async with anyio.create_task_group() as group:
            for _ in holds:
                group.start_soon(ask)
            await is_requested(site, len(holds))
            assert states(site) == ["in_progress"] * len(holds)
            site.server.release()
    assert texts == ["a b"] * len(holds)


@ECHO
@pytest.mark.usefixtures("no_looks")
async def test_closing_the_holder_lets_the_next_one_through(site: Site, arrivals: list[Conversation]) -> None:
    site.script(Answer(then=Never()))
    async with site.client() as client, client.chat() as b, client.chat() as a:
        await queued(a)
        async with anyio.create_task_group() as group:
            group.start_soon(b.ask, "second")
            await come(arrivals, 2)
            assert site.steps.count("request") == 1
            await a.aclose()


@ECHO
@pytest.mark.usefixtures("no_looks")
async def test_a_failed_answer_lets_the_next_one_through(site: Site) -> None:
    site.script(Answer(then=WorkerError("broken")))
    async with site.client() as client, client.chat() as a, client.chat() as b:
        with pytest.raises(AnswerFailed, match="broken"):
            await a.ask("first")
        assert await b.ask("second") == "second"


@ECHO
@pytest.mark.usefixtures("no_looks")
async def test_an_answer_that_is_no_longer_awaited_lets_the_next_one_through(site: Site) -> None:
    site.script(Answer(then=Never()))
    async with site.client(timeouts=Timeouts(answer=0.1)) as client, client.chat() as a:
        with pytest.raises(AnswerFailed):
            await a.ask("first")
        # The first chat is still open, and its message waits on the server as before.
        assert states(site) == ["pending"]
        async with client.chat() as b:
            with suppress(AnswerFailed):  # on a slow machine its own time is over as well
                await b.ask("second")
    assert site.steps.count("request") == 2


@ECHO
@pytest.mark.usefixtures("no_looks")
async def test_a_refused_request_lets_the_next_one_through(site: Site) -> None:
    site.script(Fault("request", before=Reply(422, b'{"detail": "no", "message": "no"}')))
    async with site.client() as client, client.chat() as a, client.chat() as b:
        with pytest.raises(Exception, match="no"):
            await a.ask("first")
        assert await b.ask("second") == "second"


@NO_WORKERS
@pytest.mark.usefixtures("no_looks")
async def test_a_chat_that_stops_waiting_leaves_its_place_to_the_others(
    site: Site, arrivals: list[Conversation]
) -> None:
    async with site.client() as client, client.chat() as a, client.chat() as b, client.chat() as c:
        await queued(a)
        async with anyio.create_task_group() as group:
            scope = anyio.CancelScope()

            async def impatient() -> None:
                with scope:
                    await b.ask("second")

            group.start_soon(impatient)
            await come(arrivals, 2)
            group.start_soon(queued, c, "third")
            await come(arrivals, 3)
            scope.cancel()
            await settle()
            assert site.steps.count("request") == 1
            await a.aclose()
            await is_requested(site)
        assert [body["parent_id"] for body in site.bodies("request")][1] == site.server.chats[-1].messages[0].id


@ECHO
@pytest.mark.usefixtures("no_looks")
async def test_the_one_that_is_let_through_and_cancelled_at_once_lets_the_next_one_through(
    site: Site, arrivals: list[Conversation]
) -> None:
    site.script(Answer(then=Never()))
    texts: list[str] = []
    async with site.client() as client, client.chat() as a, client.chat() as b, client.chat() as c:
        await queued(a)
        async with anyio.create_task_group() as group:
            scope = anyio.CancelScope()

            async def impatient() -> None:
                with scope:
                    await b.ask("second")

            async def patient() -> None:
                texts.append(await c.ask("third"))

            group.start_soon(impatient)
            await come(arrivals, 2)
            group.start_soon(patient)
            await come(arrivals, 3)
            scope.cancel()
            await a.aclose()
    assert texts == ["third"]


@ECHO
@pytest.mark.usefixtures("no_looks")
async def test_a_cancelled_holder_lets_the_next_one_through_when_it_is_closed(
    site: Site, arrivals: list[Conversation]
) -> None:
    site.script(Answer(then=Never()))
    async with site.client() as client, client.chat() as b, anyio.create_task_group() as group:
        scope = anyio.CancelScope()

        async def holder() -> None:
            with scope:
                async with client.chat() as a:
                    await a.ask("first")

        group.start_soon(holder)
        await is_requested(site)
        group.start_soon(b.ask, "second")
        await come(arrivals, 2)
        assert site.steps.count("request") == 1
        scope.cancel()


@ECHO
@pytest.mark.usefixtures("quick_probes")
async def test_a_chat_within_the_loop_over_another_ones_answer_is_no_deadlock(site: Site) -> None:
    hold = Hold()
    site.script(Answer(then=hold))
    texts: list[str] = []
    async with site.client() as client, client.chat() as a, client.chat() as b:
        async for event in a.send("first"):
            if isinstance(event, Requested):
                hold.release()
                texts.append(await b.ask("second"))
            if isinstance(event, Token):
                texts.append(event.text)
    assert texts == ["second", "first"]


@ONE_WORKER
@pytest.mark.usefixtures("quick_probes")
async def test_the_waiter_of_a_paused_holder_looks_and_cancels_nothing(site: Site) -> None:
    hold = Hold()
    site.script(Answer(then=hold))
    texts: list[str] = []
    async with (
        site.client() as stranger,
        site.client() as client,
        stranger.chat() as busy,
        client.chat() as a,
        client.chat() as b,
    ):

        async def ask() -> None:
            texts.append(await b.ask("second"))

        async with anyio.create_task_group() as group:
            group.start_soon(busy.ask, "busy")
            await is_requested(site)
            answer = a.send("first")
            async for event in answer:
                if isinstance(event, Queued):
                    break  # and pause
            group.start_soon(ask)
            await site.reached("chat", 3)
            assert site.steps.count("request") == 2
            assert states(site)[1] == "pending"
            hold.release()
            await site.reached("request", 3)
            assert "cancelled" not in states(site)
            async for _ in answer:
                pass
            assert answer.text == "first"
    assert texts == ["second"]


@ECHO
@pytest.mark.parametrize("side", ["before", "after"])
async def test_no_look_overtakes_a_request_that_is_under_way(
    site: Site, quick_probes: list[PendingSlot], side: str
) -> None:
    hold = Hold()
    site.script(Fault("request", before=hold) if side == "before" else Fault("request", after=hold))
    site.script(Answer(then=Never()), Answer(then=Never()))
    async with site.client() as client, client.chat() as a, client.chat() as b, anyio.create_task_group() as group:
        paused = anyio.Event()

        async def holder() -> None:
            await queued(a)
            paused.set()

        group.start_soon(holder)
        await site.reached("request")
        group.start_soon(queued, b, "second")
        while len(quick_probes) < 3:
            await anyio.sleep(0.001)
        assert site.steps.count("request") == 1
        hold.release()
        await is_requested(site)
        # The first one's owner pauses, with its message waiting: now they look.
        await paused.wait()
        await site.reached("chat", site.steps.count("chat") + 2)
        assert site.steps.count("request") == 1
        assert states(site) == ["pending"]
        await a.aclose()
        await is_requested(site)


@NO_WORKERS
@pytest.mark.usefixtures("no_looks")
async def test_first_come_first_served(site: Site, arrivals: list[Conversation]) -> None:
    parents: list[str] = []
    async with site.client() as client:
        chats = [client.chat() for _ in range(5)]
        await queued(chats[0], "0")
        async with anyio.create_task_group() as group:
            for number in range(1, 5):
                group.start_soon(queued_or_closed, chats[number], str(number))
                await come(arrivals, number + 1)
            parents.extend(chat.messages[0].id for chat in site.server.chats)
            for number in range(4):
                await chats[number].aclose()
                await site.reached("request", number + 2)
        assert [body["parent_id"] for body in site.bodies("request")] == parents


@pytest.mark.parametrize("site", [{"model": Echo(), "workers": 4}], indirect=True)
async def test_fifty_chats_at_once_all_get_their_answers(site: Site) -> None:
    cancelled: list[str] = []
    texts: dict[str, str] = {}
    async with site.client() as client:

        async def ask(prompt: str) -> None:
            async with client.chat() as chat:
                texts[prompt] = await chat.ask(prompt)
                cancelled.extend(state for state in states(site) if state == "cancelled")

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(ask, f"prompt {number}")
    assert texts == {f"prompt {number}": f"prompt {number}" for number in range(50)}
    assert not cancelled
    assert site.steps.count("request") == 50


@ECHO
@pytest.mark.usefixtures("no_looks")
async def test_clients_have_gates_of_their_own(site: Site) -> None:
    other = site.server.account("other")
    credentials: dict[str, Any] = {"cookies": other.cookies} if site.api == "website" else {"token": other.token}
    site.script(Answer(then=Never()))
    async with (
        site.client() as client,
        site.client(**credentials) as another,
        client.chat() as a,
        another.chat() as b,
    ):
        await queued(a)
        assert await b.ask("second") == "second"
        assert states(site)[0] == "pending"


@ECHO
@pytest.mark.usefixtures("quick_probes")
async def test_a_look_that_fails_is_made_again(site: Site) -> None:
    hold, look = Hold(), Hold()
    site.script(Answer(then=hold), Fault("chat", before=Reply(500), times=3), Fault("chat", before=look))
    async with site.client() as client, client.chat() as a, client.chat() as b:
        async for event in a.send("first"):
            if isinstance(event, Requested):
                break
        async with anyio.create_task_group() as group:
            group.start_soon(b.ask, "second")
            await site.reached("chat", 4)
            assert site.steps.count("request") == 1
            look.release()
            await site.reached("request", 2)
            hold.release()


@ECHO
@pytest.mark.usefixtures("quick_probes")
async def test_a_chat_that_was_deleted_elsewhere_stands_in_nobodys_way(site: Site) -> None:
    site.script(Answer(then=Never()), Fault("chat", before=Reply(404, b'{"detail": "Chat not found"}')))
    async with site.client() as client, client.chat() as a, client.chat() as b:
        await queued(a)
        assert await b.ask("second") == "second"


@ECHO
@pytest.mark.usefixtures("quick_probes")
async def test_a_request_that_hangs_stands_in_nobodys_way_if_its_owner_has_paused(
    site: Site, impatient_with: Callable[..., None]
) -> None:
    hold = Hold()
    site.script(Fault("request", before=hold))
    impatient_with(RequestAssistant, reply=0.5)
    async with site.client() as client, client.chat() as a, client.chat() as b, anyio.create_task_group() as group:
        scope = anyio.CancelScope()

        async def interrupted() -> None:
            with scope:
                await a.ask("first")

        group.start_soon(interrupted)
        await site.reached("request")
        scope.cancel()
        assert await b.ask("second") == "second"
        hold.release()
