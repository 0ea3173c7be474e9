"""The JSON that both APIs of Open Assistant send and receive, and the methods that read it.

The structs have only the fields that the client needs. A server may send more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType

from oa_protocol.bindings.ids import is_id
from oa_protocol.bindings.sse import SSEDecoder
from oa_protocol.bindings.tree import MessageTree
from oa_protocol.engine.events import Answered, Message, PluginStep, Queued, Token, WorkerError
from oa_protocol.engine.intents import RequestAssistant

DEFAULT_MODEL = "OA_SFT_Llama_30B_6"

LONGEST_TITLE = 100
"""The most characters of a title that is set. The first prompt becomes the title whole, so it may be longer."""

_ALREADY_PROMPTED = "Trying to add first message to non-empty chat"


class SamplingParameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sampling parameters, by the server's own names (OA-4.6). The defaults are those of the historic client.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: a number isn't finite, or doesn't fit into 64 bits.

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
        """Return ``values`` as sampling parameters.

        Args:
            values: the parameters, or a mapping from their names to numbers, or None for the defaults.

        Raises:
            TypeError: a name is unknown, or a value has the wrong type.
            ValueError: a number isn't finite, or doesn't fit into 64 bits.

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
    """The body of the request that posts a prompter message. For the website, it contains the chat's id."""

    chat_id: str | UnsetType = UNSET
    parent_id: str | None
    content: str


class NewAnswer(Struct, frozen=True, kw_only=True):
    """The body of the request for an answer. For the website, it contains the chat's id."""

    chat_id: str | UnsetType = UNSET
    parent_id: str
    model_config_name: str
    sampling_parameters: SamplingParameters
    plugins: Sequence[Mapping[str, Any]] = ()
    system_prompt: str | UnsetType = UNSET
    user_profile: str | UnsetType = UNSET
    user_response_instructions: str | UnsetType = UNSET


class ChatUpdate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of the request that changes a chat. Fields that are unset stay as they are (OA-3.7).

    Attributes:
        chat_id: the chat's id, if the API wants it in the body.
        title: the new title, of at most 100 characters.
        hidden: true to hide the chat from the list.
        active_thread_tail_message_id: the id of the last message of the branch to show.

    Raises:
        ValueError: the title is too long.

    """

    chat_id: str | UnsetType = UNSET
    title: str | UnsetType = UNSET
    hidden: bool | UnsetType = UNSET
    active_thread_tail_message_id: str | UnsetType = UNSET

    def __post_init__(self) -> None:
        if isinstance(self.title, str) and len(self.title) > LONGEST_TITLE:
            raise ValueError(f"title must have at most {LONGEST_TITLE} characters, not {len(self.title)}")


class Created(Struct, frozen=True):
    """The reply to a request that creates something, with the id of the new thing."""

    id: str


class ChatSummary(Struct, frozen=True, kw_only=True):
    """A chat in the account's list.

    Attributes:
        id: the chat's id.
        title: its title, or None if the chat is empty. Without a title of its own, it is the whole first prompt.
        created_at: when the chat was made, as the server writes it: UTC in ISO 8601, without a time zone.
        modified_at: when a prompt was last added, in the same form.
        hidden: true if the list shows the chat only if it is asked for hidden ones.

    """

    id: str
    title: str | None = None
    created_at: str | None = None
    modified_at: str | None = None
    hidden: bool = False


class ChatSnapshot(Struct, frozen=True, kw_only=True):
    """A chat with its messages, which are in no particular order. ``tree`` has them in order.

    ``active_thread_tail_message_id`` is the last message of the branch that the server shows, if it remembers one.
    """

    id: str
    messages: list[Message]
    title: str | None = None
    active_thread_tail_message_id: str | None = None

    @property
    def tree(self) -> MessageTree:
        """The messages as a tree. Their ids sort by time (OA-3.2)."""
        messages = sorted(self.messages, key=lambda message: message.id)
        return MessageTree(tuple(messages), self.active_thread_tail_message_id, self.title)


class ChatList(Struct, frozen=True, kw_only=True):
    """A page of the account's chats, the newest first. ``next`` is the cursor of the next page, or None."""

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
    """One error in the fields of a request: ``loc`` is the field, and ``msg`` says what is wrong with it."""

    msg: str
    loc: list[str | int] = []


class ErrorBody(Struct, frozen=True):
    """The body of an error. The inference server uses ``detail``, and the website ``message``."""

    detail: str | list[ErrorItem] | None = None
    message: str | list[ErrorItem] | None = None

    @property
    def words(self) -> str:
        """The server's error message, with the items of a list joined, or an empty text if there is none."""
        said = self.detail or self.message or ""
        if isinstance(said, str):
            return said
        return "; ".join(f"{'.'.join(str(part) for part in item.loc)}: {item.msg}".removeprefix(": ") for item in said)


class _AnyEvent(Struct, frozen=True):
    event_type: str


StreamEvent = Token | Queued | PluginStep | Answered | WorkerError
"""The events of a stream. ``Answered`` and ``WorkerError`` end it."""

_STREAM_EVENTS = frozenset({"token", "pending", "plugin_intermediate", "message", "error"})
_decode_any_event = msgspec.json.Decoder(_AnyEvent).decode

_decode_created = msgspec.json.Decoder(Created).decode
_decode_message = msgspec.json.Decoder(Message).decode
_decode_error = msgspec.json.Decoder(ErrorBody).decode
decode_account = msgspec.json.Decoder(str).decode
_decode_event: Callable[[bytes], StreamEvent] = msgspec.json.Decoder(StreamEvent).decode
encode = msgspec.json.Encoder().encode

# msgspec doesn't wrap two errors: that of a text that isn't UTF-8, and that of JSON that is nested too deeply.
DecodeErrors = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class OpenAssistantJson:
    """The methods that read JSON, which are the same for both APIs. ``Binding`` documents them."""

    has_branches = True
    is_id = staticmethod(is_id)
    read_chat = staticmethod(msgspec.json.Decoder(ChatSnapshot).decode)
    read_chat_list = staticmethod(msgspec.json.Decoder(ChatList).decode)
    read_models = staticmethod(msgspec.json.Decoder(list[ModelConfig]).decode)
    # This is the decoder itself, without a wrapper, because it is called for each token.
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
        """Return whether ``words`` are the message that both servers send in that case."""
        return words == _ALREADY_PROMPTED

    def leaves_message(self, status: int, words: str) -> bool:
        """Return true for a 503 with the server's error message. A proxy's 503 has none (WIRE 30)."""
        return status == 503 and bool(words)

    def hint(self, status: int, words: str, doing: str) -> str:
        """Return what the user can do about an error, as a sentence, or an empty text."""
        match status:
            case 401 | 403:
                return "Log in again and give the new cookies or token"
            case 413:
                return "Shorten the prompt, or begin a new chat"
            case 422 if words.startswith("Model "):
                return "The server's models: await client.models(), or oa-protocol models"
            case 404 if words in ("", "Not Found"):  # A server says "Not Found" if it has no such path at all.
                return "Is the base URL right, the API the right one, and the chat feature on?"
            case 500 if doing == RequestAssistant.doing:  # No other request has a rate limit (WIRE 29).
                return "Servers of this protocol say that for a rate limit, too: wait some minutes"
            case _:
                return ""

    def stream_decoder(self, limit: int) -> SSEDecoder:
        """Return a decoder of server-sent events."""
        return SSEDecoder(limit)

    def is_unknown_event(self, payload: bytes) -> bool:
        """Return whether the event's type is unknown. Its other fields don't matter."""
        try:
            return _decode_any_event(payload).event_type not in _STREAM_EVENTS
        except DecodeErrors:
            return False
