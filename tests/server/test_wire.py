"""What either API says to odd requests, beyond what recordings show: a line each, against the core."""

from __future__ import annotations

import json
from functools import cache

import pytest

from oa_protocol.server.core import (
    Request,
    ServerState,
    abort,
    emit,
    finish,
    give_up,
    handle,
    take,
    time_out,
    with_account,
)
from oa_protocol.server.state import Quirks

STATES = ("pending", "in_progress", "complete", "aborted_by_worker", "cancelled", "timeout")
UNKNOWN = "06b02a53-0000-7000-8000-000000000000"
ERROR = "Internal Server Error"
WRONG = '{"message":"Something went wrong"}'
GONE = '{"detail":"Chat not found"}'
NO_ROUTE = '{"detail":"Not Found"}'
NO_METHOD = '{"detail":"Method Not Allowed"}'
NO_INTEGER = '"msg":"value is not a valid integer"'
NO_DICT = '"msg":"value is not a valid dict"'
MISSING = '"msg":"field required"'
ANY = None


class World:
    """Ann's chat with a prompt and an answer in each state, an empty chat of hers, and Bob's chat with a prompt."""

    def __init__(self) -> None:
        self.state, ann = with_account(ServerState(), "ann")
        self.state, bob = with_account(self.state, "bob")
        self.accounts = {"ann": ann, "bob": bob}
        self.names = {"unknown": UNKNOWN, "session": ann.session, "token": ann.token}
        self.made("chat", "ann", "/chats", "{}")
        self.made("prompt", "ann", "/chats/{chat}/prompter_message", '{"content": "Hi"}')
        for name in STATES:
            body = '{"parent_id": "{prompt}", "model_config_name": "_lorem"}'
            self.bring(self.made(name, "ann", "/chats/{chat}/assistant_message", body), name)
        self.made("empty", "ann", "/chats", "{}")
        self.made("theirs", "bob", "/chats", "{}")
        self.made("their_prompt", "bob", "/chats/{theirs}/prompter_message", '{"content": "Hi"}')

    def made(self, name: str, by: str, target: str, body: str) -> str:
        headers = {"authorization": f"Bearer {self.accounts[by].token}", "content-type": "application/json"}
        self.names[name] = str(json.loads(self.send("POST", target, body, headers)[1])["id"])
        return self.names[name]

    def bring(self, message: str, name: str) -> None:
        if name in {"cancelled", "pending"}:
            self.state = give_up(self.state, message, "cancelled") if name == "cancelled" else self.state
            return
        if name == "timeout":
            self.state = time_out(self.state, message)
            return
        self.state = emit(take(self.state, message)[0], message, "Yes ")
        if name != "in_progress":
            self.state = (finish if name == "complete" else abort)(self.state, message)

    def send(self, method: str, target: str, body: str, headers: dict[str, str]) -> tuple[int, str, str | None]:
        """Status, body, and the name of the message whose stream follows."""
        for name, value in self.names.items():
            target, body = target.replace(f"{{{name}}}", value), body.replace(f"{{{name}}}", value)
            headers = {key: field.replace(f"{{{name}}}", value) for key, field in headers.items()}
        request = Request(method, target, (("host", "oa"), *headers.items()), body.encode())
        self.state, reply = handle(self.state, request)
        location = dict(reply.headers).get("location", "")
        streamed = next((name for name, value in self.names.items() if value == reply.stream), None)
        return reply.status, location or reply.body.decode(), streamed


@cache
def first_state() -> tuple[ServerState, dict[str, str]]:
    world = World()
    return world.state, world.names


@pytest.fixture
def world() -> World:
    world = World.__new__(World)
    world.state, names = first_state()
    world.names = dict(names)
    return world


def credentials(target: str) -> dict[str, str]:
    is_website = target.lstrip("/").startswith("api/")
    return {"cookie": "next-auth.session-token={session}"} if is_website else {"authorization": "Bearer {token}"}


PROMPT = "POST /chats/{empty}/prompter_message "
ASK = 'POST /chats/{chat}/assistant_message {"parent_id":"{prompt}","model_config_name":"_lorem",'
UPDATE = "PUT /chats/{chat} "
WEB_PROMPT = "POST /api/chat/prompter_message "
REQUESTS: list[tuple[str, int, str | None]] = [
    # lists
    ("GET /chats?limit=", 422, NO_INTEGER),
    ("GET /chats?limit=1e1", 422, NO_INTEGER),
    ("GET /chats?limit=-1", 422, "greater than 0"),
    ("GET /chats?limit=99999999999999999999", 422, "less than or equal to 100"),
    ("GET /chats?limit=%2B1&x=y", 200, '"next":"'),
    ("GET /chats?limit=1&limit=2", 200, '"next":null'),
    ("GET /chats?include_hidden=", 422, "could not be parsed to a boolean"),
    ("GET /chats?include_hidden=on", 200, ANY),
    ("GET /chats?after=eA==&before=", 200, ANY),
    ("GET /chats?after=AA==", 500, ERROR),
    ("GET /chats?after=%00", 200, r'{"chats":[],"next":null,"prev":"\u0000"}'),
    ("GET /chats?before=%EF%BF%BD", 200, ANY),
    ("GET /api/chat?after=AA==", 500, ERROR),
    ("GET /api/chat?before=%C3%A9", 200, ANY),
    # routes, slashes, methods
    ("GET /", 404, NO_ROUTE),
    ("GET //chats", 404, NO_ROUTE),
    ("GET /chats//", 307, "http://oa/chats"),
    ("GET /chats/{chat}/messages/{complete}/?x=y", 307, "http://oa/chats/{chat}/messages/{complete}?x=y"),
    ("DELETE /account", 307, "http://oa/account/"),
    ("GET /chats/{chat}/messages", 404, NO_ROUTE),
    ("GET /chats/{chat}%2Fmessages", 404, NO_ROUTE),
    ("GET /chats/%20", 404, GONE),
    ("GET /chats/%00", 500, ERROR),
    ("GET /chats/..", 404, GONE),
    ("GET /chats/{theirs}", 404, GONE),
    ("DELETE /chats/{theirs}", 404, GONE),
    ("GET /chats/{theirs}/messages/{their_prompt}", 500, ERROR),
    ("GET /chats/{empty}/messages/{complete}", 500, ERROR),
    ("GET /chats/{empty}/messages/{complete}/events", 500, ERROR),
    ("GET /chats/{chat}/messages/{prompt}/events", 400, '{"detail":"Only assistant messages can be streamed."}'),
    ("POST /chats/{chat}", 405, NO_METHOD),
    ("GET /chats/{chat}/prompter_message", 405, NO_METHOD),
    ("DELETE /chats/{chat}/messages/{complete}", 405, NO_METHOD),
    ("POST /configs/model_configs", 405, NO_METHOD),
    ("GET /account/", 405, NO_METHOD),
    ("GET /auth/check", 200, '"ann"'),
    ("GET /auth/login/debug", 422, MISSING),
    ("GET /auth/callback/debug?code=x&code=", 400, '{"detail":"Username is required"}'),
    ("PUT /api/chat/", 308, "/api/chat"),
    ("GET /api/chat/models/?x=y", 308, "/api/chat/models?x=y"),
    ("GET /api/nothing", 404, "<!DOCTYPE html>"),
    ("PUT /api/chat/models", 200, '[{"name":'),
    ("GET /api/chat?chat_id={theirs}", 404, ""),
    ("DELETE /api/chat?chat_id={theirs}", 500, ERROR),
    ("GET /api/chat/message?chat_id={theirs}&message_id={their_prompt}", 500, ERROR),
    ("GET /api/chat/events?chat_id={chat}&message_id={prompt}", 500, ERROR),
    # prompts
    (PROMPT, 422, MISSING),
    (PROMPT + "1", 422, NO_DICT),
    (PROMPT + '""', 422, MISSING),
    (PROMPT + '[["content"]]', 422, NO_DICT),
    (PROMPT + '[["content","x"]]', 200, '"content":"x"'),
    (PROMPT + '{"content":"x","content":"y"}', 200, '"content":"y"'),
    (PROMPT + '{"content":true}', 200, '"content":"True"'),
    (PROMPT + '{"content":NaN}', 200, '"content":"nan"'),
    (PROMPT + '{"content":"x"}x', 422, "Extra data: line 1 column 16"),
    (PROMPT + '{"content":"\\ud83d\\ude00"}', 200, '"content":"😀"'),
    (PROMPT + '{"content":"\\ud83d"}', 500, ""),
    (PROMPT + '{"content":"x","parent_id":5}', 400, '{"detail":"Parent message not found"}'),
    (PROMPT + '{"content":"x","parent_id":[]}', 422, '"loc":["body","parent_id"],"msg":"str type expected"'),
    (PROMPT + "[" * 100_000, 400, '{"detail":"There was an error parsing the body"}'),
    (WEB_PROMPT + '{"chat_id":["{empty}"],"content":"x"}', 200, '"content":"x"'),
    (WEB_PROMPT + '{"chat_id":null,"content":"x"}', 500, WRONG),
    (WEB_PROMPT + '{"chat_id":{},"content":"x"}', 500, WRONG),
    (WEB_PROMPT + '{"chat_id":"{empty}","content":1e400}', 422, "none is not an allowed value"),
    (WEB_PROMPT + '{"chat_id":"{empty}","content":NaN}', 400, "Invalid JSON"),
    (WEB_PROMPT + "[" * 100_000, 400, "Invalid JSON"),
    # requests for an answer
    (ASK + '"sampling_parameters":"x"}', 422, NO_DICT),
    (ASK + '"sampling_parameters":{"top_k":"5.5"}}', 422, NO_INTEGER),
    (ASK + '"sampling_parameters":{"top_k":1e400}}', 422, NO_INTEGER),
    (ASK + '"sampling_parameters":{"temperature":"nan"}}', 500, ""),
    (ASK + '"plugins":[5]}', 422, f'"loc":["body","plugins",0],{NO_DICT}'),
    (ASK + '"plugins":[{"url":"u"},{}]}', 422, f'"loc":["body","plugins",1,"url"],{MISSING}'),
    (ASK + '"used_plugin":{}}', 422, f'"loc":["body","used_plugin","execution_details"],{MISSING}'),
    (ASK + '"system_prompt":"\\u0000"}', 500, ""),
    (ASK + '"model_config_name":"\\u0000"}', 422, r"Model \u0000 not found"),
    (ASK + '"parent_id":"{their_prompt}"}', 400, '{"detail":"Message not found"}'),
    (ASK + '"parent_id":""}', 500, ""),
    # updates
    (UPDATE, 422, MISSING),
    (UPDATE + "{}", 200, "null"),
    (UPDATE + '{"title":5,"hidden":0.0}', 200, "null"),
    (UPDATE + '{"title":"\\u0000"}', 500, ""),
    (UPDATE + '{"hidden":[]}', 422, "could not be parsed to a boolean"),
    (f'PUT /chats/{{unknown}} {{"title":"{101 * "x"}"}}', 422, "at most 100 characters"),
    ("PUT /chats/{theirs} {}", 500, ""),
    ('PUT /api/chat {"chat_id":"{theirs}"}', 500, ERROR),
    ("PUT /api/chat null", 500, ERROR),
    # deletes
    ("DELETE /api/chat?chat_id={empty} {", 400, "Invalid JSON"),
    ("DELETE /chats/{empty} {", 200, ""),
]


def check(world: World, request_line: str, headers: dict[str, str], status: int, said: str | None) -> None:
    """Send a request; see that ``said`` is in the reply, which is empty if ``said`` is."""
    method, target, *body = request_line.split(" ", 2)
    found = world.send(method, target, "".join(body), {"content-type": "application/json", **headers})
    for name, value in world.names.items():
        said = said and said.replace(f"{{{name}}}", value)
    assert found[0] == status, found
    assert found[1] == "" if said == "" else (said or "") in found[1]


@pytest.mark.parametrize(("request_line", "status", "said"), REQUESTS, ids=[one[0][:60] for one in REQUESTS])
def test_an_odd_request_is_answered_as_the_real_servers_do(
    world: World, request_line: str, status: int, said: str | None
) -> None:
    check(world, request_line, credentials(request_line.split(" ")[1]), status, said)


NOBODY = '{"detail":"Not authenticated"}'
NO_TOKEN = '{"detail":"Invalid token"}'


@pytest.mark.parametrize(
    ("request_line", "headers", "status", "said"),
    [
        ("GET /chats?limit=0", {}, 403, NOBODY),
        ("GET /chats", {"authorization": "Bearer"}, 403, NOBODY),
        ("GET /chats", {"authorization": "bearer {token}"}, 403, NOBODY),
        ("GET /chats", {"authorization": "{token}"}, 403, NOBODY),
        ("GET /chats", {"authorization": "Bearer  {token}"}, 401, NO_TOKEN),
        ("GET /auth/check", {"authorization": "Bearer x"}, 401, NO_TOKEN),
        ("PUT /chats/x [", {}, 422, "Expecting value"),
        ("DELETE /chats/x [", {}, 403, NOBODY),
        ("DELETE /account/", {}, 403, NOBODY),
        ("GET /configs/model_configs", {}, 200, "["),
        ("POST /api/chat {", {}, 400, "Invalid JSON"),
        ("POST /api/chat {}", {}, 403, ""),
        ("POST /api/chat {", {"content-type": "application/ld+json"}, 400, "Invalid JSON"),
        ("POST /api/chat {", {"content-type": "text/plain"}, 403, ""),
        ("POST /api/chat \ufeff{}", {}, 403, ""),
        ("POST /api/chat {}", {"content-type": "application/json; charset=klingon"}, 400, "Invalid body"),
        ('POST /api/chat {"é":1}', {"content-type": 'application/json; charset="latin1"'}, 403, ""),
        ("GET /api/chat/models", {"authorization": "Bearer x"}, 403, ""),
        ("GET /api/chat", {"cookie": "next-auth.session-token={session}", "x": 15_000 * "y"}, 200, "{"),
        ("GET /api/chat", {"cookie": f"a={16_000 * 'y'}"}, 431, ""),
        (
            "GET /api/chat",
            {"cookie": 'a; b=next-auth.session-token; next-auth.session-token = "{session}"'},
            200,
            "{",
        ),
        ("GET /api/chat", {"cookie": "next-auth.session-token={session}; next-auth.session-token=x"}, 200, "{"),
        ("GET /api/chat", {"cookie": "next-auth.session-token={session}; next-auth.session-token.1=x"}, 403, ""),
        (f"GET /api/chat?x={7_500 * 'y'}", {"cookie": "next-auth.session-token={session}"}, 200, "{"),
        (f"GET /api/chat?x={8_000 * 'y'}", {}, 431, ""),
    ],
    ids=lambda value: str(value)[:50],
)
def test_credentials_come_after_bad_json_and_before_the_fields(
    world: World, request_line: str, headers: dict[str, str], status: int, said: str
) -> None:
    check(world, request_line, headers, status, said)


def test_scripts_of_another_origin_may_not_read_a_plain_error(world: World) -> None:
    headers = (("origin", "http://localhost"), ("authorization", f"Bearer {world.names['token']}"))
    for target, allowed in (("/chats/x", "*"), ("/chats/x/messages/y", None)):
        _, reply = handle(world.state, Request("GET", target, headers))
        assert dict(reply.headers).get("access-control-allow-origin") == allowed


@pytest.mark.parametrize("website", [True, False], ids=["website", "inference"])
@pytest.mark.parametrize("name", STATES)
def test_a_message_in_every_state(world: World, name: str, website: bool) -> None:
    def send(step: str) -> tuple[int, str, str | None]:
        method, target, *body = STEPS[step][not website].split(" ", 2)
        target, text = target.replace("{it}", f"{{{name}}}"), "".join(body).replace("{it}", f"{{{name}}}")
        return world.send(method, target, text, {"content-type": "application/json", **credentials(target)})

    ended = name in {"complete", "aborted_by_worker"}
    assert send("events") == ((200 if website or not ended else 204), "", None if ended else name)
    shown = json.loads(send("message")[1])
    assert (shown["state"], shown["content"]) == (name, "Yes" if name == "complete" else None)
    assert send("prompt")[0] == (200 if name == "complete" else 400)
    assert send("request")[0] == 500
    assert send("delete") == (200, "", None)
    assert send("delete") == ((500, ERROR, None) if website else (404, GONE, None))
    assert [send(step)[0] for step in ("events", "message", "prompt", "request")] == [500] * 4
    assert send("chat")[0] == 404


def test_an_account_that_is_deleted_is_unknown_until_it_logs_in(world: World) -> None:
    web, token = credentials("/api/"), credentials("/")
    assert world.send("DELETE", "/api/chat?chat_id=../account/", "", web) == (200, "", None)
    create = ("POST", "/chats", "{}", token)
    assert world.send(*create) == (404, '{"detail":"User not found"}', None)
    assert world.send("GET", "/chats/{chat}", "", token)[0] == 200
    assert world.send("POST", "/api/chat", "", web)[0] == 200  # the website logs in by itself
    assert world.send(*create)[0] == 200
    world.send("DELETE", "/account/", "", token)
    assert '{"access_token":{"access_token":"' in world.send("GET", "/auth/callback/debug?code=ann", "", {})[1]
    assert world.send(*create)[0] == 200


@pytest.mark.parametrize("request_line", ["POST /api/chat", "GET /api/chat", "DELETE /api/chat?chat_id={chat}"])
def test_without_an_inference_server_the_website_has_errors_of_its_own(world: World, request_line: str) -> None:
    world.state = world.state._replace(quirks=Quirks(inference_down=True))
    check(world, request_line, credentials("/api/"), 500, ERROR)
    check(world, WEB_PROMPT + "{}", credentials("/api/"), 500, WRONG)


_IDS = "?chat_id={chat}&message_id={it}"
STEPS = {
    "events": (f"GET /api/chat/events{_IDS}", "GET /chats/{chat}/messages/{it}/events"),
    "message": (f"GET /api/chat/message{_IDS}", "GET /chats/{chat}/messages/{it}"),
    "prompt": (
        'POST /api/chat/prompter_message {"chat_id":"{chat}","parent_id":"{it}","content":"x"}',
        'POST /chats/{chat}/prompter_message {"parent_id":"{it}","content":"x"}',
    ),
    "request": (
        'POST /api/chat/assistant_message {"chat_id":"{chat}","parent_id":"{it}","model_config_name":"_lorem"}',
        'POST /chats/{chat}/assistant_message {"parent_id":"{it}","model_config_name":"_lorem"}',
    ),
    "chat": ("GET /api/chat?chat_id={chat}", "GET /chats/{chat}"),
    "delete": ("DELETE /api/chat?chat_id={chat}", "DELETE /chats/{chat}"),
}
