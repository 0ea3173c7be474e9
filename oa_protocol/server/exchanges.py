"""A request with its outcome, as the verdict on a client needs it (``verdict.py``)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, cast
from urllib.parse import unquote

from oa_protocol.server.core import api_of, step_of
from oa_protocol.server.requests import Api, Request, Step

End = Literal["open", "whole", "cut", "left"]
"""How a reply ended.

It is still being sent (``open``), it was sent to its end (``whole``), the server cut the connection (``cut``), or the
client had left before (``left``).
"""

_CHAT_ID = re.compile(r"(?:[?&]chat_id=|/chats/)([^&/?]+)")
_MESSAGE_ID = re.compile(r"(?:[?&]message_id=|/messages/)([^&/?]+)")
_FINAL_EVENT = re.compile(rb'^data:\s*(\{.*"event_type":\s*"message".*\})\s*$', re.MULTILINE)

# The bodies of a 200 that confirm a DELETE (OA-7.3).
_EMPTY: dict[Api, tuple[bytes, ...]] = {"website": (b"",), "inference": (b"", b"null")}

Content = tuple[object, object]


@dataclass(slots=True)
class ExchangeRecord:
    """A request and its outcome.

    Attributes:
        api: The API that the request was for.
        step: What the request was for.
        method: The HTTP method.
        target: The path and the query, as sent.
        began: When the request arrived, in seconds since the server was made.
        chat_id: The chat that the request names.
        message_id: The message that the request names.
        status: The status of the reply, or 0 if none was sent.
        end: How the reply ended.
        ended: When the reply ended, in seconds since the server was made, or None if it is still being sent.
        retry_after: How long the reply asked to wait, in seconds.

    """

    api: Api
    step: Step
    method: str
    target: str
    began: float
    chat_id: str | None = None
    message_id: str | None = None
    status: int = 0
    end: End = "open"
    ended: float | None = None
    retry_after: float | None = None
    sender: int = field(default=0, repr=False)
    """Is the same for requests with the same credentials."""
    content: Content | None = field(default=None, repr=False)
    """Is the same for requests that do the same: the parent of a new message, and the hash of a prompt's text."""
    ran: bool = field(default=False, repr=False)
    """An answer in the chat was waiting or running when the request, a DELETE, arrived."""
    confirms_gone: bool = field(default=False, repr=False)
    """The reply says that the chat is gone."""
    answers: tuple[int, ...] = field(default=(), repr=False)
    """The hashes of the complete answers in the reply, as ``hash_of`` makes them, because the texts may be long."""
    finished: bool = field(default=False, repr=False)
    """The reply is a stream with its final message."""

    def __str__(self) -> str:
        outcome = {"open": "still open", "whole": "", "cut": "cut", "left": "the client left"}[self.end]
        status = str(self.status) if self.status else ""
        return f"{self.began:8.3f} s  {self.method} {self.target} → {', '.join(filter(None, (status, outcome)))}"

    @property
    def is_whole(self) -> bool:
        """Whether the whole reply was sent to the client."""
        return self.end == "whole"


def record_of(request: Request, began: float) -> ExchangeRecord:
    """Return the record of a request whose head has just arrived."""
    record = ExchangeRecord(api_of(request), step_of(request), request.method, request.target, began)
    record.chat_id, record.message_id = _named(_CHAT_ID, request.target), _named(_MESSAGE_ID, request.target)
    record.sender = hash((request.header("authorization"), request.header("cookie")))
    return record


def note_body(record: ExchangeRecord, body: bytes) -> None:
    """Note what the body of a prompt or of a request for an answer says."""
    found = _object(body)
    record.chat_id = record.chat_id or _text(found.get("chat_id"))
    record.content = (_text(found.get("parent_id")), hash(_text(found.get("content"))))


def note_reply(record: ExchangeRecord, body: bytes) -> None:
    """Note what the body of a reply says, other than a stream's."""
    if record.step == "delete" and record.status == 200 and body in _EMPTY[record.api]:
        record.confirms_gone = True
    elif record.api == "inference" and record.step == "delete" and record.status == 404:
        record.confirms_gone = _object(body).get("detail") == "Chat not found"
    elif record.step in ("chat", "message") and record.status == 200:
        found = _object(body)
        messages: object = found.get("messages", [found])
        answers = map(_answer, cast("list[object]", messages) if isinstance(messages, list) else [])
        record.answers = tuple(hash_of(text) for text in answers if text is not None)


def note_event(record: ExchangeRecord, data: bytes) -> None:
    """Note what a piece of a stream says."""
    if b"message" not in data:  # This is the path of each token.
        return
    for event in _FINAL_EVENT.findall(data):
        content = _answer(_object(event).get("message"))
        if content is not None:
            record.answers += (hash_of(content),)
            record.finished = True


def hash_of(answer: str) -> int:
    """Return the hash of an answer. White space at its ends doesn't matter (OA-5.6)."""
    return hash(answer.strip())


def seconds_to_wait(headers: dict[str, str]) -> float | None:
    """Return what a reply's ``Retry-After`` asks for, in seconds. A date counts from the reply's own."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    until, date = _date(value), _date(headers.get("date", ""))
    return (until - date).total_seconds() if until and date else None


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the second one is of a year that is too large
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _named(pattern: re.Pattern[str], target: str) -> str | None:
    found = pattern.search(target)
    return unquote(found[1]) if found else None


def _answer(message: object) -> str | None:
    match message:
        case {"role": "assistant", "state": "complete", "content": str(content)}:
            return content
        case _:
            return None


def _object(body: bytes) -> dict[str, Any]:
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
