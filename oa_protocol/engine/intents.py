"""What the engine asks for: each intent is one thing for a driver to do, handed out once.

::

    Exchange            send the request, hand in the reply (or the failure)
    ├── CreateChat  SendPrompt  RequestAssistant  FetchMessage  FetchChat  ListChats  DeleteChat
    └── OpenStream      status 200: the body is the stream; any other: a reply like the others
    LoadCookies         find cookies or a token, hand them in
    CloseStream         close the stream, hand in its end
"""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec import Struct


class HttpRequest(Struct, frozen=True):
    """An HTTP request, complete but for what the transport adds (``host``, ``content-length``, ``connection``).

    ``url`` is absolute and percent-encoded. Header names are lower-case. The headers hold credentials, so ``repr``
    leaves them out.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def __repr__(self) -> str:
        return f"HttpRequest(method={self.method!r}, url={self.url!r})"

    @property
    def target(self) -> str:
        """The path and query of ``url``, for whoever writes the request line (RFC 9112, origin-form)."""
        parts = urlsplit(self.url)
        return f"{parts.path}?{parts.query}" if parts.query else parts.path


class Exchange(Struct, frozen=True):
    """Wait ``delay`` seconds, then send ``request`` and hand in what came of it.

    ``shielded``: nothing may interrupt it, or a chat may be left on the server. A driver may stretch ``delay`` by some
    jitter, and may cut it short only by closing the conversation.
    """

    request: HttpRequest
    delay: float = 0.0
    shielded: bool = False


class CreateChat(Exchange, frozen=True):
    """Make the chat. Always shielded: without the reply nobody knows the chat's id."""


class SendPrompt(Exchange, frozen=True):
    """Post the prompter message."""


class RequestAssistant(Exchange, frozen=True):
    """Ask for the assistant's message."""


class OpenStream(Exchange, frozen=True):
    """Open the event stream: hand in ``receive_stream_opened`` and then its bytes where the status is 200."""


class FetchMessage(Exchange, frozen=True):
    """Read the assistant's message, to see whether it has finished."""


class FetchChat(Exchange, frozen=True):
    """Read the chat with its messages, to see what arrived or whether it is gone."""


class ListChats(Exchange, frozen=True):
    """List the account's chats, to see whether the server answers us at all."""


class DeleteChat(Exchange, frozen=True):
    """Delete the chat. Always shielded."""


class LoadCookies(Struct, frozen=True):
    """Find credentials (again, where ``refused`` ones were used) and hand them in, or None."""

    refused: bool = False


class CloseStream(Struct, frozen=True):
    """Close the stream's connection, and hand in that it ended."""


Intent = Exchange | LoadCookies | CloseStream
