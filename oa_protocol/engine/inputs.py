"""Everything that can happen to a conversation, as data. ``Conversation.handle`` accepts these inputs and nothing else.

::

    the owner       Prompt  Regenerate  Keep  Close  Abandon  Interrupted
    the driver      CredentialsFound  ReplyReceived  ExchangeFailed  StreamOpened  StreamData  StreamEnded
    the clock       TimePassed
"""

from __future__ import annotations

from msgspec import Struct

from oa_protocol.bindings.base import Credentials, Headers
from oa_protocol.engine.errors import TransportError


class Prompt(Struct, frozen=True, repr_omit_defaults=True):
    """The owner asks for an answer to ``text`` (OA-4.4). It is possible if ``Conversation.awaits_prompt`` is true.

    Attributes:
        text: the prompt.
        after: the id of the complete answer that the prompt follows (OA-3.4). By default, it is the answer that the
            conversation is at (``Conversation.answer_id``), or none in an empty chat.

    """

    text: str
    after: str | None = None


class Regenerate(Struct, frozen=True, repr_omit_defaults=True):
    """The owner asks for another answer to a prompt that is in the chat (OA-3.5).

    It is possible if ``Conversation.awaits_prompt`` is true, and there is such a prompt.

    Attributes:
        prompt_id: the id of the prompter message. By default, it is the prompt that the conversation is at
            (``Conversation.prompt_id``).

    """

    prompt_id: str | None = None


class Keep(Struct, frozen=True):
    """The owner wants the chat to stay on the server after ``Close``, or not (OA-7.9). It is possible before ``Close``.

    Attributes:
        keep: true to keep the chat, false to delete it.

    """

    keep: bool = True


class Close(Struct, frozen=True):
    """The owner leaves, so the engine deletes the chat, unless it is kept. It is always possible, even again.

    Attributes:
        drain: true to wait for an answer that may be running, for at most ``Cleanup.drain`` seconds, because deleting
            its chat breaks other users' answers (OA-7.1). False to delete the chat at once. A second ``Close`` with
            ``drain=False`` ends the waiting.

    """

    drain: bool = True


class Abandon(Struct, frozen=True):
    """The owner has no more time. The conversation ends at once, and names the chats that may be left on the server.

    It is always possible. A kept chat isn't named. But if a create has no reply yet, its chat is unknown, and it is
    named even if it was to be kept.
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
    | Regenerate
    | Keep
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
