"""What either API says to a request it does not carry out, word for word."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from oa_protocol.server import Quirks, Server

from .helpers import UNKNOWN_ID, Inference, Peer, Website, ask, asked, exchange, new_chat, prompted, read_stream

Connect = Callable[..., Peer]
MISSING = {"msg": "field required", "type": "value_error.missing"}
NONE = {"msg": "none is not an allowed value", "type": "type_error.none.not_allowed"}


def said(reply: httpx.Response) -> tuple[int, Any]:
    """The status and what either API calls the detail of an error; its text where that is not JSON."""
    if "json" not in reply.headers.get("content-type", ""):
        return reply.status_code, reply.text
    (detail,) = reply.json().values()
    return reply.status_code, detail


def test_the_details_key_is_message_on_the_website_and_detail_on_the_inference_server(
    website: Website, inference: Inference
) -> None:
    assert list(website.prompt(UNKNOWN_ID, content="x").json()) == ["message"]
    assert list(inference.chat(UNKNOWN_ID).json()) == ["detail"]


@pytest.mark.parametrize("path", ["/api/chat", "/api/chat/events", "/api/chat/models", "/api/chat/message"])
def test_the_website_forbids_requests_without_credentials(server: Server, path: str) -> None:
    for headers in ({}, {"Cookie": "next-auth.session-token=garbage"}, {"Authorization": "Bearer garbage"}):
        assert said(httpx.get(server.url + path, headers=headers)) == (403, "")


def test_the_inference_server_forbids_requests_without_credentials(server: Server) -> None:
    assert said(httpx.get(f"{server.url}/chats")) == (403, "Not authenticated")


def test_the_inference_server_does_not_know_a_bad_token(server: Server) -> None:
    assert said(httpx.get(f"{server.url}/chats", headers={"Authorization": "Bearer garbage"})) == (401, "Invalid token")


def test_the_inference_server_lists_models_without_credentials(server: Server) -> None:
    assert httpx.get(f"{server.url}/configs/model_configs").status_code == 200


def test_revoked_credentials_are_bad_and_new_ones_see_the_same_chats(
    server: Server, peer: Peer, connect: Connect
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


def test_another_accounts_chat_is_unknown(server: Server, peer: Peer, connect: Connect) -> None:
    chat, message = asked(connect(server, server.account("ann")))
    assert peer.chat(chat).status_code == 404
    assert peer.delete(chat).status_code in {404, 500}
    assert peer.message(chat, message).status_code == 500
    assert peer.list_chats().json()["chats"] == []


def test_an_unknown_chat(website: Website, inference: Inference) -> None:
    assert said(inference.chat(UNKNOWN_ID)) == (404, "Chat not found")
    assert said(inference.delete(UNKNOWN_ID)) == (404, "Chat not found")
    assert said(inference.update(UNKNOWN_ID, title="x")) == (500, "")
    assert said(website.chat(UNKNOWN_ID)) == (404, "")
    assert said(website.delete(UNKNOWN_ID)) == (500, "Internal Server Error")
    assert said(website.update(UNKNOWN_ID, title="x")) == (500, "Internal Server Error")


def test_a_second_delete_is_an_error(website: Website, inference: Inference) -> None:
    chat = new_chat(inference)
    inference.delete(chat)
    assert said(inference.delete(chat)) == (404, "Chat not found")
    assert said(website.delete(chat)) == (500, "Internal Server Error")


def test_a_prompt_into_an_unknown_chat(website: Website, inference: Inference) -> None:
    assert said(inference.prompt(UNKNOWN_ID, content="x")) == (500, "")
    assert said(website.prompt(UNKNOWN_ID, content="x")) == (500, "Something went wrong")


def test_a_prompt_with_a_bad_parent(peer: Peer) -> None:
    chat, prompt = prompted(peer)
    assert said(peer.prompt(chat, content="x")) == (400, "Trying to add first message to non-empty chat")
    assert said(peer.prompt(chat, content="x", parent_id=UNKNOWN_ID)) == (400, "Parent message not found")
    assert said(peer.prompt(chat, content="x", parent_id=prompt)) == (
        400,
        "Parent message is not an assistant message",
    )
    answer = ask(peer, chat, prompt)
    assert said(peer.prompt(chat, content="x", parent_id=answer)) == (400, "Parent message is not complete")


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, [{"loc": ["body", "content"], **MISSING}]),
        ({"content": None}, [{"loc": ["body", "content"], **NONE}]),
        ({"content": ["a"]}, [{"loc": ["body", "content"], "msg": "str type expected", "type": "type_error.str"}]),
    ],
)
def test_an_invalid_prompt(peer: Peer, body: dict[str, Any], errors: list[Any]) -> None:
    assert said(peer.prompt(new_chat(peer), **body)) == (422, errors)


def test_a_number_as_a_prompt_becomes_text(peer: Peer) -> None:
    assert peer.prompt(new_chat(peer), content=42).json()["content"] == "42"


@pytest.mark.parametrize("content", ["", "  \n ", "👩‍👩‍👧\u2028\x01"])
def test_any_other_content_is_accepted(peer: Peer, content: str) -> None:
    assert peer.prompt(new_chat(peer), content=content).json()["content"] == content


@pytest.mark.parametrize("content", ["a\0b", "a\ud800b"])
def test_what_the_database_cannot_store_is_a_server_error(peer: Peer, content: str) -> None:
    chat = new_chat(peer)
    assert said(peer.prompt(chat, content=content)) in {(500, ""), (500, "Something went wrong")}
    assert peer.chat(chat).json()["messages"] == []


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, [{"loc": ["body", "parent_id"], **MISSING}, {"loc": ["body", "model_config_name"], **MISSING}]),
        (
            {"parent_id": None, "model_config_name": None},
            [{"loc": ["body", "parent_id"], **NONE}, {"loc": ["body", "model_config_name"], **NONE}],
        ),
    ],
)
def test_an_invalid_request(peer: Peer, body: dict[str, Any], errors: list[Any]) -> None:
    assert said(peer.request(new_chat(peer), **body)) == (422, errors)


@pytest.mark.parametrize(
    ("sampling", "error"),
    [
        (None, {"loc": ["body", "sampling_parameters"], **NONE}),
        ({"max_new_tokens": None}, {"loc": ["body", "sampling_parameters", "max_new_tokens"], **NONE}),
        (
            {"temperature": "hot"},
            {
                "loc": ["body", "sampling_parameters", "temperature"],
                "msg": "value is not a valid float",
                "type": "type_error.float",
            },
        ),
        (
            {"top_k": "x"},
            {
                "loc": ["body", "sampling_parameters", "top_k"],
                "msg": "value is not a valid integer",
                "type": "type_error.integer",
            },
        ),
    ],
)
def test_invalid_sampling_parameters(peer: Peer, sampling: Any, error: Any) -> None:
    chat, prompt = prompted(peer)
    reply = peer.request(chat, parent_id=prompt, model_config_name="_lorem", sampling_parameters=sampling)
    assert said(reply) == (422, [error])


def test_sampling_parameters_are_converted_and_unknown_ones_dropped(peer: Peer) -> None:
    chat, prompt = prompted(peer)
    sampling = {"temperature": "0.5", "top_k": 50.9, "secret": 1}
    reply = peer.request(chat, parent_id=prompt, model_config_name="_lorem", sampling_parameters=sampling, foo=1)
    stored = reply.json()["work_parameters"]["sampling_parameters"]
    assert (stored["temperature"], stored["top_k"], "secret" in stored) == (0.5, 50, False)


def test_an_unknown_model(peer: Peer) -> None:
    chat, prompt = prompted(peer)
    assert said(peer.request(chat, parent_id=prompt, model_config_name="gpt-4")) == (422, "Model gpt-4 not found")


def test_a_request_under_an_unknown_or_unfit_parent(server: Server, peer: Peer, connect: Connect) -> None:
    chat, message = asked(peer)
    for parent in (UNKNOWN_ID, message):
        reply = peer.request(chat, parent_id=parent, model_config_name="_lorem")
        assert said(reply) in {(500, ""), (500, "Something went wrong")}
    _, foreign = prompted(connect(server, server.account("ann")))
    assert said(peer.request(chat, parent_id=foreign, model_config_name="_lorem")) == (400, "Message not found")


def test_the_chat_id_of_a_request_is_not_checked(peer: Peer) -> None:
    chat, prompt = prompted(peer)
    reply = peer.request(UNKNOWN_ID, parent_id=prompt, model_config_name="_lorem")
    assert reply.json()["chat_id"] == chat


def test_not_a_number_in_json(website: Website, inference: Inference) -> None:
    body = f'{{"parent_id": "{UNKNOWN_ID}", "model_config_name": "_lorem", "sampling_parameters": {{"top_p": NaN}}}}'
    kind = {"Content-Type": "application/json"}
    reply = inference.http.post(f"/chats/{UNKNOWN_ID}/assistant_message", content=body, headers=kind)
    assert said(reply) == (500, "")
    reply = website.http.post("/api/chat/assistant_message", content=body, headers=kind)
    assert said(reply) == (400, "Invalid JSON")


def test_events_and_messages_that_do_not_exist(peer: Peer) -> None:
    chat = new_chat(peer)
    assert said(peer.message(chat, UNKNOWN_ID)) == (500, "Internal Server Error")
    with peer.events(chat, UNKNOWN_ID) as reply:
        reply.read()
        assert said(reply) == (500, "Internal Server Error")


def test_a_prompt_has_no_stream(website: Website, inference: Inference) -> None:
    for peer, answer in (
        (website, (500, "Internal Server Error")),
        (inference, (400, "Only assistant messages can be streamed.")),
    ):
        with peer.events(*prompted(peer)) as reply:
            reply.read()
            assert said(reply) == answer


def test_events_by_post_on_the_inference_server(inference: Inference) -> None:
    chat, message = asked(inference)
    reply = inference.http.post(f"/chats/{chat}/messages/{message}/events")
    assert said(reply) == (405, "Method Not Allowed")
    assert reply.headers["allow"] == "GET"


def test_events_by_get_on_the_website(website: Website) -> None:
    chat, message = asked(website)
    reply = website.http.get("/api/chat/events", params={"chat_id": chat, "message_id": message})
    assert reply.content.startswith(b"data: ")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", {"loc": ["body"], **MISSING}),
        (b"null", {"loc": ["body"], **MISSING}),
        (b'"x"', {"loc": ["body"], "msg": "value is not a valid dict", "type": "type_error.dict"}),
        (
            b"{oops",
            {
                "loc": ["body", 1],
                "msg": "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
                "type": "value_error.jsondecode",
                "ctx": {
                    "msg": "Expecting property name enclosed in double quotes",
                    "doc": "{oops",
                    "pos": 1,
                    "lineno": 1,
                    "colno": 2,
                },
            },
        ),
    ],
)
def test_a_create_on_the_inference_server_needs_a_json_object(inference: Inference, body: bytes, detail: Any) -> None:
    reply = inference.http.post("/chats", content=body, headers={"Content-Type": "application/json"})
    assert said(reply) == (422, [detail])


def test_bytes_that_are_not_utf_8(website: Website, inference: Inference) -> None:
    kind = {"Content-Type": "application/json"}
    reply = inference.http.post(
        f"/chats/{new_chat(inference)}/prompter_message", content=b'{"content":"\xff"}', headers=kind
    )
    assert said(reply) == (400, "There was an error parsing the body")
    body = f'{{"chat_id":"{new_chat(website)}","content":"\xff"}}'.encode("latin-1")
    reply = website.http.post("/api/chat/prompter_message", content=body, headers=kind)
    assert reply.json()["content"] == "\ufffd"


def test_a_create_on_the_website_takes_any_body_but_bad_json(website: Website) -> None:
    kind = {"Content-Type": "application/json"}
    assert website.http.post("/api/chat").status_code == 200
    assert website.http.post("/api/chat", content="[]", headers=kind).status_code == 200
    assert said(website.http.post("/api/chat", content="{", headers=kind)) == (400, "Invalid JSON")


def test_bad_json_is_answered_before_bad_credentials(server: Server) -> None:
    kind = {"Content-Type": "application/json"}
    for path, status in (("/chats", 422), ("/api/chat", 400)):
        assert httpx.post(server.url + path, content="{", headers=kind).status_code == status
        assert httpx.post(server.url + path, content="{}", headers=kind).status_code == 403


def test_a_website_delete_with_bad_json_deletes_nothing(website: Website) -> None:
    chat = new_chat(website)
    kind = {"Content-Type": "application/json"}
    reply = website.http.request("DELETE", "/api/chat", params={"chat_id": chat}, content="{", headers=kind)
    assert said(reply) == (400, "Invalid JSON")
    assert website.chat(chat).status_code == 200


def test_a_website_body_over_1_mib(website: Website) -> None:
    chat = new_chat(website)
    assert website.prompt(chat, content="x" * 1_000_000).status_code == 200
    assert said(website.prompt(chat, content="x" * 1_048_576)) == (413, "Body exceeded 1mb limit")


def test_website_headers_or_a_url_that_are_too_long(website: Website, inference: Inference) -> None:
    assert website.list_chats(x="y" * 7_500).status_code == 200
    assert said(website.list_chats(x="y" * 8_000)) == (431, "")
    assert website.http.get("/api/chat", headers={"X": "y" * 15_000}).status_code == 200
    assert website.http.get("/api/chat", headers={"X": "y" * 16_000}).status_code == 431
    assert said(website.list_chats(x="y" * 20_000)) == (431, "")
    assert website.http.get("/api/chat", headers={"X": "y" * 20_000}).status_code == 431
    assert inference.list_chats(x="y" * 20_000).status_code == 200


def test_a_trailing_slash_redirects(server: Server, website: Website, inference: Inference) -> None:
    reply = website.http.get("/api/chat/")
    assert (reply.status_code, reply.headers["location"], reply.text) == (308, "/api/chat", "/api/chat")
    assert reply.headers["refresh"] == "0;url=/api/chat"
    reply = inference.http.get("/chats/")
    assert (reply.status_code, reply.headers["location"], reply.text) == (307, f"{server.url}/chats", "")


def test_unknown_paths_and_methods(website: Website, inference: Inference) -> None:
    assert said(inference.http.get("/nowhere")) == (404, "Not Found")
    assert inference.http.head("/chats").status_code == 405
    assert said(website.http.patch("/api/chat")) == (404, "")
    assert website.http.get("/api/chat/x/y").status_code == 404


def test_a_title_has_at_most_100_characters(website: Website, inference: Inference) -> None:
    chat = new_chat(inference)
    assert inference.update(chat, title="x" * 100).status_code == 200
    status, (error,) = said(inference.update(chat, title="x" * 101))
    assert (status, error["loc"], error["type"]) == (422, ["body", "title"], "value_error.any_str.max_length")
    assert said(website.update(chat, title="x" * 101)) == (500, "Internal Server Error")


def test_an_id_that_reaches_elsewhere_does_so_on_the_website(server: Server, website: Website) -> None:
    models = website.models().json()
    assert website.chat("../configs/model_configs").json() == models
    assert website.chat("a/b").status_code == 404
    assert said(website.update("../account/", title="x")) == (500, "Internal Server Error")
    for reply in (website.prompt("a/b", content="x"), website.request("a/b")):
        assert said(reply) == (404, "Not Found")
    assert [one.step for one in server.requests] == ["models", "chat", "chat", "update", "prompt", "request"]


def test_an_id_can_delete_the_account_which_keeps_its_chats(website: Website, inference: Inference) -> None:
    chat = new_chat(website)
    assert said(website.delete("../account/")) == (200, "")
    assert said(inference.create()) == (404, "User not found")
    assert website.chat(chat).status_code == 200
    # The website logs in by itself.
    assert website.create().status_code == inference.create().status_code == 200


def test_content_over_the_limit(connect: Connect) -> None:
    with Server(quirks=Quirks(max_content=50)) as server:
        peer = connect(server)
        chat = new_chat(peer)
        assert said(peer.prompt(chat, content="x" * 51)) == (413, "Message content exceeds max length")
        assert peer.prompt(chat, content="😀" * 50).status_code == 200


def test_a_full_chat(connect: Connect) -> None:
    with Server(quirks=Quirks(max_messages=2)) as server:
        peer = connect(server)
        chat, prompt = prompted(peer)
        ask(peer, chat, prompt)
        full = (413, "Maximum number of messages reached for this chat")
        assert said(peer.request(chat, parent_id=prompt, model_config_name="_lorem")) == full
        assert said(peer.prompt(chat, parent_id=prompt, content="x")) == full


def test_a_full_queue_leaves_a_pending_message_behind(connect: Connect) -> None:
    with Server(workers=0, quirks=Quirks(queue_limit=1)) as server:
        peer = connect(server)
        asked(peer)
        chat, prompt = prompted(peer)
        reply = peer.request(chat, parent_id=prompt, model_config_name="_lorem")
        assert said(reply) == (503, "The server is currently busy. Please try again later.")
        assert [one.state for one in server.chats[1].messages] == ["manual", "pending"]


def test_the_rate_limit_is_a_plain_500(connect: Connect) -> None:
    with Server(quirks=Quirks(rate_limit=1), reader_grace=60) as server:
        peer = connect(server)
        chat, message = asked(peer)
        read_stream(peer, chat, message)
        _, prompt = prompted(peer)
        reply = peer.request(chat, parent_id=prompt, model_config_name="_lorem")
        assert said(reply) in {(500, "Internal Server Error"), (500, "Something went wrong")}
        assert "retry-after" not in reply.headers
        assert peer.list_chats().status_code == 200


def test_the_rate_limit_counts_requests_that_are_invalid(connect: Connect) -> None:
    with Server(quirks=Quirks(rate_limit=1)) as server:
        peer = connect(server)
        chat, prompt = prompted(peer)
        assert peer.request(chat).status_code == 422
        assert peer.request(chat).status_code == 500
        assert peer.request(chat, parent_id=prompt, model_config_name="_lorem").status_code == 500


def test_a_model_that_is_not_allowed(connect: Connect) -> None:
    with Server(quirks=Quirks(allowed_models=("OA_SFT_Llama_30B_6", "distilgpt2"))) as server:
        peer = connect(server)
        chat, prompt = prompted(peer)
        reply = peer.request(chat, parent_id=prompt, model_config_name="_lorem")
        assert said(reply) == (422, "Model _lorem not in allowed models: OA_SFT_Llama_30B_6,distilgpt2")
        assert [model["name"] for model in peer.models().json()] == ["distilgpt2", "OA_SFT_Llama_30B_6"]


def test_the_websites_chat_can_be_switched_off() -> None:
    with Server(quirks=Quirks(chat_enabled=False)) as server:
        website = Website(server)
        with website.http:
            assert said(website.create()) == (404, "")


def test_bytes_that_are_not_http(server: Server) -> None:
    assert exchange(server, b"\x16\x03\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
