"""What the engine asks for: each intent is one thing for a driver to do, handed out once and when it is due.

::

    Exchange            send the request, hand in the reply (or the failure)
    ├── CreateChat  SendPrompt  RequestAssistant  FetchMessage  FetchChat  ListChats  DeleteChat
    └── OpenStream      status 200: the body is the stream; any other: a reply like the others
    LoadCredentials     find cookies or a token, hand them in
    CloseStream         close the stream, hand in its end
"""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import urlsplit

from msgspec import Struct


class HttpRequest(Struct, frozen=True):
    """An HTTP request, complete except for what the transport adds (``host``, ``content-length``, ``connection``).

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
        """The path and query of ``url``, as a request line has them (RFC 9112, origin-form)."""
        parts = urlsplit(self.url)
        return f"{parts.path}?{parts.query}" if parts.query else parts.path


class Exchange(Struct, frozen=True):
    """Send ``request``, and hand in what came of it.

    If it is ``shielded``, it must not be interrupted, because a chat could be left on the server.

    The class says what is true of each exchange of its kind: what it is ``doing`` in words, whether it ``is_write``
    (it changes something on the server, so that its outcome must be known before the conversation can end well), and
    whether it ``is_counted`` as a try of its step. Reads have a count of their own. None of these has a default, so
    that a new kind can't get the wrong one by being silent.
    """

    doing: ClassVar[str]
    is_write: ClassVar[bool]
    is_counted: ClassVar[bool]

    request: HttpRequest
    shielded: bool = False

    def __init_subclass__(cls) -> None:
        missing = [fact for fact in ("doing", "is_write", "is_counted") if fact not in vars(cls)]
        if missing:
            raise TypeError(f"{cls.__name__} doesn't say {', '.join(missing)}")


class CreateChat(Exchange, frozen=True):
    """Make the chat. Always shielded, because the chat's id is only in the reply."""

    doing: ClassVar[str] = "creating the chat"
    is_write: ClassVar[bool] = True
    is_counted: ClassVar[bool] = True


class SendPrompt(Exchange, frozen=True):
    """Post the prompter message."""

    doing: ClassVar[str] = "sending the prompt"
    is_write: ClassVar[bool] = True
    is_counted: ClassVar[bool] = True


class RequestAssistant(Exchange, frozen=True):
    """Ask for the assistant's message."""

    doing: ClassVar[str] = "requesting the answer"
    is_write: ClassVar[bool] = True
    is_counted: ClassVar[bool] = True


class OpenStream(Exchange, frozen=True):
    """Open the event stream. If the status is 200, hand in ``StreamOpened``, and then the body as it arrives."""

    doing: ClassVar[str] = "opening the stream"
    is_write: ClassVar[bool] = False
    is_counted: ClassVar[bool] = True


class FetchMessage(Exchange, frozen=True):
    """Read the assistant's message, to see whether it has finished."""

    doing: ClassVar[str] = "reading the answer"
    is_write: ClassVar[bool] = False
    is_counted: ClassVar[bool] = False


class FetchChat(Exchange, frozen=True):
    """Read the chat with its messages, to see what arrived or whether it is gone."""

    doing: ClassVar[str] = "reading the chat"
    is_write: ClassVar[bool] = False
    is_counted: ClassVar[bool] = False


class ListChats(Exchange, frozen=True):
    """List the account's chats, to see whether the server answers us at all."""

    doing: ClassVar[str] = "listing the chats"
    is_write: ClassVar[bool] = False
    is_counted: ClassVar[bool] = False


class DeleteChat(Exchange, frozen=True):
    """Delete the chat. Always shielded."""

    doing: ClassVar[str] = "deleting the chat"
    is_write: ClassVar[bool] = False
    is_counted: ClassVar[bool] = True


class LoadCredentials(Struct, frozen=True):
    """Find credentials, and hand them in. If ``refused``, the server has refused the last ones: look for others."""

    refused: bool = False


class CloseStream(Struct, frozen=True):
    """Close the stream's connection, and hand in that it ended."""


Intent = Exchange | LoadCredentials | CloseStream

EXCHANGES: tuple[type[Exchange], ...] = tuple(Exchange.__subclasses__())
"""Every kind of exchange, in the order of a conversation."""
