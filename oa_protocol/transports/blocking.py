"""Makes a transport for asyncio and trio out of a blocking HTTP library, with worker threads.

Wrap the library in a ``BlockingClient``. ``oa_protocol.transports.blocking_httpx`` does it with httpx, and
docs/transports.md with Python's http.client.

A blocked thread can't be cancelled. So each exchange has ``interrupt``, which another thread calls, and which makes the
blocked call raise. With most libraries, connecting can't be interrupted. A thread that connects is left alone then, and
ends when it has connected, or when its timeout comes.
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
    """One request and its reply. Except for ``interrupt``, only one thread at a time calls its methods."""

    def begin(self) -> None:
        """Send the request once, as it is, and return when the reply's head has arrived.

        Raises:
            NotSent: the request certainly didn't leave.
            MaybeSent: the request may have left.

        """
        ...

    @property
    def status(self) -> int:
        """The HTTP status of the reply, after ``begin``."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """The header fields of the reply in their order, as pairs of name and value, after ``begin``."""
        ...

    def receive(self) -> bytes:
        """Wait until some of the body has arrived, and return all that has.

        Returns:
            Bytes of the body, or ``b""`` at its clean end.

        Raises:
            MaybeSent: the body broke off.

        """
        ...

    def interrupt(self) -> None:
        """Make the call that is blocked, and every later one, raise. Another thread calls this, at any time.

        The call may be in a TLS handshake, sending, or waiting for the head. ``interrupt`` itself must not raise.
        """
        ...

    def close(self) -> None:
        """Close the connection, without waiting for the server. It is called once."""
        ...


class BlockingClient(Protocol):
    """The interface that you wrap a blocking library in."""

    def exchange(self, request: HttpRequest) -> BlockingExchange:
        """Return the exchange that sends this request. Don't send anything yet."""
        ...

    def close(self) -> None:
        """Release what is left. Each exchange is closed already, or its thread is about to close it."""
        ...


class BlockingTransport:
    """Sends requests over a ``BlockingClient``. Each call runs in a worker thread."""

    def __init__(self, client: BlockingClient) -> None:
        self._client = client
        self._responses: set[ThreadedResponse] = set()

    async def open(self, request: HttpRequest) -> ThreadedResponse:
        """Send the request, and return once the reply's head is there. Raises NotSent or MaybeSent."""
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
    """A reply of ``BlockingTransport``."""

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
        """Return the next bytes of the body.

        If a call is cancelled, its thread goes on reading, and the next call returns what it has read.
        """
        if self._reading is None:
            self._reading = _Once(self._read)
        data = await _in_thread(self._reading)
        self._reading = None
        return data

    async def aclose(self) -> None:
        """Release the reply."""
        await _close_in_thread(self.let_go)

    def let_go(self) -> None:
        """Close the exchange. If a thread is busy in it, interrupt that thread, which then closes it."""
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
        """Mark the exchange as busy. Raise ``too_late`` if it was closed before.

        Only one thread at a time may use an exchange, except for ``interrupt``. So if ``let_go`` is called while a
        thread is busy, that thread closes the exchange when it comes out.
        """
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
    """A call that is made only once. Each further thread waits for it, and gets the same outcome."""

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
    """Call ``call`` in a thread, which is left alone if the caller is cancelled.

    It doesn't count towards anyio's forty threads, because forty streams would keep all of them busy until they end.
    """
    return await to_thread.run_sync(call, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(math.inf))


async def _close_in_thread(close: Callable[[], None]) -> None:
    """Call ``close`` in a thread, because a library may block there. It is called even if the caller is cancelled."""
    once = _Once(close)
    try:
        await _in_thread(once)
    finally:
        if not once.has_begun:  # the cancellation came before the thread was started
            threading.Thread(target=once, daemon=True).start()
