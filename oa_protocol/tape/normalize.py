"""The normal form of a tape: what is the same in two recordings of one conversation, whatever driver made them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from oa_protocol.engine.intents import EXCHANGES
from oa_protocol.tape.format import Json, Tape

_ID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_READS = frozenset(kind.__name__ for kind in EXCHANGES if not kind.is_counted)
_IDLE = frozenset({"Close", "Abandon", "Interrupted", "TimePassed", "StreamEnded", "StreamData"})
_SETTLES = frozenset({"ReplyReceived", "ExchangeFailed"})
_BASE_URL = "http://server"


def normalize(tape: Tape) -> Tape:
    """Return what makes two tapes of the same conversation comparable: equal ones have equal normal forms.

    What depends on the driver, the network and the clock is left out: times and deadlines, how a stream's bytes were
    cut (its events stand in one step), pings and ``pending`` events, headers and dates, questions when there was
    nothing to do, reads that brought nothing new, steps without any effect, and how the stream was closed after its
    last event. The events say what the body of a reply said. Ids are numbered, and every server has the same URL. A
    normal form is for comparing, not for ``replay``.
    """
    steps = list(_joined(_plain(step) for step in _told(tape)))
    text = json.dumps([tape.config, steps]).replace(tape.config["base_url"], _BASE_URL)
    ids: dict[str, str] = {}
    config, steps = json.loads(_ID.sub(lambda found: ids.setdefault(found[0], f"id-{len(ids) + 1}"), text))
    return Tape(config, tuple(steps), tape.name, tape.clause)


def _told(tape: Tape) -> Iterator[Json]:
    """The steps that said something, or asked for something that did."""
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
    """The step without what depends on the clock and on the transport."""
    plain: Json = {name: step[name] for name in ("intent", "raises", "phase") if name in step}
    if "input" in step:
        plain["input"] = _plain_input(step["input"])
    if events := [_undated(event) for event in _events(step)]:
        plain["events"] = events
    return plain


def _plain_input(happened: Json) -> Json:
    plain = {name: value for name, value in happened.items() if name not in ("headers", "body", "data")}
    if "failure" in plain:
        plain["failure"] = {"type": plain["failure"]["type"]}
    return plain


def _undated(event: Json) -> Json:
    if event["type"] != "Leaked":
        return event
    return event | {"leaked": [{"chat_id": record["chat_id"]} for record in event["leaked"]]}


def _joined(steps: Iterator[Json]) -> Iterator[Json]:
    """The steps, those of a stream's data in one."""
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
