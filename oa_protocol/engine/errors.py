"""Every exception and warning of this package.

::

    RuntimeError
    └── OAError                     has phase: the phase in which it happened
        ├── ApiError                the server refused with an error message; has status and message
        ├── HTTPStatusError         an HTTP error status without an error message of the API; has status
        ├── AuthenticationError     credentials are missing, wrong or expired; has status
        ├── TransportError          the network failed
        │   ├── NotSent             … and the request certainly didn't reach the server
        │   └── MaybeSent           … and the server may have carried out the request
        ├── ProtocolError
        │   ├── LocalProtocolError  the caller did something that the phase doesn't allow
        │   │   └── ClosedError     … because the chat or its client was closed, maybe by another task
        │   └── RemoteProtocolError the server sent something that the protocol doesn't allow
        ├── JournalError            the journal of chats to delete can't be used
        ├── SlotError               the account's slot failed
        └── AnswerFailed            the answer ended badly; has text: the part that arrived
    UserWarning
    └── ChatLeakedWarning           a chat is, or may be, left on the server

You can pickle all of them. ``OAError`` is a ``RuntimeError`` because code for the historic client catches that.
"""

from __future__ import annotations

import re

_USER_AND_PASSWORD = re.compile(r"//\S*@")


class OAError(RuntimeError):
    """The base class of all errors of this package.

    Attributes:
        phase: the name of the phase in which the error happened, or None if no conversation was involved.

    """

    def __init__(self, text: str, *, phase: str | None = None) -> None:
        super().__init__(text)
        self.phase = phase


class ApiError(OAError):
    """The server answered with an error message (specs/protocol.md, section 8).

    Attributes:
        status: the HTTP status.
        message: the server's error message, unchanged. If it came as a list, its parts are joined. A server may repeat
            credentials in it, so don't log it: ``str(error)`` has the same message without them.

    """

    def __init__(self, text: str, *, phase: str | None = None, status: int = 0, message: str = "") -> None:
        super().__init__(text, phase=phase)
        self.status = status
        self.message = message


class HTTPStatusError(OAError):
    """The server answered with an HTTP error status, but without an error message of the API.

    Attributes:
        status: the HTTP status.

    """

    def __init__(self, text: str, *, phase: str | None = None, status: int = 0) -> None:
        super().__init__(text, phase=phase)
        self.status = status


class AuthenticationError(OAError):
    """Credentials are missing, or the server doesn't accept them.

    Attributes:
        status: the HTTP status, or None if no request was made.

    """

    def __init__(self, text: str, *, phase: str | None = None, status: int | None = None) -> None:
        super().__init__(text, phase=phase)
        self.status = status


class TransportError(OAError):
    """The network failed.

    A transport raises one of the two subclasses, because the engine recovers from each of them differently: it can
    simply repeat a request that wasn't sent. HTTP libraries mention the URL of a proxy in their errors, so the user and
    the password of any URL are removed from the text.
    """

    def __init__(self, text: str, *, phase: str | None = None) -> None:
        super().__init__(_USER_AND_PASSWORD.sub("//***@", str(text)), phase=phase)


class NotSent(TransportError):
    """The request certainly never reached the server, so it can be sent again."""


class MaybeSent(TransportError):
    """The connection failed after the request may have been sent, so the server may have carried it out."""


class ProtocolError(OAError):
    """One of the two sides broke the protocol."""


class LocalProtocolError(ProtocolError):
    """The caller did something that the current phase doesn't allow. The call changed nothing."""


class ClosedError(LocalProtocolError):
    """The chat or its client is closed, or was closed by another task or thread while it was in use."""


class RemoteProtocolError(ProtocolError):
    """The server sent something that isn't in the protocol, or that is over a size limit."""


class JournalError(OAError):
    """The journal can't be read or written, or another process has locked it.

    The client never creates a chat that isn't in the journal.
    """


class SlotError(OAError):
    """The slot that was passed to the client raised an error, which is the ``__cause__`` of this one.

    The answer wasn't requested, because that could cancel another message of the account (OA-4.7). You may try again.
    """


class AnswerFailed(OAError):
    """The answer failed because of a worker error, a cancellation, a timeout, or a broken stream.

    Attributes:
        text: the part of the answer that arrived. It is the tokens so far, or the final text if that contradicts them.

    """

    def __init__(self, message: str, *, phase: str | None = None, text: str = "") -> None:
        super().__init__(message, phase=phase)
        self.text = text


class ChatLeakedWarning(UserWarning):
    """A chat is, or may be, left on the server. The message names it."""
