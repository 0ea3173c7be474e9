"""The server without sockets, tasks or clocks: ``(state, request) -> (state, reply)``.

A state is a value (state.py). ``handle`` carries out a request under either API. What workers and readers of streams
do are functions of the state, too (work.py)::

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
    """Carry out a request; return the state after it, and the reply.

    The body of a reply to ``HEAD`` isn't sent.
    """
    if request.method not in _METHODS:
        if api_of(request) == "website":
            return state, Reply(400)
        headers = (("connection", "close"), ("content-type", "text/plain; charset=utf-8"))
        return state, Reply(400, headers, b"Invalid HTTP request received.")
    return website.handle(state, request) if api_of(request) == "website" else inference.respond(state, request)


def api_of(request: Request) -> Api:
    """Return which API the request is for."""
    return "website" if request.target.lstrip("/").startswith("api/") else "inference"


def body_limit(request: Request) -> int:
    """Return how many bytes a body of the API may have. A longer one is refused, and nobody needs to read it."""
    return website.BODY_LIMIT if api_of(request) == "website" else inference.BODY_LIMIT


def step_of(request: Request) -> Step:
    """Return what the request asks for."""
    return website.step_of(request) if api_of(request) == "website" else inference.step_of(request)
