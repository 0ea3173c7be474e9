"""The smallest complete binding, for an API that doesn't exist: its ids are numbers of eight digits."""

from dataclasses import dataclass

from msgspec import Struct
from msgspec.json import Decoder, encode

from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials, build_request, check_base_url
from oa_protocol.bindings.json import ChatList, ChatSnapshot, ChatSummary, DecodeErrors, ModelConfig
from oa_protocol.bindings.sse import SSEDecoder
from oa_protocol.engine.events import Answered, Message, Token
from oa_protocol.engine.intents import HttpRequest


class Line(Struct):
    id: str
    by: str = ""
    after: str | None = None
    text: str | None = None  # none yet, if the answer isn't complete

    @property
    def message(self) -> Message:
        role, state = (
            ("assistant" if self.by == "bot" else "prompter"),
            ("in_progress" if self.text is None else "complete"),
        )
        return Message(id=self.id, role=role, state=state, parent_id=self.after, content=self.text)


class Talk(Struct):
    id: str
    lines: list[Line] = []


class Piece(Struct):
    piece: str = ""
    whole: Line | None = None


class Problem(Struct):
    problem: str


read_line, read_talk, read_piece = Decoder(Line).decode, Decoder(Talk).decode, Decoder(Piece).decode


@dataclass(frozen=True)
class Talks(Binding):
    url: str

    @property
    def api(self) -> str:
        return "talks"

    @property
    def base_url(self) -> str:
        return check_base_url(self.url)

    def create_chat(self, credentials: Credentials) -> HttpRequest:
        return build_request("POST", f"{self.base_url}/talks", credentials)

    def send_prompt(self, credentials: Credentials, chat_id: str, parent_id: str | None, content: str) -> HttpRequest:
        body = encode({"by": "me", "after": parent_id, "text": content})
        return build_request("POST", f"{self._talk(chat_id)}/lines", credentials, body=body)

    def request_assistant(
        self, credentials: Credentials, chat_id: str, parent_id: str, options: AnswerOptions
    ) -> HttpRequest:
        return build_request("POST", f"{self._talk(chat_id)}/lines", credentials, body=encode({"after": parent_id}))

    def open_stream(self, credentials: Credentials, chat_id: str, message_id: str) -> HttpRequest:
        return build_request("GET", f"{self._talk(chat_id)}/lines/{message_id}/pieces", credentials, stream=True)

    def fetch_message(self, credentials: Credentials, chat_id: str, message_id: str) -> HttpRequest:
        return build_request("GET", f"{self._talk(chat_id)}/lines/{message_id}", credentials)

    def fetch_chat(self, credentials: Credentials, chat_id: str) -> HttpRequest:
        return build_request("GET", self._talk(chat_id), credentials)

    def list_chats(
        self, credentials: Credentials, after: str | None = None, *, include_hidden: bool = False
    ) -> HttpRequest:
        return build_request("GET", f"{self.base_url}/talks", credentials)

    def list_models(self, credentials: Credentials) -> HttpRequest:
        return build_request("GET", f"{self.base_url}/bots", credentials)

    def delete_chat(self, credentials: Credentials, chat_id: str) -> HttpRequest:
        return build_request("DELETE", self._talk(chat_id), credentials)

    def _talk(self, chat_id: str) -> str:
        return f"{self.base_url}/talks/{chat_id}"

    def is_id(self, text: str) -> bool:
        return len(text) == 8 and text.isascii() and text.isdigit()

    def read_chat_id(self, body: bytes) -> str:
        return read_talk(body).id

    def read_prompt_id(self, body: bytes) -> str:
        return read_line(body).id

    read_answer_id = read_prompt_id

    def read_message(self, body: bytes, message_id: str) -> Message:
        return read_line(body).message

    def read_chat(self, body: bytes) -> ChatSnapshot:
        talk = read_talk(body)
        return ChatSnapshot(id=talk.id, messages=[line.message for line in talk.lines])

    def read_chat_list(self, body: bytes) -> ChatList:
        return ChatList(chats=[ChatSummary(id=talk.id) for talk in Decoder(list[Talk]).decode(body)])

    def read_models(self, body: bytes) -> list[ModelConfig]:
        return Decoder(list[ModelConfig]).decode(body)

    def read_error(self, body: bytes) -> str:
        try:
            return Decoder(Problem).decode(body).problem
        except DecodeErrors:
            return ""

    def is_deleted(self, status: int, body: bytes) -> bool:
        return status == 204

    def is_not_found(self, status: int, body: bytes) -> bool:
        return status == 404 and self.read_error(body) == "no such talk"

    def stream_decoder(self, limit: int) -> SSEDecoder:
        return SSEDecoder(limit)

    def read_event(self, payload: bytes) -> Token | Answered:
        event = read_piece(payload)
        return Answered(event.whole.message) if event.whole else Token(event.piece)

    def is_unknown_event(self, payload: bytes) -> bool:
        return False
