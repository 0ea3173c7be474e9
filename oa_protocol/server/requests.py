"""Requests and replies as values, independent of a connection."""

from __future__ import annotations

from typing import Literal, NamedTuple
from urllib.parse import parse_qsl

Api = Literal["website", "inference"]

Step = Literal[
    "create",
    "prompt",
    "request",
    "events",
    "message",
    "chat",
    "list",
    "update",
    "delete",
    "models",
    "login",
    "worker",
    "other",
]
"""What a request is for, in either API.

``request`` is the request for an assistant message, and ``worker`` the connection of a worker.
"""

Headers = tuple[tuple[str, str], ...]


class Request(NamedTuple):
    """A request. ``target`` is the path and the query as sent, and the names of headers are in lower case.

    ``unread`` is the length in bytes of a body that wasn't kept, because it is too long.
    """

    method: str
    target: str
    headers: Headers = ()
    body: bytes = b""
    unread: int = 0

    def header(self, name: str) -> str:
        """Return the first header with this name, or an empty string."""
        return next((value for key, value in self.headers if key == name), "")

    @property
    def path(self) -> str:
        """The path, as sent."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        """The names and values in the query."""
        query = self.target.partition("?")[2]
        return parse_qsl(query, keep_blank_values=True) if query else []

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case."""
        return self.header("content-type").partition(";")[0].strip().lower()


class Reply(NamedTuple):
    """A reply. If ``stream`` is set, the body is the event stream of the message with this id."""

    status: int
    headers: Headers = ()
    body: bytes = b""
    stream: str | None = None
