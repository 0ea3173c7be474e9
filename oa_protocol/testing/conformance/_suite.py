"""What all parts of the suite share: how a test runs, and the helpers that it uses."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from ssl import SSLContext
from typing import Any, ClassVar, TypedDict, TypeVar, Unpack

import anyio
import anyio.lowlevel
import pytest

from oa_protocol.testing._frames import from_user_code
from oa_protocol.testing.conformance._waiting import expecting
from oa_protocol.testing.conformance._wire import Serve, ask, chunked, must_be, over_tls, post, say, tls_contexts
from oa_protocol.testing.peers import Peer, Signal
from oa_protocol.transports import Transport

IMPATIENCE = 0.05
_LONG = 3600.0


class Options(TypedDict, total=False):
    """The options that a transport may accept.

    Attributes:
        connect_timeout: how many seconds connecting may take, including a TLS handshake.
        proxy: the URL of a proxy. The tests pass one that begins with ``http://``.
        ssl_context: the settings for TLS.

    """

    connect_timeout: float
    proxy: str
    ssl_context: SSLContext


T = TypeVar("T")
S = TypeVar("S", bound="Suite")


def conformance(body: Callable[[S], Coroutine[Any, Any, None]]) -> Callable[[S, str], None]:
    """Make a coroutine method a test that pytest runs on each of the suite's backends, without a plugin."""

    def test(self: S, backend: str) -> None:
        __tracebackhide__ = True
        self._run(functools.partial(body, self), backend)  # pyright: ignore[reportPrivateUsage]

    test.__name__, test.__qualname__, test.__doc__ = body.__name__, body.__qualname__, body.__doc__
    return test


class Suite:
    """A part of ``TransportConformance``, which documents these attributes."""

    backends: ClassVar[Sequence[str]] = ("asyncio", "trio")
    takes: ClassVar[Sequence[str]] = ()
    connects: ClassVar[bool] = True
    patience: ClassVar[float] = 30.0

    _shows_all_frames = False
    _time: anyio.CancelScope
    """The time that the current test has left."""

    def __init_subclass__(cls) -> None:
        for name in ("backends", "takes"):
            if isinstance(getattr(cls, name), str):
                raise TypeError(f"{name} must be a sequence of names, not a name: write ({getattr(cls, name)!r},)")
        if unknown := set(cls.takes) - Options.__annotations__.keys():
            known = ", ".join(Options.__annotations__)
            raise ValueError(f"takes names options that do not exist: {', '.join(sorted(unknown))}; there are {known}")

    def make(self, **options: Unpack[Options]) -> Transport:
        """Return a new transport.

        Args:
            options: some of the options in ``takes``. Most tests pass none.

        """
        raise NotImplementedError("override make() so that it returns a new transport")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test on each backend."""
        type(self)._shows_all_frames = metafunc.config.getoption("fulltrace")
        metafunc.parametrize("backend", self.backends)

    def _run(self, body: Callable[[], Awaitable[None]], backend: str) -> None:
        """Run a test for at most ``patience`` seconds."""
        __tracebackhide__ = True

        async def bounded() -> None:
            with anyio.fail_after(self.patience) as time:
                self._time = time
                try:
                    with expecting(f"the transport hangs: the test was not done after {self.patience:g} s"):
                        await body()
                finally:
                    late = anyio.current_time() - time.deadline
                    if late > self.patience / 2:
                        raise AssertionError(
                            "the event loop was blocked, or a cancelled call went on: "
                            f"the test ended {late:.1f} s after its time was up"
                        )

        options: dict[str, object] = {}
        if backend == "trio":
            from trio.testing import MockClock

            # This clock runs like the real one, until a test moves it.
            self._clock = options["clock"] = MockClock(rate=1)
        try:
            anyio.run(bounded, backend=backend, backend_options=options)
        except (Exception, pytest.fail.Exception) as failure:
            raise failure if self._shows_all_frames else from_user_code(failure)  # noqa: B904  # it is the same one

    def _make(self, **options: Unpack[Options]) -> Transport:
        transport = self.make(**options)
        if not hasattr(transport, "open"):
            raise TypeError(
                f"make() returned no transport, but {transport!r}; wrap a BlockingClient in BlockingTransport"
            )
        return transport

    async def _let_an_hour_pass(self) -> None:
        """Move the event loop's clock by an hour, and run everything that is due by then."""
        self._time.deadline += _LONG  # The test itself gets no older.
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._clock.jump(_LONG)
        else:
            now = loop.time
            loop.time = lambda: now() + _LONG  # type: ignore[method-assign]
        for _ in range(8):
            await anyio.lowlevel.checkpoint()

    # Peers wait longer than the test, so that the test's own message is shown, which says what it was waiting for. Then
    # they close their connections. If a transport blocks the event loop, nothing else could end that.

    @asynccontextmanager
    async def _peer(self, serve: Serve, *, scheme: str = "http") -> AsyncGenerator[Peer]:
        with Peer(serve, scheme=scheme, patience=2 * self.patience) as peer:
            yield peer

    @asynccontextmanager
    async def _transport(self, **options: Unpack[Options]) -> AsyncGenerator[Transport]:
        transport = self._make(**options)
        try:
            yield transport
        except BaseException:
            with anyio.move_on_after(IMPATIENCE, shield=True), suppress(Exception):
                await transport.aclose()
            raise
        with expecting("transport.aclose() does not return"):
            await transport.aclose()

    @asynccontextmanager
    async def _served(
        self, serve: Serve, *, scheme: str = "http", is_encrypted: bool = False, **options: Unpack[Options]
    ) -> AsyncGenerator[tuple[Peer, Transport]]:
        """Yield a peer and a transport, and close the transport first. If ``is_encrypted``, it trusts the peer."""
        if is_encrypted:
            self._need("ssl_context")
            server, options["ssl_context"] = tls_contexts("127.0.0.1")
            serve, scheme = over_tls(server, serve), "https"
        async with self._peer(serve, scheme=scheme) as peer, self._transport(**options) as transport:
            yield peer, transport

    async def _over_an_hour(self, operation: Callable[[], Awaitable[T]], waits: Signal, on: Signal) -> T:
        """Start an operation, let an hour pass once it ``waits``, and set ``on`` so that the peer continues."""
        outcomes: list[T | Exception] = []

        async def run() -> None:
            try:
                outcomes.append(await operation())
            except Exception as failure:
                outcomes.append(failure)

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await waits.reached()
            await self._let_an_hour_pass()
            on.set()
        if isinstance(outcomes[0], Exception):
            raise AssertionError("the transport gave up by itself, but only the driver has deadlines") from outcomes[0]
        return outcomes[0]

    def _signal(self, what: str) -> Signal:
        return Signal(what, patience=2 * self.patience)

    async def _works(self, transport: Transport) -> None:
        async with self._peer(say(chunked(b"o", b"k"))) as peer:
            must_be("the body", await ask(transport, post(peer.url, b"{}")), b"ok")

    def _need(self, *options: str) -> None:
        for option in options:
            if option not in self.takes:
                pytest.skip(f"the transport doesn't take {option}")

    def _need_connections(self) -> None:
        if not self.connects:
            pytest.skip("the transport opens no connections")
