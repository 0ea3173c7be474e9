"""The website's API: what a browser talks to, with a session cookie."""

import json
from collections.abc import Callable
from typing import NoReturn
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from oa_protocol.server.backend import Backend, Call, Endpoint
from oa_protocol.server.catalogue import MODEL_LIST
from oa_protocol.server.event_stream import EventStream
from oa_protocol.server.faults import Step
from oa_protocol.server.replies import BareReply, website_headers, website_json, website_text
from oa_protocol.server.store import SESSION_COOKIE, Account
from oa_protocol.server.validation import Broken, Json, Refused, Value

Operation = Callable[[Call, Account], Response]

_BODY_LIMIT = 1024 * 1024
_HEAD_LIMIT = 20_000
_PAGE_SIZE = 20


def routes(backend: Backend) -> list[Route]:
    """The website's routes; all but the first take any method."""
    table: list[tuple[str, Step | Callable[[Request], Step], Operation]] = [
        ("/api/chat", _step_of_chat, _chat),
        ("/api/chat/prompter_message", "prompt", _prompt),
        ("/api/chat/assistant_message", "request", _request),
        ("/api/chat/events", "events", _events),
        ("/api/chat/message", "message", _message),
        ("/api/chat/models", "models", _models),
    ]
    return [Route(path, Endpoint(backend, "website", step, _guarded(operation))) for path, step, operation in table]


def _step_of_chat(request: Request) -> Step:
    match request.method:
        case "POST":
            return "create"
        case "PUT":
            return "update"
        case "DELETE":
            return "delete"
        case "GET":
            return "chat" if "chat_id" in request.query_params else "list"
        case _:
            return "other"


def _guarded(operation: Operation) -> Callable[[Call], Response]:
    def handler(call: Call) -> Response:
        if _head_size(call.request) > _HEAD_LIMIT:
            return BareReply(431, [("connection", "close")])
        if len(call.body) > _BODY_LIMIT:
            return website_text(413, "Body exceeded 1mb limit")
        if not call.backend.service.quirks.chat_enabled:
            return website_text(404)
        account = call.backend.authenticate(_credential(call.request))
        if account is None:
            return website_text(403)
        try:
            return operation(call, account)
        except _BadJson:
            return website_text(400, "Invalid JSON")
        except (Broken, Refused):
            return website_text(500, "Internal Server Error")

    return handler


def _chat(call: Call, account: Account) -> Response:
    query = _query(call)
    with call.backend.changing() as service:
        match _step_of_chat(call.request):
            case "create":
                _body(call)
                return _json(call, service.create(account))
            case "list":
                return _json(call, service.list_chats(account, {**query, "limit": _PAGE_SIZE}))
            case "chat":
                chat_id = _path_segment(query["chat_id"])
                try:
                    return _json(call, service.chat(account, chat_id))
                except Refused:
                    return website_text(404)
            case "update":
                body = _body(call)
                service.update(account, _path_segment(body.pop("chat_id", None)), body)
                return website_text(200)
            case "delete":
                service.delete(account, _path_segment(query.get("chat_id")))
                return website_text(200)
            case _:
                return website_text(404)


def _prompt(call: Call, account: Account) -> Response:
    return _posted(call, lambda body: call.backend.service.prompt(account, _path_segment(body.get("chat_id")), body))


def _request(call: Call, account: Account) -> Response:
    def operation(body: Json) -> Json:
        _path_segment(body.get("chat_id"))
        return call.backend.service.request(account, body)

    return _posted(call, operation)


def _posted(call: Call, operation: Callable[[Json], Json]) -> Response:
    """A message handler's reply: of the inference server's errors it passes on those that have a detail."""
    if call.body == b"null":
        return website_text(500)
    body = _body(call)
    try:
        with call.backend.changing():
            return _json(call, operation(body))
    except Refused as refusal:
        return website_json(refusal.status, {"message": refusal.detail})
    except Broken:
        return website_json(500, {"message": "Something went wrong"})


def _events(call: Call, account: Account) -> Response:
    query = _query(call)
    with call.backend.changing() as service:
        reader = service.events(account, query.get("chat_id", ""), query.get("message_id", ""))
    if reader is None:
        return website_text(200)
    # A client that leaves is not noticed upstream: there the stream is read on to its end.
    return EventStream(
        reader,
        website_headers(),
        late_head=True,
        fault=call.stream_fault(),
        on_drop=call.backend.keep_reading,
        on_miss=call.backend.script.miss,
    )


def _message(call: Call, account: Account) -> Response:
    query = _query(call)
    with call.backend.changing() as service:
        return _json(call, service.message(account, query.get("chat_id", ""), query.get("message_id", "")))


def _models(call: Call, account: Account) -> Response:
    del account
    return _json(call, MODEL_LIST)


def _json(call: Call, value: Value) -> Response:
    return website_json(200, value, compress="gzip" in call.request.headers.get("accept-encoding", ""))


def _query(call: Call) -> dict[str, str]:
    """The query; several values for a name become one, as JavaScript writes a list."""
    query = call.request.query_params
    return {name: ",".join(query.getlist(name)) for name in query}


class _BadJson(Exception):
    pass


def _body(call: Call) -> Json:
    """The body as the website's framework parses it; anything that is not an object has no fields."""
    kind = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    document = call.body.decode("utf-8", "replace")
    if kind == "application/x-www-form-urlencoded":
        return dict(parse_qsl(document))
    if kind != "application/json" or not document:
        return {}
    try:
        value: Value = json.loads(document, parse_constant=_refuse_constant)
    except ValueError:
        raise _BadJson from None
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType] - any JSON


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _path_segment(value: Value) -> str:
    """The id as part of the upstream path, into which the website pastes it unescaped.

    The real website lets ``../account/`` reach another endpoint; this one has none to reach.
    """
    segment = "undefined" if value is None else str(value)
    if "/" in segment or ".." in segment:
        raise Broken
    return segment


def _head_size(request: Request) -> int:
    head = sum(len(name) + len(value) for name, value in request.headers.raw)
    return head + len(request.scope["raw_path"]) + len(request.scope["query_string"])


def _credential(request: Request) -> str | None:
    """The session cookie, whole or split into ``.0``, ``.1`` and so on, else the bearer token."""
    cookies = request.cookies
    for name in (SESSION_COOKIE, f"__Secure-{SESSION_COOKIE}"):
        if name in cookies:
            return cookies[name]
        parts: list[str] = []
        while f"{name}.{len(parts)}" in cookies:
            parts.append(cookies[f"{name}.{len(parts)}"])
        if parts:
            return "".join(parts)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else None
