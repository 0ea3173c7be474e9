"""Renders chats and messages as JSON, with the keys in the real server's order."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from oa_protocol.server.state import ChatRecord, MessageRecord
from oa_protocol.server.validation import Value

P = ParamSpec("P")
T = TypeVar("T")

_REMEMBERED_LENGTH = 4096
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def remembered(function: Callable[Concatenate[bytes, P], T]) -> Callable[Concatenate[bytes, P], T]:
    """Cache a function's results for short arguments, because the explorer repeats the same requests many times.

    Callers must not change the returned value.
    """
    cached = cast("Callable[Concatenate[bytes, P], T]", lru_cache(maxsize=4096)(function))

    def call(data: bytes, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return (cached if len(data) <= _REMEMBERED_LENGTH else function)(data, *args, **kwargs)

    return call


def encode(value: object) -> bytes:
    """Encode JSON as the real servers do: compact, and without escapes for Unicode."""
    return _ENCODER.encode(value).encode(errors="replace")


_value_of_short = lru_cache(maxsize=256)(json.loads)


def _value(text: str) -> Value:
    return (_value_of_short if len(text) <= _REMEMBERED_LENGTH else json.loads)(text)


def message_value(message: MessageRecord) -> dict[str, Any]:
    """Return a message in the form that both APIs and the stream use."""
    return {
        "id": message.id,
        "parent_id": message.parent_id,
        "content": message.content,
        "chat_id": message.chat_id,
        "created_at": message.created_at,
        "role": message.role,
        "state": message.state,
        "score": 0,
        "reports": [],
        "work_parameters": _value(message.work_parameters),
        "safe_content": None,
        "safety_level": None,
        "safety_label": None,
        "safety_rots": None,
        "used_plugin": _value(message.used_plugin),
    }


def chat_value(chat: ChatRecord) -> dict[str, Any]:
    """Return a chat without its messages."""
    return {
        "id": chat.id,
        "created_at": chat.created_at,
        "modified_at": chat.modified_at,
        "title": chat.title,
        "hidden": chat.hidden,
        "allow_data_use": chat.allow_data_use,
        "active_thread_tail_message_id": chat.active_thread_tail_message_id,
    }


def whole_chat_value(chat: ChatRecord) -> dict[str, Any]:
    """Return a chat with its messages."""
    # The real server returns messages in no particular order. So this order isn't that of creation, and a client that
    # relies on it fails in tests.
    messages = sorted(chat.messages, key=lambda message: message.id[::-1])
    return {**chat_value(chat), "messages": [message_value(message) for message in messages]}


def listed_chat_value(chat: ChatRecord) -> dict[str, Any]:
    """Return a chat as the list shows it. The id of its tail message is always null there."""
    return {**chat_value(chat), "active_thread_tail_message_id": None}
