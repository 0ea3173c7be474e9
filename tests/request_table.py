"""The table of requests in specs/protocol.md (OA-1.1), read as data, so that no test writes it down again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from oa_protocol.engine.intents import EXCHANGES

Api = Literal["website", "inference"]

_SPECIFICATION = Path(__file__).parents[1] / "specs" / "protocol.md"

# What a row of the table is called in the recordings, and the engine's exchange that it spells.
_ROWS = {
    "create the chat": ("create", "CreateChat"),
    "send the prompt": ("prompt", "SendPrompt"),
    "request the assistant": ("request", "RequestAssistant"),
    "open the stream": ("stream", "OpenStream"),
    "read a message": ("message", "FetchMessage"),
    "read a chat": ("chat", "FetchChat"),
    "list chats": ("chats", "ListChats"),
    "update a chat": ("update", "-"),
    "list models": ("models", "-"),
    "delete the chat": ("delete", "DeleteChat"),
}
STEPS = {kind: step for step, kind in _ROWS.values()}
"""The steps by the names of the engine's exchanges."""
assert STEPS.keys() == {"-", *(kind.__name__ for kind in EXCHANGES)}


def _read() -> dict[Api, dict[str, str]]:
    rows = re.findall(
        r"^\| ([a-z ]+) \| `([^`]+)`.* \| `([^`]+)`.* \|$", _SPECIFICATION.read_text("utf-8"), re.MULTILINE
    )
    found = {words: cells for words, *cells in rows}
    assert found.keys() == _ROWS.keys()
    tables = ({_ROWS[words][0]: _template(cells[column]) for words, cells in found.items()} for column in (0, 1))
    return dict(zip(("website", "inference"), tables, strict=True))


def _template(cell: str) -> str:
    return re.sub(r"\b(chat_id|message_id)=", r"\1={\1}", cell)


REQUESTS = _read()
"""For each API and step the method and the target, with ``{chat_id}`` and ``{message_id}`` in it."""
