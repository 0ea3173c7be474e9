"""What the inference server does with a request, whichever API it came through."""

import base64
import binascii
import math
import secrets
from dataclasses import dataclass

from oa_protocol.server.catalogue import MODEL_CONFIGS
from oa_protocol.server.faults import Answer, Script
from oa_protocol.server.store import Account, Chat, Message, Store
from oa_protocol.server.streams import Reader, Timing
from oa_protocol.server.validation import PAGE, PROMPT, REQUEST, UPDATE, Broken, Json, Refused, Value, check
from oa_protocol.server.worker import Workers

FINISHED = {"manual", "complete", "aborted_by_worker"}


@dataclass(frozen=True, slots=True)
class Quirks:
    """What differs between the versions and installations of the server.

    The rate limit counts assistant requests of an account, from the server's start on.
    """

    ping_comment: bool = False
    """Pings are comments (``: ping - …``), not events whose data is not JSON."""
    delete_tears_worker: bool = False
    """A worker that comes upon a deleted message aborts all other answers that run."""
    chat_enabled: bool = True
    """The website's chat is switched on; else it answers 404."""
    rate_limit: int | None = None
    """Assistant requests an account may make; a further one gets a plain 500."""
    queue_limit: int | None = None
    """Messages that may wait for a worker; a further one stays behind, with a 503."""
    max_content: int | None = None
    """Characters in a prompt, else 413."""
    max_messages: int | None = None
    """Messages in a chat, else 413."""


class Service:
    """The operations. All are called in the event loop, with the store's lock held."""

    def __init__(self, store: Store, workers: Workers, script: Script, quirks: Quirks, timing: Timing) -> None:
        self.store = store
        self.workers = workers
        self.script = script
        self.quirks = quirks
        self._timing = timing
        self._requests: dict[str, int] = {}

    def create(self, account: Account) -> Json:
        """A new chat."""
        return self.store.add_chat(account.name).to_json()

    def list_chats(self, account: Account, query: Json) -> Json:
        """A page of the account's chats, newest first. A cursor is an id in base64."""
        page = check("query", query, PAGE)
        after, before, limit = page["after"], page["before"], page["limit"]
        if after and before:
            raise Refused(400, "Cannot specify both after and before.")
        chats = sorted(
            (
                chat
                for chat in self.store.chats.values()
                if chat.account == account.name and (page["include_hidden"] or not chat.hidden)
            ),
            key=lambda chat: chat.id,
            reverse=True,
        )
        if before:
            bound = _decode_cursor(before)
            chats = [chat for chat in chats if chat.id > bound]
            shown = chats[-limit:]
        else:
            if after:
                bound = _decode_cursor(after)
                chats = [chat for chat in chats if chat.id < bound]
            shown = chats[:limit]
        more = len(chats) > limit
        first = _encode_cursor(shown[0].id) if shown else after
        last = _encode_cursor(shown[-1].id) if shown else before
        return {
            # The list shows no tail message, whatever the chat's is.
            "chats": [{**chat.to_json(), "active_thread_tail_message_id": None} for chat in shown],
            "next": last if before or more else None,
            "prev": first if after or (before and more) else None,
        }

    def chat(self, account: Account, chat_id: str) -> Json:
        """A chat with its messages."""
        chat = self._chat(account, chat_id)
        # Deliberately not in the order of their making: the real server gives none.
        messages = sorted(chat.messages.values(), key=lambda message: message.id[::-1])
        return {**chat.to_json(), "messages": [message.to_json() for message in messages]}

    def update(self, account: Account, chat_id: str, body: Value) -> None:
        """Changes what the body gives and is not null."""
        fields = check("body", body, UPDATE)
        chat = self._chat(account, chat_id)
        for name, value in fields.items():
            _check_storable(value)
            if value is not None:
                setattr(chat, name, value)

    def delete(self, account: Account, chat_id: str) -> None:
        """Deletes the chat at once, whatever runs in it."""
        self.store.delete_chat(self._chat(account, chat_id))

    def prompt(self, account: Account, chat_id: str, body: Value) -> Json:
        """Adds the user's message."""
        fields = check("body", body, PROMPT)
        parent_id, content = fields["parent_id"], fields["content"]
        chat = self.store.chats.get(chat_id)
        if self.quirks.max_content is not None and len(content) > self.quirks.max_content:
            raise Refused(413, "Message content exceeds max length")
        if chat is None or chat.account != account.name:
            raise Broken
        _check_storable(content)
        self._check_room(chat)
        if parent_id is None:
            if chat.messages:
                raise Refused(400, "Trying to add first message to non-empty chat")
            chat.title = content if chat.title is None else chat.title
        else:
            parent = chat.messages.get(parent_id)
            if parent is None:
                raise Refused(400, "Parent message not found")
            if parent.role != "assistant":
                raise Refused(400, "Parent message is not an assistant message")
            if parent.state != "complete":
                raise Refused(400, "Parent message is not complete")
        message = self.store.add_message(chat, parent_id, "prompter", content, "manual")
        chat.modified_at = message.created_at
        return message.to_json()

    def request(self, account: Account, body: Value) -> Json:
        """Asks for an answer to the parent message; in which chat the request says it is does not matter."""
        fields = check("body", body, REQUEST)
        model_name, sampling = fields["model_config_name"], fields["sampling_parameters"]
        for value in fields.values():
            _check_storable(value)
        if model_name not in MODEL_CONFIGS:
            raise Refused(422, f"Model {model_name} not found")
        if not all(math.isfinite(value) for value in sampling.values() if value is not None):
            raise Broken
        self._count_request(account)
        # The account's other waiting messages are cancelled first, even if this request then fails.
        for other in self.store.messages_of(account.name):
            if other.state == "pending" and other.parent_id != fields["parent_id"]:
                other.state = "cancelled"
        parent = self.store.message(fields["parent_id"])
        if parent is None or parent.role != "prompter":
            raise Broken
        chat = parent.chat
        if chat.account != account.name:
            raise Refused(400, "Message not found")
        self._check_room(chat)
        message = self.store.add_message(chat, parent.id, "assistant", None, "pending")
        message.work_parameters = _work_parameters(model_name, sampling, fields)
        if self.quirks.queue_limit is not None and self.workers.waiting >= self.quirks.queue_limit:
            raise Refused(503, "The server is currently busy. Please try again later.")
        reply = message.to_json()
        self.workers.enqueue(message, self.script.take(Answer, "request") or Answer())
        return reply

    def message(self, account: Account, chat_id: str, message_id: str) -> Json:
        """One message."""
        message = self._message(account, chat_id, message_id)
        message.queue.claimed.set()
        return message.to_json()

    def claim(self, message_id: str) -> None:
        """Somebody asks for the message's stream, and may not get it."""
        message = self.store.message(message_id)
        if message is not None:
            message.queue.claimed.set()

    def events(self, account: Account, chat_id: str, message_id: str) -> Reader | None:
        """A reader of the message's stream, or None if the message has finished."""
        message = self._message(account, chat_id, message_id)
        if message.role != "assistant":
            raise Refused(400, "Only assistant messages can be streamed.")
        if message.state in FINISHED:
            return None
        return Reader(message.queue, self._timing, lambda: self.workers.position(message))

    def _chat(self, account: Account, chat_id: str) -> Chat:
        chat = self.store.chats.get(chat_id)
        if chat is None or chat.account != account.name:
            raise Refused(404, "Chat not found")
        return chat

    def _message(self, account: Account, chat_id: str, message_id: str) -> Message:
        message = self.store.message(message_id)
        if message is None or message.chat.id != chat_id or message.chat.account != account.name:
            raise Broken
        return message

    def _check_room(self, chat: Chat) -> None:
        if self.quirks.max_messages is not None and len(chat.messages) >= self.quirks.max_messages:
            raise Refused(413, "Maximum number of messages reached for this chat")

    def _count_request(self, account: Account) -> None:
        count = self._requests[account.name] = self._requests.get(account.name, 0) + 1
        if self.quirks.rate_limit is not None and count > self.quirks.rate_limit:
            raise Broken


def _check_storable(value: Value) -> None:
    """The database takes neither NUL nor a lone surrogate."""
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= one <= "\udfff" for one in value)):
        raise Broken


def _work_parameters(model_name: str, sampling: Json, fields: Json) -> Json:
    return {
        "model_config": MODEL_CONFIGS[model_name],
        "sampling_parameters": sampling,
        "do_sample": True,
        "seed": secrets.randbits(64),
        "system_prompt": fields["system_prompt"],
        "user_profile": fields["user_profile"],
        "user_response_instructions": fields["user_response_instructions"],
        "plugins": fields["plugins"],
        "plugin_max_depth": 4,
    }


def _encode_cursor(chat_id: str) -> str:
    return base64.b64encode(chat_id.encode()).decode()


def _decode_cursor(cursor: str) -> str:
    try:
        return base64.b64decode(cursor).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Broken from error
