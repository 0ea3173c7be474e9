"""Every exception and warning of this package.

::

    RuntimeError
    └── OAError                     phase: where the conversation stood
        ├── ApiError                the server refused, in its own words; status, message
        ├── HTTPStatusError         an HTTP error status without words of the API; status
        ├── AuthenticationError     credentials are missing, wrong or expired
        ├── TransportError          the network failed
        │   ├── NotSent             … and the request certainly did not leave
        │   └── MaybeSent           … and the request may have been carried out
        ├── ProtocolError
        │   ├── LocalProtocolError  the caller did what the phase does not allow
        │   │   └── ClosedError     … because the chat or its client was closed, maybe by another task
        │   └── RemoteProtocolError the server sent what the protocol does not allow
        ├── JournalError            the journal of chats to be deleted cannot be used
        └── AnswerFailed            the answer ended badly; text: what there is of it
    UserWarning
    └── ChatLeakedWarning           a chat is, or may be, left on the server

All of them pickle. ``OAError`` is a ``RuntimeError`` because code for the historic client catches that.
"""

from __future__ import annotations

import re

_USER_AND_PASSWORD = re.compile(r"//\S*@")


class OAError(RuntimeError):
    """Whatever goes wrong in a conversation.

    ``phase`` is the name of the phase in which it went wrong, or None where no conversation was involved.
    """

    def __init__(self, text: str, *, phase: str | None = None) -> None:
        super().__init__(text)
        self.phase = phase


class ApiError(OAError):
    """The server answered with an error message (specs/protocol.md, section 8).

    ``message`` holds the server's own words as they came, list details joined; ``status`` the HTTP status. The text of
    the error leaves out the credentials that these words repeat.
    """

    def __init__(self, text: str, *, phase: str | None = None, status: int = 0, message: str = "") -> None:
        super().__init__(text, phase=phase)
        self.status = status
        self.message = message


class HTTPStatusError(OAError):
    """The server answered with an HTTP error status and without an error message of the API."""

    def __init__(self, text: str, *, phase: str | None = None, status: int = 0) -> None:
        super().__init__(text, phase=phase)
        self.status = status


class AuthenticationError(OAError):
    """Credentials are missing, or the server does not accept them.

    ``status`` is the HTTP status, or None where no request was made.
    """

    def __init__(self, text: str, *, phase: str | None = None, status: int | None = None) -> None:
        super().__init__(text, phase=phase)
        self.status = status


class TransportError(OAError):
    """The network failed. A transport raises one of the two subclasses, for what follows differs.

    HTTP libraries repeat the URL of a proxy, so the user and the password of a URL are left out of the text.
    """

    def __init__(self, text: str, *, phase: str | None = None) -> None:
        super().__init__(_USER_AND_PASSWORD.sub("//***@", str(text)), phase=phase)


class NotSent(TransportError):
    """The request certainly never reached the server: it can be sent again."""


class MaybeSent(TransportError):
    """The connection failed after the request may have left: the server may have carried it out."""


class ProtocolError(OAError):
    """One of the two sides broke the protocol."""


class LocalProtocolError(ProtocolError):
    """The caller did something that the current phase does not allow. Nothing was changed by the call."""


class ClosedError(LocalProtocolError):
    """The chat or its client is closed, or was closed by another task or thread while it was in use."""


class RemoteProtocolError(ProtocolError):
    """The server sent something that is not in the protocol, or is over a size limit."""


class JournalError(OAError):
    """The journal cannot be read or written, or another process holds it. No chat is made that is not in it."""


class AnswerFailed(OAError):
    """The answer did not come to a good end: a worker error, a cancellation, a timeout, or a cut stream.

    ``text`` is what there is of the answer: the tokens that came, or the whole final text where it contradicts them.
    """

    def __init__(self, message: str, *, phase: str | None = None, text: str = "") -> None:
        super().__init__(message, phase=phase)
        self.text = text


class ChatLeakedWarning(UserWarning):
    """A chat is, or may be, left on the server. The message names it."""
