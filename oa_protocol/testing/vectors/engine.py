"""The engine of this package, in the form that answers the lines of conformance vectors."""

from __future__ import annotations

from oa_protocol.bindings.sse import SSEDecoder
from oa_protocol.engine.conversation import Conversation
from oa_protocol.tape.format import Json, decode_bytes, encode_bytes, new_conversation, take_step


class Engine:
    """Answers one line after another. A line with ``config`` begins a new case (specs/vectors/README.md).

    >>> engine = Engine()
    >>> engine.answer({"config": {"api": "inference", "base_url": "http://oa.test"}})
    {}
    >>> engine.answer({"now": 0, "input": {"type": "Prompt", "text": "Hello"}})
    {'phase': 'START', 'deadline': None}
    """

    def __init__(self) -> None:
        self._subject: Conversation | SSEDecoder | None = None

    def answer(self, line: Json) -> Json:
        """Return the answer to a line.

        Raises:
            ValueError: the line isn't a line of a case.

        """
        if "config" in line:
            return self._begin(line["config"])
        match self._subject:
            case Conversation():
                return take_step(self._subject, line)
            case SSEDecoder():
                return _feed(self._subject, decode_bytes(line["feed"]))
            case None:
                raise ValueError("a step came before the first case: send a line with config first")

    def _begin(self, config: Json) -> Json:
        self._subject = None
        try:
            self._subject = SSEDecoder(config["limit"]) if "limit" in config else new_conversation(config)
        except (ValueError, TypeError) as error:
            return {"raises": type(error).__name__}
        return {}


def _feed(decoder: SSEDecoder, data: bytes) -> Json:
    payloads = [encode_bytes(payload) for payload in decoder.feed(data)]
    answer: Json = {"payloads": payloads} if payloads else {}
    return {**answer, "too_large": True} if decoder.too_large else answer
