"""What the engine asks for: each intent is one thing for a driver to do, handed out once.

::

    Exchange            send the request, hand in the reply (or the failure)
    ├── CreateChat  SendPrompt  RequestAssistant  FetchMessage  FetchChat  ListChats  DeleteChat
    └── OpenStream      status 200: the body is the stream; any other: a reply like the others
    LoadCookies         find cookies or a token, hand them in
    CloseStream         close the stream, hand in its end
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """An HTTP request, complete but for what the transport adds (``host``, ``content-length``, ``connection``).

    ``url`` is absolute and percent-encoded. Header names are lower-case. The headers hold credentials, so ``repr``
    leaves them out.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def target(self) -> str:
        """The path and query of ``url``, for whoever writes the request line (RFC 9112, origin-form)."""
        parts = urlsplit(self.url)
        return f"{parts.path}?{parts.query}" if parts.query else parts.path


@dataclass(frozen=True, slots=True)
class Exchange:
    """Wait ``delay`` seconds, then send ``request`` and hand in what came of it.

    ``shielded``: nothing may interrupt it, or a chat may be left on the server. A driver may stretch ``delay`` by some
    jitter, and may cut it short only by closing the conversation.
    """

    request: HttpRequest
    delay: float = 0.0
    shielded: bool = False


class CreateChat(Exchange):
    """Make the chat. Always shielded: without the reply nobody knows the chat's id."""

    __slots__ = ()


class SendPrompt(Exchange):
    """Post the prompter message."""

    __slots__ = ()


class RequestAssistant(Exchange):
    """Ask for the assistant's message."""

    __slots__ = ()


class OpenStream(Exchange):
    """Open the event stream: hand in ``receive_stream_opened`` and then its bytes where the status is 200."""

    __slots__ = ()


class FetchMessage(Exchange):
    """Read the assistant's message, to see whether it has finished."""

    __slots__ = ()


class FetchChat(Exchange):
    """Read the chat with its messages, to see what arrived or whether it is gone."""

    __slots__ = ()


class ListChats(Exchange):
    """List the account's chats, to see whether the server answers us at all."""

    __slots__ = ()


class DeleteChat(Exchange):
    """Delete the chat. Always shielded."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class LoadCookies:
    """Find credentials (again, where ``refused`` ones were used) and hand them in, or None."""

    refused: bool = False


@dataclass(frozen=True, slots=True)
class CloseStream:
    """Close the stream's connection, and hand in that it ended."""


Intent = Exchange | LoadCookies | CloseStream
