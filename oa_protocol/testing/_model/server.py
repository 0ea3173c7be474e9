"""The simulation's server: the core of the embedded server with one account, and what an observer knows about it.

The server is an immutable value, so methods that change it return a new one. The core reads the real requests, so it
refuses a wrong URL or a wrong parent. Ids contain the chat and the position in the chat, so two paths to the same chats
lead to the same state.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Literal, NamedTuple

from oa_protocol.engine.intents import HttpRequest
from oa_protocol.server import core
from oa_protocol.server.core import Reply, Request, ServerState
from oa_protocol.server.ids import placed_id
from oa_protocol.server.state import FINISHED, ChatRecord, MessageRecord, Quirks, Stream, with_stream

Api = Literal["website", "inference"]

_ACCOUNT = "ann"
_FULL = Quirks(queue_limit=0)
_WAITS = ("pending", "cancelled", "timeout")
_NEWER = 0xFFFF0000

EXISTING = placed_id(1)
"""The id of the chat that exists already."""

HISTORY = ((placed_id(1, 1), placed_id(1, 2)), (placed_id(1, 3), placed_id(1, 4)))
"""The ids of the prompts and answers in it."""


class Message(NamedTuple):
    """A message of a chat.

    ``stuck`` is true if no worker will ever take it, because its request was refused. ``late`` is true if it was
    created after the client had given up its request.
    """

    id: str
    role: str
    state: str
    parent_id: str | None
    content: str | None
    stuck: bool
    late: bool

    @property
    def is_running(self) -> bool:
        """Whether a worker has taken it, or may still take it."""
        return self.role == "assistant" and self.state in ("pending", "in_progress") and not self.stuck


class Chat(NamedTuple):
    """A chat. ``maker`` is the number of the conversation that created it."""

    id: str
    maker: int
    messages: tuple[Message, ...]


class Asked(NamedTuple):
    """A request as the server reads it: its step, and its ids. ``request`` is for the core, without credentials."""

    step: str
    request: Request
    message_id: str = ""
    parent_id: str | None = None


class Server(NamedTuple):
    """A server with one account.

    Attributes:
        api: the API that the clients use.
        state: the state of the embedded server's core.
        makers: the id of each chat, with the number of the conversation that created it.
        late: the ids of messages that were created after the client had given up their requests.

    """

    api: Api
    state: ServerState
    makers: tuple[tuple[str, int], ...] = ()
    late: frozenset[str] = frozenset()

    @classmethod
    def new(cls, api: Api, newer_chats: int = 0, *, prompt: str = "") -> Server:
        """Return a server with no chats except for some that are always newer than those of the conversations.

        With ``prompt``, it also has the chat ``EXISTING``. There, this prompt was sent and answered twice.
        """
        ids = [placed_id(_NEWER + number) for number in range(newer_chats)]
        chats = {chat_id: ChatRecord(chat_id, _ACCOUNT, "", "") for chat_id in ids}
        state = ServerState(default_account=_ACCOUNT, chats=chats)
        if not prompt:
            return cls(api, state)
        messages: list[MessageRecord] = []
        for prompt_id, answer_id in HISTORY:
            parent_id = messages[-1].id if messages else None
            messages += [
                MessageRecord(prompt_id, EXISTING, parent_id, "prompter", "manual", prompt, ""),
                MessageRecord(answer_id, EXISTING, prompt_id, "assistant", "complete", answer_text(answer_id), ""),
            ]
        chats[EXISTING] = ChatRecord(EXISTING, _ACCOUNT, "", "", messages=tuple(messages))
        owners = {message.id: EXISTING for message in messages}
        return cls(api, state._replace(made=1, owners=owners), ((EXISTING, 0),))

    # ---- requests

    def carry_out(self, asked: Asked, maker: int, *, late: bool = False) -> tuple[Server, Reply]:
        """Carry out a request. Return the server afterwards, and the reply."""
        state, reply = core.handle(self.state, asked.request)
        if asked.step == "events" and reply.stream is None:  # A website opens a stream here, but sends nothing.
            state = with_stream(state, asked.message_id, Stream(state.now))
        if state is self.state:
            return self, reply
        makers, made_late = self.makers, self.late
        if asked.step == "create":
            makers += tuple((chat_id, maker) for chat_id in state.chats.keys() - self.state.chats.keys())
        elif late:
            made_late |= state.owners.keys() - self.state.owners.keys()
        return Server(self.api, state, makers, made_late), reply

    def leave_behind(self, asked: Asked) -> tuple[Server, Reply]:
        """Refuse a request for an answer, because the queue is full. Its pending message stays in the chat."""
        state, reply = core.handle(self.state._replace(quirks=_FULL), asked.request)
        return self._replace(state=state._replace(quirks=self.state.quirks)), reply

    # ---- workers

    def work(self, message_id: str, state: str) -> Server:
        """Let a worker, or the queue, change a message's state."""
        match state:
            case "in_progress":
                after, _ = core.take(self.state, message_id)
                after = core.emit(after, message_id, "Hi ")
            case "complete":
                after = core.emit(self.state, message_id, message_id[:13])
                after = core.finish(after, message_id, answer_text(message_id))
            case "aborted_by_worker":
                after = core.abort(self.state, message_id)
            case "cancelled":
                after = core.give_up(self.state, message_id, "cancelled")
            case _:
                after = core.give_up(self.state, message_id, "timeout")
        return self._replace(state=after)

    def next_event(self, message_id: str) -> tuple[Server, bytes] | None:
        """Return the server without the next event of a message's stream, and the event, or None if there is none."""
        state, event = core.next_event(self.state, message_id)
        return None if event is None else (self._replace(state=state), event.data)

    def waits(self, message_id: str) -> bool:
        """Return whether a message's stream shows it as pending, even if it has been cancelled since."""
        message = self.state.message(message_id)
        return message is not None and message.state in _WAITS

    def is_over(self, message_id: str) -> bool:
        """Return whether a message's stream has no further events."""
        message = self.state.message(message_id)
        return message is None or message.state in FINISHED

    # ---- chats and messages

    @property
    def made(self) -> int:
        """How many chats were created."""
        return len(self.makers)

    @property
    def chats(self) -> list[Chat]:
        """The chats that the conversations created, and that still exist."""
        found = self.state.chats
        return [self._chat(found[chat_id], maker) for chat_id, maker in self.makers if chat_id in found]

    def chat(self, chat_id: str) -> Chat | None:
        """Return the chat with this id, or None."""
        return next((chat for chat in self.chats if chat.id == chat_id), None)

    def message(self, message_id: str) -> Message | None:
        """Return the message with this id, or None."""
        message = self.state.message(message_id)
        return None if message is None else self._message(message)

    def stream(self, message_id: str) -> Stream | None:
        """Return the events that a message's stream hasn't sent yet."""
        return self.state.streams.get(message_id)

    def _chat(self, chat: ChatRecord, maker: int) -> Chat:
        return Chat(chat.id, maker, tuple([self._message(message) for message in chat.messages]))

    def _message(self, message: MessageRecord) -> Message:
        stuck = message.state == "pending" and message.id not in self.state.waiting
        return Message(
            message.id, message.role, message.state, message.parent_id, message.content, stuck, message.id in self.late
        )


def answer_text(message_id: str) -> str:
    """Return the whole answer. The tokens lack its last character, which only the final message has."""
    return f"Hi {message_id[:13]}!"


@cache
def read_request(request: HttpRequest) -> Asked:
    """Read a request as the server does.

    Raises:
        ValueError: no server has such a request.

    """
    named = ((name.lower(), value) for name, value in request.headers)  # as a real server reads them
    headers = tuple(header for header in named if header[0] not in ("authorization", "cookie"))
    read = Request(request.method, request.target, headers, request.body)
    step = core.step_of(read)
    if step == "other":
        raise ValueError(f"no such request: {request!r}")
    fields: dict[str, Any] = json.loads(request.body) if request.body else {}
    path = read.path.split("/")
    in_path = path[4] if core.api_of(read) == "inference" and len(path) > 4 else ""
    return Asked(step, read, in_path or dict(read.query).get("message_id", ""), fields.get("parent_id"))
