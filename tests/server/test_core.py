"""The core as a value: what an explorer relies on."""

from __future__ import annotations

import ast
import json
import pickle
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_protocol.server import Quirks, core
from oa_protocol.server.core import (
    Reply,
    Request,
    ServerState,
    abort,
    emit,
    finish,
    handle,
    leave,
    next_event,
    pending_event,
    step_of,
    take,
    tear_down,
    with_account,
)
from oa_protocol.testing.strategies import json_values


class Caller:
    """Sends the requests of one account, under one API, each to the state that it is given."""

    def __init__(self, token: str, session: str, *, website: bool) -> None:
        self.website = website
        cookie, bearer = ("cookie", f"next-auth.session-token={session}"), ("authorization", f"Bearer {token}")
        self.headers = (("content-type", "application/json"), cookie if website else bearer)

    def request(self, method: str, path: str, website_path: str, **body: Any) -> Request:
        target = f"/api/chat{website_path}" if self.website else f"/chats{path}"
        return Request(method, target, self.headers, json.dumps(body).encode())

    def create(self) -> Request:
        return self.request("POST", "", "")

    def prompt(self, chat: str) -> Request:
        return self.request("POST", f"/{chat}/prompter_message", "/prompter_message", chat_id=chat, content="Hi")

    def ask(self, chat: str, parent: str) -> Request:
        body = {"chat_id": chat, "parent_id": parent, "model_config_name": "_lorem"}
        return self.request("POST", f"/{chat}/assistant_message", "/assistant_message", **body)

    def events(self, chat: str, message: str) -> Request:
        query = f"/events?chat_id={chat}&message_id={message}"
        return self.request("GET", f"/{chat}/messages/{message}/events", query)

    def delete(self, chat: str) -> Request:
        return self.request("DELETE", f"/{chat}", f"?chat_id={chat}")


@pytest.fixture(params=[True, False], ids=["website", "inference"])
def caller(request: pytest.FixtureRequest) -> Caller:
    _, account = with_account(ServerState(), "ann")
    return Caller(account.token, account.session, website=request.param)


def new_state(**quirks: Any) -> ServerState:
    return with_account(ServerState(Quirks(**quirks)), "ann")[0]


def made(state: ServerState, request: Request) -> tuple[ServerState, str]:
    """Carry out what makes something; return its id."""
    state, reply = handle(state, request)
    assert reply.status == 200, reply
    return state, json.loads(reply.body)["id"]


def asked(state: ServerState, caller: Caller) -> tuple[ServerState, str, str]:
    """A chat in which an answer is pending: its id and the answer's."""
    state, chat = made(state, caller.create())
    state, prompt = made(state, caller.prompt(chat))
    state, answer = made(state, caller.ask(chat, prompt))
    return state, chat, answer


def test_the_same_state_and_request_give_the_same_result(caller: Caller) -> None:
    before = new_state()
    key = before.key()
    assert handle(before, caller.create()) == handle(before, caller.create())
    assert (before.key(), before.chats) == (key, {})


def test_two_ways_to_the_same_chats_are_one_state(caller: Caller) -> None:
    state, first = made(new_state(), caller.create())
    state, second = made(state, caller.create())
    one = handle(handle(state, caller.prompt(first))[0], caller.prompt(second))[0]
    other = handle(handle(state, caller.prompt(second))[0], caller.prompt(first))[0]
    assert len({one.key(), other.key()}) == 1 != len({one.key(), state.key()})


def test_ids_are_in_the_order_of_their_making(caller: Caller) -> None:
    for salt in (None, "salt"):
        state, chat, answer = asked(new_state()._replace(salt=salt), caller)
        messages = [message.id for message in state.chats[chat].messages]
        assert [chat, *messages] == sorted([chat, *messages])
        assert messages[-1] == answer


def test_a_state_pickles(caller: Caller) -> None:
    state, _, answer = asked(new_state(), caller)
    state = emit(take(state)[0], answer, "Hi")
    assert pickle.loads(pickle.dumps(state)).key() == state.key()


def test_an_answer_from_the_queue_to_its_end(caller: Caller) -> None:
    state, chat, answer = asked(new_state(), caller)
    state, reply = handle(state, caller.events(chat, answer))
    assert reply.stream == answer
    assert b'"queue_position": 1, "queue_size": 1' in pending_event(state, answer)
    state, taken = take(state)
    assert taken == answer
    assert next_event(state, answer) == (state, None)
    state = finish(emit(state, answer, "Hi "), answer)
    state, token = next_event(state, answer)
    state, last = next_event(state, answer)
    assert token is not None
    assert last is not None
    assert (token.data, token.final) == (b'data: {"event_type": "token", "text": "Hi "}\r\n\r\n', False)
    assert (b'"content": "Hi"' in last.data, last.final) == (True, True)
    # A finished message has no stream: each API says so in its own way.
    _, reply = handle(state, caller.events(chat, answer))
    assert reply == (Reply(200) if caller.website else Reply(204))


def test_a_reader_who_leaves_takes_a_token_along_but_not_the_end(caller: Caller) -> None:
    state, chat, answer = asked(new_state(), caller)
    state, _ = take(handle(state, caller.events(chat, answer))[0])
    state = leave(state, answer)
    for _ in range(3):
        state, _ = handle(state, caller.events(chat, answer))
    state = finish(emit(emit(state, answer, "lost "), answer, "kept"), answer)
    state = leave(leave(state, answer), answer)
    state, last = next_event(state, answer)
    assert last is not None
    assert last.final


def test_a_request_cancels_nothing_of_another_account(caller: Caller) -> None:
    state, _, answer = asked(new_state(), caller)
    state, bob = with_account(state, "bob")
    state, _, theirs = asked(state, Caller(bob.token, bob.session, website=caller.website))
    state, _, _ = asked(state, caller)
    found = [message and message.state for message in map(state.message, (answer, theirs))]
    assert found == ["cancelled", "pending"]


def test_what_is_deleted_leaves_nothing_behind_once_its_worker_has_reported(caller: Caller) -> None:
    empty = new_state()
    for end in (finish, abort):
        state, chat, answer = asked(empty, caller)
        state, _ = take(state)
        state, reply = handle(state, caller.delete(chat))
        assert reply.status == 200
        state = end(emit(state, answer, "to nobody"), answer)
        assert (state.chats, state.owners, state.streams, state.running) == ({}, {}, {}, ())


def test_a_worker_that_is_killed_aborts_what_it_has_begun_and_gives_back_the_rest(caller: Caller) -> None:
    state, _, begun = asked(new_state(), caller)
    state = emit(take(state)[0], begun, "Hi")
    state, _, untouched = asked(state, caller)
    state = tear_down(take(state)[0])
    states = [message.state for chat in state.chats.values() for message in chat.messages if message.parent_id]
    assert (states, state.waiting, state.running) == (["aborted_by_worker", "pending"], (untouched,), ())


def test_a_step_is_read_off_a_request(caller: Caller) -> None:
    requests = (caller.create(), caller.prompt("x"), caller.ask("x", "y"), caller.events("x", "y"), caller.delete("x"))
    assert [step_of(request) for request in requests] == ["create", "prompt", "request", "events", "delete"]


def test_the_core_imports_nothing_that_can_do_io_and_nothing_of_the_client() -> None:
    folder = Path(core.__file__).parent
    for name in ("chats", "core", "ids", "inference", "render", "requests", "state", "validation", "website", "work"):
        found: set[str] = set()
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module or "")
        assert not found & {"asyncio", "secrets", "socket", "starlette", "threading", "time", "uvicorn"}, name
        ours = {module for module in found - {"oa_protocol.models.base"} if module.startswith("oa_protocol")}
        assert all(module.startswith("oa_protocol.server") and ".http" not in module for module in ours), name


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]),
    path=st.sampled_from(
        ["/chats", "/chats/x", "/chats/x/prompter_message", "/api/chat", "/api/chat/assistant_message"]
    ),
    query=st.dictionaries(st.sampled_from(["after", "before", "limit", "chat_id", "include_hidden"]), st.text()),
    body=st.one_of(
        st.binary(),
        st.dictionaries(st.sampled_from(["chat_id", "parent_id", "content", "title", "plugins"]), json_values()).map(
            lambda value: json.dumps(value).encode()
        ),
    ),
)
def test_everything_is_answered(method: str, path: str, query: dict[str, str], body: bytes) -> None:
    state, account = with_account(ServerState(), "ann")
    target = f"{path}?{urlencode(query, errors='replace')}"
    headers = (("content-type", "application/json"), ("authorization", f"Bearer {account.token}"))
    _, reply = handle(state, Request(method, target, headers, body))
    assert 200 <= reply.status < 600
