"""The runner that cannot be stopped."""

# What ends a host is raised in its place, because it comes between two lines of the runner.
# pyright: reportPrivateUsage=false

import asyncio
import gc
import math
import signal
import threading
from collections.abc import Generator
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import sniffio

from oa_protocol import ChatLeakedWarning, Cleanup, Client, Phase, Timeouts
from oa_protocol.client._shield import _Runner, _Signals, run_to_completion, signals_held
from oa_protocol.server import Fault, Hold, Server
from tests.driver.site import Site

pytestmark = pytest.mark.anyio


class Work:
    """An operation that waits until it may finish."""

    def __init__(self) -> None:
        self.may_finish = anyio.Event()
        self.begun = anyio.Event()
        self.calls = 0
        self.finished = 0
        self.task: asyncio.Task[object] | None = None

    async def __call__(self) -> None:
        self.calls += 1
        if sniffio.current_async_library() == "asyncio":
            self.task = asyncio.current_task()
        self.begun.set()
        await self.may_finish.wait()
        self.finished += 1


async def test_the_operation_runs_to_its_end() -> None:
    work = Work()
    work.may_finish.set()
    await run_to_completion(work, seconds=math.inf)
    assert work.finished == work.calls == 1


async def test_what_the_operation_raises_is_raised_as_it_is() -> None:
    async def fails() -> None:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        await run_to_completion(fails, seconds=math.inf)


def end_the_first_host(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    host, ended = _Runner.host, [error]

    async def end(runner: _Runner) -> None:
        if ended:
            raise ended.pop()
        await host(runner)

    monkeypatch.setattr(_Runner, "host", end)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), BaseExceptionGroup("of a task", [KeyboardInterrupt()])], ids=str
)
async def test_an_interruption_of_the_host_itself_is_raised_afterwards(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_the_first_host(monkeypatch, error)
    work = Work()
    work.may_finish.set()
    with pytest.raises(KeyboardInterrupt):
        await run_to_completion(work, seconds=math.inf)
    assert work.finished == 1


async def test_an_error_beside_an_interruption_is_raised_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    end_the_first_host(monkeypatch, BaseExceptionGroup("of a task", [KeyboardInterrupt(), ValueError("a bug")]))
    with pytest.raises(BaseExceptionGroup, match="of a task"):
        await run_to_completion(Work(), seconds=math.inf)


async def test_a_create_that_has_ended_need_not_hurry(site: Site) -> None:
    async with site.client() as client, client.chat() as chat:
        await chat.ask("Hello")
        chat._driver._hurry()
        assert chat.phase is Phase.ANSWERED
        await chat.ask("Hello again")


async def test_a_prompt_under_way_need_not_hurry(site: Site) -> None:
    hold = Hold()
    site.script(Fault("prompt", before=hold))
    async with site.client() as client, client.chat() as chat, anyio.create_task_group() as group:
        group.start_soon(chat.ask, "Hello")
        await site.reached("prompt")
        chat._driver._hurry()
        assert chat.phase is Phase.CHAT_CREATED
        hold.release()


async def test_a_cancelled_scope_is_noticed_afterwards() -> None:
    work = Work()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def interrupt() -> None:
                await work.begun.wait()
                scope.cancel()
                with anyio.CancelScope(shield=True):
                    for _ in range(10):
                        await anyio.sleep(0)
                assert work.finished == 0
                work.may_finish.set()

            group.start_soon(interrupt)
            await run_to_completion(work, seconds=math.inf)
            await anyio.sleep(0)
            pytest.fail("the interruption was lost")
    assert work.finished == 1


async def test_a_cancelled_scope_does_not_even_wake_the_caller() -> None:
    work = Work()
    with anyio.CancelScope() as scope:

        async def cancelled() -> None:
            scope.cancel()
            await anyio.lowlevel.cancel_shielded_checkpoint()

        await run_to_completion(cancelled, seconds=math.inf)
        work.may_finish.set()  # it is reached only if no cancellation was caught, and raised again at the end
    assert work.may_finish.is_set()


async def test_an_interruption_between_two_waits_does_not_cancel_the_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    class Struck:
        """An event. A signal strikes the first time that somebody asks whether it is set."""

        def __init__(self) -> None:
            self.event = event()
            self.is_struck = False
            self.set, self.wait = self.event.set, self.event.wait

        def is_set(self) -> bool:
            if not self.is_struck:
                self.is_struck = True
                raise KeyboardInterrupt
            return self.event.is_set()

    async def operation() -> None:
        calls.append("begun")
        await anyio.lowlevel.checkpoint()
        calls.append("finished")

    calls, event = list[str](), anyio.Event
    monkeypatch.setattr(anyio, "Event", Struck)
    with pytest.raises(KeyboardInterrupt):
        await run_to_completion(operation, seconds=math.inf)
    assert calls == ["begun", "finished"]


async def test_in_a_scope_that_was_cancelled_before() -> None:
    work = Work()
    work.may_finish.set()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await run_to_completion(work, seconds=math.inf)
    assert work.finished == 1


async def test_it_has_so_many_seconds_from_the_start() -> None:
    work = Work()
    await run_to_completion(work, seconds=0)
    assert work.begun.is_set()
    assert work.finished == 0


async def test_a_keyboard_interrupt_in_the_operation_has_it_called_once_more() -> None:
    calls: list[int] = []

    async def struck() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await run_to_completion(struck, seconds=math.inf)
    assert len(calls) == 2


async def test_the_deadline_holds_for_the_second_call_as_well() -> None:
    calls: list[int] = []

    async def struck() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        await anyio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        await run_to_completion(struck, seconds=0.02)
    assert len(calls) == 2


class TestNativeCancellation:
    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.mark.parametrize("times", [1, 2, 3])
    async def test_of_the_host(self, times: int) -> None:
        work = Work()
        host = asyncio.create_task(run_to_completion(work, seconds=math.inf))
        await work.begun.wait()
        for _ in range(times):
            host.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert not host.done()
        work.may_finish.set()
        with pytest.raises(asyncio.CancelledError):
            await host
        assert host.cancelling() == times
        assert work.finished == work.calls == 1

    async def test_of_the_host_before_it_begins_is_a_cancellation_as_usual(self) -> None:
        work = Work()
        host = asyncio.create_task(run_to_completion(work, seconds=math.inf))
        host.cancel()
        with pytest.raises(asyncio.CancelledError):
            await host
        assert work.calls == 0

    async def test_of_the_child(self) -> None:
        work = Work()
        host = asyncio.create_task(run_to_completion(work, seconds=math.inf))
        await work.begun.wait()
        assert work.task is not None
        work.task.cancel()
        work.may_finish.set()
        with pytest.raises(asyncio.CancelledError):
            await host
        assert work.calls == 2
        assert work.finished == 1

    @pytest.mark.filterwarnings("ignore:coroutine '_Runner.run' was never awaited")
    async def test_of_the_child_before_it_begins(self) -> None:
        work = Work()
        work.may_finish.set()
        others = asyncio.all_tasks()
        host = asyncio.create_task(run_to_completion(work, seconds=math.inf))
        await asyncio.sleep(0)
        (child,) = asyncio.all_tasks() - others - {host}
        child.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(host, 5)
        assert work.finished == 1
        del host, child
        gc.collect()

    async def test_of_everything_as_a_loop_does_that_shuts_down(self) -> None:
        work = Work()
        others = asyncio.all_tasks()
        host = asyncio.create_task(run_to_completion(work, seconds=math.inf))
        await work.begun.wait()
        for task in asyncio.all_tasks() - others:
            task.cancel()
        await asyncio.sleep(0)
        work.may_finish.set()
        with pytest.raises(asyncio.CancelledError):
            await host
        assert work.finished == 1

    async def test_a_timeout_around_it_knows_its_own_cancellation(self) -> None:
        work = Work()

        async def body() -> None:
            async with asyncio.timeout(0):
                asyncio.get_running_loop().call_later(0.01, work.may_finish.set)
                await run_to_completion(work, seconds=math.inf)

        with pytest.raises(TimeoutError):
            await body()
        assert work.finished == 1


def test_asyncio_run_returns_only_when_it_is_done() -> None:
    finished: list[bool] = []

    async def operation() -> None:
        await asyncio.sleep(0.02)
        finished.append(True)

    async def main() -> None:
        tasks.append(asyncio.create_task(run_to_completion(operation, seconds=math.inf)))
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        asyncio.run(main())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, previous)
    assert finished == [True]


def test_asyncio_run_has_its_own_handler_back_as_long_as_it_runs() -> None:
    seen: list[object] = []

    async def operation() -> None: ...

    async def main() -> None:
        seen.append(signal.getsignal(signal.SIGINT))
        await run_to_completion(operation, seconds=math.inf)
        seen.append(signal.getsignal(signal.SIGINT))

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        asyncio.run(main())
    finally:
        signal.signal(signal.SIGINT, previous)
    assert seen[0] is seen[1] is not signal.default_int_handler


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request: pytest.FixtureRequest) -> Generator[signal.Signals]:
    """A signal whose handler raises, as Python's own for SIGINT does."""
    number: signal.Signals = request.param
    previous = signal.signal(number, signal.default_int_handler)
    yield number
    assert signal.getsignal(number) is signal.default_int_handler
    signal.signal(number, previous)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_a_signals_handler_raises_is_raised_when_the_operation_is_done(
    anyio_backend: str, number: signal.Signals, times: int
) -> None:
    calls: list[str] = []

    async def operation() -> None:
        calls.append("begun")
        for _ in range(times):
            signal.raise_signal(number)
            await anyio.lowlevel.checkpoint()
        calls.append("finished")

    async def main() -> None:
        await run_to_completion(operation, seconds=math.inf)

    with pytest.raises(KeyboardInterrupt):
        anyio.run(main, backend=anyio_backend)
    assert calls == ["begun", "finished"]


def test_signals_are_held_even_if_an_earlier_holder_was_closed_in_another_thread(
    anyio_backend: str, number: signal.Signals
) -> None:
    """The garbage collector closes a coroutine in the thread that it runs in."""
    earlier = signals_held()
    earlier.__enter__()
    thread = threading.Thread(target=earlier.__exit__)
    thread.start()
    thread.join()
    signal.signal(number, signal.default_int_handler)
    test_what_a_signals_handler_raises_is_raised_when_the_operation_is_done(anyio_backend, number, 1)


def test_what_was_held_back_for_a_holder_that_was_closed_in_another_thread_strikes_nobody_else(
    number: signal.Signals,
) -> None:
    holder = signals_held()
    holder.__enter__()
    signal.raise_signal(number)
    thread = threading.Thread(target=holder.__exit__)
    thread.start()
    thread.join()
    with signals_held():
        pass


def test_what_was_held_back_is_raised_by_the_holder_who_is_left(number: signal.Signals) -> None:
    awaited, later = signals_held(), signals_held()
    awaited.__enter__()
    signal.raise_signal(number)
    later.__enter__()
    thread = threading.Thread(target=awaited.__exit__)
    thread.start()
    thread.join()
    with pytest.raises(KeyboardInterrupt):
        later.__exit__()


def test_of_several_operations_the_last_one_raises_it(anyio_backend: str) -> None:
    finished: list[int] = []

    async def main() -> None:
        struck = anyio.Event()

        async def strikes() -> None:
            signal.raise_signal(signal.SIGTERM)
            struck.set()
            finished.append(1)

        async def outlives() -> None:
            await struck.wait()
            await anyio.wait_all_tasks_blocked()
            finished.append(2)

        async with anyio.create_task_group() as group:
            for operation in (outlives, strikes):
                group.start_soon(partial(run_to_completion, operation, seconds=math.inf))

    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # asyncio raises it out of its loop as it is, trio out of the task group.
        with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)):
            anyio.run(main, backend=anyio_backend)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert finished == [1, 2]


def test_each_time_that_signals_are_held_their_handlers_are_put_back() -> None:
    signals, holder, usual = _Signals(), signals_held(), signal.getsignal(signal.SIGINT)
    for _ in range(2):
        signals.hold(holder)
        assert signal.getsignal(signal.SIGINT) != usual
        signals.release(holder)
        assert signal.getsignal(signal.SIGINT) == usual


async def test_a_handler_put_in_meanwhile_stays() -> None:
    async def operation() -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)

    previous = signal.signal(signal.SIGTERM, lambda _, __: None)
    try:
        await run_to_completion(operation, seconds=math.inf)
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, previous)


async def test_who_puts_back_what_they_found_meanwhile_does_no_harm() -> None:
    """trio.open_signal_receiver does so, if it ends later than the operation."""
    found: list[Any] = []

    async def operation() -> None:
        found.append(signal.getsignal(signal.SIGTERM))

    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        await run_to_completion(operation, seconds=math.inf)
        signal.signal(signal.SIGTERM, found[0])
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        await run_to_completion(operation, seconds=math.inf)
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, previous)


async def test_a_handler_that_raises_nothing_is_called_at_once() -> None:
    called: list[int] = []

    async def operation() -> None:
        signal.raise_signal(signal.SIGTERM)
        assert called == [signal.SIGTERM]

    previous = signal.signal(signal.SIGTERM, lambda number, _: called.append(number))
    try:
        await run_to_completion(operation, seconds=math.inf)
    finally:
        signal.signal(signal.SIGTERM, previous)


async def test_a_signal_that_is_ignored_stays_so() -> None:
    async def operation() -> None:
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN

    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        await run_to_completion(operation, seconds=math.inf)
    finally:
        signal.signal(signal.SIGTERM, previous)


async def test_in_another_thread_signals_are_left_alone() -> None:
    seen: list[object] = []

    async def operation() -> None:
        seen.append(signal.getsignal(signal.SIGINT))

    def thread() -> None:
        anyio.run(partial(run_to_completion, operation, seconds=math.inf))

    before = signal.getsignal(signal.SIGINT)
    await anyio.to_thread.run_sync(thread)
    assert seen == [before]


@pytest.mark.clause("OA-6.13")
async def test_signals_are_held_back_only_while_a_create_is_under_way(site: Site) -> None:
    create, prompt, usual = Hold(), Hold(), signal.getsignal(signal.SIGINT)
    site.script(Fault("create", before=create), Fault("prompt", before=prompt))
    async with site.client() as client, client.chat() as chat, anyio.create_task_group() as group:
        group.start_soon(chat.ask, "Hello")
        await site.reached("create")
        assert signal.getsignal(signal.SIGINT) != usual
        create.release()
        await site.reached("prompt")
        assert signal.getsignal(signal.SIGINT) == usual
        prompt.release()


@pytest.mark.clause("OA-6.13")
def test_what_a_handler_raises_bounds_a_create_that_hangs(anyio_backend: str) -> None:
    hold, clients = Hold(), list[Client]()

    async def main() -> None:
        async def strike() -> None:
            await anyio.to_thread.run_sync(server.wait_for, "create")
            signal.raise_signal(signal.SIGTERM)

        client = Client(
            server.url, cookies=server.cookies, timeouts=Timeouts(reply=3600.0), cleanup=Cleanup(drain=0, timeout=0.5)
        )
        clients.append(client)
        async with anyio.create_task_group() as group, client, client.chat() as chat:
            group.start_soon(strike)
            await chat.ask("Hello")

    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Server() as server:
            server.script(Fault("create", before=hold))
            with (
                pytest.warns(ChatLeakedWarning, match="id unknown"),
                pytest.raises((KeyboardInterrupt, BaseExceptionGroup)),
            ):
                anyio.run(main, backend=anyio_backend)
            hold.release()
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert [record.chat_id for record in clients[0].leaked] == [None]


async def test_those_who_hold_signals_are_asked_to_hurry_by_the_loop_and_not_by_the_handler(
    number: signal.Signals,
) -> None:
    hurried, seen = anyio.Event(), list[bool]()

    async def ask() -> None:
        with signals_held(hurried.set):
            signal.raise_signal(number)
            seen.append(hurried.is_set())
            await hurried.wait()
            seen.append(hurried.is_set())

    with pytest.raises(KeyboardInterrupt):
        await ask()
    assert seen == [False, True]


async def test_as_long_as_one_is_waited_for_nothing_is_raised(number: signal.Signals) -> None:
    first, second = signals_held(), signals_held()
    first.__enter__()
    second.__enter__()
    signal.raise_signal(number)
    second.__exit__()
    with pytest.raises(KeyboardInterrupt):
        first.__exit__()


async def test_what_was_raised_does_not_wait_for_those_who_came_later(number: signal.Signals) -> None:
    first, later = signals_held(), signals_held()
    first.__enter__()
    signal.raise_signal(number)
    later.__enter__()
    with pytest.raises(KeyboardInterrupt):
        first.__exit__()
    later.__exit__()


def test_a_signal_that_comes_before_signals_are_held_leaves_none_held(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def struck(_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(signal, "getsignal", struck)
    with pytest.raises(KeyboardInterrupt):
        signals_held().__enter__()
    assert signal.getsignal(number) is signal.default_int_handler
    with signals_held():
        assert signal.getsignal(number) is not signal.default_int_handler
