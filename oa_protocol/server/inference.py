"""The inference server's API: bearer tokens, and connections that are kept."""

from collections.abc import Callable

from starlette.responses import Response
from starlette.routing import Route

from oa_protocol.server.backend import Backend, Call, Endpoint
from oa_protocol.server.catalogue import MODEL_LIST
from oa_protocol.server.event_stream import EventStream
from oa_protocol.server.faults import Step
from oa_protocol.server.replies import inference_empty, inference_headers, inference_json, inference_text
from oa_protocol.server.store import Account
from oa_protocol.server.validation import Broken, Refused, Value, check, parse_json

Operation = Callable[[Call, Account], Response]


def routes(backend: Backend) -> list[Route]:
    """The inference server's routes."""
    message = "/chats/{chat_id}/messages/{message_id}"
    table: list[tuple[str, str, Step, Callable[[Call], Response]]] = [
        ("GET", "/chats", "list", _guarded(_list)),
        ("POST", "/chats", "create", _guarded(_create)),
        ("GET", "/chats/{chat_id}", "chat", _guarded(_chat)),
        ("PUT", "/chats/{chat_id}", "update", _guarded(_update)),
        ("DELETE", "/chats/{chat_id}", "delete", _guarded(_delete)),
        ("POST", "/chats/{chat_id}/prompter_message", "prompt", _guarded(_prompt)),
        ("POST", "/chats/{chat_id}/assistant_message", "request", _guarded(_request)),
        ("GET", message, "message", _guarded(_message)),
        ("GET", f"{message}/events", "events", _guarded(_events)),
        ("GET", "/configs/model_configs", "models", _models),
        ("GET", "/auth/callback/debug", "login", _login),
    ]
    found: list[Route] = []
    for method, path, step, handler in table:
        route = Route(path, Endpoint(backend, "inference", step, handler), methods=[method])
        # Starlette would answer HEAD wherever there is GET; the real server says 405.
        route.methods = {method}
        found.append(route)
    return found


def _guarded(operation: Operation) -> Callable[[Call], Response]:
    def handler(call: Call) -> Response:
        scheme, _, token = call.request.headers.get("authorization", "").partition(" ")
        credential = token if scheme == "Bearer" and token else None
        account = call.backend.authenticate(credential)
        if account is None:
            if credential is None:
                return inference_json(403, {"detail": "Not authenticated"})
            return inference_json(401, {"detail": "Invalid token"})
        try:
            return operation(call, account)
        except Refused as refusal:
            return inference_json(refusal.status, {"detail": refusal.detail})
        except Broken:
            return inference_text(500, "Internal Server Error")

    return handler


def _list(call: Call, account: Account) -> Response:
    with call.backend.changing() as service:
        return inference_json(200, service.list_chats(account, dict(call.request.query_params)))


def _create(call: Call, account: Account) -> Response:
    check("body", _body(call), ())
    with call.backend.changing() as service:
        return inference_json(200, service.create(account))


def _chat(call: Call, account: Account) -> Response:
    with call.backend.changing() as service:
        return inference_json(200, service.chat(account, _chat_id(call)))


def _update(call: Call, account: Account) -> Response:
    with call.backend.changing() as service:
        service.update(account, _chat_id(call), _body(call))
    return inference_json(200, None)


def _delete(call: Call, account: Account) -> Response:
    with call.backend.changing() as service:
        service.delete(account, _chat_id(call))
    return inference_empty(200)


def _prompt(call: Call, account: Account) -> Response:
    body = _body(call)
    try:
        with call.backend.changing() as service:
            return inference_json(200, service.prompt(account, _chat_id(call), body))
    except Broken:
        return inference_empty(500)


def _request(call: Call, account: Account) -> Response:
    body = _body(call)
    try:
        with call.backend.changing() as service:
            return inference_json(200, service.request(account, body))
    except Broken:
        return inference_empty(500)


def _message(call: Call, account: Account) -> Response:
    with call.backend.changing() as service:
        return inference_json(200, service.message(account, _chat_id(call), _message_id(call)))


def _events(call: Call, account: Account) -> Response:
    with call.backend.changing() as service:
        reader = service.events(account, _chat_id(call), _message_id(call))
    if reader is None:
        return inference_empty(204)
    headers = [
        *inference_headers(),
        ("cache-control", "no-cache"),
        ("connection", "keep-alive"),
        ("x-accel-buffering", "no"),
        ("content-type", "text/event-stream; charset=utf-8"),
    ]
    return EventStream(
        reader,
        headers,
        late_head=False,
        fault=call.stream_fault(),
        on_drop=lambda dropped: dropped.queue.lose_one(),
        on_miss=call.backend.script.miss,
    )


def _models(call: Call) -> Response:
    del call
    return inference_json(200, MODEL_LIST)


def _login(call: Call) -> Response:
    name = call.request.query_params.get("code", "")
    if not name:
        detail = [{"loc": ["query", "code"], "msg": "field required", "type": "value_error.missing"}]
        return inference_json(422, {"detail": detail})
    account = call.backend.store.account(name)
    return inference_json(
        200,
        {
            "access_token": {"access_token": account.token, "token_type": "bearer"},
            "refresh_token": {"access_token": account.token, "token_type": "refresh"},
        },
    )


def _body(call: Call) -> Value:
    """The body as the real server's framework parses it: JSON unless it says otherwise, and then a string."""
    if not call.body:
        return None
    kind = call.request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return parse_json(call.body)
    return "text"


def _chat_id(call: Call) -> str:
    return str(call.request.path_params["chat_id"])


def _message_id(call: Call) -> str:
    return str(call.request.path_params["message_id"])
