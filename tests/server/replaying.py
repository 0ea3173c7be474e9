"""Replays recordings of the real servers against the core: it sends the requests and lets workers say the same.

Ids are learned by position: what the recording calls an id is the id that the core has at the same place.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from oa_protocol.models.base import PluginStep
from oa_protocol.server.core import (
    Reply,
    Request,
    ServerState,
    abort,
    emit,
    finish,
    handle,
    leave,
    next_event,
    pending_event,
    ping,
    position,
    take,
    use_plugin,
    with_account,
)
from oa_protocol.server.state import MessageRecord, Quirks

CAPTURES = Path(__file__).parents[1] / "captures"

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CURSOR = re.compile(r"(?<=[=\"])MD[A-Za-z0-9+/]{46}(?![A-Za-z0-9+/])")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\.\d{6}")
_SEED = re.compile(r'("seed": ?)\d+')
_MS = 1_000_000
_COMPARED = {"content-type", "location", "access-control-allow-origin"}
_DOWN = {
    ("inference_server_SIGKILL_mid_stream", "website alive?"),
    ("inference_server_SIGTERM_mid_stream_then_restarted", "message, while the inference server is down"),
    ("inference_server_SIGTERM_mid_stream_then_restarted", "chat, while it is down"),
    ("inference_server_SIGTERM_mid_stream_then_restarted", "list, while it is down"),
}
"""Scenarios and notes of what a website was asked while its inference server was down."""


@dataclass
class Exchange:
    """A recorded exchange; ``stream`` is our id of the message whose stream it reads."""

    found: dict[str, Any]
    stream: str = ""
    events: int = field(default=0)

    @property
    def body(self) -> bytes:
        """The reply's body."""
        encoded = self.found.get("base64")
        return base64.b64decode(encoded) if encoded else str(self.found["body"]).encode()

    @property
    def made(self) -> str:
        """The recorded id of the chat that the exchange made, if any."""
        line = f"{self.found['method']} {self.found['target']} {self.found['status']}"
        return json.loads(self.body)["id"] if line in {"POST /chats 200", "POST /api/chat 200"} else ""

    @property
    def listed(self) -> list[str]:
        """The recorded ids of the chats in a list."""
        is_list = self.found.get("body", "").startswith('{"chats":')
        return [chat["id"] for chat in json.loads(self.body)["chats"]] if is_list else []

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The assistant messages in the reply, if it's a message or a chat."""
        if self.found["status"] != 200 or '"role":"assistant"' not in self.found.get("body", ""):
            return []
        value = json.loads(self.body)
        return [one for one in value.get("messages", [value]) if one["role"] == "assistant"]

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """The pieces of the body, with the time of each."""
        body, began = self.body, self.found["began"]
        for size, time in zip(self.found.get("cuts", [len(body)]), self.found.get("times", [0]), strict=True):
            piece, body = body[:size], body[size:]
            yield began + time, piece


def scenarios() -> list[str]:
    """The names of all scenarios, such as ``website/happy_path``."""
    return [f"{path.parent.name}/{path.stem}" for path in sorted(CAPTURES.glob("*/*.jsonl"))]


def exchanges(scenario: str) -> list[Exchange]:
    """The exchanges of a scenario."""
    lines = (CAPTURES / f"{scenario}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Exchange(json.loads(line)) for line in lines]


class Replay:
    """One scenario on its way; ``differences`` are those found so far."""

    def __init__(self, scenario: str, quirks: Quirks) -> None:
        self.api, _, self.name = scenario.partition("/")
        self.state = ServerState(quirks, salt="replay")
        self.ours: dict[str, str] = {}
        self.found = exchanges(scenario)
        self.unmade: list[str] = []
        self.differences: list[str] = []

    def run(self) -> list[str]:
        """Replay everything in the order of the recorded times."""
        timeline: list[tuple[int, int, Exchange, bytes | None]] = []
        for number, exchange in enumerate(self.found):
            began = exchange.found["began"]
            timeline.append((began, number, exchange, None))
            if exchange.found["status"] == 200 and "/events" in exchange.found["target"]:
                timeline += [(time, number, exchange, piece) for time, piece in exchange.chunks()]
                timeline.append((began + exchange.found.get("ended", 0), number, exchange, b""))
        self._set_up()
        for time, _, exchange, piece in sorted(timeline, key=lambda item: item[:2]):
            self.state = self.state._replace(now=(1_800_000_000_000 + time) * _MS)
            if piece is None:
                self._send(exchange)
            elif piece:
                self._read(exchange, piece)
            elif exchange.found["end"] == "dropped" and self.api == "inference":
                self.state = leave(self.state, exchange.stream)
        return self.differences

    # ---- what was there before

    def _set_up(self) -> None:
        """Note which chats the recording doesn't show the making of, and make those that are deleted in it."""
        made = {exchange.made for exchange in self.found}
        listed = {chat_id for exchange in self.found for chat_id in exchange.listed}
        self.unmade = sorted(listed - made)
        for exchange in self.found:
            deleted = _ID.search(exchange.found["target"])
            is_delete = (exchange.found["method"], exchange.found["status"]) == ("DELETE", 200)
            if is_delete and deleted and deleted[0] not in made | listed:
                self.ours[deleted[0]] = self._someones_chat(exchange.found.get("by", "user-a"))

    def _make_up(self, exchange: Exchange) -> None:
        """Make the chats that had been made by then without having been recorded. Their ids are in that order."""
        latest = max([exchange.made, *exchange.listed])
        while self.unmade and self.unmade[0] <= latest:
            self.ours[self.unmade.pop(0)] = self._ours("POST /chats", "user-a", "{}")

    def _ours(self, call: str, by: str, body: str) -> str:
        method, target = call.split(" ")
        self.state, account = with_account(self.state, by)
        headers = (("authorization", f"Bearer {account.token}"),)
        self.state, reply = handle(self.state, Request(method, target, headers, body.encode()))
        return str(json.loads(reply.body)["id"])

    def _someones_chat(self, by: str) -> str:
        """A chat whose message waits, or is being worked on if there is a worker."""
        chat = self._ours("POST /chats", by, "{}")
        prompt = self._ours(f"POST /chats/{chat}/prompter_message", by, '{"content": "x"}')
        body = json.dumps({"parent_id": prompt, "model_config_name": "_lorem"})
        self.state, message_id = self.state, self._ours(f"POST /chats/{chat}/assistant_message", by, body)
        if "pending" not in self.name:
            self.state, _ = take(self.state, message_id)
        return chat

    # ---- requests

    def _send(self, exchange: Exchange) -> None:
        found = exchange.found
        self._make_up(exchange)
        self._let_workers_work(exchange)
        request = self._request(found)
        is_down = (self.name, found.get("note")) in _DOWN
        state = self.state._replace(quirks=replace(self.state.quirks, inference_down=is_down))
        state, reply = handle(state, request)
        self.state = state._replace(quirks=self.state.quirks)
        exchange.stream = reply.stream or ""
        if found["status"] is None:
            return  # The recorder gave up; what was asked for was still carried out.
        what = f"{found['method']} {found['target'][:120]} ({found.get('note')})"
        if reply.status != found["status"]:
            self.differences.append(f"{what}: status {reply.status}, recorded {found['status']}")
        elif self._headers(reply) != self._recorded_headers(found):
            self.differences.append(f"{what}: {self._headers(reply)}, recorded {found['headers']}")
        elif not reply.stream and found["method"] != "HEAD" and "base64" not in found:
            self._compare(what, reply.body.decode(), found["body"])

    def _request(self, found: dict[str, Any]) -> Request:
        headers: dict[str, str | None] = {"host": f"127.0.0.1:{8000 if self.api == 'inference' else 3000}"}
        if found.get("sent"):
            headers["content-type"] = "application/json"
        by = found.get("by", "user-a")
        self.state, account = with_account(self.state, by or "user-a")
        if by is not None and self.api == "website":
            headers["cookie"] = f"next-auth.session-token={account.session}"
        elif by is not None:
            headers["authorization"] = f"Bearer {account.token}"
        session = account.session
        for name, value in found.get("given", {}).items():
            headers[name] = value and value.format(whole=session, head=session[:9], tail=session[9:])
        given = tuple((name, value) for name, value in headers.items() if value is not None)
        sent = self._translate(found.get("sent") or "").replace("\ufffd", "\udcff").encode(errors="surrogateescape")
        return Request(found["method"], self._translate(found["target"]), given, sent)

    def _translate(self, text: str) -> str:
        """Put our ids in the place of recorded ones, also inside cursors."""
        text = _CURSOR.sub(lambda cursor: _encode(self._translate(base64.b64decode(cursor[0]).decode())), text)
        return _ID.sub(lambda found: self.ours.get(found[0], found[0]), text)

    def _headers(self, reply: Reply) -> dict[str, str]:
        return {name: value for name, value in reply.headers if name in _COMPARED}

    def _recorded_headers(self, found: dict[str, Any]) -> dict[str, str]:
        recorded = {name: value for name, value in found["headers"].items() if name in _COMPARED}
        return {name: self._translate(value) for name, value in recorded.items()}

    def _compare(self, what: str, ours: str, recorded: str) -> None:
        """Compare two texts but for ids, times and seeds; learn the ids that are new."""
        for mine, theirs in zip(_ids(_in_order(ours)), _ids(_in_order(recorded)), strict=False):
            self.ours.setdefault(theirs, mine)
        mine, theirs = _plain(_in_order(ours)), _plain(self._translate(_in_order(recorded)))
        if mine != theirs:
            self.differences.append(f"{what}:\n  ours     {mine[:3000]}\n  recorded {theirs[:3000]}")

    # ---- workers

    def _let_workers_work(self, exchange: Exchange) -> None:
        """Bring messages into the state in which the reply shows them, as their workers had done by then."""
        shown = exchange.shown
        if exchange.found["status"] == 204:
            # The reply says only that the message has finished, a later one says how.
            asked = exchange.found["target"].split("/")[-2]
            shown = next(
                one for one in (later.shown for later in reversed(self.found)) if one and one[0]["id"] == asked
            )
        for one in shown:
            message = self.state.message(self.ours.get(one["id"], ""))
            if message is not None and message.state != one["state"]:
                self._work(message, one["state"], one["content"])

    def _work(self, message: MessageRecord, then: str, content: str | None) -> None:
        if message.state == "pending" and then != "cancelled":
            self.state, _ = take(self.state, message.id)
        match then:
            case "complete":
                self.state = finish(self.state, message.id, content)
            case "aborted_by_worker":
                self.state = abort(self.state, message.id)
            case _:
                pass

    # ---- streams

    def _read(self, exchange: Exchange, piece: bytes) -> None:
        for block in piece.decode().split("\r\n\r\n")[:-1]:
            recorded = block + "\r\n\r\n"
            if not block.startswith("data: "):
                ours = ping(self.state)
            else:
                ours = self._event(exchange, json.loads(block.removeprefix("data: ")))
                exchange.events += 1
            self._compare(f"an event of {exchange.found['target']}", ours.decode(), recorded)

    def _event(self, exchange: Exchange, event: dict[str, Any]) -> bytes:
        if event["event_type"] == "pending":
            self._settle_queue(exchange, event["queue_position"], event["queue_size"])
            return pending_event(self.state, exchange.stream)
        stream = self.state.streams[exchange.stream]
        if not stream.events:
            self._say(exchange.stream, event)
        self.state, next_one = next_event(self.state, exchange.stream)
        return next_one.data if next_one else b""

    def _say(self, message_id: str, event: dict[str, Any]) -> None:
        """Let the worker say what the recording's worker said."""
        if message_id in self.state.waiting:
            self.state, _ = take(self.state, message_id)
        for _ in range(self.state.streams[message_id].lost):
            self.state = emit(self.state, message_id, "What a reader who has left took along. ")
        match event["event_type"]:
            case "token":
                self.state = emit(self.state, message_id, event["text"])
            case "plugin_intermediate":
                names = ("thought", "action_taken", "action_input", "action_response")
                step = PluginStep(*(event[f"current_plugin_{name}"] for name in names))
                self.state = use_plugin(self.state, message_id, step)
            case "message":
                final = event["message"]
                self.state = finish(self.state, message_id, final["content"], final["used_plugin"])
            case "error" if not self.state.streams[message_id].events:  # else a timeout, or a worker torn down
                self.state = abort(self.state, message_id, event["error"])
            case _:
                pass

    def _settle_queue(self, exchange: Exchange, place: int, size: int) -> None:
        """Let other messages be there at the stream's start, and leave the queue as they did in the recording."""
        if place == 0 and position(self.state, exchange.stream)[0] > 0:
            self.state, _ = take(self.state, exchange.stream)
        while len(self.state.waiting) > size:
            first = next(one for one in self.state.waiting if one != exchange.stream)
            self.state, _ = take(self.state, first)
        if not exchange.events:
            here, length = position(self.state, exchange.stream)
            ahead = tuple(f"ahead {number}" for number in range(max(0, place - here)))
            behind = tuple(f"behind {number}" for number in range(size - length - len(ahead)))
            self.state = self.state._replace(waiting=(*ahead, *self.state.waiting, *behind))


def _in_order(text: str) -> str:
    """The chat with its messages in the order of their making: the servers give them in none."""
    if '"messages":' not in text:
        return text
    value: dict[str, Any] = json.loads(text)
    messages: list[dict[str, Any]] = value["messages"]
    messages.sort(key=lambda message: str(message["id"]))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _ids(text: str) -> list[str]:
    return _ID.findall(text)


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _plain(text: str) -> str:
    return _SEED.sub(r"\1…", _TIME.sub("…", text))
