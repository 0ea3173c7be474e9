"""Puts the steps of a tape into words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from oa_protocol.tape.format import Json, Tape

_HAPPENINGS = {
    "Abandon": ("owner", "gives up"),
    "Interrupted": ("owner", "interrupts"),
    "StreamOpened": ("server", "opens the stream"),
    "StreamEnded": ("server", "ends the stream"),
    "TimePassed": ("clock", "the time is over"),
}


class Happening(NamedTuple):
    """A step in words, or all pieces of a stream that came one after the other.

    ``news`` are the events and the error, if there are any. ``moved`` says that the step changed the phase.
    """

    number: int
    steps: list[Json]
    who: str
    what: str
    news: list[str]
    moved: bool

    @property
    def phase(self) -> str:
        """The phase afterwards."""
        phase: str = self.steps[-1]["phase"]
        return phase


def title_of(tape: Tape) -> str:
    """Return the server and the model."""
    config = tape.config
    return (
        f"{config.get('api')} at {config.get('base_url')}, model {config.get('options', {}).get('model', '(default)')}"
    )


def happenings(tape: Tape) -> Iterator[Happening]:
    """Yield what happened.

    Calls of ``next_intent`` that returned None are left out, and so is a ``TimePassed`` without effect.

    Raises:
        ValueError: a step isn't a step of a conversation.

    """
    phase = "START"
    for _, group in groupby(_shown(tape), lambda each: 0 if _is_data(each[1]) else each[0]):
        numbered = list(group)
        steps = [step for _, step in numbered]
        if _is_data(steps[-1]):
            who, what, news = "server", *_streamed(steps)
        else:
            who, what = _doing(steps[-1], tape.config.get("base_url", ""))
            news = _news_of(steps[-1], [_news(event) for event in steps[-1].get("events", ())])
        happening = Happening(numbered[0][0], steps, who, what, news, moved=steps[-1]["phase"] != phase)
        phase = happening.phase
        yield happening


def _shown(tape: Tape) -> Iterator[tuple[int, Json]]:
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


def _news_of(step: Json, news: list[str]) -> list[str]:
    refused = [f"refused: {step['raises']}"] if "raises" in step else []
    return [*news, *refused, *([step["reason"]] if "reason" in step else [])]


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


def _streamed(steps: list[Json]) -> tuple[str, list[str]]:
    """Return the whole text of a stream's pieces, and then the other events in their order."""
    said: list[str] = []
    text = ""
    pendings = 0
    for step in steps:
        news: list[str] = []
        for event in step.get("events", ()):
            match event:
                case {"type": "Token", "text": piece}:
                    text += piece
                case {"type": "Queued"}:
                    pendings += 1
                case {"type": "Answered", "text": whole} if whole.strip() == text.strip():
                    news.append("Answered")
                case _:
                    news.append(_news(event))
        said += _news_of(step, news)
    waits = [f"pending ({pendings} times)"] if pendings else []
    texts = [_quoted(text)] if text else []
    return "; ".join((f"streams {len(steps)} pieces", *waits, *texts)), said


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
