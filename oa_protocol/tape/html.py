"""Shows a tape as a page: a sequence diagram, and the way through the phases."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from oa_protocol.engine.phases import Phase
from oa_protocol.tape._page import LANES, Diagram, Row, render
from oa_protocol.tape._words import Happening, happenings, title_of
from oa_protocol.tape.format import Bytes, Json, Tape, decode_bytes
from oa_protocol.tape.redact import Masks

_OWNER, _ENGINE, _NETWORK, _SERVER = range(len(LANES))
_TROUBLE = {"PROMPT_LOST", "REQUEST_LOST", "POLLING", "FAILED", "DELETE_UNCLEAR", "LEAKED"}
_NOT_HEADERS = ("kind", "method", "url", "body", "shielded")


def to_html(*tapes: Tape) -> str:
    """Return a page about conversations: one HTML file without scripts, which needs nothing from elsewhere.

    For each conversation, it has a sequence diagram with times, in which faults are red and each step opens to what was
    sent. It also has the diagram of the phases, with the way that the conversation took. Credentials are masked, but
    prompts and answers aren't.

    Args:
        *tapes: the conversations.

    Raises:
        ValueError: a step isn't a step of a conversation.

    """
    title = "A conversation" if len(tapes) == 1 else f"{len(tapes)} conversations"
    return render(title, map(_diagram, tapes))


def _diagram(tape: Tape) -> Diagram:
    phases = ("START", *(step["phase"] for step in tape.steps if "phase" in step))
    way = [Phase[name] for name, _ in groupby(phases)]
    last = tape.steps[-1].get("now") if tape.steps else None
    facts = [] if last is None else [f"{last:.3f} s"]
    clause = [", ".join(tape.clause)] if tape.clause else []
    return Diagram(tape.name or title_of(tape), list(_rows(tape)), way, facts=[*facts, *clause])


def _rows(tape: Tape) -> Iterator[Row]:
    masks = _masks(tape)
    asked: Row | None = None  # the request that is under way
    for happening in happenings(tape):
        step = happening.steps[-1]
        row = _masked(_row(happening, masks), masks)
        if "method" in step.get("intent", ()):
            asked = row
        elif asked is not None and _is_outcome(step):
            row = replace(row, details=[*row.details, *asked.details], answers=asked.number)
            asked = None
        yield row


def _masks(tape: Tape) -> Masks:
    """Return the masks of a tape's credentials. A recorded tape is masked already, but others may not be."""
    masks = Masks(tape.config.get("base_url", ""))
    found = [tape.config.get("credentials"), *(step.get("input", {}).get("credentials") for step in tape.steps)]
    for credentials in filter(None, found):
        for secret in (*credentials.get("cookies", {}).values(), credentials.get("token")):
            if secret and isinstance(secret, str):
                masks.mask(secret)
    return masks


def _masked(row: Row, masks: Masks) -> Row:
    details = [(name, masks.texts(text)) for name, text in row.details]
    return replace(row, what=masks.texts(row.what), news=masks.texts(row.news), details=details)


def _is_outcome(step: Json) -> bool:
    return step.get("input", {}).get("type") in ("ReplyReceived", "ExchangeFailed", "StreamOpened")


def _row(happening: Happening, masks: Masks) -> Row:
    step = happening.steps[-1]
    start, end = _ends(happening.who, step)
    return Row(
        happening.number,
        start,
        end,
        happening.what,
        happening.news,
        phase=happening.phase if happening.moved else None,
        now=happening.steps[0].get("now"),
        is_fault=_is_fault(happening, step),
        details=_details(happening.steps, masks),
    )


def _ends(who: str, step: Json) -> tuple[int, int]:
    match who, step:
        case "engine", {"intent": {"kind": "LoadCredentials"}}:
            return _ENGINE, _OWNER
        case "engine", {"intent": {"method": _}}:
            return _ENGINE, _SERVER
        case "engine", _:
            return _ENGINE, _NETWORK
        case "clock", _:
            return _ENGINE, _ENGINE
        case _:
            return LANES.index(who), _ENGINE


def _is_fault(happening: Happening, step: Json) -> bool:
    if any("raises" in each for each in happening.steps):
        return True
    if happening.moved and happening.phase in _TROUBLE:
        return True
    match step.get("input"):
        case {"type": "ExchangeFailed"}:
            return True
        case {"type": "ReplyReceived", "status": int(status)}:
            return status >= 400 and happening.phase != "DELETED"
        case _:
            return any(event["type"] in ("Failed", "Leaked") for event in step.get("events", ()))


def _details(steps: Sequence[Json], masks: Masks) -> list[tuple[str, str]]:
    match steps[-1]:
        case {"intent": {"method": method, "url": url} as intent}:
            headers = [f"{name}: {value}" for name, value in masks.intent(intent).items() if name not in _NOT_HEADERS]
            body = json.dumps(intent["body"], indent=2, ensure_ascii=False) if "body" in intent else ""
            return [("Request", _message(f"{method} {url}", headers, body))]
        case {"input": {"type": "ReplyReceived", "status": status} as reply}:
            headers = [f"{name}: {value}" for name, value in reply.get("headers", {}).items()]
            return [("Reply", _message(f"status {status}", headers, _body(reply.get("body", ""))))]
        case {"input": {"type": "StreamData"}}:
            return [("Stream", "".join(_body(each["input"].get("data", "")) for each in steps))]
        case {"input": {"type": "Prompt", "text": str(text)}}:
            return [("Prompt", text)]
        case _:
            return []


def _message(first: str, headers: list[str], body: str) -> str:
    return "\n".join([first, *headers, *(["", body] if body else [])])


def _body(spelled: Bytes) -> str:
    try:
        text = spelled if isinstance(spelled, str) else decode_bytes(spelled).decode()
    except UnicodeDecodeError:
        return f"({len(decode_bytes(spelled)):,} bytes that aren't text)"
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
