"""Chat completions: the request, and the chunks of the reply. OpenAI-compatible endpoints and llama.cpp use them."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from oa_protocol.models.base import AnswerRequest, Finish, ModelError, Piece

_REASONS: dict[str, Literal["length", "eos_token", "stop_sequence"]] = {
    "stop": "eos_token",
    "length": "length",
    # Together says "eos". Endpoints of text-generation-inference use the words of the worker protocol.
    "eos": "eos_token",
    "eos_token": "eos_token",
    "stop_sequence": "stop_sequence",
}


class Failed(Struct):
    """An error object. It is in the body of an error reply, or in a chunk."""

    message: str | None = None


class ErrorBody(Struct):
    """The error in a JSON body or in a chunk, in one of the usual forms."""

    error: Failed | str | None = None
    message: str | None = None
    detail: str | list[object] | None = None

    @property
    def words(self) -> str:
        """The error message, or an empty text if there is none."""
        error = self.error.message if isinstance(self.error, Failed) else self.error
        detail = msgspec.json.encode(self.detail).decode() if isinstance(self.detail, list) else self.detail
        return error or self.message or detail or ""


class _Part(Struct):
    text: str = ""


class _Delta(Struct):
    # Reasoning models send their thoughts in other fields, such as ``reasoning_content``, or in parts without a text.
    # They aren't the answer.
    content: str | list[_Part] | None = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content) if isinstance(self.content, list) else self.content or ""


class _Choice(Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    error: Failed | str | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_error = msgspec.json.Decoder(ErrorBody).decode
_DecodeErrors = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def body_of(request: AnswerRequest) -> dict[str, object]:
    """Return the body of the request for a chat completion, without the model's name."""
    sampling = request.sampling
    parameters = {
        "max_tokens": sampling.max_new_tokens,
        # Some endpoints read the seed as a signed number of 32 bits.
        "seed": None if request.seed is None else request.seed % 2**31,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "typical_p": sampling.typical_p,
        # vLLM uses the first name, and llama.cpp the second one.
        "repetition_penalty": sampling.repetition_penalty,
        "repeat_penalty": sampling.repetition_penalty,
    }
    known = {name: value for name, value in parameters.items() if value is not None}
    return {"messages": request.messages, "stream": True, **known}


def read_error(body: bytes) -> str:
    """Return the error message in a body, or an empty text if there is none."""
    try:
        return _decode_error(body).words
    except _DecodeErrors:
        return ""


def read_chunk(data: bytes) -> list[Piece]:
    """Return the text of a chunk, if it has any, and then ``Finish``, if it is the last one.

    Raises:
        ModelError: The chunk can't be read, it is an error, or the answer ends for a reason that makes it incomplete.

    """
    try:
        chunk = _decode_chunk(data)
    except _DecodeErrors as error:
        raise ModelError(f"the endpoint sent a chunk that can't be read: {error}") from None
    if chunk.error is not None or not chunk.choices:
        words = read_error(data)
        if words or chunk.error is not None:
            raise ModelError(f"the model failed: {words or 'the endpoint does not say why'}")
    choice = chunk.choices[0] if chunk.choices else _Choice()
    text = choice.delta.text if choice.delta else ""
    pieces: list[Piece] = [text] if text else []
    match choice.finish_reason:
        case None | "":
            return pieces
        case reason if reason in _REASONS:
            return [*pieces, Finish(_REASONS[reason])]
        case "content_filter":
            raise ModelError("the endpoint's content filter ended the answer")
        case reason:
            raise ModelError(f"the endpoint ended the answer before it was complete: {reason}")
