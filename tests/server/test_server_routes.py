"""The steps of a conversation, and the bytes that are as recorded from the real servers."""

import gzip
import re
from collections.abc import Callable
from decimal import Decimal

import httpx
import pytest

from oa_protocol.server import Answer, Echo, PluginStep, Server

from .helpers import Inference, Peer, Website, ask, asked, exchange, new_chat, parse, prompted, read_stream

CHAT_KEYS = [
    "id", "created_at", "modified_at", "title", "hidden", "allow_data_use", "active_thread_tail_message_id",
]  # fmt: skip
MESSAGE_KEYS = [
    "id", "parent_id", "content", "chat_id", "created_at", "role", "state", "score", "reports", "work_parameters",
    "safe_content", "safety_level", "safety_label", "safety_rots", "used_plugin",
]  # fmt: skip
WORK_KEYS = [
    "model_config", "sampling_parameters", "do_sample", "seed", "system_prompt", "user_profile",
    "user_response_instructions", "plugins", "plugin_max_depth",
]  # fmt: skip
SAMPLING_KEYS = ["top_k", "top_p", "typical_p", "temperature", "repetition_penalty", "max_new_tokens"]

WEBSITE_JSON = ["content-type", "etag", "content-length", "vary", "date", "connection"]
WEBSITE_BARE = ["date", "connection", "transfer-encoding"]
INFERENCE_JSON = ["date", "server", "content-length", "content-type"]
INFERENCE_STREAM = [
    "date", "server", "cache-control", "connection", "x-accel-buffering", "content-type", "transfer-encoding",
]  # fmt: skip


def names(reply: httpx.Response) -> list[str]:
    return [name.decode().lower() for name, _ in reply.headers.raw]


def test_a_new_chat_is_empty_and_untitled(peer: Peer) -> None:
    chat = peer.create().json()
    assert list(chat) == CHAT_KEYS
    assert (chat["title"], chat["hidden"], chat["allow_data_use"]) == (None, False, True)


def test_ids_are_time_ordered_with_seconds_in_the_top_36_bits(peer: Peer) -> None:
    chat = peer.create().json()
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-8000-[0-9a-f]{12}", chat["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", chat["created_at"])
    later = [new_chat(peer) for _ in range(5)]
    assert [chat["id"], *later] == sorted([chat["id"], *later])


def test_a_prompt_is_a_manual_message(peer: Peer) -> None:
    chat = new_chat(peer)
    message = peer.prompt(chat, parent_id=None, content="Hé 😀").json()
    assert list(message) == MESSAGE_KEYS
    assert (message["role"], message["state"], message["content"]) == ("prompter", "manual", "Hé 😀")
    assert (message["chat_id"], message["work_parameters"]) == (chat, None)


def test_a_requested_answer_is_pending_with_its_work_parameters(peer: Peer) -> None:
    chat, prompt = prompted(peer)
    sampling = {"top_k": 50, "top_p": 0.95, "typical_p": None, "temperature": 0.75, "repetition_penalty": 1.2}
    message = peer.request(chat, parent_id=prompt, model_config_name="_lorem", sampling_parameters=sampling).json()
    assert list(message) == MESSAGE_KEYS
    assert (message["role"], message["state"], message["content"]) == ("assistant", "pending", None)
    work = message["work_parameters"]
    assert list(work) == WORK_KEYS
    assert list(work["sampling_parameters"]) == SAMPLING_KEYS
    assert work["sampling_parameters"] == {**sampling, "max_new_tokens": 1024}
    assert list(work["model_config"]) == ["model_id", "max_input_length", "max_total_length", "quantized"]


def test_the_stream_brings_tokens_and_then_the_message(peer: Peer) -> None:
    chat, message = asked(peer)
    *tokens, last = read_stream(peer, chat, message)
    assert {event["event_type"] for event in tokens} == {"token"}
    assert last["event_type"] == "message"
    assert last["message"]["state"] == "complete"
    assert last["message"]["content"] == "".join(event["text"] for event in tokens).strip()
    assert list(last["message"]) == MESSAGE_KEYS


def test_events_are_spelt_as_recorded(server: Server, peer: Peer) -> None:
    server.script(Answer(("Hé ", "😀")))
    chat, message = asked(peer)
    with peer.events(chat, message) as reply:
        body = reply.read()
    assert body.startswith(
        b'data: {"event_type": "token", "text": "H\\u00e9 "}\r\n\r\n'
        b'data: {"event_type": "token", "text": "\\ud83d\\ude00"}\r\n\r\n'
        b'data: {"event_type": "message", "message": {"id": "' + message.encode() + b'", "parent_id": "'
    )
    assert body.endswith(b'"used_plugin": null}}\r\n\r\n')


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


def test_the_finished_message_and_the_chat_have_the_answer(peer: Peer) -> None:
    chat, message = asked(peer, "Why?")
    last = read_stream(peer, chat, message)[-1]
    assert peer.message(chat, message).json()["content"] == last["message"]["content"]
    whole = peer.chat(chat).json()
    assert list(whole) == [*CHAT_KEYS, "messages"]
    assert whole["title"] == "Why?"
    by_age = sorted(whole["messages"], key=lambda one: one["id"])
    assert [one["state"] for one in by_age] == ["manual", "complete"]


def test_a_second_turn_goes_under_the_complete_answer(peer: Peer) -> None:
    chat, message = asked(peer)
    read_stream(peer, chat, message)
    second = peer.prompt(chat, parent_id=message, content="And?").json()["id"]
    answer = ask(peer, chat, second)
    assert read_stream(peer, chat, answer)[-1]["message"]["parent_id"] == second


def test_one_prompt_can_have_several_answers(peer: Peer) -> None:
    chat, prompt = prompted(peer)
    answers = [ask(peer, chat, prompt) for _ in range(3)]
    assert [read_stream(peer, chat, one)[-1]["message"]["state"] for one in answers] == ["complete"] * 3


def test_a_deleted_chat_is_gone(server: Server, peer: Peer) -> None:
    chat = new_chat(peer)
    assert [one.id for one in server.chats] == [chat]
    reply = peer.delete(chat)
    assert (reply.status_code, reply.content) == (200, b"")
    assert not server.chats
    assert peer.chat(chat).status_code == 404


def test_an_update_changes_what_it_names(peer: Peer) -> None:
    chat = new_chat(peer)
    assert peer.update(chat, title="mine").status_code == 200
    peer.update(chat, active_thread_tail_message_id="x", title=None)
    found = peer.chat(chat).json()
    assert (found["title"], found["hidden"], found["active_thread_tail_message_id"]) == ("mine", False, "x")


def test_a_title_that_was_set_survives_the_first_message(peer: Peer) -> None:
    chat = new_chat(peer)
    peer.update(chat, title="mine")
    peer.prompt(chat, content="Hello")
    assert peer.chat(chat).json()["title"] == "mine"


def test_the_models_have_parameter_configs(peer: Peer) -> None:
    models = peer.models().json()
    assert {"OA_SFT_Llama_30B_6", "_lorem"} <= {model["name"] for model in models}
    assert all(list(model) == ["name", "description", "parameter_configs"] for model in models)
    assert list(models[0]["parameter_configs"][0]) == ["name", "description", "sampling_parameters"]


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


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Cookie": "a=b; next-auth.session-token={whole}; c=d"}, 200),
        ({"Cookie": "next-auth.session-token.0={head}; next-auth.session-token.1={tail}"}, 200),
        ({"Authorization": "Bearer {whole}"}, 200),
        # The parts are joined in the order in which they were sent.
        ({"Cookie": "next-auth.session-token.1={tail}; next-auth.session-token.0={head}"}, 403),
        # The server speaks http, where the cookie has no such prefix.
        ({"Cookie": "__Secure-next-auth.session-token={whole}"}, 403),
        ({"Authorization": "bearer {whole}"}, 403),
        # A bad cookie wins over a good token.
        ({"Cookie": "next-auth.session-token=x", "Authorization": "Bearer {whole}"}, 403),
    ],
    ids=["among others", "split", "bearer", "wrong order", "secure", "lower case", "bad cookie"],
)
def test_the_website_takes_the_session_in_these_forms(server: Server, headers: dict[str, str], status: int) -> None:
    session = server.cookies["next-auth.session-token"]
    sent = {name: form.format(whole=session, head=session[:9], tail=session[9:]) for name, form in headers.items()}
    assert httpx.get(f"{server.url}/api/chat", headers=sent).status_code == status


def test_the_inference_server_says_who_a_token_belongs_to(server: Server, inference: Inference) -> None:
    assert inference.http.get("/auth/check").json() == "default"
    assert inference.http.get("/auth/providers").json() == ["debug"]
    # Refreshing a token has never worked.
    assert inference.http.get("/auth/refresh").status_code == 500


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
