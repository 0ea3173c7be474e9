"""The transport into an ASGI application in the same event loop, without sockets, for asyncio.

::

    server = Server()  # not started, so it listens nowhere
    client = Client("http://localhost", cookies=server.cookies, transport=lambda: MemoryTransport(server.app))

An application runs as it does behind a server: if the client leaves, the application gets a disconnect message, and is
never cancelled. The embedded server's application needs asyncio, and so does this transport.
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
"""If more bytes than this are unread, the application waits for the reader, as it would with a socket."""


class MemoryTransport:
    """Hands requests to an application, each in its own task.

    Args:
        application: an ASGI 3 application.

    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._tasks: dict[asyncio.Task[None], MemoryResponse] = {}

    async def open(self, request: HttpRequest) -> MemoryResponse:
        """Hand the request over, and return once the reply's head is there. Raises MaybeSent if it never comes."""
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
        """Leave every reply. The application gets a disconnect message, and isn't waited for."""
        for response in self._tasks.values():
            await response.aclose()


class MemoryResponse:
    """A reply of ``MemoryTransport``."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Sequence[tuple[str, str]] = ()
        self._unread = bytearray()
        self._is_complete = False
        self._failure: str | None = None
        self._has_left = asyncio.Event()
        self._changed = asyncio.Event()

    async def begin(self) -> None:
        """Wait for the head. Raises MaybeSent if none comes."""
        await self._until(lambda: self.status != 0)

    async def receive(self) -> bytes:
        """Return the next bytes of the body. If a call is cancelled, the next one returns its bytes."""
        await self._until(lambda: bool(self._unread) or self._is_complete)
        data = bytes(self._unread)
        self._unread.clear()
        self._note_change()
        return data

    async def aclose(self) -> None:
        """Leave the reply. The application gets a disconnect message."""
        self._has_left.set()
        self._note_change()

    async def run(self, application: Application, request: HttpRequest) -> None:
        """Run the application for this request."""
        requests = [{"type": "http.request", "body": request.body, "more_body": False}]

        async def receive() -> Message:
            if requests:
                return requests.pop()
            await self._has_left.wait()  # ASGI: after the request, nothing comes but the client's leaving
            return {"type": "http.disconnect"}

        failure = "the application ended before the reply was complete"
        try:
            await application(_scope(request), receive, self._take)
        except Exception as error:
            failure = words_of(error)
        finally:
            if not self._is_complete:
                self._failure = failure
            self._note_change()

    async def _take(self, message: Message) -> None:
        """Take what the application sends. Raises ConnectionResetError if the client has left (ASGI 2.4)."""
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
        """Wake both sides, the application and the reader."""
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
