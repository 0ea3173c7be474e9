"""The server as a value: accounts, chats and messages, what waits for a worker, and what streams have not yet sent.

Nothing here is ever changed in place, so a copy is another reference. What depends on time or chance is in the state.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from oa_protocol.server import ids

State = Literal["manual", "pending", "in_progress", "complete", "aborted_by_worker", "cancelled", "timeout"]
Role = Literal["prompter", "assistant"]

FINISHED: frozenset[State] = frozenset({"manual", "complete", "aborted_by_worker"})
"""The states of a message whose stream has ended. The others, even ``cancelled`` and ``timeout``, show ``pending``."""

SESSION_COOKIE = "next-auth.session-token"

_EMPTY: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Quirks:
    """What differs between the versions and installations of the server."""

    ping_comment: bool = False
    """Pings are comments (``: ping - …``), not events whose data isn't JSON."""
    delete_tears_worker: bool = False
    """A worker that comes upon a deleted message aborts all other answers that run."""
    chat_enabled: bool = True
    """The website's chat is switched on. Otherwise, it answers 404."""
    inference_down: bool = False
    """The website can't reach the inference server."""
    rate_limit: int | None = None
    """Assistant requests an account may make in ``rate_window`` seconds. Any further request gets a plain 500."""
    rate_window: float = 660.0
    """Seconds from the first request that is counted until the count starts again."""
    queue_limit: int | None = None
    """Messages that may wait for a worker. A further one stays behind, with a 503."""
    max_content: int | None = None
    """Characters in a prompt, else 413."""
    max_messages: int | None = None
    """Messages in a chat, else 413."""
    allowed_models: tuple[str, ...] | None = None
    """Names of the models that may be used, if not all of them."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account and its credentials. Either API takes either kind."""

    name: str
    session: str = field(repr=False)
    token: str = field(repr=False)

    @property
    def cookies(self) -> dict[str, str]:
        """The website's session cookie."""
        return {SESSION_COOKIE: self.session}


class MessageRecord(NamedTuple):
    """A message as it was when asked for. ``work_parameters`` and ``used_plugin`` are JSON."""

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
    """A chat as it was when asked for, its messages in the order they were made."""

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
        """Return the message of this id, or None."""
        return next((message for message in self.messages if message.id == message_id), None)


class Event(NamedTuple):
    """An event of a stream, as bytes. The stream ends after a ``final`` one."""

    data: bytes
    final: bool = False


class Stream(NamedTuple):
    """What a message's stream has not yet sent.

    Each event goes to one reader and is gone. ``text`` is what the worker has said so far, if anything. ``lost`` is
    the number of events to come that a reader who has left takes along.
    """

    queued_at: int
    events: tuple[Event, ...] = ()
    text: str | None = None
    readers: int = 0
    lost: int = 0


class ServerState(NamedTuple):
    """Everything that the server remembers.

    ``now`` is the time in nanoseconds since 1970, set by the caller before a step, and it may stand still. With a
    ``salt``, ids are made from ``now`` and look like the real ones, and credentials can't be guessed. Without one,
    ids say where a thing stands (chat, position in the chat), so two ways to the same chats lead to the same state.
    ``default_account`` is used for requests without credentials. The inference server doesn't know ``forgotten``
    accounts until they log in.
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
    owners: Mapping[str, str] = _EMPTY
    streams: Mapping[str, Stream] = _EMPTY
    waiting: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    counted: Mapping[str, tuple[int, int]] = _EMPTY

    def key(self) -> Hashable:
        """Return a value that is equal for equal states only, for example for a set of those already seen."""
        mappings = (self.chats, self.streams, self.credentials, self.counted)
        contents = tuple(frozenset(mapping.items()) for mapping in mappings)
        return (*contents, self.waiting, self.running, self.forgotten, self.made, self.now)

    def message(self, message_id: str) -> MessageRecord | None:
        """Return the message of this id, whosever it is, or None."""
        chat_id = self.owners.get(message_id)
        return None if chat_id is None else self.chats[chat_id].find(message_id)


def with_account(state: ServerState, name: str) -> tuple[ServerState, Account]:
    """Return the account of this name, with the state in which it exists."""
    account = state.accounts.get(name)
    if account is not None:
        return state, account
    made = state.made + 1
    session, token = (ids.digest(f"{kind}/{state.salt}/{name}/{made}") for kind in ("session", "token"))
    account = Account(name, session * 2, token)
    credentials = {**state.credentials, account.session: name, token: name}
    accounts = {**state.accounts, name: account}
    return state._replace(made=made, accounts=accounts, credentials=credentials), account


def without_credentials(state: ServerState, name: str) -> ServerState:
    """Make the account's credentials bad. It keeps its chats, and gets new credentials when it's next asked for."""
    accounts = {other: account for other, account in state.accounts.items() if other != name}
    credentials = {key: owner for key, owner in state.credentials.items() if owner != name}
    return state._replace(accounts=accounts, credentials=credentials)


def with_chat(state: ServerState, chat: ChatRecord) -> ServerState:
    """Add the chat, or put it in the place of what it was."""
    return state._replace(chats={**state.chats, chat.id: chat})


def with_message(state: ServerState, message: MessageRecord) -> ServerState:
    """Put the message in the place of what it was."""
    chat = state.chats[message.chat_id]
    messages = tuple(message if old.id == message.id else old for old in chat.messages)
    return with_chat(state, chat._replace(messages=messages))


def with_stream(state: ServerState, message_id: str, stream: Stream) -> ServerState:
    """Add the message's stream, or put it in the place of what it was."""
    return state._replace(streams={**state.streams, message_id: stream})


def new_id(state: ServerState, chat: ChatRecord | None = None) -> tuple[ServerState, str]:
    """Return an id for a new chat, or for a new message in ``chat``. It's greater than every one before it."""
    if state.salt is None and chat is not None:
        return state, ids.placed_id(ids.placed_chat(chat.id), len(chat.messages) + 1)
    made = state.made + 1
    if state.salt is None:
        return state._replace(made=made), ids.placed_id(made)
    made = max(made, ids.ticks_at(state.now))
    return state._replace(made=made), ids.timed_id(made, state.salt)
