"""The form of a tape's lines. It is checked when a tape is read, so that nothing that uses a tape has to."""

from __future__ import annotations

from typing import Any, Required, TypedDict

from msgspec import ValidationError, convert

from oa_protocol.engine.phases import Phase

Json = dict[str, Any]


class _Credentials(TypedDict, total=False):
    cookies: Json
    token: str | None


class _Config(TypedDict, total=False):
    api: str
    base_url: str
    credentials: _Credentials | None
    timeouts: Json
    cleanup: Json
    options: Json


class _Head(TypedDict, total=False):
    config: Required[_Config]
    name: str
    clause: list[str]
    raises: str


class _Input(TypedDict, total=False):
    type: Required[str]
    headers: Json
    credentials: _Credentials | None


class _Intent(TypedDict, total=False):
    kind: Required[str]
    method: str
    url: str
    cookie: str
    authorization: str


class _Error(TypedDict):
    type: str


class _Leaked(TypedDict):
    chat_id: str | None


class _Event(TypedDict, total=False):
    type: Required[str]
    text: str
    error: _Error
    leaked: list[_Leaked]


class _Step(TypedDict, total=False):
    now: float
    input: _Input
    intent: _Intent | None
    events: list[_Event]
    raises: str
    reason: str
    phase: str
    deadline: float | None


def check_config(config: Json) -> None:
    """Raise ValueError if a conversation can't be made with ``config``. Most values are left to the engine."""
    _check(config, _Config, "the config")


def check_head(head: Json) -> None:
    """Raise ValueError if this isn't the first line of a tape."""
    _check(head, _Head, "it")


def check_step(step: Json) -> None:
    """Raise ValueError if this isn't a step. Whether the engine can take its input is another question."""
    _check(step, _Step, "it")
    if step.get("phase", Phase.START.name) not in Phase.__members__:
        raise ValueError(f"there is no phase {step['phase']!r}")


def _check(fields: Json, form: type, what: str) -> None:
    try:
        convert(fields, form)
    except ValidationError as error:
        raise ValueError(f"{what} has the wrong form: {error}") from None
