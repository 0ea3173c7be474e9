"""The normal form of a tape: what is the same in two recordings of one conversation, whoever drove it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from oa_protocol.tape.format import Json, Tape

_ID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_READS = frozenset({"FetchMessage", "FetchChat", "ListChats"})
_IDLE = ("close", "abandon", "silence", "stream_end", "stream_data")
_BASE_URL = "http://server"


def normalize(tape: Tape) -> Tape:
    """Return what makes two tapes of the same conversation comparable: equal ones have equal normal forms.

    Left out is what depends on the driver, the network and the clock: how a stream's bytes were cut (its events stand
    in one step), pings and ``pending`` events, delays, headers and dates, asking when there was nothing to do, reading
    when there was nothing new, steps without any effect, and how the stream was closed after its last event. What the
    body of a reply said is in the events. Ids are numbered, and every server has the same URL. It is for comparing,
    not for ``replay``.
    """
    steps = list(_joined(_plain(step) for step in _told(tape)))
    text = json.dumps([tape.config, steps]).replace(tape.config["base_url"], _BASE_URL)
    ids: dict[str, str] = {}
    config, steps = json.loads(_ID.sub(lambda found: ids.setdefault(found[0], f"id-{len(ids) + 1}"), text))
    return Tape(config, tuple(steps), tape.name, tape.clause)


def _told(tape: Tape) -> Iterator[Json]:
    """The steps that told something, or asked for something that did."""
    phase = "START"
    read: Json | None = None
    for step in tape.steps:
        idle = step["phase"] == phase and not _events(step) and "raises" not in step
        phase = step["phase"]
        match step:
            case {"intent": None} | {"intent": {"kind": "CloseStream"}}:
                pass
            case {"intent": {"kind": kind}} if kind in _READS:
                read = step
            case {"reply": _} | {"failure": _} if read is not None:
                if not idle:
                    yield from (read, step)
                read = None
            case _ if idle and any(name in step for name in _IDLE):
                pass
            case _:
                yield step


def _events(step: Json) -> list[Json]:
    return [event for event in step.get("events", ()) if event["type"] != "Queued"]


def _plain(step: Json) -> Json:
    """The step without what depends on the clock and on the transport."""
    plain = {name: value for name, value in step.items() if name not in ("headers", "body", "reason", "events")}
    if events := [_undated(event) for event in _events(step)]:
        plain["events"] = events
    if "stream_data" in plain:
        plain["stream_data"] = True
    if plain.get("intent"):
        plain["intent"] = {name: value for name, value in plain["intent"].items() if name != "delay"}
    return plain


def _undated(event: Json) -> Json:
    if event["type"] != "Leaked":
        return event
    return event | {"records": [{"chat_id": record["chat_id"]} for record in event["records"]]}


def _joined(steps: Iterator[Json]) -> Iterator[Json]:
    """The steps, those of a stream's data in one."""
    last: Json | None = None
    for step in steps:
        if last is not None and "stream_data" in last and "stream_data" in step and "raises" not in last:
            last = step | {"events": [*last.get("events", ()), *step.get("events", ())]}
            continue
        if last is not None:
            yield last
        last = step
    if last is not None:
        yield last
