"""The website's API, which browsers use with a session cookie. It forwards everything to the inference server."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import NamedTuple, NoReturn
from urllib.parse import parse_qsl, quote, unquote, urlencode, urljoin, urlsplit

from oa_protocol.server import inference
from oa_protocol.server.inference import INTERNAL_ERROR
from oa_protocol.server.render import encode, remembered
from oa_protocol.server.requests import Reply, Request, Step
from oa_protocol.server.state import SESSION_COOKIE, ServerState
from oa_protocol.server.validation import Json, Value

BODY_LIMIT = 1024 * 1024
_TARGET_LIMIT = 7_900
_HEADERS_LIMIT = 15_800
_PAGE_SIZE = 20

_NO_PAGE = b"<!DOCTYPE html><title>404: This page could not be found</title>"

_JSON = (("content-type", "application/json"),)
_OWN_JSON = (("content-type", "application/json; charset=utf-8"),)

_PLAIN_PATH = re.compile(r"[\w/?=&%-]*", re.ASCII)
_STRIPPED = "".join(map(chr, range(33)))
_CHARSET = re.compile(r";\s*charset=\"?([^\s\";]+)", re.IGNORECASE)
_INEXACT_NUMBER = re.compile(rb"\d{16}|\.0\b|\d[eE][+-]?\d")


class Call(NamedTuple):
    """A request that is to be carried out, and its account.

    If the query has several values for a name, they are joined. ``fields`` are the fields of the body, or None if the
    body is ``null``. ``body`` is the body that the website sends on to the inference server.
    """

    account: str
    method: str
    query: dict[str, str]
    fields: Json | None
    body: bytes


Handler = Callable[[ServerState, Call], tuple[ServerState, Reply]]


def step_of(request: Request) -> Step:
    """Return the step that the request is for."""
    if request.path == "/api/chat":
        return _step_of_chat(request.method, _joined(request.query))
    return _ROUTES[request.path][0] if request.path in _ROUTES else "other"


def handle(state: ServerState, request: Request) -> tuple[ServerState, Reply]:
    """Carry out a request. Return the new state and the reply."""
    if len(request.target) > _TARGET_LIMIT or _size(request) > _HEADERS_LIMIT:
        return state, Reply(431)
    if request.path not in _ROUTES:
        return state, _no_route(request)
    if len(request.body) + request.unread > BODY_LIMIT:
        return state, Reply(413, body=b"Body exceeded 1mb limit")
    try:
        fields, body = _parse_body(request.body, request.header("content-type"))
    except LookupError:
        return state, Reply(400, body=b"Invalid body")
    except (ValueError, RecursionError):
        return state, Reply(400, body=b"Invalid JSON")
    if not state.quirks.chat_enabled:
        return state, Reply(404)
    account = _authenticate(state, request)
    if account is None:
        return state, Reply(403)
    _, handler = _ROUTES[request.path]
    return handler(state, Call(account, request.method, _joined(request.query), fields, body))


def _no_route(request: Request) -> Reply:
    path = re.sub("//+", "/", request.path).rstrip("/")
    if path == request.path:
        return Reply(404, (("x-powered-by", "Next.js"), ("content-type", "text/html; charset=utf-8")), _NO_PAGE)
    target = request.target.replace(request.path, path, 1)
    return Reply(308, (("location", target), ("refresh", f"0;url={target}")), target.encode())


def _size(request: Request) -> int:
    return sum(len(name) + len(value) + 4 for name, value in request.headers)


# ---- reading a request


def _joined(query: list[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in query:
        # JavaScript converts a list to a string in this way.
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


@remembered
def _parse_body(body: bytes, content_type: str) -> tuple[Json | None, bytes]:
    """Parse the body as the website's framework does. If it isn't an object, there are no fields.

    Raise LookupError if the charset is unknown.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    charset = _CHARSET.search(content_type)
    document = body.decode(charset[1] if charset else "utf-8", "replace").removeprefix("\ufeff")
    value: Value = {}
    if media_type == "application/x-www-form-urlencoded":
        value = dict(parse_qsl(document))
    elif media_type in {"application/json", "application/ld+json"} and document:
        value = _parse_like_javascript(document)
    fields: Json | None = value if value is None or isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType] - any JSON
    return fields, json.dumps(fields).encode()


def _parse_like_javascript(document: str | bytes) -> Value:
    return json.loads(document, parse_int=_number, parse_float=_number, parse_constant=_refuse_constant)


def _number(text: str) -> int | float | None:
    """Read a number as JavaScript does. There, every number is a double."""
    number = float(text)
    if not math.isfinite(number):
        return None
    if not number.is_integer() or abs(number) >= 1e21:
        return number
    return int(Decimal(repr(number)))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _as_string(value: Value) -> str:
    """Convert a value to a string as JavaScript does."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "[object Object]"
        case list():
            return ",".join("" if one is None else _as_string(one) for one in value)  # pyright: ignore[reportUnknownVariableType] - any JSON
        case _:
            return str(value)


def _authenticate(state: ServerState, request: Request) -> str | None:
    """Return the account of the session cookie or, if there is no cookie, of the bearer token.

    The cookie may be split. Its parts are joined in the order in which they were sent. If the cookie is invalid, the
    token isn't tried.
    """
    cookies: dict[str, str] = {}
    for cookie in ";".join(value for name, value in request.headers if name == "cookie").split(";"):
        name, _, value = (part.strip() for part in cookie.partition("="))
        # The first cookie with a name counts. Quotes around its value don't belong to the value.
        cookies.setdefault(name, unquote(value[1:-1] if value.startswith('"') else value))
    session = "".join(value for name, value in cookies.items() if name.startswith(SESSION_COOKIE))
    if session:
        return state.credentials.get(session)
    scheme, _, token = request.header("authorization").partition(" ")
    return state.credentials.get(token) if scheme == "Bearer" else state.default_account


# ---- asking the inference server


def _ask(state: ServerState, call: Call, method: str, path: str, body: bytes = b"") -> tuple[ServerState, Reply]:
    if state.quirks.inference_down:
        return state, Reply(500)
    request = Request(method, _resolve(path), _JSON, body)
    state, reply = inference.respond(state, request, call.account)
    if reply.status == 307:
        state, reply = inference.respond(state, request._replace(target=request.path.rstrip("/")), call.account)
    return state, reply


def _resolve(path: str) -> str:
    """Resolve a path as the website does. It doesn't escape the ids in it, so ``..`` in an id leads to another path."""
    if _PLAIN_PATH.fullmatch(path):
        return path
    parts = urlsplit(urljoin("http://upstream", path.strip(_STRIPPED)))
    return quote(parts.path, safe="/%!$&'()*+,;=:@~[]|^", errors="replace") + (f"?{parts.query}" if parts.query else "")


@remembered
def _through_javascript(body: bytes) -> bytes:
    return encode(_parse_like_javascript(body)) if _INEXACT_NUMBER.search(body) else body


def _pass_on(reply: Reply) -> Reply:
    """Pass on JSON as JavaScript rewrites it. Replace an error by a plain 500, because the website drops its text."""
    if reply.status != 200:
        return Reply(500, body=INTERNAL_ERROR)
    return Reply(200, _OWN_JSON, _through_javascript(reply.body))


def _pass_on_detail(reply: Reply) -> Reply:
    """Pass on JSON, or the inference server's text of an error."""
    if reply.status == 200:
        return _pass_on(reply)
    is_json = reply.headers[-1:] == _JSON
    detail = json.loads(reply.body)["detail"] if is_json else "Something went wrong"
    return Reply(reply.status, _OWN_JSON, encode({"message": detail}))


# ---- what each route does


def _chat(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    path = f"/chats/{call.query.get('chat_id', 'undefined')}"
    match _step_of_chat(call.method, call.query):
        case "create":
            return _create(state, call)
        case "list":
            return _list(state, call)
        case "chat":
            state, reply = _ask(state, call, "GET", path)
            return state, Reply(404) if 400 <= reply.status < 500 else _pass_on(reply)
        case "update":
            state, reply = _ask(state, call, "PUT", f"/chats/{_chat_id(call.fields or {})}", call.body)
            return state, Reply(200) if reply.status == 200 else _pass_on(reply)
        case "delete":
            state, reply = _ask(state, call, "DELETE", path)
            return state, Reply(200) if reply.status == 200 else _pass_on(reply)
        case _:
            return state, Reply(404)


def _create(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    state, reply = _ask(state, call, "POST", "/chats", b"{}")
    if reply.status == 404:
        # If the inference server doesn't know the account, the website logs it in and tries again.
        state = state._replace(forgotten=state.forgotten - {call.account})
        state, reply = _ask(state, call, "POST", "/chats", b"{}")
    return state, _pass_on(reply)


def _list(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    given = {name: value for name in ("before", "after", "include_hidden") if (value := call.query.get(name))}
    state, reply = _ask(state, call, "GET", f"/chats?{urlencode({'limit': _PAGE_SIZE, **given})}")
    return state, _pass_on(reply)


def _post(state: ServerState, call: Call, what: str) -> tuple[ServerState, Reply]:
    if call.fields is None:
        return state, Reply(500)
    state, reply = _ask(state, call, "POST", f"/chats/{_chat_id(call.fields)}/{what}", call.body)
    return state, _pass_on_detail(reply)


def _get(state: ServerState, call: Call, path: str) -> tuple[ServerState, Reply]:
    ids = {name: call.query.get(name, "undefined") for name in ("chat_id", "message_id")}
    state, reply = _ask(state, call, "GET", path.format_map(ids))
    if reply.stream is not None or reply.status == 204:
        return state, Reply(200, stream=reply.stream)
    return state, _pass_on(reply)


def _chat_id(fields: Json) -> str:
    return _as_string(fields["chat_id"]) if "chat_id" in fields else "undefined"


def _step_of_chat(method: str, query: dict[str, str]) -> Step:
    steps: dict[str, Step] = {"POST": "create", "PUT": "update", "DELETE": "delete"}
    steps["GET"] = "chat" if query.get("chat_id") else "list"
    return steps.get(method, "other")


_MESSAGE = "/chats/{chat_id}/messages/{message_id}"
_ROUTES: dict[str, tuple[Step, Handler]] = {
    "/api/chat": ("chat", _chat),
    "/api/chat/prompter_message": ("prompt", partial(_post, what="prompter_message")),
    "/api/chat/assistant_message": ("request", partial(_post, what="assistant_message")),
    "/api/chat/events": ("events", partial(_get, path=f"{_MESSAGE}/events")),
    "/api/chat/message": ("message", partial(_get, path=_MESSAGE)),
    "/api/chat/models": ("models", partial(_get, path="/configs/model_configs")),
}
