"""The format of tapes: a line that begins a case, and then a line for each step (specs/vectors/README.md)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_type_hints

from msgspec import to_builtins

from oa_protocol.bindings.base import AnswerOptions, Credentials, Headers
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.json import SamplingParameters
from oa_protocol.bindings.replies import TOO_DEEP, is_nested_too_deeply
from oa_protocol.bindings.website import Website
from oa_protocol.engine import events as ev
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import (
    AnswerFailed,
    ApiError,
    AuthenticationError,
    HTTPStatusError,
    MaybeSent,
    NotSent,
    TransportError,
)
from oa_protocol.engine.inputs import Input
from oa_protocol.engine.intents import Exchange, Intent, LoadCredentials
from oa_protocol.engine.moves import Settings
from oa_protocol.engine.timers import Cleanup, Timeouts
from oa_protocol.tape._form import Json as Json
from oa_protocol.tape._form import check_config, check_head, check_step

Bytes = str | Json | list[Any]

OUTPUTS = ("intent", "events", "raises", "phase", "deadline", "payloads", "too_large")
"""The fields of a step that contain its expected outcome."""

_FAILURES: dict[str, type[TransportError]] = {"NotSent": NotSent, "MaybeSent": MaybeSent}
INPUTS: dict[str, type[Input]] = {kind.__name__: kind for kind in get_args(Input)}
"""The classes of inputs, by their names on a tape."""

_HEADERS = ("accept-encoding", "content-type", "cookie", "authorization")
_BINDINGS: dict[str, type[Website | InferenceServer]] = {"website": Website, "inference": InferenceServer}
_FIELDS = {name: get_type_hints(kind) for name, kind in INPUTS.items()}

_LONGEST = 256 * 1024 * 1024
"""The most bytes or characters that a repeated piece may have. The conformance vectors have up to 8 MiB."""

_Piece = TypeVar("_Piece", str, bytes)


@dataclass(frozen=True, slots=True)
class Tape:
    """The recording of one conversation. ``str()`` returns its text, which ``parse_tapes`` reads.

    Attributes:
        config: the arguments of the conversation.
        steps: what happened, and its outcome.
        name: what a conformance vector tests, in words.
        clause: the clauses that a conformance vector belongs to.
        raises: the name of the error that a vector's ``config`` must raise, or empty if it must be accepted.

    """

    config: Json
    steps: tuple[Json, ...]
    name: str = ""
    clause: tuple[str, ...] = ()
    raises: str = ""

    def __str__(self) -> str:
        head: Json = {"clause": self.clause, "name": self.name} if self.name else {}
        head |= {"config": self.config}
        if self.raises:
            head["raises"] = self.raises
        return "".join(to_line(each) for each in (head, *self.steps))


def to_line(fields: Json) -> str:
    """Return one line of a tape. It is ASCII, so the encoding of a text file doesn't matter."""
    return f"{json.dumps(fields)}\n"


def load_tapes(path: str | Path) -> list[Tape]:
    """Return the tapes in a file.

    Raises:
        OSError: the file can't be read.
        ValueError: the file isn't a tape. The message names the line.

    """
    return parse_tapes(Path(path).read_text(encoding="utf-8"))


def parse_tapes(text: str) -> list[Tape]:
    """Return the tapes in a text. A recording has one tape, and a file of vectors has several.

    If the last line is incomplete, it is ignored, because a process may die while it writes.

    Raises:
        ValueError: the text isn't a tape. The message names the line.

    """
    cases: list[tuple[Json, list[Json]]] = []
    for number, fields in _lines(text):
        try:
            if "config" in fields:
                check_head(fields)
                cases.append((fields, []))
            elif cases:
                step = _written_out(fields)
                check_step(step)
                cases[-1][1].append(step)
            else:
                raise ValueError("a tape must begin with a line with `config`, and not with a step")
        except ValueError as error:
            raise ValueError(f"line {number} of the tape: {error}") from None
    return [
        Tape(head["config"], tuple(steps), head.get("name", ""), tuple(head.get("clause", ())), head.get("raises", ""))
        for head, steps in cases
    ]


def _lines(text: str) -> Iterator[tuple[int, Json]]:
    lines = text.removeprefix("\ufeff").split("\n")  # Some editors write a byte order mark.
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            if is_nested_too_deeply(line.encode(errors="replace")):
                raise ValueError(TOO_DEEP)
            fields = json.loads(line)
        except (ValueError, RecursionError):
            if number == len(lines):
                return
            raise ValueError(f"line {number} of the tape is not JSON") from None
        if not isinstance(fields, dict):
            raise ValueError(f"line {number} of the tape is not a JSON object")
        yield number, cast("Json", fields)


def _written_out(step: Json) -> Json:
    """Return the step with the texts of its events in full, because a file may abbreviate repeated text."""
    match step:
        case {"events": [*events]}:
            return step | {"events": [_event(event) for event in events]}
        case _:
            return step


def _event(event: object) -> object:
    match event:
        case {"text": {"repeat": [str(piece), int(times)]}}:
            return cast("Json", event) | {"text": _repeated(piece, times)}
        case _:
            return event


def _repeated(piece: _Piece, times: int) -> _Piece:
    if len(piece) * times > _LONGEST:
        raise _NotAStep(f"a repeated piece has more than {_LONGEST:,} characters")
    return piece * times


# ---- inputs


def new_conversation(config: Json) -> Conversation:
    """Return a new conversation with the arguments in a tape's ``config``.

    Raises:
        ValueError: an argument is wrong.
        TypeError: an argument has the wrong type.

    """
    check_config(config)
    binding = _BINDINGS.get(config.get("api", ""))
    if binding is None:
        raise ValueError(f"the tape's api must be one of {', '.join(_BINDINGS)}, not {config.get('api')!r}")
    options: Json = dict(config.get("options", {}))
    sampling = SamplingParameters.of(options.pop("sampling", None))
    plugins = tuple(options.pop("plugins", ()))
    return Conversation(
        binding(config.get("base_url", "")),
        _decode_credentials(config.get("credentials")),
        AnswerOptions(sampling=sampling, plugins=plugins, **options),
        chat_id=config.get("chat_id"),
        keep=config.get("keep", False),
        retries=config.get("retries", 2),
        timeouts=Timeouts(**config.get("timeouts", {})),
        cleanup=Cleanup(**config.get("cleanup", {})),
    )


def encode_config(settings: Settings) -> Json:
    """Return a conversation's arguments, except for its credentials."""
    options: Json = to_builtins(settings.options)
    existing: Json = {} if settings.chat_id is None else {"chat_id": settings.chat_id}
    return {
        "api": settings.binding.api,
        "base_url": settings.binding.base_url,
        **existing,
        "keep": settings.keep,
        "retries": settings.retries,
        "timeouts": to_builtins(settings.timeouts),
        "cleanup": to_builtins(settings.cleanup),
        "options": {name: value for name, value in options.items() if value is not None},
    }


def given(step: Json) -> Json:
    """Return a step without its expected outcome, and without the ``reason``, which is for people only."""
    return {name: value for name, value in step.items() if name not in (*OUTPUTS, "reason")}


def take_step(conversation: Conversation, step: Json) -> Json:
    """Do what a step says, and return its outcome, in the form of ``result``.

    Raises:
        ValueError: ``step`` isn't a step of a conversation.

    """
    match given(step):
        case {"now": int() | float() as now, **rest} if not rest:
            intent = conversation.next_intent(now)
            return result(conversation, conversation.deadline, intent=encode_intent(intent))
        case {"now": int() | float() as now, "input": {"type": str()} as happened}:
            try:
                events = conversation.handle(decode_input(happened), now)
            except _NotAStep:
                raise
            except Exception as error:
                return result(conversation, conversation.deadline, raises=error)
            return result(conversation, conversation.deadline, events=events)
        case _:
            raise _NotAStep(f"not a step of a tape: {step}")


class _NotAStep(ValueError):
    """A line of the tape isn't a step."""


_NOTHING_ASKED: Any = object()


def result(
    conversation: Conversation,
    deadline: float | None,
    *,
    events: list[ev.Event] | None = None,
    intent: Json | None = _NOTHING_ASKED,
    raises: Exception | None = None,
) -> Json:
    """Return the outcome of a step: its intent, its events (if there are any) or its exception, and the new state."""
    found: Json = {} if intent is _NOTHING_ASKED else {"intent": intent}
    if events:
        found["events"] = [encode_event(event) for event in events]
    if raises is not None:
        found["raises"] = type(raises).__name__
    return found | {"phase": conversation.phase.name, "deadline": None if deadline is None else round(deadline, 6)}


def decode_input(happened: Json) -> Input:
    """Return the input that a step contains. The step has the input's fields by name, and may omit default values.

    Texts, numbers and truth values aren't checked here, because the engine itself refuses wrong types.
    """
    fields = {name: value for name, value in happened.items() if name != "type"}
    try:
        kind, types = INPUTS[happened["type"]], _FIELDS[happened["type"]]
        fields = {name: _DECODERS.get(types[name], _as_it_is)(value) for name, value in fields.items()}
    except (KeyError, AttributeError):
        raise _NotAStep(f"not an input of a tape: {happened}") from None
    return kind(**fields)


def encode_bytes(data: bytes) -> str | Json:
    """Return bytes as a tape has them: as text if they are UTF-8, otherwise in base64."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def decode_bytes(spelled: Bytes) -> bytes:
    """Return the bytes of a step. They may be text, base64, a repeated piece, or a list of these."""
    match spelled:
        case str():
            return spelled.encode()
        case list():
            return b"".join(map(decode_bytes, spelled))
        case {"base64": str(encoded)}:
            return base64.b64decode(encoded)
        case {"repeat": (piece, int(times))}:
            return _repeated(decode_bytes(piece), times)
        case _:
            raise _NotAStep(f"not the bytes of a tape: {spelled!r}")


def _decode_credentials(found: Json | None) -> Credentials | None:
    return None if found is None else Credentials(cookies=found.get("cookies", {}), token=found.get("token"))


def _decode_failure(failure: Json) -> TransportError:
    return _FAILURES[failure["type"]](str(failure.get("reason", failure["type"])))


def _decode_headers(headers: Json) -> Headers:
    return tuple(headers.items())


def _as_it_is(value: Any) -> Any:  # noqa: ANN401  # The type is that of the field.
    return value


# The functions that read the fields of inputs, by the fields' types.
_DECODERS: dict[object, Callable[[Any], Any]] = {
    bytes: decode_bytes,
    Headers: _decode_headers,
    Credentials | None: _decode_credentials,
    TransportError: _decode_failure,
}


# ---- outputs


def encode_intent(intent: Intent | None) -> Json | None:
    """Return an intent as a tape has it, but with unmasked credentials. Only headers of the protocol are included."""
    match intent:
        case None:
            return None
        case Exchange(request, shielded):
            found: Json = {"kind": type(intent).__name__, "method": request.method, "url": request.url}
            found |= {name: value for name, value in request.headers if name in _HEADERS}
            if request.body:
                found["body"] = json.loads(request.body)
            return found | {"shielded": shielded}
        case LoadCredentials(refused):
            return {"kind": "LoadCredentials", "refused": refused}
        case _:
            return {"kind": type(intent).__name__}


def encode_event(event: ev.Event) -> Json:
    """Return an event as a tape has it, without error texts and reasons, because each implementation has its own."""
    kind = type(event).__name__
    match event:
        case ev.Failed(error):
            found: Json = {"type": type(error).__name__}
            if isinstance(error, ApiError):
                found["message"] = error.message
            if isinstance(error, ApiError | HTTPStatusError | AuthenticationError):
                found["status"] = error.status
            if isinstance(error, AnswerFailed):
                found["text"] = error.text
            return {"type": kind, "error": found}
        case ev.Leaked(leaked):
            fields = ("chat_id", "not_before", "not_after")
            return {"type": kind, "leaked": [{name: getattr(record, name) for name in fields} for record in leaked]}
        case ev.Answered(message):
            return {"type": kind, "message_id": message.id, "text": event.text}
        case _:
            fields = to_builtins(event)
            fields.pop("event_type", None)
            return {"type": kind, **fields}
