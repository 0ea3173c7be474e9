"""Every error that servers of this protocol are known to send, for each step at which they send it.

The table in section 8 of specs/protocol.md is generated from this one. In an error's body, an inference server uses the
key ``detail``, and a website the key ``message``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Literal

from oa_protocol.engine.errors import ApiError, AuthenticationError, HTTPStatusError, OAError

Api = Literal["website", "inference"]
Step = Literal["create", "prompt", "request", "events", "message", "chat", "delete", "models"]

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Row:
    """One reply.

    Attributes:
        case: what went wrong, in words.
        api: the API that sends it.
        step: the step of the request.
        status: the HTTP status.
        content_type: the ``content-type`` header, or None if there is none.
        body: the body.
        error: the error that the engine raises, or None if it recovers. It always recovers from errors of a DELETE, and
            of the reads after a lost reply.
        words: what the text of that error contains.

    """

    case: str
    api: Api
    step: Step
    status: int
    content_type: str | None
    body: bytes
    error: type[OAError] | None
    words: tuple[str, ...] = ()

    @property
    def cell(self) -> str:
        """The reply, in the form of the specification's table."""
        said = self.body.decode()
        try:
            (said,) = json.loads(self.body).values()
        except ValueError:
            return f"{self.status} {said}".strip() if said else f"{self.status} empty"
        if isinstance(said, list):
            return f"{self.status} list"
        return f"{self.status} `{said}`"


def _api(case: str, step: Step, status: int, words: object, error: type[OAError] | None, *said: str) -> list[Row]:
    """Return the rows of an error message that both APIs send."""
    rows: list[Row] = []
    keys: tuple[tuple[Api, str], ...] = (("inference", "detail"), ("website", "message"))
    for api, key in keys:
        body = json.dumps({key: words}).encode()
        expected = said or (str(words),)
        rows.append(Row(case, api, step, status, JSON, body, error, expected))
    return rows


def _one(
    case: str, api: Api, step: Step, status: int, body: str, error: type[OAError] | None, *words: str
) -> list[Row]:
    """Return the row of an error that one API sends, with a body that isn't JSON."""
    content_type = TEXT if body and api == "inference" else None
    return [Row(case, api, step, status, content_type, body.encode(), error, words)]


def _said(
    case: str, api: Api, step: Step, status: int, words: str, error: type[OAError] | None, *said: str
) -> list[Row]:
    """Return the row of an error message that one API sends."""
    body = json.dumps({"detail" if api == "inference" else "message": words}).encode()
    return [Row(case, api, step, status, JSON, body, error, said or (words,))]


_CREDENTIALS: tuple[Step, ...] = ("create", "prompt", "request", "events", "message", "delete")
_MISSING = {"loc": ["body", "content"], "msg": "field required", "type": "value_error.missing"}
_NOT_FLOAT = {
    "loc": ["body", "sampling_parameters", "temperature"],
    "msg": "value is not a valid float",
    "type": "type_error.float",
}
_NO_BODY = {"loc": ["body"], "msg": "field required", "type": "value_error.missing"}
_ISE = "Internal Server Error"
_WRONG = "Something went wrong"
_PARENTS = (
    "Parent message not found",
    "Parent message is not an assistant message",
    "Parent message is not complete",
    "Trying to add first message to non-empty chat",
)
_FULL = "Maximum number of messages reached for this chat"


def _rows() -> list[Row]:
    rows: list[Row] = []
    for step in _CREDENTIALS:
        error = None if step == "delete" else AuthenticationError
        rows += _said("no credentials", "inference", step, 403, "Not authenticated", error)
        rows += _said("bad credentials", "inference", step, 401, "Invalid token", error)
        rows += _said("expired credentials", "inference", step, 401, "Token expired", error)
        for case in ("no credentials", "bad credentials", "expired credentials", "user banned"):
            rows += _one(case, "website", step, 403, "", error, "403")
    rows += _said("account unknown", "inference", "create", 404, "User not found", ApiError)
    rows += _said("chat unknown or foreign", "inference", "chat", 404, "Chat not found", None)
    rows += _one("chat unknown or foreign", "website", "chat", 404, "", None)
    rows += _said("chat unknown or foreign", "inference", "delete", 404, "Chat not found", None)
    rows += _one("chat unknown or foreign", "website", "delete", 500, _ISE, None)
    rows += _one("prompt into an unknown chat", "inference", "prompt", 500, "", HTTPStatusError, "500")
    rows += _said("prompt into an unknown chat", "website", "prompt", 500, _WRONG, ApiError)
    for words in _PARENTS:
        rows += _api("bad parent", "prompt", 400, words, ApiError)
    rows += _api("unknown model", "request", 422, "Model gpt-4 not found", ApiError)
    rows += _api("invalid field", "create", 422, [_NO_BODY], ApiError, "body: field required")
    rows += _api("invalid field", "prompt", 422, [_MISSING], ApiError, "body.content: field required")
    rows += _api(
        "invalid field",
        "request",
        422,
        [_NOT_FLOAT, _MISSING],
        ApiError,
        "body.sampling_parameters.temperature: value is not a valid float; body.content: field required",
    )
    rows += _one("request under an unknown parent", "inference", "request", 500, "", HTTPStatusError, "500")
    rows += _said("request under an unknown parent", "website", "request", 500, _WRONG, ApiError)
    rows += _api("content too long", "prompt", 413, "Message content exceeds max length", ApiError)
    rows += _api("chat full", "prompt", 413, _FULL, ApiError)
    rows += _api("chat full", "request", 413, _FULL, ApiError)
    rows += _api("queue full", "request", 503, "The server is currently busy. Please try again later.", ApiError)
    rows += _one("rate limit", "inference", "request", 500, _ISE, HTTPStatusError, "500", _ISE)
    rows += _said("rate limit", "website", "request", 500, _WRONG, ApiError)
    apis: tuple[Api, ...] = ("inference", "website")
    for api in apis:
        rows += _one("message unknown, foreign or deleted", api, "events", 500, _ISE, HTTPStatusError, "500", _ISE)
        rows += _one("message unknown, foreign or deleted", api, "message", 500, _ISE, HTTPStatusError, "500", _ISE)
    rows += _said(
        "events of a prompter message", "inference", "events", 400, "Only assistant messages can be streamed.", None
    )
    rows += _one("events of a prompter message", "website", "events", 500, _ISE, None)
    rows += _one("inference server down", "website", "create", 500, _ISE, HTTPStatusError, "500", _ISE)
    rows += _said("inference server down", "website", "prompt", 500, _WRONG, ApiError)
    rows += _said("inference server down", "website", "request", 500, _WRONG, ApiError)
    for step in ("events", "message", "models"):
        rows += _one("inference server down", "website", step, 500, _ISE, HTTPStatusError, "500", _ISE)
    rows += _one("inference server down", "website", "delete", 500, _ISE, None)
    for step in ("create", "prompt", "request", "events", "message", "models"):
        rows += _one("chat feature off", "website", step, 404, "", HTTPStatusError, "404", "chat feature on?")
    rows += _one("chat feature off", "website", "chat", 404, "", None)
    rows += _one("chat feature off", "website", "delete", 404, "", None)
    return rows


ROWS = tuple(_rows())


_NONE = "–"


def markdown() -> str:
    """Return the table of the specification's section 8. It has a line for each case and step."""
    lines = ["| case | step | inference | website | raised |", "| --- | --- | --- | --- | --- |"]
    keys = list(dict.fromkeys((row.case, row.step, _group(row)) for row in ROWS))
    for case, step, group in keys:
        found = [row for row in ROWS if (row.case, row.step, _group(row)) == (case, step, group)]
        cells = {row.api: row.cell for row in found}
        inference, website = cells.get("inference", _NONE), cells.get("website", _NONE)
        raised = " / ".join(dict.fromkeys(row.error.__name__ if row.error else _NONE for row in found))
        lines.append(f"| {case} | {step} | {inference} | {website} | {raised} |")
    return "\n".join(lines) + "\n"


def _group(row: Row) -> str:
    """Return what separates rows of the same case. Each message of a bad parent has its own line."""
    return row.words[0] if row.case == "bad parent" else ""


if __name__ == "__main__":
    sys.stdout.write(markdown())
