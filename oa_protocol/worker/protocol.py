"""What a worker and the inference server say to each other, without I/O (specs/protocol.md, section 10).

``encode_hello`` makes the first text of a connection, and ``decode_request`` reads each text that comes. The reply to a
``Ping`` is ``encode_pong``. For ``Work``, make a ``Reply``, and send what its methods return.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from oa_protocol.engine.errors import RemoteProtocolError
from oa_protocol.models.base import AnswerRequest, Finish, Piece, PluginStep, Sampling, Turn
from oa_protocol.worker.model_configs import WorkerModel

VERSION = "1"
"""The version of the protocol. It is sent as ``X-Protocol-Version``."""

PATH = "/workers/work"

# A lone surrogate can't be encoded. NUL can't be stored in the server's database, and trying to costs the connection.
_UNUSABLE = re.compile("[\0\ud800-\udfff]")


class _Message(Struct):
    role: Literal["prompter", "assistant"]
    content: str | None = None


class _Thread(Struct):
    messages: list[_Message]


class _Parameters(Struct):
    sampling_parameters: Sampling = Sampling()
    seed: int | None = None
    system_prompt: str | None = None
    user_profile: str | None = None
    user_response_instructions: str | None = None
    plugins: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])


class _WorkBody(Struct):
    thread: _Thread
    parameters: _Parameters


class Work(Struct, frozen=True):
    """A request to answer a message."""

    id: str
    request: AnswerRequest


class BadWork(Struct, frozen=True):
    """A request to answer a message that can't be read. Answer it with ``Reply.fail``."""

    id: str
    error: str


class Ping(Struct, frozen=True):
    """A request for a ``pong``."""

    id: str


class Ending(Struct, frozen=True):
    """The server ends the worker, or reports an error. ``error`` is its text."""

    kind: Literal["error", "terminate", "upgrade_protocol", "wrong_api_key"]
    error: str = ""


class Unknown(Struct, frozen=True):
    """A request of a type that this version doesn't have. It is ignored."""

    kind: str


Request = Work | BadWork | Ping | Ending | Unknown


class _Envelope(Struct):
    request_type: str
    id: str = ""
    error: str = ""


# msgspec doesn't wrap two errors: that of bytes that aren't UTF-8, and that of JSON that is nested too deeply.
_DecodeErrors = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_work = msgspec.json.Decoder(_WorkBody).decode


def encode_hello(config: WorkerModel, parallel: int, hardware: Mapping[str, Any]) -> str:
    """Return the first text of a connection.

    Args:
        config: The model that the worker has.
        parallel: How many messages it answers at a time.
        hardware: The machine. The server wants all the fields of ``hardware_info``, but doesn't use them.

    """
    return _encode({
        "config": {"model_config": config, "max_parallel_requests": parallel}, "hardware_info": hardware
    })  # fmt: skip


def decode_request(text: str | bytes, model: str) -> Request:
    """Read a request of the server. ``model`` is the name of the worker's model.

    Raises:
        RemoteProtocolError: The text isn't a request.

    """
    try:
        envelope = _decode_envelope(text)
    except _DecodeErrors as error:
        raise RemoteProtocolError(f"The server sent what is no request: {error}") from None
    match envelope.request_type:
        case "work":
            return _work(text, envelope.id, model)
        case "ping":
            return Ping(envelope.id)
        case "error" | "terminate" | "upgrade_protocol" | "wrong_api_key" as kind:
            return Ending(kind, envelope.error)
        case kind:
            return Unknown(kind)


def encode_pong(ping: Ping) -> str:
    """Return the reply to a ping."""
    return _encode({"response_type": "pong", "request_id": ping.id})


class Reply:
    """The reply to a request to answer a message: each piece of the answer as a text, and the end of it."""

    def __init__(self, request_id: str) -> None:
        self._id = request_id
        self._texts: list[str] = []
        self._finish = Finish("eos_token")

    def piece(self, piece: Piece) -> str | None:
        """Return the text that sends this piece, or None if nothing needs to be sent."""
        match piece:
            case str():
                self._texts.append(piece)
                return self._encode("token", text=usable(piece), log_prob=None, token_id=len(self._texts) - 1)
            case PluginStep():
                return self._encode(
                    "plugin_intermediate",
                    current_plugin_thought=usable(piece.thought),
                    current_plugin_action_taken=usable(piece.action),
                    current_plugin_action_input=usable(piece.input),
                    current_plugin_action_response=usable(piece.response),
                )
            case Finish():
                self._finish = piece
                return None

    def end(self) -> str:
        """Return the text that ends the answer. It has the whole answer, without the white space at its ends."""
        text = usable("".join(self._texts)).strip()
        return self._encode("generated_text", text=text, finish_reason=self._finish.reason)

    def fail(self, error: str) -> str:
        """Return the text that ends the answer with an error. The user sees it."""
        return self._encode("error", error=usable(error))

    def _encode(self, kind: str, **fields: object) -> str:
        return _encode({"response_type": kind, "request_id": self._id, **fields})


def usable(text: str) -> str:
    """Return the text with replacements for characters that the server can't take: NUL and lone surrogates."""
    return _UNUSABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _encode(fields: Mapping[str, object]) -> str:
    return msgspec.json.encode(fields).decode()


def _work(text: str | bytes, request_id: str, model: str) -> Work | BadWork:
    try:
        body = _decode_work(text)
    except _DecodeErrors as error:
        return BadWork(request_id, f"The worker can't read the request: {error}")
    turns = [Turn(message.role, message.content or "") for message in body.thread.messages]
    if not turns or turns[-1].role != "prompter":
        return BadWork(request_id, "The worker can't answer a thread that doesn't end with a prompt.")
    *history, prompt = turns
    parameters = body.parameters
    return Work(
        request_id,
        AnswerRequest(
            prompt=prompt.content,
            history=tuple(history),
            model=model,
            sampling=parameters.sampling_parameters,
            seed=parameters.seed,
            system_prompt=parameters.system_prompt,
            user_profile=parameters.user_profile,
            user_response_instructions=parameters.user_response_instructions,
            plugins=tuple(parameters.plugins),
        ),
    )
