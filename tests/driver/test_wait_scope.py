"""What bounds each read of a stream: like anyio's scope, but for what it costs."""

import asyncio
import math
import weakref
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from oa_protocol import Client
from oa_protocol.client._wait_scope import AsyncioWaitScope, WaitScope, wait_scope
from oa_protocol.server import Server

pytestmark = pytest.mark.anyio

LONG = 60.0
ON_ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
BOTH_ORDERS = pytest.mark.parametrize("ours_first", [True, False])


def in_(seconds: float) -> float:
    return anyio.current_time() + seconds


class Reader:
    """Reads what never comes, in a scope of the owner's, and tells how it left both."""

    def __init__(self) -> None:
        self.scope = wait_scope()
        self.owner = anyio.CancelScope()
        self.reading = anyio.Event()
        self.left: list[str] = []

    async def __call__(self) -> None:
        with self.owner:
            with self.scope.until(in_(LONG)):
                self.reading.set()
                await anyio.sleep_forever()
            self.left.append("the read")
            await anyio.lowlevel.checkpoint()
            self.left.append("what follows")
        self.left.append("the owner's scope")


def strike(first: Callable[[], object], second: Callable[[], object], *, ours_first: bool) -> None:
    for blow in (first, second) if ours_first else (second, first):
        blow()


async def read_nothing(scope: WaitScope, seconds: float = LONG) -> None:
    with anyio.move_on_after(LONG / 3) as too_long, scope.until(in_(seconds)):
        await anyio.sleep_forever()
    assert not too_long.cancel_called


async def test_a_read_that_ends_in_time_is_left_alone() -> None:
    scope, piece = wait_scope(), ""
    with scope.until(in_(LONG)):
        await anyio.lowlevel.checkpoint()
        piece = "token"
    scope.cancel()  # there is nothing to cancel any more
    await anyio.lowlevel.checkpoint()
    assert piece == "token"


async def test_a_read_ends_quietly_after_the_seconds_it_has() -> None:
    began = anyio.current_time()
    await read_nothing(wait_scope(), seconds=0.02)
    assert anyio.current_time() >= began + 0.02


async def test_without_a_deadline_a_read_is_left_alone() -> None:
    with anyio.move_on_after(0.02) as owner, wait_scope().until(None):
        await anyio.sleep_forever()
    assert owner.cancel_called


async def test_a_read_ends_quietly_if_another_task_cancels_it() -> None:
    reader = Reader()
    async with anyio.create_task_group() as group:
        group.start_soon(reader)
        await reader.reading.wait()
        reader.scope.cancel()
        reader.scope.cancel()
    assert reader.left == ["the read", "what follows", "the owner's scope"]


async def test_what_a_read_raises_is_raised_as_it_is() -> None:
    scope = wait_scope()
    with pytest.raises(OSError, match="reset"), scope.until(in_(LONG)):
        raise OSError("reset")


async def test_a_later_read_has_its_own_time_whatever_the_ones_before_had() -> None:
    scope = wait_scope()
    for seconds in (LONG, 0.0, 0.02):
        with scope.until(in_(seconds)):
            pass
    began = anyio.current_time()
    await read_nothing(scope, seconds=0.05)
    assert anyio.current_time() >= began + 0.05
    await read_nothing(scope, seconds=0.0)


@BOTH_ORDERS
async def test_the_owner_s_own_cancellation_at_the_same_time_is_not_lost(ours_first: bool) -> None:
    reader = Reader()
    async with anyio.create_task_group() as group:
        group.start_soon(reader)
        await reader.reading.wait()
        strike(reader.scope.cancel, reader.owner.cancel, ours_first=ours_first)
    assert reader.left[-1] == "the owner's scope"
    assert "what follows" not in reader.left


@ON_ASYNCIO
@BOTH_ORDERS
async def test_a_native_cancellation_at_the_same_time_is_not_lost(ours_first: bool) -> None:
    reader = Reader()
    task = asyncio.create_task(reader())
    await reader.reading.wait()
    strike(reader.scope.cancel, task.cancel, ours_first=ours_first)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not reader.left


@ON_ASYNCIO
async def test_a_cancellation_leaves_no_trace_on_the_task() -> None:
    scope = wait_scope()
    task = asyncio.current_task()
    assert task is not None
    async with asyncio.timeout(LONG):
        await read_nothing(scope, seconds=0.0)
        assert not task.cancelling()


@ON_ASYNCIO
async def test_a_read_that_turns_the_cancellation_into_something_else_raises_that() -> None:
    async def read() -> None:
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            raise OSError("gave up") from None

    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(OSError, match="gave up"), wait_scope().until(in_(0.0)):
        await read()
    assert not task.cancelling()


@ON_ASYNCIO
async def test_what_came_while_the_loop_was_blocked_is_read_although_the_time_is_over() -> None:
    loop = asyncio.get_running_loop()
    arrival = loop.create_future()
    loop.call_soon(arrival.set_result, "token")  # as asyncio does: first what has come, then the timers
    piece = ""
    with wait_scope().until(in_(0.0)):
        piece = await arrival
    assert piece == "token"


@ON_ASYNCIO
async def test_a_read_that_follows_at_once_has_its_own_time() -> None:
    loop, scope = asyncio.get_running_loop(), wait_scope()
    arrival, piece = loop.create_future(), ""
    loop.call_soon(arrival.set_result, None)
    with scope.until(in_(0.0)):
        await arrival
    with scope.until(in_(LONG)):
        for _ in range(3):
            await asyncio.sleep(0)
        piece = "token"
    assert piece == "token"


@ON_ASYNCIO
async def test_all_reads_of_a_stream_share_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), list[float]()
    call_at = loop.call_at

    def counted(when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, callback)

    scope = wait_scope()
    monkeypatch.setattr(loop, "call_at", counted)
    for _ in range(100):
        with scope.until(in_(LONG)):
            await anyio.lowlevel.checkpoint()
    assert len(timers) == 1


@ON_ASYNCIO
async def test_a_timer_that_rings_between_reads_does_nothing() -> None:
    scope = wait_scope()
    with scope.until(in_(0.0)):
        pass
    for _ in range(3):
        await asyncio.sleep(0)
    await read_nothing(scope, seconds=0.0)


@ON_ASYNCIO
@pytest.mark.parametrize("seconds", [LONG, math.inf])
async def test_a_scope_that_is_closed_is_kept_by_no_timer(seconds: float) -> None:
    scope = wait_scope()
    assert isinstance(scope, AsyncioWaitScope)
    with scope.until(in_(seconds)):
        pass
    scope.close()
    remembered = weakref.ref(scope)
    del scope
    assert remembered() is None


@ON_ASYNCIO
async def test_a_loop_whose_near_timers_do_not_say_when_they_ring_is_good_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()

    def call_at(when: float, callback: Callable[[], object]) -> asyncio.Handle:
        return loop.call_soon(callback)  # as uvloop does

    monkeypatch.setattr(loop, "call_at", call_at)
    scope = wait_scope()
    for _ in range(2):
        with scope.until(in_(0)):
            pass
    scope.close()


async def new_scope() -> WaitScope:
    return wait_scope()


def test_a_scope_is_not_used_in_another_loop_than_its_own() -> None:
    async def suits(scope: WaitScope) -> bool:
        return scope.suits_running_loop

    async def suits_its_own() -> bool:
        return wait_scope().suits_running_loop

    for backend in ("asyncio", "trio"):
        assert anyio.run(suits_its_own, backend=backend)
        assert not anyio.run(suits, anyio.run(new_scope), backend=backend)


def test_a_chat_may_be_used_in_one_event_loop_after_the_other() -> None:
    async def leave() -> None:
        async with client:
            pass

    with Server() as server:
        client = Client(server.url, cookies=server.cookies)
        chat = client.chat()
        for prompt in ("One", "Two"):
            assert asyncio.run(chat.ask(prompt))
        asyncio.run(leave())
        assert server.chats == ()
