"""Recordings of the real servers; README.md says what is in them."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from tests.request_table import REQUESTS, Api

_HERE = Path(__file__).parent
_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_CHAT = rf"(?P<chat_id>{_ID})"


def _pattern(step: str, request: str) -> str:
    """A regular expression for the request of a step."""
    pattern = re.escape(request).replace(r"\{chat_id\}", _CHAT).replace(r"\{message_id\}", rf"(?P<message_id>{_ID})")
    # The servers answer a POST, too, and a recording has some.
    return pattern.replace("GET", "(GET|POST)") if step == "stream" else pattern


_PATTERNS = {
    api: {step: _pattern(step, request) for step, request in requests.items()} for api, requests in REQUESTS.items()
}


@dataclass(frozen=True)
class Recorded:
    """One exchange with a real server. ``status`` is None if no reply came; see README.md for ``end``."""

    api: Api
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
        """The chat's id in the request's target or, of a website, in its body; empty if it names none."""
        found = re.search(rf'"chat_id": "{_CHAT}"', self.sent or "")
        return self._named("chat_id") or (found["chat_id"] if found else "")

    @property
    def message_id(self) -> str:
        """The message's id in the target; empty if it names none."""
        return self._named("message_id")

    def _named(self, group: str) -> str:
        found = re.fullmatch(_PATTERNS[self.api][self.step], f"{self.method} {self.target}")
        return (found.groupdict().get(group) or "") if found else ""


def _read(path: Path) -> list[Recorded]:
    api, scenario = cast("Api", path.parent.name), path.stem
    exchanges: list[Recorded] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        found: dict[str, Any] = json.loads(line)
        if found.get("odd"):
            continue
        request = f"{found['method']} {found['target']}"
        step = next(step for step, pattern in _PATTERNS[api].items() if re.fullmatch(pattern, request))
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
