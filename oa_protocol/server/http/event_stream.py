"""A reply that is an event stream, with its scripted faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, assert_never

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from oa_protocol.server.faults import Close, End, Hang, Hold, Reset, StreamAction, StreamFault
from oa_protocol.server.faults import Send as SendBytes
from oa_protocol.server.http.connection import connection_of, disconnected
from oa_protocol.server.http.reader import Reader
from oa_protocol.server.http.responses import Headers
from oa_protocol.server.state import Event
from oa_protocol.server.work import encode_event


class EventStream(Response):
    """Sends a message's events until the final one, a scripted end, or until the client leaves.

    With ``late_head``, the response's head is sent together with the first event, as the website does it. ``on_drop``
    is called if the stream ends before the message's final event was sent. ``on_miss`` is called if the stream ends
    before all of its scripted actions have happened.
    """

    def __init__(
        self,
        reader: Reader,
        headers: Headers,
        *,
        late_head: bool,
        fault: StreamFault | None,
        on_drop: Callable[[Reader], None],
        on_miss: Callable[[StreamFault], None],
    ) -> None:
        self.background = None
        self._reader = reader
        self._late_head = late_head
        self._on_drop = on_drop
        self._on_miss = on_miss
        self._fault = fault
        self._start = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(name.encode(), value.encode()) for name, value in headers],
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        lost: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._send_body(scope, send))
                watcher = group.create_task(disconnected(receive))
                # The first task that ends cancels the other one: nothing is sent to a client that has left, and there
                # is no need to watch for that after the stream's end.
                watcher.add_done_callback(lambda _: sender.cancel())
                sender.add_done_callback(lambda _: watcher.cancel())
        except* ConnectionResetError as failure:
            (lost,) = failure.exceptions  # of the sender
        if not self._reader.finished:
            self._on_drop(self._reader)
        if lost is not None:
            raise lost

    async def _send_body(self, scope: Scope, send: Send) -> None:
        body = _Body(send, self._start)
        if not self._late_head:
            await body.start()
        fault = self._fault or StreamFault()
        scripted = None if fault.events is None else iter(fault.events)
        actions = list(fault.actions)
        sent = 0
        while True:
            while actions and sent >= fault.position:
                if await _act(actions.pop(0), body, scope):
                    return
            event = await self._receive() if scripted is None else next(scripted, None)
            if event is None:
                if actions:
                    self._on_miss(fault)
                await body.end()
                return
            await body.write(_encoded(event))
            # Pings don't count, because a test can't know when they are sent.
            sent += scripted is not None or isinstance(event, Event)

    async def _receive(self) -> Event | bytes | None:
        return None if self._reader.finished else await self._reader.receive()


def _encoded(event: Event | Mapping[str, Any] | bytes) -> bytes:
    match event:
        case bytes():
            return event
        case Event(data=data):
            return data
        case _:
            return encode_event(event)


async def _act(action: StreamAction, body: _Body, scope: Scope) -> bool:
    """Carry out a scripted action. Return whether it ends the stream."""
    match action:
        case SendBytes(data=data):
            await body.write(data)
            return False
        case Hold():
            await action.wait()
            return False
        case End():
            await body.end()
        case Reset():
            await connection_of(scope).reset()
        case Close():
            await connection_of(scope).close()
        case Hang():
            await Hold().wait()
        case _:
            assert_never(action)
    return True


class _Body:
    def __init__(self, send: Send, start: dict[str, Any]) -> None:
        self._send = send
        self._start = start
        self._started = False

    async def start(self) -> None:
        if not self._started:
            self._started = True
            await self._send(self._start)

    async def write(self, data: bytes) -> None:
        await self.start()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self.start()
        await self._send({"type": "http.response.body", "body": b""})
