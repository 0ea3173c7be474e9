"""What the live page shows of a server or of a client, as JSON."""

# A client keeps its chats to itself.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, TypedDict

from oa_protocol.client.client import Client
from oa_protocol.engine.intents import Exchange
from oa_protocol.server import (
    Answer,
    ChatRecord,
    ExchangeRecord,
    Fault,
    Reply,
    Reset,
    Scripted,
    Server,
    StreamFault,
    WorkerError,
)

if TYPE_CHECKING:
    from oa_protocol.client import sync

UNUSED = 60.0
"""After how many seconds without a request a chat on a server is taken for left behind."""
LISTED = 40
"""How many lines the list has, and how many deleted chats are shown."""

FAULTS: dict[str, tuple[str, Callable[[], Scripted]]] = {
    "lose-prompt": ("Lose the reply to the next prompt", lambda: Fault("prompt", after=Reset())),
    "busy": ("Refuse the next request for an answer (503)", lambda: Fault("request", before=Reply(503))),
    "break-stream": ("Break the next stream after 3 events", lambda: StreamFault(after_events=3, then=Reset())),
    "fail-answer": ("Let the next answer fail", lambda: Answer(after=1, then=WorkerError("Out of memory."))),
    "fail-delete": ("Reply 500 to the next DELETE", lambda: Fault("delete", before=Reply(500))),
}
"""The faults with a button: the label, and what to script."""


class Dot(TypedDict):
    """A conversation."""

    id: str
    phase: str


class Snapshot(TypedDict):
    """What the page shows now. ``lines`` are the latest first, and a line begins with ``!`` if something went wrong."""

    dots: list[Dot]
    counts: dict[str, int]
    lines: list[str]


class ServerView:
    """Shows an embedded server. A server doesn't know the phases of its clients, so they are inferred."""

    heading = "Last requests"

    def __init__(self, server: Server) -> None:
        self._server = server
        self._used: dict[str, tuple[int, float]] = {}  # of each chat: how many requests it had, and since when
        self.title = f"Server {server.url}"
        self.faults: Mapping[str, str] = {name: label for name, (label, _) in FAULTS.items()}

    def script(self, fault: str) -> None:
        """Script the fault with this name. Raise KeyError if there is none."""
        self._server.script(FAULTS[fault][1]())

    def snapshot(self) -> Snapshot:
        """Return what to show now."""
        exchanges, chats = self._server.exchanges, self._server.chats
        of_chat: defaultdict[str, list[ExchangeRecord]] = defaultdict(list)
        for each in exchanges:
            of_chat[each.chat_id or ""].append(each)
        left = self._left({chat.id: of_chat[chat.id] for chat in chats})
        gone = {each.chat_id: None for each in exchanges if each.confirms_gone and each.chat_id}
        for chat in chats:
            gone.pop(chat.id, None)
        states = [message.state for chat in chats for message in chat.messages]
        return Snapshot(
            dots=[
                *(Dot(id=c.id, phase="LEAKED" if c.id in left else _phase(c, of_chat[c.id])) for c in chats),
                *(Dot(id=chat_id, phase="DELETED") for chat_id in list(gone)[-LISTED:]),
            ],
            counts={
                "waiting": states.count("pending"),
                "running": states.count("in_progress"),
                "left behind": len(left),
                "deleted": len(gone),
            },
            lines=[_line(each) for each in exchanges[: -LISTED - 1 : -1]],
        )

    def _left(self, chats: Mapping[str, list[ExchangeRecord]]) -> set[str]:
        """Return the chats without a request for a while."""
        now = monotonic()
        used = {chat_id: (len(exchanges), now) for chat_id, exchanges in chats.items()}
        for chat_id, (number, since) in self._used.items():
            if chat_id in used and used[chat_id][0] == number:
                used[chat_id] = (number, since)
        self._used = used
        is_open = {chat_id for chat_id, exchanges in chats.items() if any(each.end == "open" for each in exchanges)}
        return {chat_id for chat_id, (_, since) in used.items() if now - since > UNUSED} - is_open


def _phase(chat: ChatRecord, exchanges: Iterable[ExchangeRecord]) -> str:
    deletes = [each for each in exchanges if each.step == "delete"]
    if deletes:
        return "DELETING" if deletes[-1].end == "open" else "DELETE_UNCLEAR"
    if not chat.messages:
        return "CHAT_CREATED"
    last = chat.messages[-1]
    match last.state:
        case "manual":
            return "PROMPTED"
        case "complete":
            return "ANSWERED"
        case "pending" | "in_progress":
            streams = [each for each in exchanges if each.step == "events" and each.message_id == last.id]
            if not streams:
                return "ASSISTANT_REQUESTED"
            return "STREAMING" if streams[-1].end == "open" else "POLLING"
        case _:
            return "FAILED"


def _line(exchange: ExchangeRecord) -> str:
    is_fault = exchange.end in ("cut", "left") or exchange.status >= 400
    return f"{'!' if is_fault else ''}{exchange}"


class ClientView:
    """Shows a client."""

    heading = "Conversations"

    def __init__(self, client: Client | sync.Client) -> None:
        self._client = client if isinstance(client, Client) else client._client
        self.title = f"Client of {self._client._binding.base_url}"
        self.faults: Mapping[str, str] = {}

    def script(self, fault: str) -> None:
        """Raise KeyError, because a client can't be made to misbehave."""
        raise KeyError(fault)

    def snapshot(self) -> Snapshot:
        """Return what to show now."""
        chats = [chat for chat in tuple(self._client._open_chats) if not chat._is_over]
        phases = [chat.phase.name for chat in chats]
        lines: list[str] = []
        for chat in chats:
            doing = chat._driver.conversation.outstanding
            what = doing.doing if isinstance(doing, Exchange) else ""
            lines.append(f"{chat.id or 'no chat yet'}  {chat.phase.name}  {what}")
        left = self._client.leaked
        return Snapshot(
            dots=[
                *(Dot(id=chat.id or f"new-{id(chat)}", phase=phase) for chat, phase in zip(chats, phases, strict=True)),
                *(Dot(id=record.chat_id or f"left-{number}", phase="LEAKED") for number, record in enumerate(left)),
            ],
            counts={
                "waiting": phases.count("ASSISTANT_REQUESTED"),
                "running": phases.count("STREAMING") + phases.count("POLLING"),
                "left behind": len(left),
            },
            lines=[*(f"!{record.chat_id or 'a chat without an id'}: {record.reason}" for record in left), *lines],
        )
