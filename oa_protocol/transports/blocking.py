"""A transport out of a blocking HTTP library, on worker threads: for asyncio and trio.

Wrap the library in a ``BlockingClient``; ``blocking_httpx`` is one on httpx. A thread that blocks cannot be cancelled,
so an exchange can be interrupted from another thread: whatever blocks in it then raises. Only connecting cannot be
interrupted with most libraries; a thread that was left alone with it ends when it has connected, or by its timeout.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

import anyio
from anyio import to_thread

from oa_protocol.engine.errors import MaybeSent, NotSent
from oa_protocol.engine.intents import HttpRequest

_T = TypeVar("_T")


class BlockingExchange(Protocol):
    """One request and its reply. One thread at a time is in here, but for ``interrupt``."""

    def begin(self) -> None:
        """Send the request as it is, and return once the reply's head is there. Raises NotSent or MaybeSent."""
        ...

    @property
    def status(self) -> int:
        """The HTTP status of the reply, once it has begun."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """The header fields of the reply, once it has begun."""
        ...

    def receive(self) -> bytes:
        """Return the body bytes that have arrived; ``b""`` at the body's clean end. Raises MaybeSent."""
        ...

    def interrupt(self) -> None:
        """Make whatever blocks in here raise, now and from now on; called from another thread, at any time."""
        ...

    def close(self) -> None:
        """Close the connection, without waiting for anything; called once."""
        ...


class BlockingClient(Protocol):
    """What a blocking library must be wrapped in."""

    def exchange(self, request: HttpRequest) -> BlockingExchange:
        """Return the exchange that will send this request. Nothing is sent yet."""
        ...

    def close(self) -> None:
        """Let go of what is left; every exchange was closed before, or will be by its thread."""
        ...


class BlockingTransport:
    """Sends requests over a blocking client, each call in a worker thread."""

    def __init__(self, client: BlockingClient) -> None:
        self._client = client
        self._responses: set[ThreadedResponse] = set()

    async def open(self, request: HttpRequest) -> ThreadedResponse:
        """Send the request. Raises NotSent or MaybeSent."""
        response = ThreadedResponse(self._client.exchange(request), self._responses.discard)
        self._responses.add(response)
        try:
            await response.begin()
        except BaseException:
            await response.aclose()
            raise
        return response

    async def aclose(self) -> None:
        """Close every connection."""
        await _close_in_thread(self._close)

    def _close(self) -> None:
        for response in list(self._responses):
            response.let_go()
        self._client.close()


class ThreadedResponse:
    """A reply of BlockingTransport."""

    def __init__(self, exchange: BlockingExchange, note_let_go: Callable[[ThreadedResponse], None]) -> None:
        self._exchange = exchange
        self._note_let_go = note_let_go
        self._reading: _Once[bytes] | None = None
        self._lock = threading.Lock()
        self._is_busy = False
        self._is_let_go = False

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._exchange.status

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """The header fields."""
        return self._exchange.headers

    async def begin(self) -> None:
        """Send the request, and return once the reply's head is there. Raises NotSent or MaybeSent."""

        def begin() -> None:
            with self._busy(NotSent("the request was cancelled before it was sent")):
                self._exchange.begin()

        await _in_thread(begin)

    async def receive(self) -> bytes:
        """Return the next bytes. After a cancellation it goes on where it was: the thread has read them meanwhile."""
        if self._reading is None:
            self._reading = _Once(self._read)
        data = await _in_thread(self._reading)
        self._reading = None
        return data

    async def aclose(self) -> None:
        """Let go of the reply."""
        await _close_in_thread(self.let_go)

    def let_go(self) -> None:
        """Close the exchange; where a thread is in there, have it come out and do that."""
        with self._lock:
            if self._is_let_go:
                return
            self._is_let_go = True
            is_busy = self._is_busy
        self._note_let_go(self)
        if is_busy:
            self._exchange.interrupt()
        else:
            self._exchange.close()

    def _read(self) -> bytes:
        with self._busy(MaybeSent("the reply is closed")):
            return self._exchange.receive()

    @contextmanager
    def _busy(self, too_late: NotSent | MaybeSent) -> Generator[None]:
        with self._lock:
            if self._is_let_go:
                raise too_late
            self._is_busy = True
        try:
            yield
        finally:
            with self._lock:
                self._is_busy = False
                is_let_go = self._is_let_go
            if is_let_go:
                self._exchange.close()


class _Once(Generic[_T]):
    """A call that is made once: a thread that asks later, or meanwhile, gets the same outcome."""

    def __init__(self, call: Callable[[], _T]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._outcome: Callable[[], _T] | None = None
        self.has_begun = False

    def __call__(self) -> _T:
        with self._lock:
            self.has_begun = True
            if self._outcome is None:
                self._outcome = self._make()
        return self._outcome()

    def _make(self) -> Callable[[], _T]:
        try:
            result = self._call()
        except Exception as error:
            failure = error

            def fail() -> _T:
                raise failure

            return fail
        return lambda: result


async def _in_thread(call: Callable[[], _T]) -> _T:
    """Run it in a thread that is left alone where the caller is cancelled.

    It takes no place of anyio's forty threads: streams would take them all, for as long as they last.
    """
    return await to_thread.run_sync(call, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(math.inf))


async def _close_in_thread(close: Callable[[], None]) -> None:
    """Run ``close`` in a thread, because a library may block there; it runs even if the caller is cancelled before."""
    once = _Once(close)
    try:
        await _in_thread(once)
    finally:
        if not once.has_begun:
            threading.Thread(target=once, daemon=True).start()
