"""The normal form of a tape, which is the same for two recordings of one conversation by different drivers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, cast

from oa_protocol.engine.intents import EXCHANGES
from oa_protocol.tape.format import Json, Tape

_ID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_READS = frozenset(kind.__name__ for kind in EXCHANGES if not kind.is_counted)
_IDLE = frozenset({"Close", "Abandon", "Interrupted", "TimePassed", "StreamEnded", "StreamData"})
_SETTLES = frozenset({"ReplyReceived", "ExchangeFailed"})
_BASE_URL = "http://server"


def normalize(tape: Tape) -> Tape:
    """Return a tape's normal form. If two tapes are of the same conversation, their normal forms are equal.

    A normal form is only for comparing. You can't ``replay`` it. It leaves out everything that depends on the driver,
    the network or the clock:

    - times, deadlines, headers and dates;
    - how a stream's bytes were cut (all its events are in one step), its pings and ``pending`` events, and how it was
      closed after its last event;
    - calls of ``next_intent`` when there was nothing to do, reads that brought nothing new, and steps without effect;
    - the bodies of replies, because the events have their content.

    Ids are replaced by numbers, and every server has the same URL.
    """
    steps = list(_joined(_plain(step) for step in _told(tape)))
    base_url: str = tape.config["base_url"]
    ids: dict[str, str] = {}

    def renamed(text: str) -> str:
        return _ID.sub(lambda found: ids.setdefault(found[0], f"id-{len(ids) + 1}"), text.replace(base_url, _BASE_URL))

    config, steps = _changed([tape.config, steps], renamed)
    return Tape(config, tuple(steps), tape.name, tape.clause)


def _changed(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401  # any JSON
    """Return JSON with each of its texts changed."""
    match value:
        case str():
            return change(value)
        case list():
            return [_changed(each, change) for each in cast("list[object]", value)]
        case dict():
            return {name: _changed(each, change) for name, each in cast("Json", value).items()}
        case _:
            return value


def _told(tape: Tape) -> Iterator[Json]:
    """Yield the steps that had an effect, and the intents whose outcome had one."""
    phase = "START"
    read: Json | None = None
    for step in tape.steps:
        idle = step["phase"] == phase and not _events(step) and "raises" not in step
        phase = step["phase"]
        match step:
            case {"intent": None} | {"intent": {"kind": "CloseStream"}}:
                pass
            case {"intent": {"kind": kind}}:
                read = step if kind in _READS else None
                if read is None:
                    yield step
            case {"input": {"type": kind}} if read is not None and kind in _SETTLES:
                if not idle:
                    yield from (read, step)
                read = None
            case {"input": {"type": kind}} if idle and kind in _IDLE:
                pass
            case _:
                yield step


def _events(step: Json) -> list[Json]:
    return [event for event in step.get("events", ()) if event["type"] != "Queued"]


def _plain(step: Json) -> Json:
    """Return the step without everything that depends on the clock or the transport."""
    plain: Json = {name: step[name] for name in ("intent", "raises", "phase") if name in step}
    if "input" in step:
        plain["input"] = _plain_input(step["input"])
    if events := [_undated(event) for event in _events(step)]:
        plain["events"] = events
    return plain


def _plain_input(happened: Json) -> Json:
    plain = {name: value for name, value in happened.items() if name not in ("headers", "body", "data")}
    match plain:
        case {"failure": {"type": kind}}:
            return plain | {"failure": {"type": kind}}
        case _:
            return plain


def _undated(event: Json) -> Json:
    match event:
        case {"type": "Leaked", "leaked": leaked}:
            return event | {"leaked": [{"chat_id": record["chat_id"]} for record in leaked]}
        case _:
            return event


def _joined(steps: Iterator[Json]) -> Iterator[Json]:
    """Yield the steps, with successive pieces of a stream joined into one step."""
    last: Json | None = None
    for step in steps:
        if last is not None and _is_data(last) and _is_data(step) and "raises" not in last:
            last = step | {"events": [*last.get("events", ()), *step.get("events", ())]}
            continue
        if last is not None:
            yield last
        last = step
    if last is not None:
        yield last


def _is_data(step: Json) -> bool:
    return "input" in step and step["input"]["type"] == "StreamData"
