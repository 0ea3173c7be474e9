"""The format of a tape: a line that begins a case, then a line for each step (specs/vectors/README.md)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from msgspec import to_builtins

from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.json import SamplingParameters
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
from oa_protocol.engine.intents import Exchange, Intent, LoadCookies

Json = dict[str, Any]
Bytes = str | Json | list[Any]

OUTPUTS = ("intent", "events", "raises", "phase", "payloads", "too_large")
"""The fields of a step that say what must come of it; the others say what is done."""

_HEADERS = ("accept-encoding", "content-type", "cookie", "authorization")
_BINDINGS: dict[str, type[Website | InferenceServer]] = {"website": Website, "inference": InferenceServer}
_FAILURES: dict[str, type[TransportError]] = {"NotSent": NotSent, "MaybeSent": MaybeSent}


@dataclass(frozen=True, slots=True)
class Tape:
    """One conversation: what it was made with, and its steps. A conformance vector has a name and clauses as well.

    ``raises`` names the error with which a vector's ``config`` is to be refused; it is empty where it is not. ``str()``
    is the tape's text, which ``parse_tapes`` reads.
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
    """Return one line of a tape, in ASCII: any text file can hold it."""
    return f"{json.dumps(fields)}\n"


def load_tapes(path: str | Path) -> list[Tape]:
    """Read the cases of a file. Raises OSError, and ValueError where it is no tape."""
    return parse_tapes(Path(path).read_text(encoding="utf-8"))


def parse_tapes(text: str) -> list[Tape]:
    """Read the cases of a text: one of a recording, several of a file of vectors.

    A last line that was cut, as a process leaves it that died while writing, is left out. Raises ValueError, naming the
    line, for what is no tape.
    """
    cases: list[tuple[Json, list[Json]]] = []
    for number, fields in _lines(text):
        if "config" in fields:
            if not isinstance(fields["config"], dict):
                raise ValueError(f"line {number}: `config` is no JSON object")
            cases.append((fields, []))
        elif cases:
            cases[-1][1].append(_written_out(number, fields))
        else:
            raise ValueError(f"line {number} is a step before there is a case: a tape begins with a line with `config`")
    return [
        Tape(head["config"], tuple(steps), head.get("name", ""), tuple(head.get("clause", ())), head.get("raises", ""))
        for head, steps in cases
    ]


def _lines(text: str) -> Iterator[tuple[int, Json]]:
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            fields = json.loads(line)
        except ValueError:
            if number == len(lines):
                return
            raise ValueError(f"line {number} of the tape is no JSON") from None
        if not isinstance(fields, dict):
            raise ValueError(f"line {number} of the tape is no JSON object")
        yield number, cast("Json", fields)


def _written_out(number: int, step: Json) -> Json:
    """Return the step with the texts of its events in full: a file may say what is repeated how often."""
    if "events" not in step:
        return step
    try:
        return step | {"events": [{name: _text(value) for name, value in event.items()} for event in step["events"]]}
    except (TypeError, AttributeError):
        raise ValueError(f"line {number}: `events` is no list of JSON objects") from None


def _text(value: object) -> object:
    match value:
        case {"repeat": [str(piece), int(times)]}:
            return piece * times
        case _:
            return value


# ---- what goes in


def new_conversation(config: Json) -> Conversation:
    """Return the conversation that a tape begins with. Raises ValueError or TypeError where none can be made."""
    binding = _BINDINGS.get(config.get("api", ""))
    if binding is None:
        raise ValueError(f"the tape's api must be one of {', '.join(_BINDINGS)}, not {config.get('api')!r}")
    options: Json = config.get("options", {})
    if not isinstance(cast("object", options), dict):
        raise TypeError(f"the tape's options must be an object, not {options!r}")
    options = dict(options)
    sampling = SamplingParameters.of(options.pop("sampling", None))
    plugins = tuple(options.pop("plugins", ()))
    return Conversation(
        binding(config["base_url"]),
        _decode_credentials(config.get("credentials")),
        AnswerOptions(sampling=sampling, plugins=plugins, **options),
        retries=config.get("retries", 2),
        attempts=config.get("attempts", 3),
    )


def encode_config(binding: Binding, options: AnswerOptions, *, retries: int, attempts: int) -> Json:
    """Return what a conversation is made with, but for its credentials."""
    chosen: Json = {
        "model": options.model,
        "sampling": to_builtins(options.sampling),
        "plugins": [dict(plugin) for plugin in options.plugins],
    }
    for name in ("system_prompt", "user_profile", "user_response_instructions"):
        if (text := getattr(options, name)) is not None:
            chosen[name] = text
    return {
        "api": binding.api,
        "base_url": binding.base_url,
        "retries": retries,
        "attempts": attempts,
        "options": chosen,
    }


def given(step: Json) -> Json:
    """Return what a step says is done, without what must come of it; nothing where it asks for the next intent."""
    return {name: value for name, value in step.items() if name not in OUTPUTS}


def take_step(conversation: Conversation, step: Json) -> Json:
    """Do what the step says; return what came of it, as ``result`` tells it. Raises ValueError for no step."""
    try:
        if not given(step):
            return result(conversation, intent=encode_intent(conversation.next_intent()))
        events = _happen(conversation, step)
    except _NotAStep:
        raise
    except Exception as error:
        return result(conversation, raises=error)
    return result(conversation, events=events)


class _NotAStep(ValueError):
    """The tape has something else where a step should be."""


_NOTHING_ASKED: Any = object()


def result(
    conversation: Conversation,
    *,
    events: list[ev.Event] | None = None,
    intent: Json | None = _NOTHING_ASKED,
    raises: Exception | None = None,
) -> Json:
    """Return what came of a step: the intent asked for, the events (left out where there are none) or the exception."""
    found: Json = {} if intent is _NOTHING_ASKED else {"intent": intent}
    if events:
        found["events"] = [encode_event(event) for event in events]
    if raises is not None:
        found["raises"] = type(raises).__name__
    return found | {"phase": conversation.phase.name}


def _happen(conversation: Conversation, step: Json) -> list[ev.Event]:
    match step:
        case {"prompt": text}:
            conversation.prompt(text)
            return []
        case {"close": "drain" | "now" as how}:
            return conversation.close(drain=how == "drain")
        case {"abandon": _}:
            return conversation.abandon()
        case {"answer_timed_out": _}:
            return conversation.answer_timed_out()
        case {"reply": int(status)}:
            headers: dict[str, str] = step.get("headers", {})
            return conversation.receive_reply(status, headers.items(), decode_bytes(step.get("body", "")))
        case {"failure": "NotSent" | "MaybeSent" as kind}:
            return conversation.receive_failure(_FAILURES[kind](str(step.get("reason", kind))))
        case {"credentials": found}:
            return conversation.receive_cookies(_decode_credentials(found))
        case {"stream_opened": _}:
            return conversation.receive_stream_opened()
        case {"stream_data": data}:
            return conversation.receive_stream_data(decode_bytes(data))
        case {"silence": _}:
            return conversation.receive_silence()
        case {"stream_end": _}:
            return conversation.receive_stream_end()
        case _:
            raise _NotAStep(f"not a step of a tape: {step}")


def encode_bytes(data: bytes) -> str | Json:
    """Return bytes as text where they are UTF-8, else in base64."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def decode_bytes(spelled: Bytes) -> bytes:
    """Return the bytes that a step has: as text, in base64, as what is repeated how often, or as a list of these."""
    match spelled:
        case str():
            return spelled.encode()
        case list():
            return b"".join(decode_bytes(piece) for piece in spelled)
        case {"base64": encoded}:
            return base64.b64decode(encoded)
        case {"repeat": (piece, int(times))}:
            return decode_bytes(piece) * times
        case _:
            raise _NotAStep(f"not the bytes of a tape: {spelled!r}")


def _decode_credentials(found: Json | None) -> Credentials | None:
    return None if found is None else Credentials(cookies=found.get("cookies", {}), token=found.get("token"))


# ---- what comes out


def encode_intent(intent: Intent | None) -> Json | None:
    """Return an intent as a tape has it: with the headers that the protocol speaks of, credentials as they are."""
    match intent:
        case None:
            return None
        case Exchange(request, delay, shielded):
            found: Json = {"kind": type(intent).__name__, "method": request.method, "url": request.url}
            found |= {name: value for name, value in request.headers if name in _HEADERS}
            if request.body:
                found["body"] = json.loads(request.body)
            return found | {"delay": delay, "shielded": shielded}
        case LoadCookies(refused):
            return {"kind": "LoadCookies", "refused": refused}
        case _:
            return {"kind": type(intent).__name__}


def encode_event(event: ev.Event) -> Json:
    """Return an event as a tape has it. Error texts and the reasons of leaks are the implementation's: left out."""
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
        case ev.Leaked(records):
            fields = ("chat_id", "not_before", "not_after")
            return {"type": kind, "records": [{name: getattr(record, name) for name in fields} for record in records]}
        case ev.Answered(message):
            return {"type": kind, "message_id": message.id, "text": event.text}
        case _:
            fields = to_builtins(event)
            fields.pop("event_type", None)
            return {"type": kind, **fields}
