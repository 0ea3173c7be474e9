"""The JSON of both APIs of Open Assistant: what is sent, what is received, and how it is read.

Received structs name only the fields the client has a use for; a server may send more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType

from oa_protocol.bindings.ids import is_id
from oa_protocol.bindings.sse import SSEDecoder
from oa_protocol.engine.events import Answered, Message, PluginStep, Queued, Token, WorkerError
from oa_protocol.engine.intents import RequestAssistant

DEFAULT_MODEL = "OA_SFT_Llama_30B_6"

_ALREADY_PROMPTED = "Trying to add first message to non-empty chat"


class SamplingParameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the model samples, in the server's own names (OA-4.6). The defaults are the historic client's.

    Raises ValueError for a number that is not finite or not of 64 bits, TypeError for a value of another type.
    """

    top_k: int | None = 50
    top_p: float | None = None
    typical_p: float | None = None
    temperature: float | None = 0.35
    repetition_penalty: float | None = 1 / 0.9
    max_new_tokens: int = 1024

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            _check_number(name, getattr(self, name))

    @classmethod
    def of(cls, values: SamplingParameters | Mapping[str, object] | None) -> SamplingParameters:
        """Return ``values`` as sampling parameters; None means the defaults.

        Raises TypeError for an unknown name or an ill-typed value, ValueError for one that is not finite.
        """
        if isinstance(values, SamplingParameters):
            return values
        if values is not None and not isinstance(cast("object", values), Mapping):
            raise TypeError(f"sampling must be a mapping of names to numbers, not {type(values).__name__}")
        for name in values or ():
            if name not in cls.__struct_fields__:
                known = ", ".join(cls.__struct_fields__)
                raise TypeError(f"unknown sampling parameter {name!r}; the server knows {known}")
        return cls(**cast("dict[str, Any]", dict(values or {})))


_INTEGERS = frozenset({"top_k", "max_new_tokens"})


def _check_number(name: str, value: object) -> None:
    if value is None:
        if name == "max_new_tokens":
            raise TypeError("max_new_tokens must be an integer, not None")
        return
    kind, wanted = ("an integer", int) if name in _INTEGERS else ("a number", (int, float))
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise TypeError(f"{name} must be {kind}{'' if name == 'max_new_tokens' else ' or None'}, not {value!r}")
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"{name} must fit into 64 bits")
    elif not math.isfinite(value):
        raise ValueError(f"{name} must be finite, not {value!r}")


class NewPrompt(Struct, frozen=True, kw_only=True):
    """The body of a prompter message. The website wants the chat's id in it."""

    chat_id: str | UnsetType = UNSET
    parent_id: str | None
    content: str


class NewAnswer(Struct, frozen=True, kw_only=True):
    """The body of an assistant request. The website wants the chat's id in it."""

    chat_id: str | UnsetType = UNSET
    parent_id: str
    model_config_name: str
    sampling_parameters: SamplingParameters
    plugins: Sequence[Mapping[str, Any]] = ()
    system_prompt: str | UnsetType = UNSET
    user_profile: str | UnsetType = UNSET
    user_response_instructions: str | UnsetType = UNSET


class Created(Struct, frozen=True):
    """A reply that must name what it made."""

    id: str


class ChatSummary(Struct, frozen=True, kw_only=True):
    """A chat in the account's list."""

    id: str
    title: str | None = None
    created_at: str | None = None


class Chat(Struct, frozen=True, kw_only=True):
    """A chat with its messages, which come in no order: an id tells the time (OA-3.2)."""

    id: str
    messages: list[Message]


class ChatList(Struct, frozen=True, kw_only=True):
    """A page of the account's chats, newest first; ``next`` is the cursor of the page after it."""

    chats: list[ChatSummary]
    next: str | None = None


class ParameterConfig(Struct, frozen=True, kw_only=True):
    """A named set of sampling parameters that the server suggests."""

    name: str
    description: str = ""
    sampling_parameters: dict[str, int | float | None] = {}


class ModelConfig(Struct, frozen=True, kw_only=True):
    """A model that the server offers."""

    name: str
    description: str = ""
    parameter_configs: list[ParameterConfig] = []


class ErrorItem(Struct, frozen=True):
    """One complaint of a server that checks fields: where, and what."""

    msg: str
    loc: list[str | int] = []


class ErrorBody(Struct, frozen=True):
    """An error body. The inference server says ``detail``, the website ``message``; either text or a list."""

    detail: str | list[ErrorItem] | None = None
    message: str | list[ErrorItem] | None = None

    @property
    def words(self) -> str:
        """The server's own words, list items joined readably; empty where there are none."""
        said = self.detail or self.message or ""
        if isinstance(said, str):
            return said
        return "; ".join(f"{'.'.join(str(part) for part in item.loc)}: {item.msg}".removeprefix(": ") for item in said)


class _AnyEvent(Struct, frozen=True):
    event_type: str


StreamEvent = Token | Queued | PluginStep | Answered | WorkerError
"""What a stream says. Token text joined is the answer; ``Answered`` and ``WorkerError`` end it."""

_STREAM_EVENTS = frozenset({"token", "pending", "plugin_intermediate", "message", "error"})
_decode_any_event = msgspec.json.Decoder(_AnyEvent).decode

_decode_created = msgspec.json.Decoder(Created).decode
_decode_message = msgspec.json.Decoder(Message).decode
_decode_error = msgspec.json.Decoder(ErrorBody).decode
decode_account = msgspec.json.Decoder(str).decode
_decode_event: Callable[[bytes], StreamEvent] = msgspec.json.Decoder(StreamEvent).decode
encode = msgspec.json.Encoder().encode

# msgspec lets two others through: for text that is not UTF-8, and for JSON nested deeper than Python calls may be.
DecodeErrors = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class OpenAssistantJson:
    """How both APIs of Open Assistant are read; the bindings inherit it. What each method is for, ``Binding`` says."""

    is_id = staticmethod(is_id)
    read_chat = staticmethod(msgspec.json.Decoder(Chat).decode)
    read_chat_list = staticmethod(msgspec.json.Decoder(ChatList).decode)
    read_models = staticmethod(msgspec.json.Decoder(list[ModelConfig]).decode)
    # The decoder itself, because this is what each token takes.
    read_event = staticmethod(_decode_event)

    def read_chat_id(self, body: bytes) -> str:
        """Read ``{"id": …}``."""
        return _decode_created(body).id

    read_prompt_id = read_chat_id
    read_answer_id = read_chat_id

    def read_message(self, body: bytes, message_id: str) -> Message:
        """Read a message."""
        return _decode_message(body)

    def read_error(self, body: bytes) -> str:
        """Read ``{"detail": …}`` or ``{"message": …}``."""
        try:
            return _decode_error(body).words
        except DecodeErrors:
            return ""

    def is_prompt_there(self, status: int, words: str) -> bool:
        """Know the server's own words."""
        return words == _ALREADY_PROMPTED

    def leaves_message(self, status: int, words: str) -> bool:
        """Return whether it is a 503 in the server's own words, and not a proxy's (WIRE 30)."""
        return status == 503 and bool(words)

    def hint(self, status: int, words: str, doing: str) -> str:
        """Know what the server's errors mean in practice."""
        match status:
            case 401 | 403:
                return "Log in again and give the new cookies or token"
            case 413:
                return "Shorten the prompt, or begin a new chat"
            case 422 if words.startswith("Model "):
                return "The server's models: await client.models(), or oa-protocol models"
            case 404 if words in ("", "Not Found"):  # the latter are the words of a server that has no such path
                return "Is the base URL right, the API the right one, and the chat feature on?"
            case 500 if doing == RequestAssistant.doing:  # nothing else is limited (WIRE 29)
                return "Servers of this protocol say that for a rate limit, too: wait some minutes"
            case _:
                return ""

    def stream_decoder(self, limit: int) -> SSEDecoder:
        """Return a decoder of server-sent events."""
        return SSEDecoder(limit)

    def is_unknown_event(self, payload: bytes) -> bool:
        """Look at the event's type alone."""
        try:
            return _decode_any_event(payload).event_type not in _STREAM_EVENTS
        except DecodeErrors:
            return False
