"""The ways out that only asyncio has: native cancellations, which pierce a shield."""

import asyncio
from collections.abc import Callable

import pytest

from oa_protocol import ChatLeakedWarning
from oa_protocol.server import Fault, Hold, Step

from .site import Site, settle
from .test_exits import (
    Boom,
    Run,
    Way,
    interrupted_at_a_step,
    interrupted_between_turns,
    interrupted_mid_stream,
    named_if_the_server_refuses,
)

pytestmark = [pytest.mark.anyio, pytest.mark.clause("OA-7.2"), pytest.mark.usefixtures("either_transport")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def timeout(run: Run, reached: Run, interrupted: Callable[[], None]) -> None:
    async def interrupt(patience: asyncio.Timeout) -> None:
        await reached()
        patience.reschedule(asyncio.get_running_loop().time())
        await settle()
        interrupted()

    async def body() -> None:
        async with asyncio.timeout(None) as patience:
            interrupter.append(asyncio.create_task(interrupt(patience)))
            await run()

    interrupter: list[asyncio.Task[None]] = []
    with pytest.raises(TimeoutError):
        await body()
    await interrupter[0]


def cancel(times: int) -> Way:
    async def cancelled(run: Run, reached: Run, interrupted: Callable[[], None]) -> None:
        task = asyncio.create_task(run())
        await reached()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        interrupted()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    cancelled.__name__ = f"cancel_{times}"
    return cancelled


async def sibling_fails(run: Run, reached: Run, interrupted: Callable[[], None]) -> None:
    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(run())
            await reached()
            interrupted()
            raise Boom

    with pytest.raises(ExceptionGroup):
        await body()


WAYS: list[Way] = [timeout, cancel(1), cancel(2), cancel(3), sibling_fails]


@pytest.mark.clause("OA-4.3")
@pytest.mark.parametrize("carried_out", [False, True], ids=["held", "reply held"])
@pytest.mark.parametrize("step", ["create", "prompt", "request", "events", "delete"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_native_cancellation_while_a_request_is_under_way(
    site: Site, step: Step, carried_out: bool, way: Way
) -> None:
    await interrupted_at_a_step(site, step, carried_out=carried_out, way=way)


@pytest.mark.parametrize("way", WAYS)
async def test_a_native_cancellation_in_the_middle_of_a_stream(site: Site, way: Way) -> None:
    await interrupted_mid_stream(site, way)


@pytest.mark.parametrize("way", WAYS)
async def test_a_native_cancellation_between_turns(site: Site, way: Way) -> None:
    await interrupted_between_turns(site, way)


@pytest.mark.parametrize("way", WAYS)
async def test_a_native_cancellation_names_the_chat_if_the_server_refuses_the_delete(site: Site, way: Way) -> None:
    await named_if_the_server_refuses(site, way)


@pytest.mark.parametrize("step", ["create", "prompt", "request", "events", "delete"])
async def test_wait_for(site: Site, step: Step) -> None:
    hold = Hold()
    site.script(Fault(step, before=hold))
    site.endless = True  # on a slow machine the time is over before the step is reached

    async def run() -> None:
        asyncio.get_running_loop().call_later(0.2, hold.release)  # after the time is over: its clock ticks already
        async with site.client() as client, client.chat() as chat:
            await chat.ask("Hello")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run(), 0.1)
    assert site.chats == ()


@pytest.mark.clause("OA-6.8")
async def test_a_loop_that_shuts_down_during_a_create_names_what_it_may_have_made(site: Site) -> None:
    hold = Hold()
    site.script(Fault("create", after=hold))
    others = asyncio.all_tasks()
    client = site.client()

    async def run() -> None:
        async with client, client.chat() as chat:
            await chat.ask("Hello")

    task = asyncio.create_task(run())
    await site.until(lambda: len(site.chats) == 1)
    site.left = set(site.chats)
    for each in asyncio.all_tasks() - others:
        each.cancel()
    with pytest.warns(ChatLeakedWarning, match="id unknown"), pytest.raises(asyncio.CancelledError):
        await task
    assert [record.chat_id for record in client.leaked] == [None]
    hold.release()


async def test_a_loop_that_shuts_down_during_a_delete_deletes_all_the_same(site: Site) -> None:
    hold = Hold()
    site.script(Fault("delete", before=hold))
    others = asyncio.all_tasks()

    async def run() -> None:
        async with site.client() as client, client.chat() as chat:
            await chat.ask("Hello")

    task = asyncio.create_task(run())
    await site.reached("delete")
    for each in asyncio.all_tasks() - others:
        each.cancel()
    await asyncio.sleep(0)
    hold.release()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert site.chats == ()
