"""Makes something go wrong at the n-th await of a client, for every n.

An await is counted if a task suspends in it. These are the caller's task, and every task that the client starts. On
asyncio, a trampoline around each task's coroutine counts them, and on trio an instrument. So a fault is always injected
at the same place of the program, without a sleep and without luck.
"""

import asyncio
import gc
import signal
import time
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import NoneType
from typing import Any, Literal, TypeVar, cast

import anyio
import trio

from oa_protocol import ChatLeakedWarning, Cleanup, Client, MaybeSent, NotSent, Timeouts, TransportError
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.server import AnswerRequest, Server
from oa_protocol.transports import Response, Transport, TransportFactory
from oa_protocol.transports.fast.httptools import HttptoolsTransport
from oa_protocol.transports.httpx import HttpxTransport
from tests.driver.site import Api, Site

Backend = Literal["asyncio", "trio"]
TRANSPORTS: dict[str, TransportFactory] = {"httptools": HttptoolsTransport, "httpx": HttpxTransport}
T = TypeVar("T")
Session = Callable[[], Coroutine[Any, Any, object]]

APIS: tuple[Api, ...] = ("website", "inference")

HANGS = 60.0
"""Seconds after which a session counts as hung: several times what its own deadlines add up to."""

TIMEOUTS = Timeouts(connect=0.3, reply=5.0, idle=1.0, poll=5.0)
CLEANUP = Cleanup(drain=0.5, timeout=20.0)


class Few:
    """A model of few words, for awaits are counted."""

    WORDS = ("One ", "two.")

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[str, None]:
        for word in self.WORDS:
            yield word


FULL = "".join(Few.WORDS)


class Injection:
    """Injects a fault at the suspension with the number ``at``. With ``blows``, it does so at as many in a row."""

    def __init__(self, at: int, strike: "Strike", *, blows: int = 1) -> None:
        self.at = at
        self.blows = blows
        self.count = 0
        self.struck = 0
        self.scope: anyio.CancelScope | None = None
        self.root: asyncio.Task[object] | None = None
        self._strike = strike

    def suspended(self) -> None:
        self.count += 1
        if self.at <= self.count < self.at + self.blows:
            self.struck += 1
            self._strike(self)


Strike = Callable[[Injection], object]


# ---- the faults


def cancel_scope(injection: Injection) -> None:
    assert injection.scope is not None
    injection.scope.cancel()


def cancel_caller(injection: Injection) -> None:
    """As ``wait_for``, ``asyncio.timeout`` and a sibling in a TaskGroup do."""
    assert injection.root is not None
    injection.root.cancel()


def cancel_this_task(_: Injection) -> None:
    """This may be a task that the client started."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


def cancel_all_tasks(_: Injection) -> None:
    """As a loop does when it shuts down."""
    for task in asyncio.all_tasks():
        task.cancel()


def interrupt(injection: Injection) -> None:
    """Ctrl-C: asyncio cancels the main task, and at the second one leaves its loop; trio raises it in the main task."""
    if injection.root is None or injection.struck == 1:
        signal.raise_signal(signal.SIGINT)
    else:
        asyncio.get_running_loop().call_soon(_raise_keyboard_interrupt)


def _raise_keyboard_interrupt() -> None:
    raise KeyboardInterrupt


# ---- running a session


@dataclass
class Ending:
    """How a session ended: what it raised, and whether the scope around it took the cancellation."""

    raised: BaseException | None
    absorbed: bool


def run(backend: Backend, session: Session, injection: Injection) -> Ending:
    """Run the session in an event loop of its own. Raise AssertionError if it hangs, or leaves a task behind."""
    began = time.monotonic()
    raised: BaseException | None = None

    async def main() -> None:
        with anyio.CancelScope() as injection.scope:
            await session()

    try:
        (_run_asyncio if backend == "asyncio" else _run_trio)(main, injection)
    except (Exception, asyncio.CancelledError, KeyboardInterrupt) as error:
        raised = error
    if isinstance(raised, AssertionError) or time.monotonic() - began > HANGS:
        raise AssertionError(f"hung, or left something, when struck at await {injection.at}") from raised
    return Ending(raised, injection.scope is not None and injection.scope.cancelled_caught)


def _run_asyncio(main: Session, injection: Injection) -> None:
    def factory(
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, object] | Generator[Any, None, object],
        **kw: Any,
    ) -> asyncio.Task[object]:
        assert isinstance(coroutine, Coroutine)
        task = asyncio.Task(Trampoline(coroutine, injection.suspended), loop=loop, **kw)
        injection.root = injection.root or task
        return task

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        loop.set_task_factory(cast("Any", factory))
        watchdog = loop.call_later(HANGS, loop.stop)
        try:
            runner.run(main())
        finally:
            watchdog.cancel()
            loop.set_task_factory(None)
            root = injection.root
            # After a KeyboardInterrupt in the loop it is for the Runner to end the tasks.
            if root is not None and root.done():
                assert not asyncio.all_tasks(loop), f"tasks are left when struck at await {injection.at}"


class Trampoline(Coroutine[Any, Any, object]):
    """A coroutine that tells each time it suspends."""

    def __init__(self, coroutine: Coroutine[Any, Any, object], suspended: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._suspended = suspended

    def send(self, value: Any) -> Any:
        waits_for = self._coroutine.send(value)
        self._suspended()
        return waits_for

    def throw(self, *error: Any) -> Any:
        waits_for = self._coroutine.throw(*error)
        self._suspended()
        return waits_for

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, object]:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:  # cr_running and the like, by which anyio tells whether a task has begun
        return getattr(self._coroutine, name)


def _run_trio(main: Session, injection: Injection) -> None:
    suspensions = Suspensions(injection.suspended)

    async def root() -> None:
        suspensions.tasks.add(trio.lowlevel.current_task())
        with trio.move_on_after(HANGS + 1.0):
            await main()

    trio.run(root, instruments=[suspensions])


class Suspensions(trio.abc.Instrument):
    """Tells each time one of ``tasks`` suspends, or a task that came from them."""

    def __init__(self, suspended: Callable[[], None]) -> None:
        self.tasks: set[trio.lowlevel.Task] = set()
        self._suspended = suspended

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        is_child = task.parent_nursery is not None and task.parent_nursery.parent_task in self.tasks
        if is_child or "oa_protocol" in task.name:  # the client's own tasks are children of trio's
            self.tasks.add(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.tasks.discard(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task in self.tasks:
            self._suspended()


# ---- a whole conversation, and what must hold after it


async def converse(client: Client) -> None:
    """Ask twice, the second time by iterating over the events. Each answer must be complete."""
    async with client, client.chat() as chat:
        assert await chat.ask("Hello") == FULL
        answer = chat.send("And again?")
        async for _ in answer:
            pass
        assert answer.text == FULL


def client_of(server: Server, api: Api, *, timeouts: Timeouts = TIMEOUTS, **settings: Any) -> Client:
    return Site(server, api).client(timeouts=timeouts, cleanup=CLEANUP, **settings)


@dataclass
class Tally:
    """How many awaits had a fault, and after how many of these sessions ``client.leaked`` named a chat."""

    struck: int = 0
    named: int = 0


class Ledger:
    """What the sessions with one server have left, and named.

    It is kept over all of them, for a create that was cut off may still be carried out during the next session.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._named: list[str | None] = []

    def close(self, client: Client, where: str) -> None:
        """Check the guarantee: every chat on the server is named, by its id, or as a create without a known id."""
        self._server.wait_until(lambda: self._server.connections == 0)
        self._named += [record.chat_id for record in client.leaked]
        unnamed = {chat.id for chat in self._server.chats}.difference(self._named)
        assert len(unnamed) <= self._named.count(None), f"{where}: left {unnamed}, named {self._named}"


@dataclass(frozen=True)
class Mode:
    """A kind of interruption. If it is ``clean``, no chat may be left after it, not even a named one."""

    name: str
    strike: Strike
    blows: int = 1
    clean: bool = True

    def is_told(self, ending: Ending) -> bool:
        """Whether the caller learns of it. A cancelled scope has no news for what needs no more time."""
        if self.strike is cancel_scope:
            return ending.raised is None
        if self.strike is cancel_this_task:
            return True  # it may be a task of anyio's, whose result is not needed any more
        return isinstance(ending.raised, (asyncio.CancelledError, KeyboardInterrupt))


MODES: dict[Backend, tuple[Mode, ...]] = {
    "asyncio": (
        Mode("cancel scope", cancel_scope),
        Mode("Task.cancel twice", cancel_caller, 2),
        Mode("cancel whichever task waits", cancel_this_task, clean=False),
        Mode("cancel whichever task waits, twice", cancel_this_task, 2, clean=False),
        Mode("cancel all tasks", cancel_all_tasks, clean=False),
        Mode("Ctrl-C twice", interrupt, 2, clean=False),
    ),
    "trio": (
        Mode("cancel scope", cancel_scope),
        Mode("Ctrl-C", interrupt),
        Mode("Ctrl-C twice", interrupt, 2),
    ),
}


@contextmanager
def garbage_kept() -> Generator[None]:
    """Collect garbage only if this module says so, and then quickly.

    Python warns about a coroutine that was never awaited when it is collected. During a session, that may be in the
    constructor of a named tuple, which has no builtins. There, the warning itself fails, and no filter can match it.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def strike_every_await(backend: Backend, api: Api, mode: Mode, transport: TransportFactory) -> Tally:
    """Converse again and again, with the fault one await later each time, until the session ends before the fault."""
    tally = Tally()
    with Server(Few(), pending_interval=0.02, reader_grace=0.05) as server, garbage_kept():
        ledger = Ledger(server)
        while True:
            gc.collect()
            injection = Injection(tally.struck + 1, mode.strike, blows=mode.blows)
            client = client_of(server, api, transport=transport)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ChatLeakedWarning)
                ending = run(backend, partial(converse, client), injection)
            where = f"{backend}, {api}, {mode.name} at await {injection.at}"
            ledger.close(client, where)
            if not injection.struck:
                assert ending == Ending(None, False), f"{where}: {ending}"
                assert not client.leaked, where
                return tally
            assert not (mode.clean and client.leaked), f"{where}: {client.leaked}"
            assert mode.is_told(ending), f"{where}: {ending}"
            tally.struck += 1
            tally.named += bool(client.leaked)


# ---- what fails is the network

Where = Literal["unsent", "before", "after", "within"]


@dataclass
class Network:
    """Makes transports whose n-th await fails.

    The failure is ``before`` or ``after`` a call, or ``within`` it, when it suspends. If it is ``unsent``, it is before
    a request is sent.
    """

    at: int
    where: Where
    error: type[Exception]
    make: TransportFactory
    count: int = 0

    @property
    def has_failed(self) -> bool:
        return self.count >= self.at

    def __call__(self) -> Transport:
        return FailingTransport(self.make(), self)

    def check(self, where: Where) -> None:
        if where == self.where:
            self.count += 1
            if self.count == self.at:
                raise self.error("injected")

    async def call(self, operation: Callable[[], Awaitable[T]]) -> T:
        self.check("before")
        return await Stumbling(operation(), self)


class FailingTransport:
    def __init__(self, transport: Transport, network: Network) -> None:
        self._transport = transport
        self._network = network

    async def open(self, request: HttpRequest) -> Response:
        self._network.check("unsent")
        response = await self._network.call(partial(self._transport.open, request))
        try:
            self._network.check("after")
        except Exception:
            await response.aclose()
            raise
        return FailingResponse(response, self._network)

    async def aclose(self) -> None:
        await close(self._transport, self._network)


class FailingResponse:
    def __init__(self, response: Response, network: Network) -> None:
        self._response = response
        self._network = network

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        return self._response.headers

    async def receive(self) -> bytes:
        data = await self._network.call(self._response.receive)
        self._network.check("after")
        return data

    async def aclose(self) -> None:
        await close(self._response, self._network)


async def close(resource: Transport | Response, network: Network) -> None:
    try:
        await network.call(resource.aclose)
        network.check("after")
    finally:
        await resource.aclose()


class Stumbling(Awaitable[T]):
    """Awaits, and fails instead of going on if the network says so."""

    def __init__(self, awaitable: Awaitable[T], network: Network) -> None:
        self._awaitable = awaitable
        self._network = network

    def __await__(self) -> Generator[Any, Any, T]:
        inner = self._awaitable.__await__()
        step = partial(inner.send, None)
        while True:
            try:
                waits_for = step()
            except StopIteration as end:
                return cast("T", end.value)
            try:
                sent = yield waits_for
                self._network.check("within")
                step = partial(inner.send, sent)
            except BaseException as error:
                step = partial(inner.throw, error)


_TIMEOUTS: dict[Where, Timeouts] = {
    "unsent": TIMEOUTS,
    "before": TIMEOUTS,
    "after": TIMEOUTS,
    # httpcore waits for a reply even if it couldn't write the request, and then no reply comes.
    "within": replace(TIMEOUTS, reply=0.3),
}

_BROKEN: dict[Backend, type[Exception]] = {"asyncio": anyio.BrokenResourceError, "trio": trio.BrokenResourceError}

FAILURES: dict[Backend, tuple[tuple[Where, type[Exception]], ...]] = {
    backend: (
        ("unsent", NotSent),
        ("before", MaybeSent),
        ("after", MaybeSent),
        ("after", ArithmeticError),  # which no transport may raise
        ("within", broken),
    )
    for backend, broken in _BROKEN.items()
}


def ungrouped(raised: BaseException | None) -> BaseException | None:
    """trio connects in a nursery, which wraps whatever it does not know."""
    while isinstance(raised, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", raised)
        raised = group.exceptions[0]
    return raised


def fail_every_await(backend: Backend, api: Api, where: Where, error: type[Exception]) -> Tally:
    """Converse again and again; one await of the transport fails, one later each time."""
    tally = Tally()
    with Server(Few(), pending_interval=0.02, reader_grace=0.05) as server:
        ledger = Ledger(server)
        while True:
            network = Network(tally.struck + 1, where, error, partial(HttpxTransport, connect_timeout=TIMEOUTS.connect))
            client = client_of(server, api, transport=network, timeouts=_TIMEOUTS[where])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ChatLeakedWarning)
                ending = run(backend, partial(converse, client), Injection(0, cancel_scope, blows=0))
            context = f"{backend}, {api}, {error.__name__} {where} await {network.at}"
            ledger.close(client, context)
            assert isinstance(ungrouped(ending.raised), (NoneType, TransportError, error)), f"{context}: {ending}"
            if not network.has_failed:
                assert ending == Ending(None, False), f"{context}: {ending}"
                return tally
            tally.struck += 1
            tally.named += bool(client.leaked)


def main() -> None:
    """Print how many awaits had a fault, and after how many of them a chat was named."""
    for backend in MODES:
        for mode in MODES[backend]:
            for name, transport in TRANSPORTS.items():
                tallies = [strike_every_await(backend, api, mode, transport) for api in APIS]
                _print(backend, f"{mode.name}, {name}", tallies)
        for where, error in FAILURES[backend]:
            name = f"{error.__module__}.{error.__qualname__} {where}"
            _print(backend, name, [fail_every_await(backend, api, where, error) for api in APIS])


def _print(backend: Backend, name: str, tallies: list[Tally]) -> None:
    counts = ", ".join(f"{api} {tally.struck} ({tally.named} named)" for api, tally in zip(APIS, tallies, strict=True))
    print(f"{backend:8} {name:40} {counts}", flush=True)


if __name__ == "__main__":
    main()
