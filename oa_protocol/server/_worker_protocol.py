"""What the inference server and its workers say to each other, as values (WIRE, "The worker protocol")."""

from __future__ import annotations

import json
from typing import Any, Literal

import msgspec
from msgspec import Struct

from oa_protocol.server.ids import timestamp
from oa_protocol.server.model_configs import MODEL_CONFIGS
from oa_protocol.server.render import message_value
from oa_protocol.server.state import MessageRecord, ServerState

VERSION = "1"

Json = dict[str, Any]


class _Config(Struct):
    model_config: Json
    max_parallel_requests: int = 1


class _Hardware(Struct):
    uname_sysname: str
    uname_release: str
    uname_version: str
    uname_machine: str
    uname_processor: str
    cpu_count_physical: int
    cpu_count_logical: int
    cpu_freq_max: float
    cpu_freq_min: float
    mem_total: int
    swap_total: int
    gpus: list[Json]


class Hello(Struct):
    """The first message of a worker."""

    config: _Config
    hardware_info: _Hardware

    @property
    def is_known(self) -> bool:
        """Whether the server knows the worker's model."""
        return self.config.model_config in MODEL_CONFIGS.values()


class _Response(Struct, tag_field="response_type"):
    request_id: str | None = None


class Pong(_Response, tag="pong"):
    """The reply to a ping."""


class Token(_Response, tag="token", kw_only=True):
    """A piece of the answer."""

    text: str
    log_prob: float | None
    token_id: int


class PluginIntermediate(_Response, tag="plugin_intermediate", kw_only=True):
    """A step of a plugin."""

    current_plugin_thought: str
    current_plugin_action_taken: str
    current_plugin_action_input: str
    current_plugin_action_response: str


class GeneratedText(_Response, tag="generated_text", kw_only=True):
    """The whole answer, at its end."""

    text: str
    finish_reason: Literal["length", "eos_token", "stop_sequence"]
    used_plugin: Json | None = None


class Failed(_Response, tag="error", kw_only=True):
    """The answer failed."""

    error: str


class GeneralError(_Response, tag="general_error", kw_only=True):
    """Something failed that isn't about an answer."""

    error: str


class SafePrompt(_Response, tag="safe_prompt", kw_only=True):
    """The worker has changed the prompt."""

    safe_prompt: str


Response = Pong | Token | PluginIntermediate | GeneratedText | Failed | GeneralError | SafePrompt

# msgspec doesn't wrap two errors: that of bytes that aren't UTF-8, and that of JSON that is nested too deeply.
DecodeErrors = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

decode_hello = msgspec.json.Decoder(Hello).decode
_DECODER: msgspec.json.Decoder[Response] = msgspec.json.Decoder(Response)


def decode_response(text: str | bytes) -> Response:
    """Read what a worker sent. Raise one of ``DecodeErrors`` if it isn't a response."""
    return _DECODER.decode(text)


def encode_request(kind: Literal["ping", "upgrade_protocol", "wrong_api_key"], request_id: str) -> str:
    """Return a request that has nothing but its type and its id."""
    return json.dumps({"request_type": kind, "id": request_id})


def encode_work(state: ServerState, message_id: str, request_id: str) -> str:
    """Return the request to answer a message, with the messages from the chat's first one to its prompt."""
    message = state.message(message_id)
    parameters = "null" if message is None else message.work_parameters
    thread: list[MessageRecord] = []
    while message is not None and message.parent_id is not None:
        message = state.message(message.parent_id)
        if message is not None:
            thread.insert(0, message)
    return json.dumps({
        "request_type": "work",
        "id": request_id,
        "thread": {"messages": [message_value(one) for one in thread]},
        "created_at": timestamp(state.now),
        "parameters": json.loads(parameters),
        "safety_parameters": {"level": 0},
    })  # fmt: skip


def is_for(hello: Hello, message: MessageRecord) -> bool:
    """Return whether the message asks for the worker's model."""
    wanted: Json = json.loads(message.work_parameters)["model_config"]
    return wanted == hello.config.model_config
