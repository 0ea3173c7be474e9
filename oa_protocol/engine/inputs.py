"""Everything that can happen to a conversation, as data: ``Conversation.handle`` takes these and nothing else.

::

    the owner       Prompt  Close  Abandon  Interrupted
    the driver      CredentialsFound  ReplyReceived  ExchangeFailed  StreamOpened  StreamData  StreamEnded
    the clock       TimePassed
"""

from __future__ import annotations

from msgspec import Struct

from oa_protocol.bindings.base import Credentials, Headers
from oa_protocol.engine.errors import TransportError


class Prompt(Struct, frozen=True):
    """The owner asks for an answer to ``text`` (OA-4.4). Possible if ``Conversation.awaits_prompt``."""

    text: str


class Close(Struct, frozen=True):
    """The owner leaves. Possible in every phase, and any number of times.

    With ``drain``, an answer that may be running is waited for, because deleting its chat breaks other users' answers
    (OA-7.1). Without it, or if it comes again without it, the chat is deleted at once.
    """

    drain: bool = True


class Abandon(Struct, frozen=True):
    """There is no more time: what may be left on the server is named, and nothing follows. Always possible."""


class Interrupted(Struct, frozen=True):
    """The owner wants control back, for example because of a cancellation or Ctrl-C. Always possible.

    An exchange that is under way is given up, and costs no try: a read is asked for again, and a write is looked for on
    the server. A create goes on, because the chat's id is only in its reply, but for at most ``Cleanup.timeout``. What
    is sent after ``Close`` goes on, too. The conversation stays usable.
    """


class CredentialsFound(Struct, frozen=True):
    """Settles ``LoadCredentials``; None says that there are none, or no others."""

    credentials: Credentials | None


class ReplyReceived(Struct, frozen=True):
    """Settles an exchange: its whole reply has arrived. For ``OpenStream``: a reply with another status than 200."""

    status: int
    headers: Headers = ()
    body: bytes = b""


class ExchangeFailed(Struct, frozen=True):
    """Settles an exchange: the network failed. Every ``TransportError`` but ``NotSent`` counts as ``MaybeSent``."""

    failure: TransportError


class StreamOpened(Struct, frozen=True):
    """Settles ``OpenStream``: the head of the reply has arrived, with status 200."""


class StreamData(Struct, frozen=True):
    """Bytes of the open stream, cut anywhere. ``Conversation.receive_stream_data`` takes them directly."""

    data: bytes


class StreamEnded(Struct, frozen=True):
    """The open stream has ended, cleanly or not, or ``CloseStream`` is done.

    How it ended makes no difference, because only the stream's last event ends an answer (OA-5.7).
    """


class TimePassed(Struct, frozen=True):
    """Nothing happened, except that ``Conversation.deadline`` has come. Always possible."""


Input = (
    Prompt
    | Close
    | Abandon
    | Interrupted
    | CredentialsFound
    | ReplyReceived
    | ExchangeFailed
    | StreamOpened
    | StreamData
    | StreamEnded
    | TimePassed
)
