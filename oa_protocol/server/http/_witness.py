"""Keeps a record of each request and its outcome, for the verdict on a client."""

from __future__ import annotations

import asyncio
import gzip
from collections import deque
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oa_protocol.server.exchanges import ExchangeRecord, note_body, note_event, note_reply, record_of, seconds_to_wait
from oa_protocol.server.http.connection import connection_of, has_connection
from oa_protocol.server.http.live import Live
from oa_protocol.server.requests import Request
from oa_protocol.server.state import ServerState

RECORDED = 10_000
"""How many exchanges are kept. The oldest ones are dropped first."""
_BODY_LIMIT = 1024 * 1024


class Witness:
    """Wraps the application. It only looks at what passes through."""

    def __init__(self, app: ASGIApp, live: Live) -> None:
        self._app = app
        self._live = live
        self._exchanges: deque[ExchangeRecord] = deque(maxlen=RECORDED)
        self._made = monotonic()

    @property
    def exchanges(self) -> tuple[ExchangeRecord, ...]:
        """The last exchanges, in the order in which they arrived."""
        with self._live.changed:
            return tuple(self._exchanges)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = record_of(_head(scope), self.now())
        with self._live.changed:
            record.ran = record.step == "delete" and _has_work(self._live.state, record.chat_id or "")
            self._exchanges.append(record)
        passing = _Passing(record, scope, receive, send)
        try:
            await self._app(scope, passing.receive, passing.send)
        finally:
            if record.end == "open":
                record.end = "left" if passing.has_left else "cut"
            record.ended = self.now()

    def now(self) -> float:
        """Return the seconds since this was made."""
        return monotonic() - self._made


def _has_work(state: ServerState, chat_id: str) -> bool:
    """Return whether an answer of the chat runs, or waits. A pending one whose request was refused does neither."""
    chat = state.chats.get(chat_id)
    messages = chat.messages if chat else ()
    return any(message.state == "in_progress" or message.id in state.waiting for message in messages)


def _head(scope: Scope) -> Request:
    query: bytes = scope["query_string"]
    target: bytes = scope["raw_path"] + (b"?" + query if query else b"")
    headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"])
    return Request(scope["method"], target.decode("latin-1"), headers)


class _Passing:
    """A request and its reply on their way through."""

    def __init__(self, record: ExchangeRecord, scope: Scope, receive: Receive, send: Send) -> None:
        self.has_left = False
        self._record = record
        self._scope = scope
        self._receive = receive
        self._send = send
        self._request_body = bytearray()
        self._reply_body = bytearray()
        self._headers: dict[str, str] = {}

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.has_left = True
        elif self._record.step in ("prompt", "request") and len(self._request_body) <= _BODY_LIMIT:
            self._request_body += message.get("body", b"")
            if not message.get("more_body", False):
                note_body(self._record, bytes(self._request_body))
        return message

    async def send(self, message: Message) -> None:
        # What is written to a connection that the client has closed is silently dropped.
        if has_connection(self._scope) and connection_of(self._scope).transport.is_closing():
            self.has_left = True
            # uvicorn learns this from the event loop. A stream whose events are all there never waits for the loop, so
            # it would go on writing, and asyncio would log a warning for each event.
            await asyncio.sleep(0)
        record = self._record
        if message["type"] == "http.response.start":
            record.status = message["status"]
            pairs = message.get("headers", ())
            self._headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}
            record.retry_after = seconds_to_wait(self._headers)
        elif record.step == "events":
            note_event(record, message.get("body", b""))
        elif record.step in ("chat", "message", "delete"):
            self._reply_body += message.get("body", b"")
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        # The notes are taken before the client can have the reply, so that it can't ask for a verdict without them.
        if is_last and not self.has_left:
            if record.step != "events":
                note_reply(record, self._decoded())
            record.end = "whole"
        await self._send(message)

    def _decoded(self) -> bytes:
        body = bytes(self._reply_body)
        return gzip.decompress(body) if self._headers.get("content-encoding") == "gzip" and body else body
