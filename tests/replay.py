"""Drives the engine with what servers really said, and with the rules of specs/protocol.md read independently."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.json import SamplingParameters
from oa_protocol.bindings.website import Website
from oa_protocol.engine import events as ev
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.inputs import Prompt, ReplyReceived
from oa_protocol.engine.intents import CreateChat, Exchange, RequestAssistant, SendPrompt
from oa_protocol.engine.timers import Cleanup

from .captures import Recorded, scenario

BINDINGS: dict[str, Binding] = {
    "website": Website("http://oa.example.org"),
    "inference": InferenceServer("http://oa.example.org"),
}
CREDENTIALS = {
    "website": Credentials(cookies={"next-auth.session-token": "placeholder"}),
    "inference": Credentials(token="placeholder"),
}
NOW = 0.0
"""No time passes, because an earlier time counts as the last one; only ``next_exchange`` lets a pause pass."""

CHAT = "06b02a53-f28e-708d-8000-044bde7b4953"
PROMPT = "06b02a53-f2ad-71f3-8000-f5d0e5605120"
ANSWER = "06b02a53-f2e8-7d17-8000-1b6ef2482de9"


def new_conversation(api: str, options: AnswerOptions | None = None, *, retries: int = 2) -> Conversation:
    return Conversation(BINDINGS[api], CREDENTIALS[api], options, retries=retries, cleanup=Cleanup(attempts=1))


def options_of(sent: dict[str, Any]) -> AnswerOptions:
    """The options with which the recorded request for an answer was made."""
    return AnswerOptions(
        model=sent["model_config_name"],
        sampling=SamplingParameters.of(sent["sampling_parameters"]),
        plugins=tuple(sent["plugins"]),
        system_prompt=sent.get("system_prompt"),
        user_profile=sent.get("user_profile"),
        user_response_instructions=sent.get("user_response_instructions"),
    )


def next_exchange(conversation: Conversation, kind: type[Exchange]) -> Exchange:
    """The next intent, which must be of this kind, once the engine's pause is over."""
    intent = conversation.next_intent(NOW) or conversation.next_intent(conversation.deadline or NOW)
    assert isinstance(intent, Exchange), intent
    assert type(intent) is kind
    return intent


def reply_with_json(conversation: Conversation, kind: type[Exchange], body: object) -> list[ev.Event]:
    next_exchange(conversation, kind)
    return conversation.handle(ReplyReceived(200, (), json.dumps(body).encode()), NOW)


def hand_in(conversation: Conversation, recorded: Recorded) -> list[ev.Event]:
    """Hand in the recorded reply."""
    assert recorded.status is not None
    return conversation.handle(ReplyReceived(recorded.status, recorded.headers, recorded.body), NOW)


def _made(recorded: Recorded, step: str, made_id: str) -> Recorded | None:
    """The exchange of the same scenario that made the chat or message ``made_id``, if it was recorded."""
    for each in scenario(recorded.api, recorded.scenario):
        if each.step == step and each.status == 200 and each.json["id"] == made_id:
            return each
    return None


def until(recorded: Recorded, kind: type[Exchange], *, retries: int = 2) -> Conversation:
    """A conversation that came, by its own recorded replies if there are some, to the step before ``kind``.

    If none were recorded, replies stand in that hold the ids alone. The outstanding intent is left to the caller.
    """
    conversation = new_conversation(recorded.api, retries=retries)
    chat_id = recorded.chat_id or CHAT
    request = _made(recorded, "request", recorded.message_id)
    prompt = request and _made(recorded, "prompt", request.json["parent_id"])
    conversation.handle(Prompt(json.loads(prompt.sent or "{}")["content"] if prompt else "Hello"), NOW)
    steps: list[tuple[type[Exchange], Recorded | None, str]] = [
        (CreateChat, _made(recorded, "create", chat_id), chat_id),
        (SendPrompt, prompt, PROMPT),
        (RequestAssistant, request, recorded.message_id or ANSWER),
    ]
    for step, reply, made_id in steps:
        if step is kind:
            break
        if reply is None:
            reply_with_json(conversation, step, {"id": made_id})
        else:
            next_exchange(conversation, step)
            hand_in(conversation, reply)
    return conversation


# ---- the protocol's rules, read with nothing but the standard library


def words_of(body: bytes) -> str:
    """The server's words in an error body (OA-8.1)."""
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    detail = said.get("detail") or said.get("message") or ""
    if isinstance(detail, str):
        return detail
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in detail)


def stream_events(body: bytes) -> list[dict[str, Any]]:
    """The events of a recorded stream; recorded servers end each with an empty line, and all their lines with CR LF."""
    found: list[dict[str, Any]] = []
    for block in body.decode().split("\r\n\r\n")[:-1]:
        lines = [line for line in block.split("\r\n") if not line.startswith(":")]
        if lines and lines[0] != "event: ping":
            assert len(lines) == 1
            found.append(json.loads(lines[0].removeprefix("data: ")))
    return found


def told(events: Iterable[ev.Event]) -> list[tuple[Any, ...]]:
    """Events in a form that compares: an exception by its type, its text and what there is of the answer."""
    found: list[tuple[Any, ...]] = []
    for event in events:
        match event:
            case ev.Failed(error):
                found.append(("failed", type(error), str(error), getattr(error, "text", None)))
            case ev.Token(text):
                found.append(("token", text))
            case ev.Queued(position, size):
                found.append(("pending", position, size))
            case ev.Answered(message):
                found.append(("message", message.id, message.content))
            case ev.Corrected(text, cut):
                found.append(("corrected", text, cut))
            case _:
                found.append((event,))
    return found


def reconciled(tokens: str, final: str, *, cut: bool) -> list[tuple[Any, ...]]:
    """Return the events that turn the emitted tokens into the final text (OA-5.6)."""
    if tokens.strip() == final.strip():
        return []
    for prefix in (tokens, tokens.lstrip()):
        if final.startswith(prefix):
            return [("token", final[len(prefix) :])]
    return [("corrected", final, cut)]
