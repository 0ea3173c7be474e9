"""Puts a tape into words: who did what, the outcome, and the phase afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby

from oa_protocol.tape.format import Json, Tape

_HAPPENINGS = {
    "Abandon": ("owner", "gives up"),
    "Interrupted": ("owner", "interrupts"),
    "StreamOpened": ("server", "opens the stream"),
    "StreamEnded": ("server", "ends the stream"),
    "TimePassed": ("clock", "the time is over"),
}


def transcript(tape: Tape) -> Iterator[str]:
    """Yield the conversation in words, with a line for each step, and one line for all pieces of a stream.

    Steps are numbered from 1, as in ``replay``. If a step changed the phase, the new one is in brackets. Calls of
    ``next_intent`` that returned None are left out, and so is a ``TimePassed`` without effect.

    Raises:
        ValueError: a step isn't a step of a conversation.

    """
    config = tape.config
    yield f"{config['api']} at {config['base_url']}, model {config.get('options', {}).get('model', '(default)')}"
    phase = "START"
    for _, group in groupby(_told(tape), lambda each: 0 if _is_data(each[1]) else each[0]):
        steps = list(group)
        number, last = steps[0][0], steps[-1][1]
        streamed = _is_data(last)
        who, what = _streamed([step for _, step in steps]) if streamed else _single(last, config["base_url"])
        moved = f"  [{last['phase']}]" if last["phase"] != phase else ""
        phase = last["phase"]
        yield f"{number:>4}. {who:<8} {what}{moved}"


def _told(tape: Tape) -> Iterator[tuple[int, Json]]:
    """Yield the steps to show, with their numbers."""
    phase, waits, ends = "START", False, None
    for number, step in enumerate(tape.steps, 1):
        if "phase" not in step:
            raise ValueError(f"step {number} of the tape has no phase")
        match step:
            case {"intent": None}:
                pass
            case {"input": {"type": "TimePassed"}} if step["phase"] == phase and "events" not in step:
                # It is shown if a reply didn't arrive in time, because otherwise the next step would look wrong.
                if waits and ends is not None and step["now"] >= ends:
                    waits = False
                    yield number, step
            case _:
                waits = "method" in step.get("intent", {}) or (waits and _is_data(step))
                yield number, step
        phase, ends = step["phase"], step.get("deadline")


def _is_data(step: Json) -> bool:
    return "input" in step and step["input"]["type"] == "StreamData"


def _single(step: Json, base_url: str) -> tuple[str, str]:
    who, what = _doing(step, base_url)
    news = [_news(event) for event in step.get("events", ())]
    if "raises" in step:
        news.append(f"refused: {step['raises']}")
    if "reason" in step:
        news.append(step["reason"])
    return who, "; ".join((what, *news))


def _doing(step: Json, base_url: str) -> tuple[str, str]:
    match step:
        case {"intent": {"kind": kind, "method": method, "url": url}}:
            return "engine", f"{kind}: {method} {url.removeprefix(base_url)}"
        case {"intent": {"kind": kind}}:
            return "engine", kind
        case {"input": {"type": "Prompt", "text": text, **where}}:
            return "owner", f"asks {_quoted(text)}" + (f", after {where['after']}" if "after" in where else "")
        case {"input": {"type": "Regenerate", **which}}:
            return "owner", "asks for another answer" + (f" to {which['prompt_id']}" if "prompt_id" in which else "")
        case {"input": {"type": "Keep", **how}}:
            return "owner", "keeps the chat" if how.get("keep", True) else "no longer keeps the chat"
        case {"input": {"type": "Close", **how}}:
            return "owner", "leaves" if how.get("drain", True) else "leaves at once"
        case {"input": {"type": "ReplyReceived", "status": status}}:
            return "server", f"replies {status}"
        case {"input": {"type": "ExchangeFailed", "failure": {"type": kind, **words}}}:
            return "network", f"fails, {'not sent' if kind == 'NotSent' else 'maybe sent'}: {words.get('reason', kind)}"
        case {"input": {"type": "CredentialsFound", "credentials": found}}:
            return "owner", "has no credentials" if found is None else "gives credentials"
        case {"input": {"type": str(kind)}} if kind in _HAPPENINGS:
            return _HAPPENINGS[kind]
        case _:
            raise ValueError(f"not a step of a tape: {step}")


def _streamed(steps: list[Json]) -> tuple[str, str]:
    """Return one line for a stream's pieces: the whole text, and then the other events in their order."""
    said: list[str] = []
    text = ""
    pendings = 0
    for step in steps:
        for event in step.get("events", ()):
            match event:
                case {"type": "Token", "text": piece}:
                    text += piece
                case {"type": "Queued"}:
                    pendings += 1
                case {"type": "Answered", "text": whole} if whole.strip() == text.strip():
                    said.append("Answered")
                case _:
                    said.append(_news(event))
        if "raises" in step:
            said.append(f"refused: {step['raises']}")
        if "reason" in step:
            said.append(step["reason"])
    waits = [f"pending ({pendings} times)"] if pendings else []
    texts = [_quoted(text)] if text else []
    return "server", "; ".join((f"streams {len(steps)} pieces", *waits, *texts, *said))


def _news(event: Json) -> str:
    match event:
        case {"type": "Created" | "Deleted" | "Kept" as kind, "chat_id": chat_id}:
            return f"{kind}: chat {chat_id}"
        case {"type": "Prompted" | "Requested" as kind, "message_id": message_id}:
            return f"{kind}: message {message_id}"
        case {"type": "Token" | "Corrected" | "Answered" as kind, "text": text}:
            return f"{kind}: {_quoted(text)}"
        case {"type": "Failed", "error": error}:
            return f"Failed: {error['type']}"
        case {"type": "Leaked", "leaked": leaked}:
            return f"Leaked: {', '.join(record['chat_id'] or 'a chat without an id' for record in leaked)}"
        case _:
            fields = ", ".join(
                f"{name} {value}" for name, value in event.items() if name != "type" and value is not None
            )
            return f"{event['type']}{f': {fields}' if fields else ''}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
