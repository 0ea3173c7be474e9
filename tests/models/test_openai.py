"""Answers from a scripted OpenAI-compatible endpoint: through the client and the embedded server, over real sockets."""

from __future__ import annotations

from typing import Any

import pytest

from oa_protocol import AnswerFailed, Cleanup, sync
from oa_protocol.server import AnswerRequest, Finish, OpenAICompatible, Server
from oa_protocol.testing.peers import refusing_port
from tests.driver.site import PATIENCE

from .endpoint import BUSY, DATE, GOOD, KEY, ONE, STREAM, Endpoint, chunk, refusal, reply


@pytest.fixture(autouse=True)
def endpoint_environment(no_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)


def model_at(url: str, **settings: Any) -> OpenAICompatible:
    return OpenAICompatible(f"{url}/v1", KEY, "small", **settings)


def ask(model: OpenAICompatible, **options: Any) -> str:
    """Return the answer to a prompt, or raise its error, and check that no chat is left."""
    with Server(model, reader_grace=PATIENCE) as server, sync.Client(server.url, cookies=server.cookies) as client:
        try:
            with client.chat(**options) as chat:
                return chat.ask("Count")
        finally:
            assert server.chats == ()
            assert client.leaked == []


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        pytest.param([reply(ONE)], "the answer broke off", id="ends early"),
        pytest.param([reply(b"4\r\ndata", STREAM, "200 OK", "Transfer-Encoding: chunked")], "broke: ", id="is cut"),
        pytest.param([reply(ONE + b"data: [DONE]\n\n")], "without a finish_reason", id="done without a reason"),
        pytest.param([reply(ONE + b'data: {"error": {"message": "no memory"}}\n\n')], "failed: no memory", id="error"),
        pytest.param([reply(ONE + b'data: {"error": "no memory"}\n\n')], "failed: no memory", id="error as text"),
        pytest.param(
            [reply(ONE + b'data: {"object": "error", "message": "no memory", "code": 500}\n\n')],
            "failed: no memory",
            id="error at the top level",
        ),
        pytest.param([reply(ONE + b'data: {"error": {}}\n\n')], "does not say why", id="error without words"),
        pytest.param([reply(b'event: error\ndata: {"message": "no memory"}\n\n')], "no memory", id="event: error"),
        pytest.param([reply(ONE + b"data: {oops\n\n")], "can't be read", id="chunk is not JSON"),
        pytest.param([reply(b'data: {"choices": [{"delta": 7}]}\n\n')], "can't be read", id="chunk is odd"),
        pytest.param([reply(b"data: " + b"x" * 2**20 + b"\n\n")], "more than 1048576 bytes", id="endless event"),
        pytest.param([reply(ONE + chunk(None, "content_filter"))], "content filter", id="content filter"),
        pytest.param([reply(ONE + chunk(None, "abort"))], "before it was complete: abort", id="aborted"),
        pytest.param(
            [reply(b"<html>", "text/html")], "text/html, not a stream of events. Is OPENAI_BASE_URL", id="page"
        ),
        pytest.param([refusal("200 OK", {"choices": []})], "application/json, not a stream", id="no stream"),
        pytest.param([reply(b"nonsense", "")], "the answer broke off", id="no content type"),
        pytest.param(
            [refusal("401 Unauthorized", {"error": {"message": f"Incorrect API key: {KEY}."}})],
            r"401 Unauthorized: Incorrect API key: \*\*\*. Is OPENAI_API_KEY right\?",
            id="wrong key",
        ),
        pytest.param([refusal("404 Not Found", {"detail": "no"})], "404 Not Found: no. Is OPENAI_BASE_URL", id="404"),
        pytest.param([reply(b"", "", "302 Found", "Location: http://127.0.0.1:1/")], "It redirects", id="redirect"),
        pytest.param([refusal("400 Bad", {"detail": [{"msg": "no"}]})], r'400 Bad: \[{"msg":"no"}\]', id="400"),
        pytest.param([refusal("500 Oops", {"message": "y " * 500})], "500 Oops: y y .*…", id="500, at length"),
        pytest.param([reply(b"x" * 99999, "", "500 Oops")], "500 Oops", id="500, at greater length"),
        pytest.param([BUSY] * 4, "429 Too Many Requests: slow down", id="always busy"),
        pytest.param(
            [refusal("503 Away", {}, "Retry-After: 3600")], "asks to wait for 3600 seconds", id="away for long"
        ),
        pytest.param([reply(ONE + b'data: {"error": {"code": 429}}\n\n')], "does not say why", id="busy too late"),
    ],
)
def test_an_answer_that_is_not_complete_is_an_error_and_no_chat_is_left(replies: list[bytes], words: str) -> None:
    with Endpoint(*replies) as endpoint, pytest.raises(AnswerFailed, match=words) as caught:
        ask(model_at(endpoint.url))
    assert len(endpoint.requests) == len(replies)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", [KEY, "hunter2"])
@pytest.mark.parametrize("status", ["401 No", "500 {key}", "200 OK"])
def test_a_key_that_the_endpoint_repeats_is_not_shown(key: str, status: str, caplog: pytest.LogCaptureFixture) -> None:
    said = refusal(status.format(key=key), {"error": {"message": f"Not {key}"}}, f"X-Key: {key}")
    with Endpoint(said) as endpoint, pytest.raises(AnswerFailed, match=r"Not \*\*\*") as caught:
        ask(OpenAICompatible(f"{endpoint.url}/v1", key, "small"))
    assert key not in f"{caught.value} {caplog.text}"


def test_a_key_is_not_shown_in_other_letters_either() -> None:
    with Endpoint(reply(b"{}", "SK-SECRET-0123456789")) as endpoint, pytest.raises(AnswerFailed) as caught:
        ask(OpenAICompatible(f"{endpoint.url}/v1", "SK-SECRET-0123456789", "small"))
    assert "secret" not in str(caught.value).lower()


@pytest.mark.parametrize("replies", [[b""], [reply(ONE)]], ids=["before its reply", "after a token"])
def test_an_endpoint_that_hangs_is_an_error(replies: list[bytes]) -> None:
    with Endpoint(*replies, hangs=True) as endpoint, pytest.raises(AnswerFailed, match="sent nothing for"):
        ask(model_at(endpoint.url, idle_timeout=0.1))


def test_an_endpoint_that_does_not_run_is_named() -> None:
    with (
        refusing_port() as nowhere,
        pytest.raises(AnswerFailed, match=f"cannot connect to http://{nowhere}: .*OPENAI_"),
    ):
        ask(model_at(f"http://{nowhere}"))


PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, {"type": "text", "text": "two."}]


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([GOOD], id="usual"),
        pytest.param([reply(ONE + chunk("two.", "length"))], id="without done"),
        pytest.param([reply(ONE + chunk(reasoning_content="Hm") + chunk("two.", "eos_token"))], id="with thoughts"),
        pytest.param([reply(ONE + chunk(PARTS, "eos"))], id="in parts"),
        pytest.param([reply(ONE + b'data: {"choices": []}\n\n' + chunk("two.", "stop"))], id="with figures"),
        pytest.param([reply(ONE + b'data: {"choices": [{}]}\n\n: hm\n\n' + chunk("two.", "stop"))], id="with nothing"),
        pytest.param([BUSY, BUSY, GOOD], id="busy at first"),
        pytest.param(
            [refusal("503 Busy", {}, "Retry-After: Thu, 01 Jan 2026 00:00:00 GMT", DATE), GOOD], id="until then"
        ),
    ],
)
def test_an_answer_that_is_complete_arrives(replies: list[bytes]) -> None:
    with Endpoint(*replies) as endpoint:
        assert ask(model_at(endpoint.url)) == "One two."
    assert len(endpoint.requests) == len(replies)


@pytest.mark.anyio
async def test_its_pieces_end_with_the_reason_on_both_event_loops_and_without_a_key(anyio_backend: str) -> None:
    with Endpoint(GOOD) as endpoint:
        model = OpenAICompatible(f"{endpoint.url}/v1", model="small")
        pieces = [piece async for piece in model.answer(AnswerRequest(prompt="Count"))]
    assert pieces == ["One ", "two.", Finish("eos_token")]
    assert endpoint.requests[0].values("authorization") == []


@pytest.mark.parametrize(
    ("headers", "waits"), [(["Retry-After: 7"], [7.0]), ([], [1.0])], ids=["as asked", "by itself"]
)
def test_a_busy_endpoint_is_asked_again_later(
    monkeypatch: pytest.MonkeyPatch, headers: list[str], waits: list[float]
) -> None:
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("oa_protocol.models.openai.anyio.sleep", note)
    with Endpoint(refusal("503 Busy", {}, *headers), GOOD) as endpoint:
        assert ask(model_at(endpoint.url)) == "One two."
    assert waited == waits


def test_the_conversation_and_the_parameters_are_sent_with_the_key() -> None:
    sampling = {"top_k": 5, "top_p": 0.5, "typical_p": 0.25, "temperature": 1.5, "repetition_penalty": 1.1}
    with Endpoint(GOOD) as endpoint:
        ask(model_at(endpoint.url), sampling={**sampling, "max_new_tokens": 9}, system_prompt="Be brief")
    (request,) = endpoint.requests
    assert (request.method, request.target) == ("POST", "/v1/chat/completions")
    assert request.values("authorization") == [f"Bearer {KEY}"]
    (sent,) = endpoint.bodies
    assert 0 <= sent.pop("seed") < 2**31
    assert sent == {
        "model": "small",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Count"}],
        "stream": True,
        "max_tokens": 9,
        "repeat_penalty": 1.1,
        **sampling,
    }


def test_what_the_endpoint_does_not_know_is_left_out_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    several = {"error": {"message": "Unrecognized request arguments supplied: repetition_penalty, top_k"}}
    renamed = {"error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}}
    replies = (refusal("400 Bad", several), refusal("422 No", renamed), GOOD, GOOD)
    with Endpoint(*replies) as endpoint:
        model = model_at(endpoint.url)
        assert [ask(model), ask(model)] == ["One two.", "One two."]
    assert all({"repetition_penalty", "top_k"}.isdisjoint(sent) for sent in endpoint.bodies[1:])
    assert [sent.get("max_completion_tokens") for sent in endpoint.bodies] == [None, None, 1024, 1024]
    assert ["max_tokens" in sent for sent in endpoint.bodies] == [True, True, False, False]
    assert [record.getMessage().partition(" doesn't know ")[2] for record in caplog.records] == [
        "top_k, repetition_penalty, which is left out from now on",
        "max_tokens, which is left out from now on",
    ]


def test_a_value_that_is_too_large_is_an_error_and_nothing_is_left_out() -> None:
    too_large = {"error": {"message": "max_tokens is too large: 1024"}}
    with Endpoint(refusal("400 Bad", too_large)) as endpoint, pytest.raises(AnswerFailed, match="is too large"):
        ask(model_at(endpoint.url))


def test_the_endpoint_is_left_when_the_chat_is_deleted() -> None:
    with Endpoint(reply(ONE), hangs=True) as endpoint, Server(model_at(endpoint.url)) as server:
        cleanup = Cleanup(drain=0)
        with sync.Client(server.url, cookies=server.cookies, cleanup=cleanup) as client, client.chat() as chat:
            assert next(iter(chat.stream("Count"))) == "One "
        endpoint.connections[0].left.wait()
        assert server.chats == ()


def test_the_environment_names_the_endpoint_the_key_and_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with Endpoint(GOOD) as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{endpoint.url}/v1/")
        monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
        monkeypatch.setenv("OPENAI_MODEL", "large")
        model = OpenAICompatible()
        assert ask(model) == "One two."
    assert endpoint.bodies[0]["model"] == "large"
    assert repr(model) == f"OpenAICompatible('{endpoint.url}/v1/chat/completions', model='large')"


def test_a_key_alone_means_openai() -> None:
    assert "https://api.openai.com/v1/chat/completions" in repr(OpenAICompatible(api_key=KEY, model="gpt"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "x"}, "set OPENAI_BASE_URL"),
        ({"base_url": "http://x/v1"}, "set OPENAI_MODEL"),
        ({"base_url": "http://x/v1", "model": "x", "api_key": f"{KEY}é"}, "has characters that no key has"),
        *(
            ({"base_url": url, "model": "x"}, "must be an http")
            for url in (KEY, f"http://u:{KEY}@x/", "http://x:y", "//x")
        ),
    ],
)
def test_what_is_missing_or_wrong_is_named_without_secrets(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        OpenAICompatible(**settings)
    assert KEY not in str(caught.value)
