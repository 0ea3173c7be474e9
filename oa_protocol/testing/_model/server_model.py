"""A small model of the server: one account's chats, and both APIs' answers as the real servers give them.

It is a value: what changes it returns another one. It reads the requests themselves, so a wrong URL or a wrong parent
is a wrong request here as well. Ids say where a thing stands (chat, position in the chat): two ways to the same chats
are the same state.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from oa_protocol.bindings.json import encode
from oa_protocol.engine.intents import HttpRequest

ALREADY_PROMPTED = "Trying to add first message to non-empty chat"
BUSY = "The server is currently busy. Please try again later."

_WAITS = ("pending", "cancelled", "timeout")
_FINISHED = ("complete", "aborted_by_worker")
_RUNS = ("pending", "in_progress")


class Message(NamedTuple):
    """A message of a chat, and what was read of its event stream.

    ``stuck``: no worker will ever take it, for its request was refused. ``late``: it was made after the client had
    been told that its request was lost.
    """

    id: str
    role: str
    state: str
    parent_id: str | None
    content: str | None = None
    read: int = 0
    readers: int = 0
    stuck: bool = False
    late: bool = False

    @property
    def is_running(self) -> bool:
        """Whether a worker has it, or may take it."""
        return self.role == "assistant" and self.state in _RUNS and not self.stuck


class Chat(NamedTuple):
    """A chat; ``maker`` is the number of the conversation that it was made for."""

    id: str
    maker: int
    messages: tuple[Message, ...] = ()


class Asked(NamedTuple):
    """A request, read: which step it is, of what."""

    step: str
    chat_id: str = ""
    message_id: str = ""
    parent_id: str | None = None
    content: str = ""
    after: str = ""


class Server(NamedTuple):
    """One account at a server that speaks ``api``: ``website`` or ``inference``; it lists ``page`` chats at a time."""

    api: str
    page: int = 20
    chats: tuple[Chat, ...] = ()
    made: int = 0

    # ---- requests

    def carry_out(self, asked: Asked, maker: int, *, late: bool = False) -> tuple[Server, int, bytes]:
        """Do what is asked for; return the server after it, and the status and body of its reply."""
        if asked.step == "create":
            made = Chat(_id(self.made + 1), maker)
            return self._replace(chats=(*self.chats, made), made=self.made + 1), 200, encode({"id": made.id})
        if asked.step == "list":
            return self, 200, _list_body(self.chats, self.page, asked.after)
        chat = self.chat(asked.chat_id)
        if chat is None:
            return self, *self._unknown_chat(asked.step)
        match asked.step:
            case "chat":
                return self, 200, _chat_body(chat)
            case "delete":
                kept = tuple(other for other in self.chats if other is not chat)
                return self._replace(chats=kept), 200, b"" if self.api == "website" else b"null"
            case "prompt":
                return self._prompt(chat, asked, late)
            case "request":
                return self._request(chat, asked, late)
            case "message":
                message = _find(chat, asked.message_id)
                return (self, 200, encode(_told(message))) if message else (self, 500, b"Internal Server Error")
            case _:
                raise ValueError(f"no such step: {asked.step}")

    def open_stream(self, asked: Asked) -> tuple[Server, int]:
        """Open a message's event stream; return the server after it, and the status."""
        message = self.message(asked.message_id)
        if message is None:
            return self, 500
        if self.api == "inference" and message.state in _FINISHED:
            return self, 204
        read = message.read
        if message.readers:  # the reader before takes a token, on a website all there is
            read += 1 if self.api == "inference" else 99
        elif message.state in _FINISHED:
            read = 99  # a website streams nothing of a finished message
        return self._with(message._replace(readers=message.readers + 1, read=read)), 200

    def leave_behind(self, asked: Asked) -> tuple[Server, int, bytes]:
        """Refuse a request for an answer because the queue is full: its message stays in the chat, pending."""
        server, status, body = self._request_for(asked, stuck=True)
        return (server, 503, self._words(BUSY)) if status == 200 else (server, status, body)

    # ---- workers

    def running(self) -> list[Message]:
        """The messages that a worker has or may take."""
        return [message for chat in self.chats for message in chat.messages if message.is_running]

    def work(self, message: Message, state: str) -> Server:
        """Let a worker, or the queue, bring ``message`` into ``state``."""
        content = answer_text(message.id) if state == "complete" else None
        return self._with(message._replace(state=state, content=content))

    def next_event(self, message_id: str) -> tuple[Server, bytes] | None:
        """Take the next event off a message's stream; None where there is none."""
        message = self.message(message_id)
        if message is None:
            return None
        events = _stream(message)
        if message.read >= len(events):
            return None
        return self._with(message._replace(read=message.read + 1)), events[message.read]

    def waits(self, message_id: str) -> bool:
        """Whether a message's stream shows it as pending, rightly or for ever."""
        message = self.message(message_id)
        return message is not None and message.state in _WAITS

    def is_over(self, message_id: str) -> bool:
        """Whether nothing more comes over a message's stream."""
        message = self.message(message_id)
        return message is None or message.state in _FINISHED

    # ---- what there is

    def chat(self, chat_id: str) -> Chat | None:
        """The chat of this id."""
        return next((chat for chat in self.chats if chat.id == chat_id), None)

    def message(self, message_id: str) -> Message | None:
        """The message of this id."""
        return next((found for chat in self.chats if (found := _find(chat, message_id))), None)

    def _prompt(self, chat: Chat, asked: Asked, late: bool) -> tuple[Server, int, bytes]:
        problem = _bad_parent(chat, asked.parent_id)
        if problem:
            return self, 400, self._words(problem)
        prompt = Message(_new_id(chat), "prompter", "manual", asked.parent_id, asked.content, late=late)
        return self._added(chat, prompt), 200, encode(_told(prompt))

    def _request(self, chat: Chat, asked: Asked, late: bool) -> tuple[Server, int, bytes]:
        server = self._replace(chats=tuple(other if other is chat else _cancel(other) for other in self.chats))
        return server._request_for(asked, late=late)

    def _request_for(self, asked: Asked, *, stuck: bool = False, late: bool = False) -> tuple[Server, int, bytes]:
        chat = self.chat(asked.chat_id)
        if chat is None or asked.parent_id is None or _find(chat, asked.parent_id) is None:
            return self, *self._unknown_chat("request")
        answer = Message(_new_id(chat), "assistant", "pending", asked.parent_id, stuck=stuck, late=late)
        return self._added(chat, answer), 200, encode(_told(answer))

    def _unknown_chat(self, step: str) -> tuple[int, bytes]:
        if step not in ("chat", "delete"):
            return 500, self._words("Something went wrong") if self.api == "website" else b""
        if self.api == "inference":
            return 404, self._words("Chat not found")
        return (404, b"") if step == "chat" else (500, b"Internal Server Error")

    def _words(self, words: str) -> bytes:
        return encode({"message" if self.api == "website" else "detail": words})

    def _added(self, chat: Chat, message: Message) -> Server:
        return self._put(chat, (*chat.messages, message))

    def _with(self, message: Message) -> Server:
        chat = next(chat for chat in self.chats if _find(chat, message.id))
        return self._put(chat, tuple(message if old.id == message.id else old for old in chat.messages))

    def _put(self, chat: Chat, messages: tuple[Message, ...]) -> Server:
        changed = chat._replace(messages=messages)
        return self._replace(chats=tuple(changed if old.id == chat.id else old for old in self.chats))


def answer_text(message_id: str) -> str:
    """The answer in full. Its tokens never say the last character: only the final message does."""
    return "".join(_tokens(message_id)) + "!"


def _tokens(message_id: str) -> tuple[str, str]:
    return "Hi ", message_id[:13]


@cache
def _stream(message: Message) -> tuple[bytes, ...]:
    first, second = (_event({"event_type": "token", "text": text}) for text in _tokens(message.id))
    match message.state:
        case "in_progress":
            return (first,)
        case "complete":
            return first, second, _event({"event_type": "message", "message": _told(message)})
        case "aborted_by_worker":
            return first, _event({"event_type": "error", "error": "Aborted due to worker error.", "message": None})
        case _:
            return ()


def _event(event: dict[str, object]) -> bytes:
    return b"data: " + encode(event) + b"\r\n\r\n"


def _id(chat: int, position: int = 0) -> str:
    return f"{chat:08x}-{position:04x}-7000-8000-000000000000"


def _new_id(chat: Chat) -> str:
    return _id(int(chat.id[:8], 16), len(chat.messages) + 1)


def _find(chat: Chat, message_id: str) -> Message | None:
    return next((message for message in chat.messages if message.id == message_id), None)


def _cancel(chat: Chat) -> Chat:
    if not any(message.state == "pending" for message in chat.messages):
        return chat
    messages = tuple(m._replace(state="cancelled") if m.state == "pending" else m for m in chat.messages)
    return chat._replace(messages=messages)


def _bad_parent(chat: Chat, parent_id: str | None) -> str:
    if parent_id is None:
        return ALREADY_PROMPTED if chat.messages else ""
    parent = _find(chat, parent_id)
    if parent is None:
        return "Parent message not found"
    if parent.role != "assistant":
        return "Parent message is not an assistant message"
    return "" if parent.state == "complete" else "Parent message is not complete"


def _told(message: Message) -> dict[str, object]:
    return {name: getattr(message, name) for name in ("id", "role", "state", "parent_id", "content")}


@cache
def _chat_body(chat: Chat) -> bytes:
    return encode({"id": chat.id, "title": None, "messages": [_told(message) for message in reversed(chat.messages)]})


@cache
def _list_body(chats: tuple[Chat, ...], page: int, after: str) -> bytes:
    """Newest first; ``after`` is the last chat of the page before."""
    older = [chat.id for chat in reversed(chats) if not after or chat.id < after]
    shown = older[:page]
    following = shown[-1] if len(older) > page else None
    return encode({"chats": [{"id": chat_id, "title": None} for chat_id in shown], "next": following})


_STEPS = {
    ("POST", "chats"): "create",
    ("GET", "chats"): "list",
    ("POST", "prompter_message"): "prompt",
    ("POST", "assistant_message"): "request",
    ("GET", "events"): "events",
    ("GET", "message"): "message",
    ("GET", "chat"): "chat",
    ("DELETE", "chat"): "delete",
}


@cache
def read_request(api: str, request: HttpRequest) -> Asked:
    """Read a request as a server of ``api`` would. Raises KeyError for one that no server knows."""
    parts = urlsplit(request.url)
    given: dict[str, Any] = json.loads(request.body) if request.body else {}
    ids = {name: values[0] for name, values in parse_qs(parts.query).items()} | given
    path = parts.path.strip("/").split("/")
    if api == "website":
        *_, name = path
        if name == "chat" and "chat_id" not in ids:
            name = "chats"
    else:
        ids |= dict(zip(("chat_id", "message_id"), path[1:4:2], strict=False))
        name = {1: "chats", 2: "chat", 4: "message"}.get(len(path), path[-1])
        name = path[2] if len(path) == 3 else name
    step = _STEPS[request.method, name]
    return Asked(
        step,
        ids.get("chat_id", ""),
        ids.get("message_id", ""),
        ids.get("parent_id"),
        ids.get("content", ""),
        ids.get("after", ""),
    )
