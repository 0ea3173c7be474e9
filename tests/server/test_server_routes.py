"""The steps of a conversation, and the bytes that are as recorded from the real servers."""

import base64
import gzip
import re
from collections.abc import Callable
from decimal import Decimal

import httpx
import pytest

from oa_protocol.server import Answer, Echo, PluginStep, Quirks, Server

from .helpers import Inference, Peer, Website, asked, exchange, new_chat, parse, prompted, read_stream

MESSAGE_KEYS = [
    "id", "parent_id", "content", "chat_id", "created_at", "role", "state", "score", "reports", "work_parameters",
    "safe_content", "safety_level", "safety_label", "safety_rots", "used_plugin",
]  # fmt: skip
WEBSITE_JSON = ["content-type", "etag", "content-length", "vary", "date", "connection"]
WEBSITE_BARE = ["date", "connection", "transfer-encoding"]
INFERENCE_JSON = ["date", "server", "content-length", "content-type"]
INFERENCE_STREAM = [
    "date", "server", "cache-control", "connection", "x-accel-buffering", "content-type", "transfer-encoding",
]  # fmt: skip


def names(reply: httpx.Response) -> list[str]:
    return [name.decode() for name, _ in reply.headers.raw]


def test_ids_are_time_ordered_with_seconds_in_the_top_36_bits(peer: Peer) -> None:
    chat = peer.create().json()
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-8000-[0-9a-f]{12}", chat["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", chat["created_at"])
    later = [new_chat(peer) for _ in range(5)]
    assert [chat["id"], *later] == sorted([chat["id"], *later])


def test_the_stream_brings_tokens_and_then_the_message(peer: Peer) -> None:
    chat, message = asked(peer)
    *tokens, last = read_stream(peer, chat, message)
    assert {event["event_type"] for event in tokens} == {"token"}
    assert last["event_type"] == "message"
    assert last["message"]["state"] == "complete"
    assert last["message"]["content"] == "".join(event["text"] for event in tokens).strip()
    assert list(last["message"]) == MESSAGE_KEYS


def test_a_plugin_step_is_followed_by_an_empty_token(server: Server, peer: Peer) -> None:
    server.script(Answer((PluginStep("thinking", "search", "{}", "é"), "Hi")))
    plugin, empty, token, last = read_stream(peer, *asked(peer))
    assert list(plugin.items()) == [
        ("event_type", "plugin_intermediate"),
        ("current_plugin_thought", "thinking"),
        ("current_plugin_action_taken", "search"),
        ("current_plugin_action_input", "{}"),
        ("current_plugin_action_response", "é"),
        ("message", None),
    ]
    assert (empty["text"], token["text"]) == ("", "Hi")
    assert last["message"]["used_plugin"]["name"] == "search"


def test_website_json_has_the_recorded_headers(website: Website) -> None:
    reply = website.create()
    assert names(reply) == WEBSITE_JSON
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert reply.headers["connection"] == "close"


def test_website_empty_replies_are_chunked_without_a_content_type(server: Server) -> None:
    cookie = f"next-auth.session-token={server.cookies['next-auth.session-token']}"
    head, body = exchange(
        server, f"GET /api/chat?chat_id=x HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode()
    ).split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert [line.split(b":")[0].decode().lower() for line in head.split(b"\r\n")[1:]] == WEBSITE_BARE
    assert body == b"0\r\n\r\n"


@pytest.mark.parametrize(("parts", "status"), [((0, 1), 200), ((1, 0), 403)], ids=["in order", "swapped"])
def test_a_session_token_in_two_cookies_is_joined_by_their_numbers(
    server: Server, parts: tuple[int, int], status: int
) -> None:
    session = server.account().session
    halves = session[: len(session) // 2], session[len(session) // 2 :]
    cookies = "; ".join(f"next-auth.session-token.{number}={halves[part]}" for number, part in enumerate(parts))
    reply = httpx.get(f"{server.url}/api/chat", headers={"cookie": cookies}, trust_env=False)
    assert reply.status_code == status


def test_website_streams_have_no_content_type(website: Website) -> None:
    with website.events(*asked(website)) as reply:
        assert names(reply) == WEBSITE_BARE


def test_large_website_json_is_compressed_on_request(website: Website) -> None:
    chat, _ = prompted(website, "x" * 2000)
    reply = website.chat(chat)
    assert names(reply) == [
        "content-type",
        "etag",
        "vary",
        "date",
        "content-encoding",
        "connection",
        "transfer-encoding",
    ]
    assert reply.headers["content-encoding"] == "gzip"
    with website.http.stream("GET", "/api/chat", params={"chat_id": chat}) as raw:
        assert gzip.decompress(b"".join(raw.iter_raw())) == reply.content


def test_website_json_rounds_a_64_bit_seed(website: Website) -> None:
    chat, message = asked(website)
    with website.events(chat, message) as reply:
        exact = parse(reply.read())[-1]["message"]["work_parameters"]["seed"]
    rounded = website.message(chat, message).json()["work_parameters"]["seed"]
    assert rounded == int(Decimal(repr(float(exact))))


def test_inference_json_has_the_recorded_headers(inference: Inference) -> None:
    reply = inference.create()
    assert names(reply) == INFERENCE_JSON
    assert (reply.headers["server"], reply.headers["content-type"]) == ("uvicorn", "application/json")


def test_inference_streams_have_the_recorded_headers(inference: Inference) -> None:
    with inference.events(*asked(inference)) as reply:
        assert names(reply) == INFERENCE_STREAM
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_the_website_closes_each_connection(server: Server, website: Website) -> None:
    for _ in range(3):
        website.create()
    server.wait_until(lambda: server.connections == 0)


def test_the_inference_server_keeps_its_connection(server: Server, inference: Inference) -> None:
    for _ in range(3):
        inference.create()
    assert server.connections == 1


def test_debug_login_gives_an_access_token(server: Server, inference: Inference) -> None:
    token = inference.http.get("/auth/callback/debug", params={"code": "ann"}).json()["access_token"]["access_token"]
    assert token == server.account("ann").token


def test_echo_answers_with_the_prompt(connect: Callable[..., Peer]) -> None:
    with Server(Echo(), reader_grace=60) as server:
        peer = connect(server)
        events = read_stream(peer, *asked(peer, "one two  three"))
        assert [event["text"] for event in events[:-1]] == ["one ", "two  ", "three"]


def test_lorem_gives_the_same_answer_to_the_same_prompt(peer: Peer) -> None:
    first, second, other = (
        read_stream(peer, *asked(peer, prompt))[-1]["message"]["content"] for prompt in ("a", "a", "b")
    )
    assert first == second != other


def listed(reply: httpx.Response) -> list[str]:
    return [chat["id"] for chat in reply.json()["chats"]]


@pytest.mark.parametrize(("api", "size"), [("website", 20), ("inference", 10)])
def test_pages_follow_one_another_in_both_directions(
    website: Website, inference: Inference, api: str, size: int
) -> None:
    peer: Peer = website if api == "website" else inference
    chats = [new_chat(peer) for _ in range(2 * size + 1)][::-1]
    first = peer.list_chats()
    assert (listed(first), first.json()["prev"]) == (chats[:size], None)
    assert base64.b64decode(first.json()["next"]).decode() == chats[size - 1]
    second = peer.list_chats(after=first.json()["next"])
    assert listed(second) == chats[size : 2 * size]
    third = peer.list_chats(after=second.json()["next"])
    assert (listed(third), third.json()["next"]) == (chats[2 * size :], None)
    assert listed(peer.list_chats(before=third.json()["prev"])) == chats[size : 2 * size]
    assert peer.list_chats(before=second.json()["prev"]).json()["prev"] is None


def test_revoked_credentials_are_bad_and_new_ones_see_the_same_chats(
    server: Server, peer: Peer, connect: Callable[..., Peer]
) -> None:
    chat = new_chat(peer)
    server.revoke()
    assert peer.chat(chat).status_code in {401, 403, 404}
    assert peer.create().status_code in {401, 403}
    assert connect(server).chat(chat).status_code == 200


def test_credentials_can_be_made_unnecessary() -> None:
    with Server(require_credentials=False) as server:
        assert httpx.get(f"{server.url}/api/chat").status_code == 200
        assert httpx.get(f"{server.url}/chats").status_code == 200


def test_website_headers_or_a_url_that_are_too_long(website: Website, inference: Inference) -> None:
    assert website.list_chats(x="y" * 7_500).status_code == 200
    assert website.list_chats(x="y" * 8_000).status_code == 431
    assert website.http.get("/api/chat", headers={"X": "y" * 15_000}).status_code == 200
    assert website.http.get("/api/chat", headers={"X": "y" * 16_000}).status_code == 431
    assert website.list_chats(x="y" * 20_000).status_code == 431
    assert website.http.get("/api/chat", headers={"X": "y" * 20_000}).status_code == 431
    assert inference.list_chats(x="y" * 20_000).status_code == 200


def test_the_rate_limit_counts_requests_that_are_invalid(connect: Callable[..., Peer]) -> None:
    with Server(quirks=Quirks(rate_limit=1)) as server:
        peer = connect(server)
        chat, prompt = prompted(peer)
        assert peer.request(chat).status_code == 422
        assert peer.request(chat).status_code == 500
        assert peer.request(chat, parent_id=prompt, model_config_name="_lorem").status_code == 500


def test_bytes_that_are_not_http(server: Server) -> None:
    assert exchange(server, b"\x16\x03\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
