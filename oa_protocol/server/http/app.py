"""The ASGI application. It records each request, applies the scripted faults, and carries the request out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import assert_never

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oa_protocol import __version__
from oa_protocol.server.core import api_of, handle, leave, step_of
from oa_protocol.server.faults import Close, Fault, Hang, Hold, Outcome, Raw, Reset, Script, StreamFault, WorkerFault
from oa_protocol.server.faults import Reply as ScriptedReply
from oa_protocol.server.http._intake import Intake, Refused, lingering
from oa_protocol.server.http._worker_socket import PATH, WorkerSocket
from oa_protocol.server.http.connection import CutReply, connection_of, disconnected
from oa_protocol.server.http.event_stream import EventStream
from oa_protocol.server.http.live import Live
from oa_protocol.server.http.reader import Reader, Timing
from oa_protocol.server.http.responses import BareReply, headers_of, refusal, response_of
from oa_protocol.server.http.worker import Workers
from oa_protocol.server.requests import Api, Reply, Request, Step

LOGGER = logging.getLogger("oa_protocol.server")
"""Logs the server's own errors, each with its request."""
ACCESS = logging.getLogger("oa_protocol.server.access")
"""Logs the method, path, status and milliseconds of each request, at level INFO."""

RECORDED_LIMIT = 64 * 1024 * 1024
"""How many bytes of requests are kept. The oldest ones are dropped first."""

_MESSAGE_ID = re.compile(r"(?:[?&]message_id=|/messages/)([\w-]+)")


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A request as it was received. ``target`` is path and query as sent, and header names are in lower case."""

    api: Api
    step: Step
    method: str
    target: str
    headers: dict[str, str] = field(repr=False)
    body: bytes

    @property
    def size(self) -> int:
        """The approximate size of the record, in bytes."""
        headers = sum(len(name) + len(value) for name, value in self.headers.items())
        return len(self.target) + headers + len(self.body)


class App:
    """The ASGI application with both APIs. It needs asyncio."""

    def __init__(self, live: Live, workers: Workers, script: Script, timing: Timing, intake: Intake) -> None:
        self.requests: deque[RequestRecord] = deque()
        self.arrivals: Counter[Step] = Counter()
        self.under_way = 0
        self.worker_key = secrets.token_hex(16)
        self._drained: set[str] = set()
        self._recorded = 0
        self._live = live
        self._workers = workers
        self._script = script
        self._timing = timing
        self._intake = intake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, from reading its body to the end of its reply."""
        began, status = time.perf_counter(), 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            status = 101 if message["type"] == "websocket.accept" else message.get("status", status)
            await send(message)

        # When the server stops, it cuts all connections and then cancels the requests that are left. That isn't an
        # error, so the cancellation ends here.
        with contextlib.suppress(asyncio.CancelledError), self._counted():
            try:
                await self._answer(scope, receive, send_and_note)
            except ClientDisconnect:
                pass
            except ConnectionResetError:
                # A scripted fault cuts the connection, but the application runs in memory, without one. So the caller
                # gets the error, and can handle it as a lost connection.
                raise
            except Exception:
                LOGGER.exception("%s failed", _line(scope))
                if status:
                    raise
                await refusal(500, "Internal Server Error")(scope, receive, send_and_note)
            finally:
                ACCESS.info("%s %s %.0f ms", _line(scope), status or "cut", (time.perf_counter() - began) * 1000)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            is_worker = scope["type"] == "websocket"
            request = self._intake.read_head(scope) if is_worker else await self._intake.read(scope, receive)
        except Refused as error:
            await refusal(error.status, error.sentence)(scope, receive, lingering(receive, send))
        else:
            response: ASGIApp
            if is_worker:
                response = await self._worker(request)
            else:
                response = self._health() if request.path == "/health" else await self._respond(request)
            await response(scope, receive, lingering(receive, send) if request.unread else send)

    async def _worker(self, request: Request) -> ASGIApp:
        if request.path != PATH:
            return refusal(403, "Only workers connect by WebSocket, and only to " + PATH)
        self._record(RequestRecord("inference", "worker", request.method, request.target, dict(request.headers), b""))
        fault = self._script.take(Fault, "worker")
        response = await _disturb(fault.before) if fault and fault.before else None
        return response or WorkerSocket(
            self._workers, request, self.worker_key, self._script.take(WorkerFault, "worker")
        )

    def _health(self) -> Response:
        """Say that the server runs, and how busy it is. Nothing in it is a secret, so it needs no credentials."""
        state = self._live.state
        counts = {
            "chats": len(state.chats),
            "accounts": len(state.accounts),
            "waiting": len(state.waiting),
            "running": len(state.running),
            "requests": self.under_way,
            "workers": self._workers.remotes,
        }
        body = json.dumps({"status": "ok", "version": __version__, **counts}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
        return BareReply(200, [*headers, ("cache-control", "no-store")], body)

    @contextmanager
    def _counted(self) -> Generator[None, None, None]:
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, number: int) -> None:
        with self._live.changed:
            self.under_way += number
            self._live.changed.notify_all()

    async def _respond(self, request: Request) -> Response:
        api, step = api_of(request), step_of(request)
        self._record(RequestRecord(api, step, request.method, request.target, dict(request.headers), request.body))
        if step == "events":
            self._claim(request)
        fault = self._script.take(Fault, step)
        response = await _disturb(fault.before) if fault and fault.before else None
        if response is None:
            response = self._carry_out(api, step, request)
            if fault and fault.after:
                response = await _disturb(fault.after) or response
        return response

    def _record(self, record: RequestRecord) -> None:
        with self._live.changed:
            self.requests.append(record)
            self._recorded += record.size
            while len(self.requests) > 10_000 or self._recorded > RECORDED_LIMIT:
                self._recorded -= self.requests.popleft().size
            self.arrivals[record.step] += 1
            self._live.changed.notify_all()

    def _claim(self, request: Request) -> None:
        for message_id in _MESSAGE_ID.findall(request.target):
            if message_id in self._live.state.streams:
                self._live.channel(message_id).claimed.set()

    def _carry_out(self, api: Api, step: Step, request: Request) -> Response:
        reply = self._live.step(handle, request)
        match step:
            case "request":
                self._workers.take_up()
            case "message" if reply.status == 200:
                self._claim(request)
            case "delete":
                self._workers.stop_deleted()
                self._live.release()
            case _:
                pass
        if reply.stream is not None:
            return self._stream(api, reply, reply.stream)
        return response_of(api, request, reply)

    def _stream(self, api: Api, reply: Reply, message_id: str) -> Response:
        return EventStream(
            Reader(self._live, message_id, self._timing),
            headers_of(api, reply),
            late_head=api == "website",
            fault=self._script.take(StreamFault, "events"),
            # When a client leaves the website, the inference server doesn't notice, and the website goes on reading.
            on_drop=self._keep_reading if api == "website" else self._leave,
            on_miss=self._script.miss,
        )

    def _keep_reading(self, reader: Reader) -> None:
        # One is enough for each message. A client that keeps coming back must not leave a task behind each time.
        if reader.message_id in self._drained:
            self._leave(reader)
        else:
            self._drained.add(reader.message_id)
            self._workers.spawn(self._drain(reader))

    async def _drain(self, reader: Reader) -> None:
        await reader.drain()
        self._drained.discard(reader.message_id)
        self._leave(reader)

    def _leave(self, reader: Reader) -> None:
        self._live.apply(leave, reader.message_id)


def _line(scope: Scope) -> str:
    """Return the method and the path, without the query, because that may contain secrets."""
    return f"{scope.get('method', 'GET')} {scope['raw_path'].decode('latin-1')}"


async def _disturb(outcome: Outcome) -> Response | None:
    """Return the reply that the fault sends instead of the server's. For a ``Hold``, wait for it and return None."""
    match outcome:
        case Hold():
            await outcome.wait()
            return None
        case ScriptedReply(status=status, body=body, headers=headers):
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
