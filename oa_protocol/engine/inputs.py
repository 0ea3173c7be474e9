"""Everything that can happen to a conversation, as data. ``Conversation.handle`` accepts these inputs and nothing else.

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
    """The owner asks for an answer to ``text`` (OA-4.4). It is possible if ``Conversation.awaits_prompt`` is true."""

    text: str


class Close(Struct, frozen=True):
    """The owner leaves, so the chat is to be deleted. It is possible in every phase, and you may repeat it.

    Attributes:
        drain: true to wait for an answer that may be running, for at most ``Cleanup.drain`` seconds, because deleting
            its chat breaks other users' answers (OA-7.1). False to delete the chat at once. A second ``Close`` with
            ``drain=False`` ends the waiting.

    """

    drain: bool = True


class Abandon(Struct, frozen=True):
    """The owner has no more time. The conversation ends at once, and names the chats that may be left on the server.

    It is always possible.
    """


class Interrupted(Struct, frozen=True):
    """The owner was interrupted, for example by a cancellation or Ctrl-C, and wants control back.

    It is always possible, and the conversation stays usable. It has no effect after ``Close``. Before that, the
    outstanding exchange is given up, and doesn't count as a try. The engine sends a read again later. After a write, it
    first looks on the server whether the write arrived. A create isn't given up, because the chat's id is only in its
    reply. It goes on, for at most ``Cleanup.timeout`` seconds.
    """


class CredentialsFound(Struct, frozen=True):
    """Credentials were found. It settles ``LoadCredentials``.

    Attributes:
        credentials: the credentials, or None if there are none, or no others.

    """

    credentials: Credentials | None


class ReplyReceived(Struct, frozen=True):
    """The whole reply to an exchange has arrived. It settles the exchange.

    If the exchange is ``OpenStream`` and the status is 200, hand in ``StreamOpened`` instead.

    Attributes:
        status: the HTTP status.
        headers: the header fields, as your HTTP library returns them.
        body: the whole body.

    """

    status: int
    headers: Headers = ()
    body: bytes = b""


class ExchangeFailed(Struct, frozen=True):
    """The network failed. It settles the exchange.

    Attributes:
        failure: ``NotSent`` if the request certainly didn't reach the server, otherwise ``MaybeSent``.

    """

    failure: TransportError


class StreamOpened(Struct, frozen=True):
    """The head of the reply to ``OpenStream`` has arrived, with status 200. It settles ``OpenStream``."""


class StreamData(Struct, frozen=True):
    """Bytes of the open stream have arrived. They may be cut anywhere.

    ``Conversation.receive_stream_data`` is a shorter and faster way to hand them in.
    """

    data: bytes


class StreamEnded(Struct, frozen=True):
    """The open stream has ended, or you have carried out ``CloseStream``.

    It makes no difference whether the stream ended cleanly, because only its last event ends an answer (OA-5.7).
    """


class TimePassed(Struct, frozen=True):
    """Nothing happened, except that ``Conversation.deadline`` has passed. It is always possible."""


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
