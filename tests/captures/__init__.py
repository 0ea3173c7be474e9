"""Recordings of the real servers; README.md says what is in them."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_CHAT, _MESSAGE = rf"(?P<chat>{_ID})", rf"(?P<message>{_ID})"

# Which request belongs to which step of a conversation.
_STEPS = {
    "website": {
        "create": r"POST /api/chat",
        "prompt": r"POST /api/chat/prompter_message",
        "request": r"POST /api/chat/assistant_message",
        "stream": rf"(GET|POST) /api/chat/events\?chat_id={_CHAT}&message_id={_MESSAGE}",
        "message": rf"GET /api/chat/message\?chat_id={_CHAT}&message_id={_MESSAGE}",
        "chat": rf"GET /api/chat\?chat_id={_CHAT}",
        "chats": r"GET /api/chat",
        "models": r"GET /api/chat/models",
        "delete": rf"DELETE /api/chat\?chat_id={_CHAT}",
    },
    "inference": {
        "create": r"POST /chats",
        "prompt": rf"POST /chats/{_CHAT}/prompter_message",
        "request": rf"POST /chats/{_CHAT}/assistant_message",
        "stream": rf"GET /chats/{_CHAT}/messages/{_MESSAGE}/events",
        "message": rf"GET /chats/{_CHAT}/messages/{_MESSAGE}",
        "chat": rf"GET /chats/{_CHAT}",
        "chats": r"GET /chats",
        "models": r"GET /configs/model_configs",
        "delete": rf"DELETE /chats/{_CHAT}",
    },
}


@dataclass(frozen=True)
class Recorded:
    """One exchange with a real server. ``status`` is None where no reply came; see README.md for ``end``."""

    api: str
    scenario: str
    line: int
    step: str
    method: str
    target: str
    sent: str | None
    status: int | None
    headers: tuple[tuple[str, str], ...]
    body: bytes
    cuts: tuple[int, ...]
    end: str

    def __str__(self) -> str:
        return f"{self.api}-{self.scenario}-{self.line}"

    @property
    def chunks(self) -> list[bytes]:
        """The body, in the pieces in which it arrived."""
        starts = [sum(self.cuts[:index]) for index in range(len(self.cuts))]
        return [self.body[start : start + size] for start, size in zip(starts, self.cuts, strict=True)]

    @property
    def json(self) -> Any:
        """The body's JSON, as the standard library reads it."""
        return json.loads(self.body)

    @property
    def chat_id(self) -> str:
        """The chat's id in the request's target or, of a website, in its body; empty where it names none."""
        found = re.search(rf'"chat_id": "{_CHAT}"', self.sent or "")
        return self._named("chat") or (found["chat"] if found else "")

    @property
    def message_id(self) -> str:
        """The message's id in the target; empty where it names none."""
        return self._named("message")

    def _named(self, group: str) -> str:
        found = re.fullmatch(_STEPS[self.api][self.step], f"{self.method} {self.target}")
        return (found.groupdict().get(group) or "") if found else ""


def _read(path: Path) -> list[Recorded]:
    api, scenario = path.parent.name, path.stem
    exchanges: list[Recorded] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        found: dict[str, Any] = json.loads(line)
        if found.get("odd"):
            continue
        request = f"{found['method']} {found['target']}"
        step = next(step for step, pattern in _STEPS[api].items() if re.fullmatch(pattern, request))
        body = base64.b64decode(found["base64"]) if "base64" in found else found["body"].encode()
        exchanges.append(
            Recorded(
                api=api,
                scenario=scenario,
                line=number,
                step=step,
                method=found["method"],
                target=found["target"],
                sent=found.get("sent"),
                status=found["status"],
                headers=tuple(found["headers"].items()),
                body=body,
                cuts=tuple(found.get("cuts", [len(body)])),
                end=found["end"],
            )
        )
    return exchanges


@cache
def scenario(api: str, name: str) -> tuple[Recorded, ...]:
    """The exchanges of one scenario, in their order."""
    return tuple(_read(_HERE / api / f"{name}.jsonl"))


@cache
def every() -> tuple[Recorded, ...]:
    """Every recorded exchange."""
    return tuple(
        exchange for path in sorted(_HERE.glob("*/*.jsonl")) for exchange in scenario(path.parent.name, path.stem)
    )
