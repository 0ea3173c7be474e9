"""The intents. Each one is one thing for a driver to do, and is handed out once, when it is due.

::

    Exchange            send the request, and hand in the reply or the failure
    ├── CreateChat  SendPrompt  RequestAssistant  FetchMessage  FetchChat  ListChats  DeleteChat
    └── OpenStream      if the status is 200, the body is the stream; otherwise, it is a reply like the others
    LoadCredentials     find cookies or a token, and hand them in
    CloseStream         close the stream, and hand in that it ended
"""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import urlsplit

from msgspec import Struct


class HttpRequest(Struct, frozen=True):
    """An HTTP request. A transport adds only the headers ``host``, ``content-length`` and ``connection``.

    The headers contain credentials, so ``repr`` leaves them out.

    Attributes:
        method: the HTTP method.
        url: the absolute URL, percent-encoded.
        headers: pairs of a name in lower case and a value.
        body: the body, or no bytes if there is none.

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
    """Send ``request``, and hand in ``ReplyReceived`` or ``ExchangeFailed``.

    The three class variables have no default, so that you can't forget one of them if you add a kind of exchange.

    Attributes:
        doing: what the exchange does, in words. Error messages contain it.
        is_write: true if the exchange changes something on the server that the conversation needs to know about. Then
            the conversation waits for its outcome, even if the owner leaves.
        is_counted: true if sending it counts as a try of its step. Reads are counted separately.
        request: the request to send.
        shielded: true if the exchange must not be interrupted, because a chat could be left on the server.

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
    """Create the chat. It is always shielded, because the chat's id is only in the reply."""

    doing: ClassVar[str] = "creating the chat"
    is_write: ClassVar[bool] = True
    is_counted: ClassVar[bool] = True


class SendPrompt(Exchange, frozen=True):
    """Post the prompter message."""

    doing: ClassVar[str] = "sending the prompt"
    is_write: ClassVar[bool] = True
    is_counted: ClassVar[bool] = True


class RequestAssistant(Exchange, frozen=True):
    """Request the assistant's message."""

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
    """Read the chat with its messages, to see whether a lost request arrived, or whether the chat is gone."""

    doing: ClassVar[str] = "reading the chat"
    is_write: ClassVar[bool] = False
    is_counted: ClassVar[bool] = False


class ListChats(Exchange, frozen=True):
    """List the account's chats, to see whether the server still answers requests about chats (OA-7.5)."""

    doing: ClassVar[str] = "listing the chats"
    is_write: ClassVar[bool] = False
    is_counted: ClassVar[bool] = False


class DeleteChat(Exchange, frozen=True):
    """Delete the chat. It is always shielded."""

    doing: ClassVar[str] = "deleting the chat"
    is_write: ClassVar[bool] = False
    is_counted: ClassVar[bool] = True


class LoadCredentials(Struct, frozen=True):
    """Find credentials, and hand in ``CredentialsFound``.

    Attributes:
        refused: true if the server has refused the current credentials, so that you should look for others.

    """

    refused: bool = False


class CloseStream(Struct, frozen=True):
    """Close the stream's connection, and hand in ``StreamEnded``."""


Intent = Exchange | LoadCredentials | CloseStream

EXCHANGES: tuple[type[Exchange], ...] = tuple(Exchange.__subclasses__())
"""Every kind of exchange, in the order of a conversation."""
