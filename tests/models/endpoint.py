"""A scripted OpenAI-compatible endpoint, and the replies that it can give."""

from __future__ import annotations

import json
from typing import Any

from oa_protocol.testing.peers import Connection, Peer

KEY = "sk-0123456789abcdef0123456789abcdef"
STREAM = "text/event-stream"
DATE = "Date: Thu, 01 Jan 2026 00:00:00 GMT"


def reply(body: bytes, kind: str = STREAM, status: str = "200 OK", *headers: str) -> bytes:
    head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *headers))
    return f"{head}\r\n\r\n".encode() + body


def refusal(status: str, error: object, *headers: str) -> bytes:
    return reply(json.dumps(error).encode(), "application/json", status, *headers)


def chunk(content: object = None, reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": content, **more}, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


ONE = chunk("One ", role="assistant")
GOOD = reply(ONE + chunk("two.") + chunk(None, "stop") + b"data: [DONE]\n\n")
BUSY = refusal("429 Too Many Requests", {"error": {"message": "slow down"}}, "Retry-After: 0")


class Endpoint(Peer):
    """Answers one request after the other with these replies, each on a connection of its own."""

    def __init__(self, *replies: bytes, hangs: bool = False) -> None:
        super().__init__(self._answer)
        self._replies = iter(replies)
        self._hangs = hangs

    def _answer(self, connection: Connection) -> None:
        connection.read_request()
        connection.send(next(self._replies))
        if not self._hangs:
            connection.end()

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.body) for request in self.requests]
