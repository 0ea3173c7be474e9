"""The embedded server as its users see it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread
from starlette.types import ASGIApp

from oa_protocol.server.faults import Script, Scripted
from oa_protocol.server.http._intake import Intake
from oa_protocol.server.http.app import App, RequestRecord
from oa_protocol.server.http.live import Live
from oa_protocol.server.http.reader import Timing
from oa_protocol.server.http.runner import HOST, Runner
from oa_protocol.server.http.worker import Workers
from oa_protocol.server.models import Lorem, Model
from oa_protocol.server.requests import Step
from oa_protocol.server.state import Account, ChatRecord, Quirks, ServerState, with_account, without_credentials

DEFAULT_ACCOUNT = "default"


class Server:
    """Both Open Assistant APIs on one port of loopback, everything in memory.

    It's a context manager, for threads (``with``) and for asyncio and trio (``async with``). Entering returns when the
    server listens, leaving when nothing of it is left. A stopped server still says what there was, but it can't be
    started again. All members may be used from any thread.

    Args:
        model: Where the answers come from.
        workers: How many answers run at a time. With 0, none ever does.
        token_delay: Seconds between tokens.
        reader_grace: An answer ends when its message or stream has been asked for, at the latest this many seconds
            after its last token.
        pending_interval: Seconds between two ``pending`` events.
        ping_interval: Seconds between two pings.
        quirks: What differs between versions and installations.
        port: 0 takes a free one.
        require_credentials: If false, a request without credentials is the default account's.
        allowed_hosts: Names that it may be reached by, besides those of loopback. A request over a socket whose
            ``Host`` or ``Origin`` has another name gets a 403, because any page in a browser could have sent it.

    """

    def __init__(
        self,
        model: Model | None = None,
        *,
        workers: int = 8,
        token_delay: float = 0.0,
        reader_grace: float = 1.0,
        pending_interval: float = 1.0,
        ping_interval: float = 15.0,
        quirks: Quirks | None = None,
        port: int = 0,
        require_credentials: bool = True,
        allowed_hosts: Iterable[str] = (),
    ) -> None:
        state = ServerState(
            quirks or Quirks(),
            salt=secrets.token_hex(16),
            default_account=None if require_credentials else DEFAULT_ACCOUNT,
        )
        self._port = port
        self._script = Script()
        self._live = Live(state)
        self.account()
        crew = Workers(
            Lorem() if model is None else model,
            self._live,
            self._script,
            count=workers,
            token_delay=token_delay,
            reader_grace=reader_grace,
        )
        intake = Intake(allowed_hosts)
        self._app = App(self._live, crew, self._script, Timing(pending_interval, ping_interval), intake)
        self._runner = Runner(self._app, on_change=self._live.notify, on_stop=crew.aclose)
        self._lock = threading.Lock()
        self._started = False

    def start(self) -> None:
        """Start the server in a thread of its own; return when it listens. Raises OSError if the port is taken."""
        with self._lock:
            if self._started:
                raise RuntimeError("the server has been started before")
            self._port = self._runner.start(self._port)
            self._started = True

    def stop(self) -> None:
        """Cut all connections, end all answers, and return when the thread has ended. Idempotent."""
        with self._lock:
            self._runner.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        try:
            await anyio.to_thread.run_sync(self.start)
        except BaseException:
            self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.stop)
        finally:
            # A native cancellation gets through the shield.
            self.stop()

    @property
    def app(self) -> ASGIApp:
        """The ASGI application, for use in memory under asyncio."""
        return self._app

    @property
    def url(self) -> str:
        """The base URL of both APIs, such as ``http://127.0.0.1:40123``."""
        return f"http://{HOST}:{self._port}"

    @property
    def cookies(self) -> dict[str, str]:
        """The default account's session cookie."""
        return dict(self.account().cookies)

    @property
    def token(self) -> str:
        """The default account's bearer token."""
        return self.account().token

    def account(self, name: str = DEFAULT_ACCOUNT) -> Account:
        """Return the account of this name. It's made if there is none."""
        return self._live.step(with_account, name)

    def revoke(self, name: str = DEFAULT_ACCOUNT) -> None:
        """Make the account's credentials bad. It keeps its chats, and ``account`` has new credentials for it."""
        self._live.apply(without_credentials, name)

    @property
    def chats(self) -> tuple[ChatRecord, ...]:
        """The chats of all accounts, oldest first, as they are now."""
        return tuple(self._live.state.chats.values())

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        """The last 10,000 requests received (64 MiB at most), in order; each is here before anything happens to it.

        Of a body that is too long, nothing is kept. Requests that are refused because of their ``Host`` or ``Origin``
        are not here.
        """
        with self._live.changed:
            return tuple(self._app.requests)

    @property
    def under_way(self) -> int:
        """How many requests are being handled, streams included. Their clients may be gone already."""
        return self._app.under_way

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._runner.connections

    def script(self, *scripted: Scripted) -> None:
        """Make the server misbehave. Entries are used in this order, each as many times as it says."""
        self._script.add(*scripted)

    @property
    def unused_faults(self) -> tuple[Scripted, ...]:
        """What is scripted and hasn't happened, or not as many times as it says."""
        return self._script.unused()

    def release(self) -> None:
        """Release every ``Hold`` scripted so far."""
        self._script.release()

    def wait_for(self, step: Step, count: int = 1, timeout: float = 30.0) -> None:
        """Block until ``count`` requests for ``step`` have arrived. Raises TimeoutError after ``timeout`` seconds."""
        self.wait_until(lambda: self._app.arrivals[step] >= count, timeout)

    def wait_until(self, predicate: Callable[[], bool], timeout: float = 30.0) -> None:
        """Block until ``predicate`` holds. Raises TimeoutError after ``timeout`` seconds.

        It's called after every change of requests, chats, messages' states, and connections.
        """
        with self._live.changed:
            if not self._live.changed.wait_for(predicate, timeout):
                raise TimeoutError(f"not within {timeout} s: {predicate}")
