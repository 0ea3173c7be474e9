"""Both bindings: how every request is spelled, and how the replies to a DELETE are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oa_protocol import __version__
from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.json import ChatUpdate
from oa_protocol.bindings.website import Website
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.testing.strategies import bad_ids

Spelled = Callable[[Binding, Credentials], HttpRequest]
Json = dict[str, object]

CHAT = "06b02a53-f28e-708d-8000-044bde7b4953"
PROMPT = "06b02a53-f2ad-71f3-8000-f5d0e5605120"
ANSWER = "06b02a53-f2e8-7d17-8000-1b6ef2482de9"
COOKIES = Credentials(cookies={"next-auth.session-token": "SECRET"})
TOKEN = Credentials(token="SECRET")
WEBSITE = Website("https://oa.example.org")
INFERENCE = InferenceServer("https://oa.example.org")
BINDINGS = [WEBSITE, INFERENCE]
HISTORIC_SAMPLING = {
    "top_k": 50,
    "top_p": None,
    "typical_p": None,
    "temperature": 0.35,
    "repetition_penalty": 1 / 0.9,
    "max_new_tokens": 1024,
}
ANSWER_BODY: Json = {
    "parent_id": PROMPT,
    "model_config_name": "OA_SFT_Llama_30B_6",
    "sampling_parameters": HISTORIC_SAMPLING,
    "plugins": [],
}


def create(api: Binding, who: Credentials) -> HttpRequest:
    return api.create_chat(who)


def first_prompt(api: Binding, who: Credentials) -> HttpRequest:
    return api.send_prompt(who, CHAT, None, "Hé 😀")


def next_prompt(api: Binding, who: Credentials) -> HttpRequest:
    return api.send_prompt(who, CHAT, ANSWER, "")


def request(api: Binding, who: Credentials) -> HttpRequest:
    return api.request_assistant(who, CHAT, PROMPT, AnswerOptions())


def stream(api: Binding, who: Credentials) -> HttpRequest:
    return api.open_stream(who, CHAT, ANSWER)


def message(api: Binding, who: Credentials) -> HttpRequest:
    return api.fetch_message(who, CHAT, ANSWER)


def chat(api: Binding, who: Credentials) -> HttpRequest:
    return api.fetch_chat(who, CHAT)


def chats(api: Binding, who: Credentials) -> HttpRequest:
    return api.list_chats(who)


def rename(api: Binding, who: Credentials) -> HttpRequest:
    return api.update_chat(who, CHAT, ChatUpdate(title="Café"))


def show_and_hide(api: Binding, who: Credentials) -> HttpRequest:
    return api.update_chat(who, CHAT, ChatUpdate(hidden=True, active_thread_tail_message_id=ANSWER))


def hidden_chats(api: Binding, who: Credentials) -> HttpRequest:
    return api.list_chats(who, "a&b=", include_hidden=True)


def models(api: Binding, who: Credentials) -> HttpRequest:
    return api.list_models(who)


def delete(api: Binding, who: Credentials) -> HttpRequest:
    return api.delete_chat(who, CHAT)


def account(api: Binding, who: Credentials) -> HttpRequest:
    return cast("HttpRequest", api.ask_account(who))


WEBSITE_TABLE: list[tuple[Spelled, str, str, Json | None]] = [
    (create, "POST", "/api/chat", {}),
    (first_prompt, "POST", "/api/chat/prompter_message", {"chat_id": CHAT, "parent_id": None, "content": "Hé 😀"}),
    (next_prompt, "POST", "/api/chat/prompter_message", {"chat_id": CHAT, "parent_id": ANSWER, "content": ""}),
    (request, "POST", "/api/chat/assistant_message", {"chat_id": CHAT, **ANSWER_BODY}),
    (stream, "GET", f"/api/chat/events?chat_id={CHAT}&message_id={ANSWER}", None),
    (message, "GET", f"/api/chat/message?chat_id={CHAT}&message_id={ANSWER}", None),
    (chat, "GET", f"/api/chat?chat_id={CHAT}", None),
    (chats, "GET", "/api/chat", None),
    (hidden_chats, "GET", "/api/chat?after=a%26b%3D&include_hidden=true", None),
    (rename, "PUT", "/api/chat", {"chat_id": CHAT, "title": "Café"}),
    (show_and_hide, "PUT", "/api/chat", {"chat_id": CHAT, "hidden": True, "active_thread_tail_message_id": ANSWER}),
    (models, "GET", "/api/chat/models", None),
    (delete, "DELETE", f"/api/chat?chat_id={CHAT}", None),
]
INFERENCE_TABLE: list[tuple[Spelled, str, str, Json | None]] = [
    (create, "POST", "/chats", {}),
    (first_prompt, "POST", f"/chats/{CHAT}/prompter_message", {"parent_id": None, "content": "Hé 😀"}),
    (next_prompt, "POST", f"/chats/{CHAT}/prompter_message", {"parent_id": ANSWER, "content": ""}),
    (request, "POST", f"/chats/{CHAT}/assistant_message", ANSWER_BODY),
    (stream, "GET", f"/chats/{CHAT}/messages/{ANSWER}/events", None),
    (message, "GET", f"/chats/{CHAT}/messages/{ANSWER}", None),
    (chat, "GET", f"/chats/{CHAT}", None),
    (chats, "GET", "/chats?limit=100", None),
    (hidden_chats, "GET", "/chats?limit=100&after=a%26b%3D&include_hidden=true", None),
    (rename, "PUT", f"/chats/{CHAT}", {"title": "Café"}),
    (show_and_hide, "PUT", f"/chats/{CHAT}", {"hidden": True, "active_thread_tail_message_id": ANSWER}),
    (models, "GET", "/configs/model_configs", None),
    (delete, "DELETE", f"/chats/{CHAT}", None),
    (account, "GET", "/auth/check", None),
]
ROWS = [(WEBSITE, COOKIES, ("cookie", "next-auth.session-token=SECRET"), *row) for row in WEBSITE_TABLE] + [
    (INFERENCE, TOKEN, ("authorization", "Bearer SECRET"), *row) for row in INFERENCE_TABLE
]


@pytest.mark.clause("OA-3.7")
def test_a_title_has_at_most_a_hundred_characters() -> None:
    assert ChatUpdate(title="t" * 100).title == "t" * 100
    with pytest.raises(ValueError, match="at most 100 characters, not 101"):
        ChatUpdate(title="t" * 101)


@pytest.mark.clause("OA-1.2", "OA-2.2", "OA-2.3", "OA-2.4", "OA-4.5")
@pytest.mark.parametrize(
    ("api", "who", "shown", "spell", "method", "target", "body"),
    ROWS,
    ids=[f"{row[0].api}-{row[4]} {row[5]}" for row in ROWS],
)
def test_every_request_is_spelled_as_the_table_says(
    api: Binding,
    who: Credentials,
    shown: tuple[str, str],
    spell: Spelled,
    method: str,
    target: str,
    body: Json | None,
) -> None:
    made = spell(api, who)
    assert (made.method, made.url) == (method, f"https://oa.example.org{target}")
    headers = [
        ("accept", "text/event-stream" if spell is stream else "application/json"),
        ("accept-encoding", "identity"),
        ("user-agent", f"oa_protocol/{__version__}"),
        shown,
    ]
    if body is None:
        assert made.body == b""
    else:
        headers.append(("content-type", "application/json"))
        assert json.loads(made.body) == body
    assert made.headers == tuple(headers)


@pytest.mark.clause("OA-2.4")
@pytest.mark.parametrize("api", BINDINGS, ids=lambda api: api.api)
def test_all_cookies_go_into_one_header_under_their_own_names(api: Binding) -> None:
    parts = {"__Secure-next-auth.session-token.0": "ab", "__Secure-next-auth.session-token.1": "cd"}
    made = api.create_chat(Credentials(cookies=parts, token="t"))
    assert [header for header in made.headers if header[0] in ("cookie", "authorization")] == [
        ("cookie", "__Secure-next-auth.session-token.0=ab; __Secure-next-auth.session-token.1=cd"),
        ("authorization", "Bearer t"),
    ]


@pytest.mark.clause("OA-2.5")
@pytest.mark.parametrize("api", BINDINGS, ids=lambda api: api.api)
def test_no_repr_shows_credentials_or_what_is_sent(api: Binding) -> None:
    who = Credentials(cookies={"next-auth.session-token": "SECRET"}, token="SECRET")
    for made in (api.create_chat(who), api.send_prompt(who, CHAT, None, "SECRET")):
        assert "SECRET" not in repr(made)
        assert "SECRET" not in repr(who)


@pytest.mark.clause("OA-4.5")
@pytest.mark.parametrize("api", BINDINGS, ids=lambda api: api.api)
def test_optional_fields_are_sent_if_they_are_set(api: Binding) -> None:
    options = AnswerOptions(
        model="_lorem",
        plugins=({"url": "https://plugin.example", "enabled": True},),
        system_prompt="",
        user_profile="me",
        user_response_instructions="short",
    )
    sent = json.loads(api.request_assistant(TOKEN, CHAT, PROMPT, options).body)
    sent.pop("chat_id", None)
    assert sent == {
        **ANSWER_BODY,
        "model_config_name": "_lorem",
        "plugins": [{"url": "https://plugin.example", "enabled": True}],
        "system_prompt": "",
        "user_profile": "me",
        "user_response_instructions": "short",
    }


@pytest.mark.clause("OA-2.6")
@pytest.mark.parametrize("api", BINDINGS, ids=lambda api: api.api)
@given(bad=bad_ids())
def test_nothing_but_a_uuid_is_ever_sent_as_an_id(api: Binding, bad: str) -> None:
    spelled: list[Callable[[], HttpRequest]] = [
        lambda: api.send_prompt(TOKEN, bad, None, "x"),
        lambda: api.send_prompt(TOKEN, CHAT, bad, "x"),
        lambda: api.request_assistant(TOKEN, bad, PROMPT, AnswerOptions()),
        lambda: api.request_assistant(TOKEN, CHAT, bad, AnswerOptions()),
        lambda: api.open_stream(TOKEN, bad, ANSWER),
        lambda: api.open_stream(TOKEN, CHAT, bad),
        lambda: api.fetch_message(TOKEN, bad, ANSWER),
        lambda: api.fetch_message(TOKEN, CHAT, bad),
        lambda: api.fetch_chat(TOKEN, bad),
        lambda: api.delete_chat(TOKEN, bad),
    ]
    for spell in spelled:
        with pytest.raises(ValueError, match="not an id"):
            spell()


@pytest.mark.clause("OA-2.6")
@given(st.text())
@example(CHAT.upper())
def test_an_id_is_refused_or_sent_as_it_is(text: str) -> None:
    try:
        made = INFERENCE.fetch_chat(TOKEN, text)
    except ValueError:
        return
    assert made.url == f"https://oa.example.org/chats/{text}"
    assert len(text) == 36


@pytest.mark.clause("OA-1.3")
@pytest.mark.parametrize("kind", [Website, InferenceServer])
@pytest.mark.parametrize(
    ("given_url", "base_url"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("https://oa.example.org/", "https://oa.example.org"),
        ("https://oa.example.org/some/prefix//", "https://oa.example.org/some/prefix"),
        ("HTTPS://OA.example.org", "https://oa.example.org"),
        ("https://oa.example.org:443/", "https://oa.example.org"),
        ("http://oa.example.org:080", "http://oa.example.org"),
        ("http://oa.example.org:", "http://oa.example.org"),
        ("http://oa.example.org:443", "http://oa.example.org:443"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("http://[0:0::00FF]", "http://[::ff]"),
        ("http://oa.example.org:65535", "http://oa.example.org:65535"),
        ("http://oa_server:8000", "http://oa_server:8000"),
        ("http://o%61.example.org", "http://oa.example.org"),
        ("http://my_db.Bücher.example", "http://my_db.xn--bcher-kva.example"),
        ("http://\uff4f\uff41.example", "http://oa.example"),
        ("http://oa.example.org/apiX/", "http://oa.example.org/apiX"),
        ("http://oa.example.org/a/b/c/../d", "http://oa.example.org/a/b/d"),
        ("http://Bücher.example", "http://xn--bcher-kva.example"),
        ("http://XN--bcher-kva.example", "http://xn--bcher-kva.example"),
        ("http://stra%C3%9Fe.example", "http://xn--strae-oqa.example"),
        ("http://oa。example", "http://oa.example"),
        ("http://oa.example.org/a%20b", "http://oa.example.org/a%20b"),
        ("http://oa.example.org/%7eme/%c3%bc%2f", "http://oa.example.org/~me/%C3%BC%2F"),
        ("http://oa.example.org/./a/b/%2E%2e/c/.", "http://oa.example.org/a/c"),
        ("http://oa.example.org/../..", "http://oa.example.org"),
        ("http://oa.example.org/A", "http://oa.example.org/A"),
    ],
)
def test_a_base_url_has_one_spelling(kind: type[Website | InferenceServer], given_url: str, base_url: str) -> None:
    assert kind(given_url).base_url == base_url
    assert kind(base_url).base_url == base_url


REFUSED_URLS = {
    "base_url must be an http or https URL with a host": [
        "",
        "oa.example.org",
        "//oa.example.org",
        "ftp://oa.example.org",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http:oa.example.org",
        "http://",
        "http:///path",
        "http://:80",
        "http://[::1]x/",
    ],
    "base_url must have no query and no fragment": [
        "http://?",
        "http://oa.example.org?",
        "http://oa.example.org?a=b",
        "http://oa.example.org#",
        "http://oa.example.org/#a",
    ],
    "base_url must have no credentials in it; give them as cookies= or token=": [
        "http://me@oa.example.org",
        "http://oa.example.org\\@evil.example",
    ],
    "base_url is not a URL: its host or its port can't be read": [
        "http://oa.example.org:65536",
        "http://oa.example.org:-1",
        "http://oa.example.org:http",
        "http://oa.example.org:٨٠",
        "http://[::1",
        "http://[oa]",
    ],
    "base_url has characters that a URL cannot have": [
        " http://oa.example.org",
        "http://oa.example.org ",
        "http://oa example.org",
        "http://oa.exam\tple.org",
        "http://oa.example.org\r\nx: y",
        "\0http://oa.example.org",
        "http://oa.example.org\x7f",
        "http://\u0378.example",
        "http://oa.example.org/<a>",
        'http://oa.example.org/"',
    ],
    "base_url has characters in its path that a URL cannot have: percent-encode them": [
        "http://bücher.example/ü",
    ],
    "base_url has characters in its host that a host's name cannot have": [
        "http://a%00b",
    ],
    "base_url has no valid host": [
        "http://%ff",
    ],
}


@pytest.mark.clause("OA-1.3")
@pytest.mark.parametrize("kind", [Website, InferenceServer])
@pytest.mark.parametrize(("bad", "why"), [(bad, why) for why, urls in REFUSED_URLS.items() for bad in urls])
def test_any_other_base_url_is_refused(kind: type[Website | InferenceServer], bad: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(why)}$"):
        kind(bad)


@pytest.mark.clause("OA-1.3", "OA-2.5")
@pytest.mark.parametrize(
    "bad",
    [
        "http://me:SECRET@host",
        "ftp://me:SECRET@host",
        "http://me:SECRET@host?a",
        "http://me:SECRET/@host",
        "x:SECRET@h",
        "http://host?key=SECRET",
        "http://host/#SECRET",
        "http://me:SECRET",
        "http://[SECRET]",
        "SECRET",
        "http://host/ SECRET",
        "http://\u0378SECRET",
    ],
)
def test_a_secret_in_a_base_url_is_refused_and_not_repeated(bad: str) -> None:
    with pytest.raises(ValueError, match="base_url") as refused:
        Website(bad)
    assert "SECRET" not in str(refused.value)


@pytest.mark.clause("OA-1.3")
@given(st.tuples(st.sampled_from(["", "http://", "https://", "http://h/"]), st.text()).map("".join))
def test_a_base_url_is_refused_with_a_valueerror_or_names_a_host(text: str) -> None:
    try:
        base_url = Website(text).base_url
    except ValueError as refused:
        assert "base_url" in str(refused)  # noqa: PT017
        return
    parts = urlsplit(base_url)
    assert parts.scheme in ("http", "https")
    assert parts.hostname
    assert not parts.query
    assert not parts.fragment
    assert not parts.username
    assert base_url.isascii()


NOT_FOUND = b'{"detail":"Chat not found"}'


@pytest.mark.clause("OA-7.3", "OA-7.4", "OA-7.5")
@pytest.mark.parametrize(
    ("api", "status", "body", "deleted", "not_found"),
    [
        (WEBSITE, 200, b"", True, False),
        (WEBSITE, 200, b"<html>", False, False),
        (WEBSITE, 204, b"", False, False),
        (WEBSITE, 404, b"", False, True),
        (WEBSITE, 404, b"<html>not here</html>", False, False),
        (WEBSITE, 403, b"", False, False),
        (WEBSITE, 500, b"Internal Server Error", False, False),
        (INFERENCE, 200, b"", True, False),
        (INFERENCE, 200, b"null", True, False),
        (INFERENCE, 204, b"", True, False),
        (INFERENCE, 200, b"<html>log in</html>", False, False),
        (INFERENCE, 202, b"{}", False, False),
        (INFERENCE, 404, NOT_FOUND, True, True),
        (INFERENCE, 404, b'{"detail":"Not Found"}', False, False),
        (INFERENCE, 404, b"", False, False),
        (INFERENCE, 404, b"\xff", False, False),
        (INFERENCE, 410, NOT_FOUND, False, False),
        (INFERENCE, 300, b"", False, False),
        (INFERENCE, 500, b"Internal Server Error", False, False),
    ],
)
def test_which_replies_say_that_a_chat_is_gone(
    api: Binding, status: int, body: bytes, deleted: bool, not_found: bool
) -> None:
    assert api.is_deleted(status, body) is deleted
    assert api.is_not_found(status, body) is not_found


@pytest.mark.clause("OA-1.4")
@pytest.mark.parametrize(
    ("api", "cookies", "token", "session"),
    [
        pytest.param(INFERENCE, {}, "t", "t", id="a token"),
        pytest.param(INFERENCE, {"a": "b"}, None, "", id="no token"),
        pytest.param(WEBSITE, {"next-auth.session-token": "s", "visit": "1"}, "t", "s", id="the session cookie"),
        pytest.param(
            WEBSITE,
            {
                "__Secure-next-auth.session-token.10": "c",
                "next-auth.session-token": "a",
                "next-auth.session-token.1": "b",
            },
            None,
            "abc",
            id="a split session cookie",
        ),
        pytest.param(WEBSITE, {"visit": "1"}, "t", "t", id="a token besides other cookies"),
        pytest.param(WEBSITE, {"b": "2", "a": "1"}, None, "\0a=1\0b=2", id="other cookies, in any order"),
    ],
)
def test_what_identifies_a_session(api: Binding, cookies: dict[str, str], token: str | None, session: str) -> None:
    assert api.session(Credentials(cookies, token)) == session


@pytest.mark.clause("OA-1.4")
def test_an_inference_server_names_the_account() -> None:
    assert INFERENCE.read_account(b'"me"') == "me"


@pytest.mark.clause("OA-7.5")
def test_only_a_website_needs_its_list_to_confirm_that_a_chat_is_gone() -> None:
    assert WEBSITE.list_confirms_gone
    assert not INFERENCE.list_confirms_gone


class Bare(Binding):
    """A binding that says nothing of what a binding need not say."""


def test_a_binding_of_ones_own_need_not_know_the_oddities_of_open_assistant() -> None:
    bare: Any = Bare  # type checkers miss the methods that this test doesn't need
    api: Binding = bare()
    assert not api.list_confirms_gone
    assert api.takes_cookies
    assert api.models_need_credentials
    assert not api.is_prompt_there(400, "words")
    assert not api.leaves_message(503, "words")
    assert api.hint(500, "words", "x") == ""
    assert api.ask_account(TOKEN) is None
    assert api.read_account(b"me") == WEBSITE.read_account(b"me") == "me"
    assert api.session(TOKEN) != api.session(COOKIES)


@pytest.mark.clause("OA-6.7", "OA-6.10")
@pytest.mark.parametrize("api", BINDINGS, ids=lambda api: api.api)
def test_the_servers_words_say_what_a_refusal_leaves_behind(api: Binding) -> None:
    assert api.is_prompt_there(400, "Trying to add first message to non-empty chat")
    assert not api.is_prompt_there(400, "Parent message not found")
    assert api.leaves_message(503, "The server is currently busy. Please try again later.")
    assert not api.leaves_message(503, "")
    assert not api.leaves_message(500, "Something went wrong")
    assert api.hint(418, "I'm a teapot", "x") == ""


@pytest.mark.parametrize("api", BINDINGS, ids=lambda api: api.api)
def test_bindings_and_requests_are_frozen(api: Binding) -> None:
    for thing, name in ((api, "base_url"), (api.create_chat(TOKEN), "url"), (TOKEN, "token")):
        with pytest.raises(AttributeError):
            setattr(thing, name, "x")
