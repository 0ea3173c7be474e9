"""Accounts, chats and messages, in memory."""

import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from oa_protocol.server.identifiers import Identifiers, now
from oa_protocol.server.streams import EventQueue

State = Literal["manual", "pending", "in_progress", "complete", "aborted_by_worker", "cancelled", "timeout"]
Role = Literal["prompter", "assistant"]

SESSION_COOKIE = "next-auth.session-token"


@dataclass(frozen=True, slots=True)
class Account:
    """An account and its credentials; either API takes either kind."""

    name: str
    cookies: dict[str, str] = field(repr=False)
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """A message as it was when asked for."""

    id: str
    parent_id: str | None
    role: Role
    state: State
    content: str | None


@dataclass(frozen=True, slots=True)
class ChatRecord:
    """A chat as it was when asked for, its messages in the order they were made."""

    id: str
    account: str
    title: str | None
    hidden: bool
    messages: tuple[MessageRecord, ...]


@dataclass(slots=True, eq=False)
class Message:
    """A message; `queue` holds what an assistant message's stream has not yet sent."""

    id: str
    parent_id: str | None
    content: str | None
    chat: "Chat"
    role: Role
    state: State
    created_at: str = field(default_factory=now)
    work_parameters: dict[str, Any] | None = None
    used_plugin: dict[str, Any] | None = None
    queue: EventQueue = field(default_factory=EventQueue)

    @property
    def deleted(self) -> bool:
        """Whether its chat has been deleted."""
        return self.chat.deleted

    def to_json(self) -> dict[str, Any]:
        """The message in the server's order of keys."""
        return {
            "id": self.id,
            "parent_id": self.parent_id,
            "content": self.content,
            "chat_id": self.chat.id,
            "created_at": self.created_at,
            "role": self.role,
            "state": self.state,
            "score": 0,
            "reports": [],
            "work_parameters": self.work_parameters,
            "safe_content": None,
            "safety_level": None,
            "safety_label": None,
            "safety_rots": None,
            "used_plugin": self.used_plugin,
        }


@dataclass(slots=True, eq=False)
class Chat:
    """A chat of an account."""

    id: str
    account: str
    created_at: str = field(default_factory=now)
    modified_at: str = field(default_factory=now)
    title: str | None = None
    hidden: bool = False
    allow_data_use: bool = True
    active_thread_tail_message_id: str | None = None
    messages: dict[str, Message] = field(default_factory=dict[str, Message])
    deleted: bool = False

    def to_json(self) -> dict[str, Any]:
        """The chat in the server's order of keys, without its messages."""
        return {
            "id": self.id,
            "created_at": self.created_at,
            "modified_at": self.modified_at,
            "title": self.title,
            "hidden": self.hidden,
            "allow_data_use": self.allow_data_use,
            "active_thread_tail_message_id": self.active_thread_tail_message_id,
        }

    def record(self) -> ChatRecord:
        """What the chat is now."""
        messages = tuple(
            MessageRecord(one.id, one.parent_id, one.role, one.state, one.content) for one in self.messages.values()
        )
        return ChatRecord(self.id, self.account, self.title, self.hidden, messages)


class Store:
    """All that the server remembers. Whoever reads or changes it from any thread holds `changed`."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.identifiers = Identifiers()
        self.chats: dict[str, Chat] = {}
        self._messages: dict[str, Message] = {}
        self._accounts: dict[str, Account] = {}
        self._credentials: dict[str, Account] = {}

    def account(self, name: str) -> Account:
        """The account of this name, made if there is none, with credentials that are good."""
        with self.changed:
            if name not in self._accounts:
                session, token = secrets.token_urlsafe(96), secrets.token_urlsafe(48)
                account = self._accounts[name] = Account(name, {SESSION_COOKIE: session}, token)
                self._credentials[session] = self._credentials[token] = account
            return self._accounts[name]

    def revoke(self, name: str) -> None:
        """Makes the account's credentials bad; it keeps its chats, and gets new credentials when next asked for."""
        with self.changed:
            account = self._accounts.pop(name)
            self._credentials = {key: one for key, one in self._credentials.items() if one is not account}

    def authenticate(self, credential: str) -> Account | None:
        """The account that a session cookie's value or a bearer token stands for."""
        return self._credentials.get(credential)

    def add_chat(self, account: str) -> Chat:
        """A new chat without messages."""
        chat = Chat(self.identifiers.new(), account)
        self.chats[chat.id] = chat
        return chat

    def add_message(self, chat: Chat, parent_id: str | None, role: Role, content: str | None, state: State) -> Message:
        """A new message in `chat`."""
        message = Message(self.identifiers.new(), parent_id, content, chat, role, state)
        chat.messages[message.id] = self._messages[message.id] = message
        return message

    def message(self, message_id: str) -> Message | None:
        """The message with this id, whosever it is."""
        return self._messages.get(message_id)

    def messages_of(self, account: str) -> Iterator[Message]:
        """All messages in the account's chats."""
        return (one for chat in self.chats.values() if chat.account == account for one in chat.messages.values())

    def delete_chat(self, chat: Chat) -> None:
        """Forgets the chat and its messages; an open stream keeps its queue."""
        chat.deleted = True
        del self.chats[chat.id]
        for message in chat.messages.values():
            del self._messages[message.id]
            message.queue.claimed.set()
