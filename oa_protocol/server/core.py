"""The server without sockets, tasks or clocks: ``(state, request) -> (state, reply)``.

A state is an immutable value (``state.py``). ``handle`` carries out a request to either API. There are functions on the
state for workers and for the readers of streams, too (``work.py``)::

    state, account = with_account(ServerState(), "ann")
    state, reply = handle(state, Request("POST", "/chats", (("authorization", f"Bearer {account.token}"),), b"{}"))
"""

from __future__ import annotations

from http import HTTPMethod

from oa_protocol.server import inference, website
from oa_protocol.server.requests import Api, Reply, Request, Step
from oa_protocol.server.state import ServerState, with_account
from oa_protocol.server.work import (
    abort,
    emit,
    finish,
    give_up,
    leave,
    lose,
    next_event,
    pending_event,
    ping,
    position,
    take,
    tear_down,
    time_out,
    use_plugin,
)

__all__ = [
    "Reply", "Request", "ServerState", "abort", "api_of", "body_limit", "emit", "finish", "give_up", "handle", "leave",
    "lose", "next_event", "pending_event", "ping", "position", "step_of", "take", "tear_down", "time_out",
    "use_plugin", "with_account",
]  # fmt: skip

_METHODS = frozenset(HTTPMethod)


def handle(state: ServerState, request: Request) -> tuple[ServerState, Reply]:
    """Carry out a request. Return the new state and the reply.

    If the request is a ``HEAD``, the caller must not send the reply's body.
    """
    if request.method not in _METHODS:
        if api_of(request) == "website":
            return state, Reply(400)
        headers = (("connection", "close"), ("content-type", "text/plain; charset=utf-8"))
        return state, Reply(400, headers, b"Invalid HTTP request received.")
    return website.handle(state, request) if api_of(request) == "website" else inference.respond(state, request)


def api_of(request: Request) -> Api:
    """Return the API that the request is for."""
    return "website" if request.target.lstrip("/").startswith("api/") else "inference"


def body_limit(request: Request) -> int:
    """Return the longest body that the request's API accepts, in bytes. A longer one is refused without reading it."""
    return website.BODY_LIMIT if api_of(request) == "website" else inference.BODY_LIMIT


def step_of(request: Request) -> Step:
    """Return the step that the request is for."""
    return website.step_of(request) if api_of(request) == "website" else inference.step_of(request)
