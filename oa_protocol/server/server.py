"""The embedded server's public class."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection, Iterable
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread
from starlette.types import ASGIApp

from oa_protocol.models.base import Model
from oa_protocol.models.simple import Lorem
from oa_protocol.server.exchanges import ExchangeRecord
from oa_protocol.server.faults import Script, Scripted
from oa_protocol.server.http._intake import Intake
from oa_protocol.server.http._witness import Witness
from oa_protocol.server.http.app import App, RequestRecord
from oa_protocol.server.http.live import Live
from oa_protocol.server.http.reader import Timing
from oa_protocol.server.http.runner import HOST, Runner
from oa_protocol.server.http.worker import Workers
from oa_protocol.server.requests import Step
from oa_protocol.server.state import Account, ChatRecord, Quirks, ServerState, with_account, without_credentials
from oa_protocol.server.verdict import Finding, judge

DEFAULT_ACCOUNT = "default"


class Server:
    """Both Open Assistant APIs on one port of loopback, with everything in memory.

    The server runs in its own thread. It is a context manager, both for ``with`` and, on asyncio and trio, for
    ``async with``. The context starts when the server listens, and ends when its connections, tasks and thread are
    gone. You can still look at ``chats`` and ``requests`` of a stopped server, but you can't start it again. Any thread
    may use all members.

    Its memory is bounded: of more than 10,000 chats, for example, those that were used least recently are forgotten.
    Workers that run elsewhere can connect to ``/workers/work`` with ``worker_key``. Then a message goes to a worker
    that has its model. The server itself answers the others, and those for which an ``Answer`` is scripted.

    Args:
        model: Writes the answers. The default is ``Lorem()``.
        workers: How many answers the server itself writes at a time. With 0, only workers that run elsewhere and
            connect to ``/workers/work`` answer prompts.
        token_delay: Seconds between two tokens.
        reader_grace: The server ends an answer when a client has asked for its message or stream, and at the latest
            this many seconds after the last token. Otherwise, a quick answer could end before a client opens its
            stream.
        pending_interval: Seconds between two ``pending`` events.
        ping_interval: Seconds between two pings.
        quirks: The behavior that differs between versions and installations of the real server.
        port: The port to listen on. 0 means any free port.
        require_credentials: If False, requests without credentials use the default account.
        allowed_hosts: More names by which clients may reach the server, besides those of loopback. A request with
            another name in its ``Host`` or ``Origin`` gets a 403, because any page in a browser could have sent it.

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
        self._crew = Workers(
            Lorem() if model is None else model,
            self._live,
            self._script,
            count=workers,
            token_delay=token_delay,
            reader_grace=reader_grace,
        )
        intake = Intake(allowed_hosts)
        self._app = App(self._live, self._crew, self._script, Timing(pending_interval, ping_interval), intake)
        self._witness = Witness(self._app, self._live)
        self._runner = Runner(self._witness, on_change=self._live.notify, on_stop=self._crew.aclose)
        self._lock = threading.Lock()
        self._started = False

    def start(self) -> None:
        """Start the server in its own thread. Return when it listens.

        Raises:
            OSError: The server can't listen on its port, for example because the port is taken.
            RuntimeError: The server was started before.

        """
        with self._lock:
            if self._started:
                raise RuntimeError("the server was started before: make a new Server")
            self._port = self._runner.start(self._port)
            self._started = True

    def stop(self) -> None:
        """Cut all connections, end all answers, and return when the server's thread has ended.

        If the server is stopped already, this does nothing.
        """
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
            # ``__aexit__`` won't run, but the thread may have started the server before this was cancelled.
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
            # The shield doesn't hold back ``Task.cancel()``. So stop again, without an await that could be cancelled.
            self.stop()

    @property
    def app(self) -> ASGIApp:
        """The ASGI application, for use in memory on asyncio."""
        return self._witness

    @property
    def url(self) -> str:
        """The base URL of both APIs, for example ``http://127.0.0.1:40123``."""
        return f"http://{HOST}:{self._port}"

    @property
    def cookies(self) -> dict[str, str]:
        """The default account's session cookie."""
        return dict(self.account().cookies)

    @property
    def token(self) -> str:
        """The default account's bearer token."""
        return self.account().token

    @property
    def worker_key(self) -> str:
        """The key with which workers connect to ``/workers/work``."""
        return self._app.worker_key

    @property
    def workers(self) -> int:
        """The number of workers that are connected. The server's own don't count."""
        return self._crew.remotes

    def account(self, name: str = DEFAULT_ACCOUNT) -> Account:
        """Return the account with this name. Create it if it doesn't exist."""
        return self._live.step(with_account, name)

    def revoke(self, name: str = DEFAULT_ACCOUNT) -> None:
        """Invalidate the account's credentials. It keeps its chats, and ``account`` returns new credentials for it."""
        self._live.apply(without_credentials, name)

    @property
    def chats(self) -> tuple[ChatRecord, ...]:
        """The chats of all accounts as they are now, oldest first."""
        return tuple(self._live.state.chats.values())

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        """The last 10,000 requests, oldest first, or fewer if they would take more than 64 MiB.

        A request is recorded before it is carried out or disturbed. A body that is too long isn't kept. Requests for
        ``/health``, and requests that are refused because of their ``Host`` or ``Origin``, aren't recorded.
        """
        with self._live.changed:
            return tuple(self._app.requests)

    @property
    def exchanges(self) -> tuple[ExchangeRecord, ...]:
        """The last 10,000 requests with their outcomes, in the order in which they arrived."""
        return self._witness.exchanges

    def verdict(self, answers: Collection[str] = ()) -> tuple[Finding, ...]:
        """Judge what the clients did, from the last 10,000 requests and their replies.

        Args:
            answers: The texts that the client under test took for complete answers, if it should be checked that
                they are.

        Returns:
            What was wrong, or an empty tuple. A chat that is still on the server is a finding, too, so ask when your
            client has finished.

        """
        return judge(self.exchanges, chats=self.chats, answers=answers)

    @property
    def under_way(self) -> int:
        """The number of requests that are being handled, including streams. Their clients may have left already."""
        return self._app.under_way

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return self._runner.connections

    def script(self, *scripted: Scripted) -> None:
        """Make the server misbehave.

        Args:
            *scripted: The faults. They are used in this order, each as many times as it says.

        """
        self._script.add(*scripted)

    @property
    def unused_faults(self) -> tuple[Scripted, ...]:
        """The scripted faults that didn't happen as many times as they say."""
        return self._script.unused()

    def release(self) -> None:
        """Release every ``Hold`` that was scripted so far."""
        self._script.release()

    def wait_for(self, step: Step, count: int = 1, timeout: float = 30.0) -> None:
        """Block until ``count`` requests for ``step`` have arrived since the start.

        Raises:
            TimeoutError: They didn't arrive within ``timeout`` seconds.

        """
        self.wait_until(lambda: self._app.arrivals[step] >= count, timeout)

    def wait_until(self, predicate: Callable[[], bool], timeout: float = 30.0) -> None:
        """Block until ``predicate()`` is true.

        It is called after each change of the requests, the chats, the states of messages, and the connections.

        Raises:
            TimeoutError: It wasn't true within ``timeout`` seconds.

        """
        with self._live.changed:
            if not self._live.changed.wait_for(predicate, timeout):
                raise TimeoutError(f"not within {timeout} s: {predicate}")
