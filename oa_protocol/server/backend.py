"""One request's way through the server: recorded, disturbed as scripted, carried out, answered."""

from collections import Counter, deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, assert_never

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from oa_protocol.server.connection import CutReply, connection_of, disconnected
from oa_protocol.server.faults import Close, Fault, Hang, Hold, Outcome, Raw, Reply, Reset, Script, Step, StreamFault
from oa_protocol.server.replies import BareReply
from oa_protocol.server.service import Service
from oa_protocol.server.store import Account, Store
from oa_protocol.server.streams import Reader
from oa_protocol.server.worker import Workers

Api = Literal["website", "inference"]


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A request as it was received; `target` is path and query as sent, header names are lower-case."""

    api: Api
    step: Step
    method: str
    target: str
    headers: dict[str, str] = field(repr=False)
    body: bytes


@dataclass(slots=True)
class Backend:
    """All that a request can reach."""

    store: Store
    workers: Workers
    script: Script
    service: Service
    require_credentials: bool
    default_account: str
    requests: deque[RequestRecord] = field(default_factory=lambda: deque(maxlen=10_000))
    arrivals: Counter[Step] = field(default_factory=Counter[Step])
    under_way: int = 0

    @contextmanager
    def handling(self) -> Generator[None, None, None]:
        """Counts a request as under way."""
        with self.store.changed:
            self.under_way += 1
        try:
            yield
        finally:
            with self.store.changed:
                self.under_way -= 1
                self.store.changed.notify_all()

    def record(self, request: RequestRecord) -> None:
        """Adds a request to the log."""
        with self.store.changed:
            self.requests.append(request)
            self.arrivals[request.step] += 1
            self.store.changed.notify_all()

    @contextmanager
    def changing(self) -> Generator[Service, None, None]:
        """The operations, under the store's lock; who waits for a change is woken."""
        with self.store.changed:
            try:
                yield self.service
            finally:
                self.store.changed.notify_all()

    def authenticate(self, credential: str | None) -> Account | None:
        """The account for a credential; the default account without one, where none is required."""
        if credential is None:
            return None if self.require_credentials else self.store.account(self.default_account)
        return self.store.authenticate(credential)

    def keep_reading(self, reader: Reader) -> None:
        """Reads a stream to its end although its client has left."""
        self.workers.spawn(reader.drain())


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose body has been read."""

    backend: Backend
    request: Request
    body: bytes

    def stream_fault(self) -> StreamFault | None:
        """What is scripted for this stream."""
        return self.backend.script.take(StreamFault, "events")


Handler = Callable[[Call], Response]


class Endpoint:
    """A route's ASGI application."""

    def __init__(self, backend: Backend, api: Api, step: Step | Callable[[Request], Step], handler: Handler) -> None:
        self._backend = backend
        self._api: Api = api
        self._step: Callable[[Request], Step] = step if callable(step) else lambda _: step
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The request's whole way."""
        with self._backend.handling():
            await self._handle(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        step = self._step(request)
        self._backend.record(_record(self._api, step, request, body))
        if step == "events":
            self._backend.service.claim(_message_id(request))
        fault = self._backend.script.take(Fault, step)
        reply = await _disturb(fault.before) if fault and fault.before else None
        if reply is None:
            reply = self._handler(Call(self._backend, request, body))
            if fault and fault.after:
                reply = await _disturb(fault.after) or reply
        await reply(scope, receive, send)


def _record(api: Api, step: Step, request: Request, body: bytes) -> RequestRecord:
    raw_path: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    target = (raw_path + b"?" + query if query else raw_path).decode("latin-1")
    return RequestRecord(api, step, request.method, target, dict(request.headers), body)


def _message_id(request: Request) -> str:
    return request.path_params.get("message_id") or request.query_params.get("message_id", "")


async def _disturb(outcome: Outcome) -> Response | None:
    """The reply that a fault puts in place of the server's; None if there is none, once a hold is released."""
    match outcome:
        case Hold():
            await outcome.wait()
            return None
        case Reply(status=status, body=body, headers=headers):
            return BareReply(status, [("content-length", str(len(body))), *headers], body)
        case Raw(data=data):
            return CutReply(lambda scope, _: connection_of(scope).close(data))
        case Close():
            return CutReply(lambda scope, _: connection_of(scope).close())
        case Reset():
            return CutReply(lambda scope, _: connection_of(scope).reset())
        case Hang():
            return CutReply(lambda _, receive: disconnected(receive))
        case _:
            assert_never(outcome)
