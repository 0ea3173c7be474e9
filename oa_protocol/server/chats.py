"""The inference server's operations on an account's chats. Both APIs use them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence

from oa_protocol.server.ids import digest, timestamp
from oa_protocol.server.model_configs import MODEL_CONFIGS
from oa_protocol.server.render import listed_chat_value
from oa_protocol.server.state import (
    CHAT_LIMIT,
    CHATS_LIMIT,
    FINISHED,
    MEMORY_LIMIT,
    ChatRecord,
    MessageRecord,
    Role,
    ServerState,
    State,
    Stream,
    new_id,
    with_chat,
    with_message,
    with_stream,
)
from oa_protocol.server.validation import ClientError, Json, RateLimited, ServerError, Value
from oa_protocol.server.work import discard


def create(state: ServerState, account: str) -> tuple[ServerState, ChatRecord]:
    """Make a new chat. Raise ClientError (404) if the account is forgotten."""
    if account in state.forgotten:
        raise ClientError(404, "User not found")
    state, chat_id = new_id(state)
    now = timestamp(state.now)
    chat = ChatRecord(chat_id, account, now, now)
    return _within_limits(with_chat(state, chat), chat_id), chat


def list_chats(state: ServerState, account: str, page: Json) -> Json:
    """Return a page of the account's chats, newest first. A cursor is a chat's id in base64."""
    after, before, limit = page["after"], page["before"], page["limit"]
    if after and before:
        raise ClientError(400, "Cannot specify both after and before.")
    bound = _decode_cursor(after or before or "")
    check_storable(bound)
    chats = [
        chat
        for chat in sorted(state.chats.values(), reverse=True)
        if chat.account == account
        and (page["include_hidden"] or not chat.hidden)
        and (not after or chat.id < bound)
        and (not before or chat.id > bound)
    ]
    shown = chats[-limit:] if before else chats[:limit]
    more = len(chats) > limit
    first = _encode_cursor(shown[0].id) if shown else after
    last = _encode_cursor(shown[-1].id) if shown else before
    return {
        "chats": [listed_chat_value(chat) for chat in shown],
        "next": last if before or more else None,
        "prev": first if after or (before and more) else None,
    }


def find_chat(state: ServerState, account: str, chat_id: str) -> ChatRecord:
    """Return the account's chat. Raise ClientError (404) if it has no chat with this id."""
    check_storable(chat_id)
    chat = state.chats.get(chat_id)
    if chat is None or chat.account != account:
        raise ClientError(404, "Chat not found")
    return chat


def update(state: ServerState, account: str, chat_id: str, fields: Json) -> ServerState:
    """Change the chat's properties that are given and aren't null."""
    chat = _own_chat(state, account, chat_id)
    for value in fields.values():
        check_storable(value)
    return with_chat(state, chat._replace(**{name: value for name, value in fields.items() if value is not None}))


def delete(state: ServerState, account: str, chat_id: str) -> ServerState:
    """Delete the chat at once, even if an answer is running. Its messages stay in the queue and with their workers."""
    return _forget(state, [find_chat(state, account, chat_id)])


def _forget(state: ServerState, gone: Sequence[ChatRecord]) -> ServerState:
    # Copying a dict is much quicker than building it again.
    chats, owners = dict(state.chats), dict(state.owners)
    for chat in gone:
        del chats[chat.id]
        for message in chat.messages:
            del owners[message.id]
    state = state._replace(chats=chats, owners=owners, held=state.held - sum(chat.size for chat in gone))
    for chat in gone:
        for message in chat.messages:
            state = discard(state, message.id)
    return state


def prompt(state: ServerState, account: str, chat_id: str, fields: Json) -> tuple[ServerState, MessageRecord]:
    """Add the user's message."""
    parent_id, content = fields["parent_id"], fields["content"]
    limit = state.quirks.max_content
    if limit is not None and len(content) > limit:
        raise ClientError(413, "Message content exceeds max length")
    chat = _own_chat(state, account, chat_id)
    check_storable(content)
    _check_room(state, chat)
    if parent_id is None:
        if chat.messages:
            raise ClientError(400, "Trying to add first message to non-empty chat")
        chat = chat._replace(title=content if chat.title is None else chat.title)
    else:
        _check_parent(chat.find(parent_id))
    chat = chat._replace(modified_at=timestamp(state.now))
    return _add(state, chat, parent_id, "prompter", content, "manual")


def count_request(state: ServerState, account: str) -> ServerState:
    """Count a request for an answer. Raise RateLimited if there were too many in the current window."""
    limit = state.quirks.rate_limit
    if limit is None:
        return state
    since, count = state.counted.get(account, (state.now, 0))
    if state.now - since >= state.quirks.rate_window * 10**9:
        since, count = state.now, 0
    if count >= limit:
        raise RateLimited
    return state._replace(counted={**state.counted, account: (since, count + 1)})


def check_model(state: ServerState, fields: Json) -> None:
    """Raise ClientError (422) if the model can't be used, and ServerError if the fields can't be stored."""
    name, allowed = fields["model_config_name"], state.quirks.allowed_models
    if name not in MODEL_CONFIGS:
        raise ClientError(422, f"Model {name} not found")
    if allowed is not None and name not in allowed:
        raise ClientError(422, f"Model {name} not in allowed models: {','.join(allowed)}")
    for value in fields.values():
        check_storable(value)
    if not all(math.isfinite(value) for value in fields["sampling_parameters"].values() if value is not None):
        raise ServerError


def cancel_others(state: ServerState, account: str, parent_id: str) -> ServerState:
    """Cancel the account's waiting messages, except other answers to the same prompt."""
    for message in map(state.message, state.streams):
        if message is None or message.state != "pending" or message.parent_id == parent_id:
            continue
        if state.chats[message.chat_id].account == account:
            state = with_message(state, message._replace(state="cancelled"))
    return state


def request(state: ServerState, account: str, fields: Json) -> tuple[ServerState, MessageRecord]:
    """Add a pending answer to the parent message.

    The answer is added to the parent's chat, even if the request names another one, because the real server does so.
    """
    parent = state.message(fields["parent_id"])
    if parent is None or parent.role != "prompter":
        raise ServerError
    chat = state.chats[parent.chat_id]
    if chat.account != account:
        raise ClientError(400, "Message not found")
    _check_room(state, chat)
    state, message = _add(state, chat, parent.id, "assistant", None, "pending")
    message = message._replace(work_parameters=_work_parameters(state, message.id, fields))
    return with_message(with_stream(state, message.id, Stream(state.now)), message), message


def find_message(state: ServerState, account: str, chat_id: str, message_id: str) -> MessageRecord:
    """Return a message of the account's chat. Raise ServerError if there is no such message."""
    message = state.message(message_id)
    if message is None or message.chat_id != chat_id or state.chats[chat_id].account != account:
        raise ServerError
    return message


def has_stream(message: MessageRecord) -> bool:
    """Return True if the message's stream can be read, and False if it has ended.

    Raise ClientError (400) if this kind of message never has a stream.
    """
    if message.role != "assistant":
        raise ClientError(400, "Only assistant messages can be streamed.")
    return message.state not in FINISHED


def check_storable(value: Value) -> None:
    """Raise ServerError for NUL and lone surrogates, because the real server's database can't store them."""
    if isinstance(value, str):
        try:
            encoded = value.encode()
        except UnicodeEncodeError:
            raise ServerError from None
        if b"\0" in encoded:
            raise ServerError


def _own_chat(state: ServerState, account: str, chat_id: str) -> ChatRecord:
    try:
        return find_chat(state, account, chat_id)
    except ClientError:
        raise ServerError from None


def _check_room(state: ServerState, chat: ChatRecord) -> None:
    limit = state.quirks.max_messages
    if (limit is not None and len(chat.messages) >= limit) or chat.size > CHAT_LIMIT:
        raise ClientError(413, "Maximum number of messages reached for this chat")


def _check_parent(parent: MessageRecord | None) -> None:
    if parent is None:
        raise ClientError(400, "Parent message not found")
    if parent.role != "assistant":
        raise ClientError(400, "Parent message is not an assistant message")
    if parent.state != "complete":
        raise ClientError(400, "Parent message is not complete")


def _add(
    state: ServerState, chat: ChatRecord, parent_id: str | None, role: Role, content: str | None, is_now: State
) -> tuple[ServerState, MessageRecord]:
    state, message_id = new_id(state, chat)
    message = MessageRecord(message_id, chat.id, parent_id, role, is_now, content, timestamp(state.now))
    state = with_chat(state, chat._replace(messages=(*chat.messages, message)))
    state = state._replace(owners={**state.owners, message_id: chat.id})
    return _within_limits(state, chat.id), message


def _within_limits(state: ServerState, in_use: str) -> ServerState:
    """If all chats together are too big, forget those that were used least recently, except the one in use."""
    count, held = len(state.chats), state.held
    if count <= CHATS_LIMIT and held <= MEMORY_LIMIT:
        return state
    gone: list[ChatRecord] = []
    for chat in sorted(state.chats.values(), key=lambda chat: (chat.modified_at, chat.id)):
        # Some more than needed are forgotten, because sorting them takes long.
        if count <= CHATS_LIMIT - CHATS_LIMIT // 20 and held <= MEMORY_LIMIT - MEMORY_LIMIT // 20:
            break
        if chat.id != in_use:
            gone.append(chat)
            count, held = count - 1, held - chat.size
    return _forget(state, gone)


def _work_parameters(state: ServerState, message_id: str, fields: Json) -> str:
    return json.dumps({
        "model_config": MODEL_CONFIGS[fields["model_config_name"]],
        "sampling_parameters": fields["sampling_parameters"],
        "do_sample": True,
        "seed": 0 if state.salt is None else int(digest(message_id)[:16], 16),
        "system_prompt": fields["system_prompt"],
        "user_profile": fields["user_profile"],
        "user_response_instructions": fields["user_response_instructions"],
        "plugins": fields["plugins"],
        "plugin_max_depth": 4,
    })  # fmt: skip


def _encode_cursor(chat_id: str) -> str:
    return base64.b64encode(chat_id.encode()).decode()


def _decode_cursor(cursor: str) -> str:
    try:
        # b64decode skips bytes that aren't base64, but raises for a str that isn't ASCII. The real server skips both.
        return base64.b64decode(cursor.encode(errors="replace")).decode()
    except ValueError as error:
        raise ServerError from error
