"""A website whose replies are ready as bytes, in a process of its own: the server is not what is measured."""

import asyncio
import json
import multiprocessing
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

CHAT = "06b02a54-89e8-7932-8000-0fb1fa73d8de"
PROMPT = "06b02a54-8a8e-7be5-8000-08c00366f721"
ANSWER = "06b02a54-8b6e-7be5-8000-08c00366f722"

PIECE = "Adipisci "


def token(text: str) -> bytes:
    return b'data: {"event_type": "token", "text": "%b"}\r\n\r\n' % text.encode()


TOKEN = token(PIECE)


@dataclass(frozen=True)
class Plan:
    """What each stream is: so many tokens, cut into HTTP chunks of ``chunk`` bytes, or of one event each with 0.

    All is written at once; or a token every ``interval`` seconds; or with ``hangs`` one token, and then nothing. With
    ``is_stamped``, a token that comes at intervals is the time at which it is written.
    """

    tokens: int
    chunk: int = 0
    interval: float = 0.0
    hangs: bool = False
    is_stamped: bool = False


def reply(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\nconnection: close\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    ) + (chunked(body) + END if body else END)


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


END = b"0\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
REPLIES = {
    b"POST /api/chat HTTP": reply(json.dumps({"id": CHAT, "title": None}).encode()),
    b"POST /api/chat/prompter_message HTTP": reply(json.dumps({"id": PROMPT, "state": "manual"}).encode()),
    b"POST /api/chat/assistant_message HTTP": reply(json.dumps({"id": ANSWER, "state": "pending"}).encode()),
    b"DELETE /api/chat?": reply(b""),
    # A chat that waits for the pending slot looks at the chat that has it.
    b"GET /api/chat?": reply(json.dumps({"id": CHAT, "messages": []}).encode()),
}


def final_event(plan: Plan) -> bytes:
    message = {"id": ANSWER, "chat_id": CHAT, "parent_id": PROMPT, "role": "assistant", "state": "complete"}
    event = {"event_type": "message", "message": {**message, "content": PIECE * plan.tokens}}
    return b"data: %b\r\n\r\n" % json.dumps(event).encode()


class Website(asyncio.Protocol):
    def __init__(self, plan: Plan, deleted: list[int]) -> None:
        self._plan = plan
        self._deleted = deleted
        self._received = b""
        self._left = plan.tokens

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        _, named, length = head.lower().partition(b"content-length: ")
        if named and len(body) < int(length.split(b"\r\n")[0]):
            return
        self._received = b""
        for start, canned in REPLIES.items():
            if head.startswith(start):
                self._deleted[0] += start.startswith(b"DELETE")
                self._transport.write(canned)
                self._transport.close()
                return
        self._stream()

    def _stream(self) -> None:
        self._transport.write(STREAM_HEAD)
        if self._plan.hangs:
            self._transport.write(chunked(TOKEN))
        elif self._plan.interval:
            self._tick()
        else:
            self._transport.write(whole_stream(self._plan))
            self._transport.close()

    def _tick(self) -> None:
        if self._transport.is_closing():
            return
        if self._left:
            self._left -= 1
            text = f"{time.monotonic():.9f} " if self._plan.is_stamped else PIECE
            self._transport.write(chunked(token(text)))
            asyncio.get_running_loop().call_later(self._plan.interval, self._tick)
        else:
            self._transport.write(chunked(final_event(self._plan)) + END)
            self._transport.close()


_streams: dict[Plan, bytes] = {}


def whole_stream(plan: Plan) -> bytes:
    if plan not in _streams:
        if plan.chunk:
            events = TOKEN * plan.tokens + final_event(plan)
            cut = [chunked(events[start : start + plan.chunk]) for start in range(0, len(events), plan.chunk)]
            _streams[plan] = b"".join(cut) + END
        else:
            _streams[plan] = chunked(TOKEN) * plan.tokens + chunked(final_event(plan)) + END
    return _streams[plan]


def serve(plan: Plan, pipe: Connection) -> None:
    asyncio.run(_serve(plan, pipe))


async def _serve(plan: Plan, pipe: Connection) -> None:
    deleted = [0]
    whole_stream(plan)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Website(plan, deleted), "127.0.0.1", 0, backlog=4096)
    pipe.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    while await loop.run_in_executor(None, pipe.recv) != "stop":
        pipe.send(deleted[0])


class Served:
    """A running website."""

    def __init__(self, url: str, pipe: Connection) -> None:
        self.url = url
        self._pipe = pipe

    def deleted(self) -> int:
        """How many DELETEs were answered so far."""
        self._pipe.send("count")
        count = self._pipe.recv()
        assert isinstance(count, int)
        return count


@contextmanager
def served(plan: Plan) -> Generator[Served]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(plan, there), daemon=True)
    process.start()
    try:
        yield Served(here.recv(), here)
        here.send("stop")
        process.join(20)
    finally:
        process.kill()
        process.join()
        here.close()
        there.close()
