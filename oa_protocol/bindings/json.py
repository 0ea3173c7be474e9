"""The JSON of both APIs: what is sent, what is received, and the ids that both are held to.

Received structs name only the fields the client has a use for; a server may send more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType

from oa_protocol.engine.events import Answered, Message, PluginStep, Queued, Token, WorkerError

DEFAULT_MODEL = "OA_SFT_Llama_30B_6"

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


def is_id(text: str) -> bool:
    """Tell whether ``text`` is a UUID in its canonical spelling: nothing else is ever sent as an id (OA-2.6)."""
    return _UUID.fullmatch(text) is not None


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

_STREAM_EVENTS = frozenset({"token", "pending", "plugin_intermediate", "message", "error"})
_decode_any_event = msgspec.json.Decoder(_AnyEvent).decode

decode_created = msgspec.json.Decoder(Created).decode
decode_message = msgspec.json.Decoder(Message).decode
decode_chat = msgspec.json.Decoder(Chat).decode
decode_chat_list = msgspec.json.Decoder(ChatList).decode
decode_models = msgspec.json.Decoder(list[ModelConfig]).decode
decode_event: Callable[[bytes], StreamEvent] = msgspec.json.Decoder(StreamEvent).decode
decode_error = msgspec.json.Decoder(ErrorBody).decode
encode = msgspec.json.Encoder().encode

# msgspec lets two others through: for text that is not UTF-8, and for JSON nested deeper than Python calls may be.
DecodeErrors = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def is_unknown_event(data: bytes) -> bool:
    """Tell whether ``data``, which could not be decoded, is an event of a type this client does not know (OA-5.5)."""
    try:
        return _decode_any_event(data).event_type not in _STREAM_EVENTS
    except DecodeErrors:
        return False
