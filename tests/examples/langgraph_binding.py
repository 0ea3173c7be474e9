"""LangGraph Platform's threads and runs, as a binding: a thread is a chat, and a run makes an answer."""

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid5

from msgspec import Struct
from msgspec.json import decode, encode

from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials, build_request, check_base_url
from oa_protocol.bindings.ids import is_id
from oa_protocol.bindings.json import ChatList, ChatSnapshot, ChatSummary, DecodeErrors, ErrorBody, ModelConfig
from oa_protocol.bindings.sse import SSEDecoder
from oa_protocol.engine.events import Message, Token, WorkerError
from oa_protocol.engine.intents import HttpRequest

Status = Literal["pending", "running", "busy", "success", "idle", "error", "timeout", "interrupted"]
RUNNING = {"pending": "pending", "running": "in_progress", "busy": "in_progress"}
OVER = {"success": "complete", "idle": "complete", "error": "aborted_by_worker", "timeout": "timeout"}
STATES = {**RUNNING, **OVER, "interrupted": "cancelled"}


class Block(Struct):
    text: str = ""  # other blocks than text, for example images, have none


class GraphMessage(Struct):
    type: str
    content: str | list[str | Block]

    @property
    def text(self) -> str:
        blocks = [self.content] if isinstance(self.content, str) else self.content
        return "".join(block if isinstance(block, str) else block.text for block in blocks)


class Values(Struct):
    messages: list[GraphMessage] = []


class Thread(Struct):
    thread_id: str
    status: Status = "idle"
    created_at: str | None = None
    values: Values | None = None


class RunMetadata(Struct):
    prompt_id: str | None = None


class Run(Struct):
    run_id: str
    status: Status
    metadata: RunMetadata


class Checkpoint(Struct):
    checkpoint_id: str


class Updated(Struct):
    checkpoint: Checkpoint


class Assistant(Struct):
    graph_id: str


@dataclass(frozen=True)
class LangGraph(Binding):
    """``assistant_id`` is the graph's name in langgraph.json; the graph's state must have ``messages``."""

    url: str
    assistant_id: str

    @property
    def api(self) -> str:
        return "langgraph"

    @property
    def base_url(self) -> str:
        return check_base_url(self.url)

    def create_chat(self, credentials: Credentials) -> HttpRequest:
        # Before the first run, the state can only be updated if the thread's metadata name the graph.
        return self._request(credentials, "POST", "/threads", {"metadata": {"graph_id": self.assistant_id}})

    def send_prompt(self, credentials: Credentials, chat_id: str, parent_id: str | None, content: str) -> HttpRequest:
        # The message's id is made of what it follows and what it says. So if it is sent twice, it is there once.
        message_id = str(uuid5(UUID(parent_id or chat_id), content))
        values = {"messages": [{"type": "human", "id": message_id, "content": content}]}
        body = {"values": values, "as_node": "__start__"}
        return self._request(credentials, "POST", f"{_thread(chat_id)}/state", body)

    def request_assistant(
        self, credentials: Credentials, chat_id: str, parent_id: str, options: AnswerOptions
    ) -> HttpRequest:
        body = {
            "assistant_id": self.assistant_id,  # its own settings hold, not those in ``options``
            "checkpoint": {"checkpoint_id": parent_id},
            "metadata": {"prompt_id": parent_id},
            "stream_mode": ["messages-tuple"],
            "stream_resumable": True,
        }
        return self._request(credentials, "POST", f"{_thread(chat_id)}/runs", body)

    def open_stream(self, credentials: Credentials, chat_id: str, message_id: str) -> HttpRequest:
        path = f"{_thread(chat_id)}/runs/{message_id}/stream"
        return self._request(credentials, "GET", path, stream=True)

    def fetch_message(self, credentials: Credentials, chat_id: str, message_id: str) -> HttpRequest:
        # A run has a status, but no content. The thread has both, and only one run at a time.
        return self._request(credentials, "GET", _thread(chat_id))

    def fetch_chat(self, credentials: Credentials, chat_id: str) -> HttpRequest:
        query = "limit=100&select=run_id&select=status&select=metadata"
        return self._request(credentials, "GET", f"{_thread(chat_id)}/runs?{query}")

    def list_chats(
        self, credentials: Credentials, after: str | None = None, *, include_hidden: bool = False
    ) -> HttpRequest:
        order = {"sort_by": "created_at", "sort_order": "desc", "limit": 1000}
        body = {"metadata": {"graph_id": self.assistant_id}, "select": ["thread_id", "created_at"], **order}
        return self._request(credentials, "POST", "/threads/search", body)

    def list_models(self, credentials: Credentials) -> HttpRequest:
        return self._request(credentials, "POST", "/assistants/search", {"limit": 1000})

    def delete_chat(self, credentials: Credentials, chat_id: str) -> HttpRequest:
        return self._request(credentials, "DELETE", _thread(chat_id))

    def _request(
        self, credentials: Credentials, method: str, path: str, body: object = None, *, stream: bool = False
    ) -> HttpRequest:
        key = (("x-api-key", credentials.token),) if credentials.token else ()
        replay = (("last-event-id", "-1"),) if stream else ()  # all events, not only those from now on
        content = encode(body) if body else b""
        url = self.base_url + path
        return build_request(method, url, Credentials(), body=content, stream=stream, headers=(*key, *replay))

    def is_id(self, text: str) -> bool:
        return is_id(text)

    def read_chat_id(self, body: bytes) -> str:
        return decode(body, type=Thread).thread_id

    def read_prompt_id(self, body: bytes) -> str:
        return decode(body, type=Updated).checkpoint.checkpoint_id

    def read_answer_id(self, body: bytes) -> str:
        return decode(body, type=Run).run_id

    def read_message(self, body: bytes, message_id: str) -> Message:
        thread = decode(body, type=Thread)
        messages = thread.values.messages if thread.values else []
        state = STATES[thread.status]
        if state != "complete":
            return Message(id=message_id, role="assistant", state=state)
        if not messages or messages[-1].type != "ai":  # a run that was cancelled leaves the prompt without an answer
            return Message(id=message_id, role="assistant", state="cancelled")
        return Message(id=message_id, role="assistant", state=state, content=messages[-1].text)

    def read_chat(self, body: bytes) -> ChatSnapshot:
        # The prompts aren't among the runs. They needn't be, because they can be sent twice.
        runs = decode(body, type=list[Run])
        found = [(run.run_id, STATES[run.status], run.metadata.prompt_id) for run in runs]
        return ChatSnapshot(
            id="", messages=[Message(id=i, role="assistant", state=s, parent_id=p) for i, s, p in found]
        )

    def read_chat_list(self, body: bytes) -> ChatList:
        threads = decode(body, type=list[Thread])
        return ChatList(chats=[ChatSummary(id=thread.thread_id, created_at=thread.created_at) for thread in threads])

    def read_models(self, body: bytes) -> list[ModelConfig]:
        return [ModelConfig(name=found.graph_id) for found in decode(body, type=list[Assistant])]

    def read_error(self, body: bytes) -> str:
        try:
            return decode(body, type=ErrorBody).words  # {"detail": …}, as an inference server says it
        except DecodeErrors:
            return ""

    def is_deleted(self, status: int, body: bytes) -> bool:
        return status == 204 or self.is_not_found(status, body)

    def is_not_found(self, status: int, body: bytes) -> bool:
        return status == 404 and self.read_error(body).startswith("Thread with ID ")  # a proxy's 404 says nothing

    def stream_decoder(self, limit: int) -> SSEDecoder:
        return SSEDecoder(limit, types=(b"messages", b"error"))

    def read_event(self, payload: bytes) -> Token | WorkerError:
        kind, _, data = payload.partition(b"\n")
        if kind == b"error":
            return WorkerError(decode(data, type=ErrorBody).words)
        piece, _ = decode(data, type=tuple[GraphMessage, Any])
        return Token(piece.text if piece.type in ("ai", "AIMessageChunk") else "")

    def is_unknown_event(self, payload: bytes) -> bool:
        return False  # the decoder lets only the two types through


def _thread(thread_id: str) -> str:
    return f"/threads/{thread_id}"
