"""Tells a tape as a story: who did what, what came of it, and where the conversation stood then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby

from oa_protocol.tape.format import Json, Tape

_HAPPENINGS = {
    "abandon": ("owner", "gives up"),
    "answer_timed_out": ("owner", "gives up on the answer"),
    "stream_opened": ("server", "opens the stream"),
    "silence": ("network", "brings nothing for too long"),
    "stream_end": ("server", "ends the stream"),
}


def transcript(tape: Tape) -> Iterator[str]:
    """Tell the conversation, a line a step; the pieces of a stream are one line. Steps count from 1, as in ``replay``.

    The phase stands in brackets where a step changed it. Raises ValueError where a step is none of a conversation.
    """
    config = tape.config
    yield f"{config['api']} at {config['base_url']}, model {config.get('options', {}).get('model', '(default)')}"
    phase = "START"
    told = [(number, step) for number, step in enumerate(tape.steps, 1) if step.get("intent", ...) is not None]
    for _, group in groupby(told, lambda each: each[0] if "stream_data" not in each[1] else 0):
        steps = list(group)
        number, last = steps[0][0], steps[-1][1]
        if "phase" not in last:
            raise ValueError(f"step {number} of the tape has no phase")
        who, what = (
            _streamed([step for _, step in steps]) if "stream_data" in last else _single(last, config["base_url"])
        )
        moved = f"  [{last['phase']}]" if last["phase"] != phase else ""
        phase = last["phase"]
        yield f"{number:>4}. {who:<8} {what}{moved}"


def _single(step: Json, base_url: str) -> tuple[str, str]:
    who, what = _doing(step, base_url)
    news = [_news(event) for event in step.get("events", ())]
    if "raises" in step:
        news.append(f"refused: {step['raises']}")
    if "reason" in step and "failure" not in step:
        news.append(step["reason"])
    return who, "; ".join((what, *news))


def _doing(step: Json, base_url: str) -> tuple[str, str]:
    match step:
        case {"intent": {"kind": kind, "method": method, "url": url, "delay": delay}}:
            after = f" after {delay:g} s" if delay else ""
            return "engine", f"{kind}{after}: {method} {url.removeprefix(base_url)}"
        case {"intent": {"kind": kind}}:
            return "engine", kind
        case {"prompt": text}:
            return "owner", f"asks {_quoted(text)}"
        case {"close": how}:
            return "owner", "leaves" if how == "drain" else "leaves at once"
        case {"reply": status}:
            return "server", f"replies {status}"
        case {"failure": kind}:
            return "network", f"fails, {'not sent' if kind == 'NotSent' else 'maybe sent'}: {step.get('reason', kind)}"
        case {"credentials": found}:
            return "owner", "has no credentials" if found is None else "gives credentials"
        case _:
            for name, told in _HAPPENINGS.items():
                if name in step:
                    return told
            raise ValueError(f"not a step of a tape: {step}")


def _streamed(steps: list[Json]) -> tuple[str, str]:
    """Tell a stream's pieces as one: its text whole, and all else in its order."""
    told: list[str] = []
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
                    told.append("Answered")
                case _:
                    told.append(_news(event))
        if "raises" in step:
            told.append(f"refused: {step['raises']}")
        if "reason" in step:
            told.append(step["reason"])
    waits = [f"pending ({pendings} times)"] if pendings else []
    texts = [_quoted(text)] if text else []
    return "server", "; ".join((f"streams {len(steps)} pieces", *waits, *texts, *told))


def _news(event: Json) -> str:
    match event:
        case {"type": "Created" | "Deleted" as kind, "chat_id": chat_id}:
            return f"{kind}: chat {chat_id}"
        case {"type": "Prompted" | "Requested" as kind, "message_id": message_id}:
            return f"{kind}: message {message_id}"
        case {"type": "Token" | "Corrected" | "Answered" as kind, "text": text}:
            return f"{kind}: {_quoted(text)}"
        case {"type": "Failed", "error": error}:
            return f"Failed: {error['type']}"
        case {"type": "Leaked", "records": records}:
            return f"Leaked: {', '.join(record['chat_id'] or 'a chat without an id' for record in records)}"
        case _:
            fields = ", ".join(
                f"{name} {value}" for name, value in event.items() if name != "type" and value is not None
            )
            return f"{event['type']}{f': {fields}' if fields else ''}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
