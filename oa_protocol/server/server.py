"""The embedded server as its users see it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread
from starlette.types import ASGIApp

from oa_protocol.server.faults import Script, Scripted
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

    A context manager, for threads (``with``) and for asyncio and trio (``async with``): entering returns when the
    server listens, leaving when nothing of it is left. Once stopped it can still be asked what there is, but not
    started again. All members may be used from any thread.

    `workers` answers run at a time (with 0 none ever does), with `token_delay` seconds between tokens. An answer
    ends when its message or stream has been asked for, at the latest `reader_grace` seconds after its last token.
    `pending_interval` and `ping_interval` are seconds. `port` 0 takes a free one. Without `require_credentials`, a
    request that has none is the default account's.
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
        self._app = App(self._live, crew, self._script, Timing(pending_interval, ping_interval))
        self._runner = Runner(self._app, on_change=self._live.notify, on_stop=crew.aclose)
        self._lock = threading.Lock()
        self._started = False

    def start(self) -> None:
        """Starts the server in a thread of its own, and returns when it listens; OSError if the port is taken."""
        with self._lock:
            if self._started:
                raise RuntimeError("the server has been started before")
            self._port = self._runner.start(self._port)
            self._started = True

    def stop(self) -> None:
        """Cuts all connections, ends all answers, and returns when the thread has ended. Idempotent."""
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
        """The account of this name, made if there is none."""
        return self._live.step(with_account, name)

    def revoke(self, name: str = DEFAULT_ACCOUNT) -> None:
        """Makes the account's credentials bad; it keeps its chats, and `account` has new credentials for it."""
        self._live.apply(without_credentials, name)

    @property
    def chats(self) -> tuple[ChatRecord, ...]:
        """The chats of all accounts, oldest first, as they are now."""
        return tuple(self._live.state.chats.values())

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        """The last 10,000 requests received, in order; each is here before anything else happens to it."""
        with self._live.changed:
            return tuple(self._app.requests)

    @property
    def under_way(self) -> int:
        """How many requests are being handled, streams among them; some of clients that are gone already."""
        return self._app.under_way

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._runner.connections

    def script(self, *scripted: Scripted) -> None:
        """Makes the server misbehave; entries are used in this order, each as many times as it says."""
        self._script.add(*scripted)

    @property
    def unused_faults(self) -> tuple[Scripted, ...]:
        """What is scripted and has not happened, or not as many times as it says."""
        return self._script.unused()

    def release(self) -> None:
        """Releases every `Hold` scripted so far."""
        self._script.release()

    def wait_for(self, step: Step, count: int = 1, timeout: float = 30.0) -> None:
        """Blocks until `count` requests for `step` have arrived since the start; TimeoutError after `timeout` s."""
        self.wait_until(lambda: self._app.arrivals[step] >= count, timeout)

    def wait_until(self, predicate: Callable[[], bool], timeout: float = 30.0) -> None:
        """Blocks until `predicate` holds, called after every change; TimeoutError after `timeout` seconds.

        Changes are requests, chats, messages' states, and connections.
        """
        with self._live.changed:
            if not self._live.changed.wait_for(predicate, timeout):
                raise TimeoutError(f"not within {timeout} s: {predicate}")
