"""The inference server's API. It takes bearer tokens, and its errors have the key ``detail``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote, unquote

from oa_protocol.server import chats, work
from oa_protocol.server.model_configs import model_list
from oa_protocol.server.render import chat_value, encode, message_value, remembered, whole_chat_value
from oa_protocol.server.requests import Headers, Reply, Request, Step
from oa_protocol.server.state import ACCOUNTS_LIMIT, ServerState, with_account
from oa_protocol.server.validation import (
    GO_TO_LOGIN,
    LOGIN,
    PAGE,
    PROMPT,
    REQUEST,
    UPDATE,
    ClientError,
    Field,
    Json,
    RateLimited,
    ServerError,
    Value,
    check,
    parse_json,
)

INTERNAL_ERROR = b"Internal Server Error"

BODY_LIMIT = 16 * 1024 * 1024
"""The longest body, in bytes. The real server has no limit, but this one keeps everything in memory."""

_PREFLIGHT: Headers = (
    ("vary", "Origin"),
    ("access-control-allow-methods", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
    ("access-control-max-age", "600"),
    ("access-control-allow-credentials", "true"),
)
_FOR_SCRIPTS: Headers = (("access-control-allow-origin", "*"), ("access-control-allow-credentials", "true"))

_STREAM_HEADERS: Headers = (
    ("cache-control", "no-cache"),
    ("connection", "keep-alive"),
    ("x-accel-buffering", "no"),
    ("content-type", "text/event-stream; charset=utf-8"),
)


class Call(NamedTuple):
    """A request that is to be carried out, and its account."""

    account: str
    path: tuple[str, ...]
    request: Request

    @property
    def chat_id(self) -> str:
        """The chat's id, from the path."""
        return self.path[1]

    @property
    def message_id(self) -> str:
        """The message's id, from the path."""
        return self.path[3]

    def body(self, fields: tuple[Field, ...]) -> Json:
        """Read the fields of the body."""
        return _read_body(self.request.body, self.request.media_type, fields)

    def query(self, fields: tuple[Field, ...]) -> Json:
        """Read the fields of the query."""
        return check("query", dict(self.request.query), fields)


Handler = Callable[[ServerState, Call], tuple[ServerState, Reply]]


class Route(NamedTuple):
    """How requests to a path are handled. If ``quiet`` is set, a ServerError becomes a 500 without a text."""

    step: Step
    handler: Handler
    takes_body: bool = False
    quiet: bool = False
    public: bool = False


def step_of(request: Request) -> Step:
    """Return the step that the request is for."""
    methods, _ = _find(request)
    route = methods.get(request.method)
    return "other" if route is None else route.step


def respond(state: ServerState, request: Request, trusted: str | None = None) -> tuple[ServerState, Reply]:
    """Carry out a request. Return the new state and the reply.

    The website passes its account as ``trusted``. Otherwise, the account is that of the request's token. As on the real
    server, scripts of any origin may read the reply, unless it is a plain 500.
    """
    origin, wanted = request.header("origin"), request.header("access-control-request-headers")
    if origin and request.method == "OPTIONS" and request.header("access-control-request-method"):
        allowed = (("access-control-allow-headers", wanted),) if wanted else ()
        return state, _text(200, b"OK", (*_PREFLIGHT, ("access-control-allow-origin", origin), *allowed))
    state, reply = _respond(state, request, trusted)
    if origin and reply.body != INTERNAL_ERROR:
        reply = reply._replace(headers=(*reply.headers, *_FOR_SCRIPTS))
    return state, reply


def _respond(state: ServerState, request: Request, trusted: str | None) -> tuple[ServerState, Reply]:
    methods, path = _find(request)
    route = methods.get(request.method)
    if route is None:
        return state, _no_route(request, methods)
    if len(request.body) + request.unread > BODY_LIMIT:
        return state, _json(413, {"detail": "Request body is too long"}, (("connection", "close"),))
    try:
        if route.takes_body:
            # The real server checks the JSON before the credentials.
            _parse_body(request.body, request.media_type)
        account = trusted or ("" if route.public else _authenticate(state, request))
        if route.step == "request":
            state = chats.count_request(state, account)
        return route.handler(state, Call(account, path, request))
    except (ClientError, ServerError, RateLimited) as error:
        return state, _error(error, quiet=route.quiet)


def _json(status: int, value: Value, extra: Headers = ()) -> Reply:
    return Reply(status, (*extra, ("content-type", "application/json")), encode(value))


def _text(status: int, text: bytes, extra: Headers = ()) -> Reply:
    return Reply(status, (*extra, ("content-type", "text/plain; charset=utf-8")), text)


def _error(error: ClientError | ServerError | RateLimited, *, quiet: bool) -> Reply:
    match error:
        case ClientError():
            return _json(error.status, {"detail": error.detail})
        case ServerError() if quiet:
            return Reply(500)
        case _:
            return _text(500, INTERNAL_ERROR)


def _find(request: Request) -> tuple[dict[str, Route], tuple[str, ...]]:
    path = tuple(unquote(request.path).split("/")[1:])
    return _routes_of(path), path


def _routes_of(path: tuple[str, ...]) -> dict[str, Route]:
    if path[:1] != ("chats",):
        return _ROUTES.get(path, {})
    shape = tuple("*" if part and number in (1, 3) else part for number, part in enumerate(path))
    return _ROUTES.get(shape, {})


def _no_route(request: Request, methods: dict[str, Route]) -> Reply:
    if methods:
        # The real server's framework lists only the methods of the first route with this path.
        return _json(405, {"detail": "Method Not Allowed"}, (("allow", next(iter(methods))),))
    other = request.path.rstrip("/") if request.path.endswith("/") else f"{request.path}/"
    if _find(request._replace(target=other))[0]:
        target = request.target.replace(request.path, other, 1)
        return Reply(307, (("content-length", "0"), ("location", f"http://{request.header('host')}{target}")))
    return _json(404, {"detail": "Not Found"})


@remembered
def _parse_body(body: bytes, media_type: str) -> Value:
    """Parse the body as the real server's framework does: as JSON, unless the content type is something else."""
    if not body:
        return None
    is_json = media_type in {"", "application/json"} or re.fullmatch(r"application/.*\+json", media_type)
    return parse_json(body) if is_json else "text"


@remembered
def _read_body(body: bytes, media_type: str, fields: tuple[Field, ...]) -> Json:
    return check("body", _parse_body(body, media_type), fields)


def _authenticate(state: ServerState, request: Request) -> str:
    scheme, _, token = request.header("authorization").partition(" ")
    if scheme != "Bearer" or not token:
        if state.default_account is None:
            raise ClientError(403, "Not authenticated")
        return state.default_account
    if token not in state.credentials:
        raise ClientError(401, "Invalid token")
    return state.credentials[token]


# ---- what each route does


def _list(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    return state, _json(200, chats.list_chats(state, call.account, call.query(PAGE)))


def _create(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    call.body(())
    state, chat = chats.create(state, call.account)
    return state, _json(200, chat_value(chat))


def _chat(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    return state, _json(200, whole_chat_value(chats.find_chat(state, call.account, call.chat_id)))


def _update(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    return chats.update(state, call.account, call.chat_id, call.body(UPDATE)), _json(200, None)


def _delete(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    return chats.delete(state, call.account, call.chat_id), Reply(200)


def _prompt(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    state, message = chats.prompt(state, call.account, call.chat_id, call.body(PROMPT))
    return state, _json(200, message_value(message))


def _request(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    fields = call.body(REQUEST)
    chats.check_model(state, fields)
    state = chats.cancel_others(state, call.account, fields["parent_id"])
    try:
        # As on the real server, an error doesn't undo the earlier steps: the other messages stay cancelled, and a
        # pending message may be left behind.
        state, message = chats.request(state, call.account, fields)
        state = work.enqueue(state, message.id)
    except (ClientError, ServerError) as error:
        return state, _error(error, quiet=True)
    return state, _json(200, message_value(message))


def _message(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    message = chats.find_message(state, call.account, call.chat_id, call.message_id)
    return state, _json(200, message_value(message))


def _events(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    message = chats.find_message(state, call.account, call.chat_id, call.message_id)
    if not chats.has_stream(message):
        return state, Reply(204)
    return work.open_stream(state, message.id), Reply(200, _STREAM_HEADERS, stream=message.id)


def _models(state: ServerState, _: Call) -> tuple[ServerState, Reply]:
    return state, _json(200, model_list(state.quirks.allowed_models))


def _login(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    name = call.query(LOGIN)["code"]
    if not name:
        raise ClientError(400, "Username is required")
    if len(state.accounts) >= ACCOUNTS_LIMIT and name not in state.accounts:
        raise ClientError(503, f"This server keeps at most {ACCOUNTS_LIMIT:,} accounts")
    state, account = with_account(state, name)
    tokens = {
        kind: {"access_token": account.token, "token_type": token_type}
        for kind, token_type in (("access_token", "bearer"), ("refresh_token", "refresh"))
    }
    return state._replace(forgotten=state.forgotten - {name}), _json(200, tokens)


def _go_to_login(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    fields = call.query(GO_TO_LOGIN)
    query = f"code={fields['username']}&state={fields['state']}"
    location = f"http://{call.request.header('host')}/auth/callback/debug?{query}"
    return state, _json(302, {"detail": "Found"}, (("location", quote(location, safe=":/?&={}")),))


def _refresh(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    raise ServerError


def _check(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    return state, _json(200, call.account)


def _providers(state: ServerState, _: Call) -> tuple[ServerState, Reply]:
    return state, _json(200, ["debug"])


def _forget(state: ServerState, call: Call) -> tuple[ServerState, Reply]:
    return state._replace(forgotten=state.forgotten | {call.account}), Reply(200)


_ROUTES: dict[tuple[str, ...], dict[str, Route]] = {
    ("chats",): {"GET": Route("list", _list), "POST": Route("create", _create, takes_body=True)},
    ("chats", "*"): {
        "GET": Route("chat", _chat),
        "PUT": Route("update", _update, takes_body=True, quiet=True),
        "DELETE": Route("delete", _delete),
    },
    ("chats", "*", "prompter_message"): {"POST": Route("prompt", _prompt, takes_body=True, quiet=True)},
    ("chats", "*", "assistant_message"): {"POST": Route("request", _request, takes_body=True, quiet=True)},
    ("chats", "*", "messages", "*"): {"GET": Route("message", _message)},
    ("chats", "*", "messages", "*", "events"): {"GET": Route("events", _events)},
    ("configs", "model_configs"): {"GET": Route("models", _models, public=True)},
    ("auth", "callback", "debug"): {"GET": Route("login", _login, public=True)},
    ("auth", "login", "debug"): {"GET": Route("other", _go_to_login, public=True)},
    ("auth", "check"): {"GET": Route("other", _check)},
    ("auth", "providers"): {"GET": Route("other", _providers, public=True)},
    ("auth", "refresh"): {"GET": Route("other", _refresh, public=True)},
    ("account", ""): {"DELETE": Route("other", _forget)},
}
