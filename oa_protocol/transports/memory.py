"""The transport into an ASGI application in the same event loop, without sockets; for asyncio.

::

    server = Server()  # not started: it listens nowhere
    client = Client("http://localhost", cookies=server.cookies, transport=lambda: MemoryTransport(server.app))

An application runs on its own, as behind a server: it is told that the client has left, and is never cancelled. That of
the embedded server is made for asyncio, and so is this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from oa_protocol.engine.errors import MaybeSent
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.transports._failures import words_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_MOST_UNREAD = 64 * 1024
"""Bytes after which the application waits for its reader, as it would with a socket."""


class MemoryTransport:
    """Hands requests to ``application`` (ASGI 3), each in a task of its own."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._tasks: dict[asyncio.Task[None], MemoryResponse] = {}

    async def open(self, request: HttpRequest) -> MemoryResponse:
        """Hand the request over, and return once the reply's head is there. Raises MaybeSent."""
        response = MemoryResponse()
        task = asyncio.create_task(response.run(self._application, request))
        self._tasks[task] = response
        task.add_done_callback(self._tasks.pop)
        try:
            await response.begin()
        except BaseException:
            await response.aclose()
            raise
        return response

    async def aclose(self) -> None:
        """Leave every reply; the application notices that on its own."""
        for response in self._tasks.values():
            await response.aclose()


class MemoryResponse:
    """A reply of MemoryTransport."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Sequence[tuple[str, str]] = ()
        self._unread = bytearray()
        self._is_complete = False
        self._failure: str | None = None
        self._has_left = asyncio.Event()
        self._changed = asyncio.Event()

    async def begin(self) -> None:
        """Wait for the head. Raises MaybeSent where none comes."""
        await self._until(lambda: self.status != 0)

    async def receive(self) -> bytes:
        """Return the next bytes. After a cancellation it goes on where it was."""
        await self._until(lambda: bool(self._unread) or self._is_complete)
        data = bytes(self._unread)
        self._unread.clear()
        self._note_change()
        return data

    async def aclose(self) -> None:
        """Tell the application that the client has left."""
        self._has_left.set()
        self._note_change()

    async def run(self, application: Application, request: HttpRequest) -> None:
        """Run the application for this request."""
        requests = [{"type": "http.request", "body": request.body, "more_body": False}]

        async def receive() -> Message:
            if requests:
                return requests.pop()
            await self._has_left.wait()
            return {"type": "http.disconnect"}

        failure = "the application ended in the middle of it"
        try:
            await application(_scope(request), receive, self._take)
        except Exception as error:
            failure = words_of(error)
        finally:
            if not self._is_complete:
                self._failure = failure
            self._note_change()

    async def _take(self, message: Message) -> None:
        """The application's ``send``. Raises ConnectionResetError where the client has left (ASGI 2.4)."""
        while len(self._unread) > _MOST_UNREAD and not self._has_left.is_set():
            await self._changed.wait()
        if self._has_left.is_set():
            raise ConnectionResetError("the client has left")
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
        else:
            self._unread += message.get("body", b"")
            self._is_complete = not message.get("more_body", False)
        self._note_change()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._failure is not None:
                raise MaybeSent(f"the reply broke off: {self._failure}")
            await self._changed.wait()

    def _note_change(self) -> None:
        """Wake whoever waits, on either side."""
        self._changed.set()
        self._changed = asyncio.Event()


def _scope(request: HttpRequest) -> Message:
    parts = urlsplit(request.url)
    headers = [("host", parts.netloc), *request.headers, ("content-length", str(len(request.body)))]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": parts.scheme,
        "path": unquote(parts.path),
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": None,
        "server": (parts.hostname, parts.port),
    }
