"""The server's state as a value: accounts, chats, messages, the queue for workers, and events that aren't sent yet.

Nothing is ever changed in place, so a reference is as good as a copy. The time and the source of randomness are part
of the state, so the same steps always have the same results.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from oa_protocol.server import ids

State = Literal["manual", "pending", "in_progress", "complete", "aborted_by_worker", "cancelled", "timeout"]
Role = Literal["prompter", "assistant"]

FINISHED: frozenset[State] = frozenset({"manual", "complete", "aborted_by_worker"})
"""The states of a message whose stream has ended.

In all others, even ``cancelled`` and ``timeout``, the stream shows ``pending`` events.
"""

SESSION_COOKIE = "next-auth.session-token"

CHATS_LIMIT = 10_000
"""How many chats are kept. If there are more, the ones that were used least recently are forgotten."""
MEMORY_LIMIT = 256 * 1024 * 1024
"""How many bytes of chats are kept, by the measure of ``ChatRecord.size``."""
CHAT_LIMIT = 64 * 1024 * 1024
"""The size from which a chat is full, in bytes."""
QUEUE_LIMIT = 10_000
"""How many messages may wait for a worker."""
UNREAD_LIMIT = 10_000
"""How many events of a stream are kept for a reader. If there are more, the oldest ones are lost."""
ANSWER_LIMIT = 1024 * 1024
"""The longest answer, in characters."""
ACCOUNTS_LIMIT = 1_000
"""How many accounts a login may create."""

_OVERHEAD = 1024  # bytes that a chat or a message takes besides its texts, roughly
_EMPTY: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Quirks:
    """The behavior that differs between versions and installations of the real server."""

    ping_comment: bool = False
    """Send pings as comments (``: ping - …``). By default, they are events whose data isn't JSON."""
    answers_outlive_delete: bool = False
    """The worker goes on writing the answer of a deleted chat, as on the real server (WIRE 24). By default it stops."""
    delete_tears_worker: bool = False
    """When a worker comes upon a deleted message, all other running answers are aborted."""
    chat_enabled: bool = True
    """The website's chat is enabled. If it is False, the website replies with 404."""
    inference_down: bool = False
    """The website can't reach the inference server."""
    rate_limit: int | None = None
    """How many answers an account may request in ``rate_window`` seconds. Further requests get a plain 500."""
    rate_window: float = 660.0
    """Seconds from the first counted request until counting starts again."""
    queue_limit: int | None = None
    """How many messages may wait for a worker. A further request gets a 503, and its pending message is left behind."""
    max_content: int | None = None
    """The longest prompt, in characters. A longer one gets a 413."""
    max_messages: int | None = None
    """How many messages a chat may have. A further one gets a 413."""
    allowed_models: tuple[str, ...] | None = None
    """The names of the models that may be used. None allows all of them."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account and its credentials. Each API accepts both kinds."""

    name: str
    session: str = field(repr=False)
    token: str = field(repr=False)

    @property
    def cookies(self) -> dict[str, str]:
        """The website's session cookie."""
        return {SESSION_COOKIE: self.session}


class MessageRecord(NamedTuple):
    """A message, as it was when you asked for it. ``work_parameters`` and ``used_plugin`` are JSON."""

    id: str
    chat_id: str
    parent_id: str | None
    role: Role
    state: State
    content: str | None
    created_at: str
    work_parameters: str = "null"
    used_plugin: str = "null"


class ChatRecord(NamedTuple):
    """A chat, as it was when you asked for it. Its messages are in the order of their creation."""

    id: str
    account: str
    created_at: str
    modified_at: str
    title: str | None = None
    hidden: bool = False
    allow_data_use: bool = True
    active_thread_tail_message_id: str | None = None
    messages: tuple[MessageRecord, ...] = ()

    def find(self, message_id: str) -> MessageRecord | None:
        """Return the message with this id, or None."""
        return next((message for message in self.messages if message.id == message_id), None)

    @property
    def size(self) -> int:
        """The approximate size of the chat, in bytes."""
        texts = sum(len(one.content or "") + len(one.work_parameters) + len(one.used_plugin) for one in self.messages)
        return texts + _OVERHEAD * (1 + len(self.messages))


class Event(NamedTuple):
    """An event of a stream, as bytes. The stream ends after a ``final`` event."""

    data: bytes
    final: bool = False


class Stream(NamedTuple):
    """The events of a message's stream that aren't sent yet.

    Each event goes to one reader only. ``text`` is the answer so far, or None before the first token. ``lost`` is how
    many of the next events are lost, because a reader has left that was waiting for them.
    """

    queued_at: int
    events: tuple[Event, ...] = ()
    text: str | None = None
    readers: int = 0
    lost: int = 0


class ServerState(NamedTuple):
    """Everything that the server remembers.

    ``now`` is the time in nanoseconds since 1970. The caller sets it before each step, and it may stand still. With a
    ``salt``, ids look like the real ones and depend on ``now``, and credentials can't be guessed. Without a salt, an id
    is made from the number of the chat and the position in it. Then two histories with the same chats have the same
    state, so the explorer can recognize it. ``default_account`` is the account of requests without credentials. The
    inference server doesn't know ``forgotten`` accounts until they log in again. ``held`` is the size of all chats in
    bytes.
    """

    quirks: Quirks = Quirks()
    now: int = 0
    salt: str | None = None
    made: int = 0
    default_account: str | None = None
    accounts: Mapping[str, Account] = _EMPTY
    credentials: Mapping[str, str] = _EMPTY
    forgotten: frozenset[str] = frozenset()
    chats: Mapping[str, ChatRecord] = _EMPTY
    held: int = 0
    owners: Mapping[str, str] = _EMPTY
    streams: Mapping[str, Stream] = _EMPTY
    waiting: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    counted: Mapping[str, tuple[int, int]] = _EMPTY

    def key(self) -> Hashable:
        """Return a hashable value that is equal only for equal states. You can use it for a set of visited states."""
        mappings = (self.chats, self.streams, self.credentials, self.counted)
        contents = tuple(frozenset(mapping.items()) for mapping in mappings)
        return (*contents, self.waiting, self.running, self.forgotten, self.made, self.now)

    def message(self, message_id: str) -> MessageRecord | None:
        """Return the message with this id, of any account, or None."""
        chat_id = self.owners.get(message_id)
        return None if chat_id is None else self.chats[chat_id].find(message_id)


def with_account(state: ServerState, name: str) -> tuple[ServerState, Account]:
    """Return the account with this name. Create it if it doesn't exist."""
    account = state.accounts.get(name)
    if account is not None:
        return state, account
    made = state.made + 1
    session, token = (ids.digest(f"{kind}/{state.salt}/{name}/{made}") for kind in ("session", "token"))
    # Its halves differ, so a client that joins the parts of a split cookie in the wrong order is refused.
    account = Account(name, session + ids.digest(session), token)
    credentials = {**state.credentials, account.session: name, token: name}
    accounts = {**state.accounts, name: account}
    return state._replace(made=made, accounts=accounts, credentials=credentials), account


def without_credentials(state: ServerState, name: str) -> ServerState:
    """Invalidate the account's credentials. It keeps its chats, and ``with_account`` makes new credentials for it."""
    accounts = {other: account for other, account in state.accounts.items() if other != name}
    credentials = {key: owner for key, owner in state.credentials.items() if owner != name}
    return state._replace(accounts=accounts, credentials=credentials)


def with_chat(state: ServerState, chat: ChatRecord) -> ServerState:
    """Add the chat, or replace its earlier value."""
    old = state.chats.get(chat.id)
    held = state.held + chat.size - (0 if old is None else old.size)
    return state._replace(chats={**state.chats, chat.id: chat}, held=held)


def with_message(state: ServerState, message: MessageRecord) -> ServerState:
    """Replace the message's earlier value."""
    chat = state.chats[message.chat_id]
    messages = tuple(message if old.id == message.id else old for old in chat.messages)
    return with_chat(state, chat._replace(messages=messages))


def with_stream(state: ServerState, message_id: str, stream: Stream) -> ServerState:
    """Add the message's stream, or replace its earlier value."""
    return state._replace(streams={**state.streams, message_id: stream})


def new_id(state: ServerState, chat: ChatRecord | None = None) -> tuple[ServerState, str]:
    """Return an id for a new chat, or for a new message in ``chat``. It is greater than all earlier ones."""
    if state.salt is None and chat is not None:
        return state, ids.placed_id(ids.placed_chat(chat.id), len(chat.messages) + 1)
    made = state.made + 1
    if state.salt is None:
        return state._replace(made=made), ids.placed_id(made)
    made = max(made, ids.ticks_at(state.now))
    return state._replace(made=made), ids.timed_id(made, state.salt)
