"""What reaches the server: what was asked for, and nothing else."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from oa_protocol import AuthenticationError, Client, OpenAssistant
from oa_protocol.bindings.json import DEFAULT_MODEL
from oa_protocol.server import Answer
from tests.driver.site import Site

pytestmark = pytest.mark.anyio

DEFAULTS = {
    "top_k": 50,
    "top_p": None,
    "typical_p": None,
    "temperature": 0.35,
    "repetition_penalty": 1 / 0.9,
    "max_new_tokens": 1024,
}


def request_bodies(site: Site) -> list[dict[str, Any]]:
    """Of all requests for an answer, with their ids taken out, which are the server's."""
    bodies = site.bodies("request")
    for body in bodies:
        assert body.pop("parent_id")
        assert (body.pop("chat_id", None) is not None) == (site.api == "website")
    return bodies


@pytest.mark.clause("OA-4.5", "OA-2.2", "OA-2.3")
async def test_without_options_the_historic_defaults_are_sent(site: Site) -> None:
    async with site.client() as client, client.chat() as chat:
        await chat.ask("Hello")
    assert request_bodies(site) == [
        {"model_config_name": DEFAULT_MODEL, "sampling_parameters": DEFAULTS, "plugins": []}
    ]
    assert site.bodies("create") == [{}]
    (prompt,) = site.bodies("prompt")
    assert prompt.pop("chat_id", None) is None or site.api == "website"
    assert prompt == {"parent_id": None, "content": "Hello"}
    for request in site.server.requests:
        assert request.headers["accept-encoding"] == "identity"
        assert ("content-type" in request.headers) == bool(request.body)


@pytest.mark.clause("OA-4.5", "OA-4.6")
async def test_options_are_sent_as_they_are_given(site: Site) -> None:
    options: dict[str, Any] = {
        "system_prompt": "Be brief.",
        "user_profile": "A test.",
        "user_response_instructions": "In Latin.",
        "plugins": [{"name": "search", "url": "http://localhost/x", "enabled": True}],
    }
    sampling = {"temperature": 0.9, "top_k": None, "max_new_tokens": 7}
    async with site.client() as client, client.chat("distilgpt2", sampling=sampling, **options) as chat:
        await chat.ask("Hello")
    expected = {"model_config_name": "distilgpt2", "sampling_parameters": {**DEFAULTS, **sampling}, **options}
    assert request_bodies(site) == [expected]


@pytest.mark.clause("OA-2.4")
async def test_credentials_are_in_their_one_header(site: Site) -> None:
    async with site.client() as client, client.chat() as chat:
        await chat.ask("Hello")
    for request in site.server.requests:
        if site.api == "website":
            (pair,) = site.server.cookies.items()
            assert request.headers["cookie"] == "=".join(pair)
            assert "authorization" not in request.headers
        else:
            assert request.headers["authorization"] == f"Bearer {site.server.token}"
            assert "cookie" not in request.headers


async def test_the_environment_names_the_server_and_the_account(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OA_URL", site.server.url + "/")
    if site.api == "website":
        monkeypatch.setenv("OA_COOKIES", "; ".join("=".join(pair) for pair in site.server.cookies.items()))
    else:
        monkeypatch.setenv("OA_TOKEN", site.server.token)
    site.script(Answer(pieces=("Yes.",)))
    async with Client(api=site.api) as client, client.chat() as chat:
        assert await chat.ask("Hello") == "Yes."


@pytest.mark.parametrize("api", ["website"])
async def test_the_environment_may_name_a_cookies_file(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OA_COOKIES", str(site.write_cookies(tmp_path / "cookies.txt")))
    async with Client(site.server.url) as client, client.chat() as chat:
        await chat.ask("Hello")
    assert site.steps[0] == "create"


async def test_a_bearer_token_does_for_the_website_as_well(site: Site) -> None:
    async with Client(site.server.url, api=site.api, token=site.server.token) as client, client.chat() as chat:
        await chat.ask("Hello")
        assert len(await client.models()) > 0


@pytest.mark.clause("OA-2.4")
@pytest.mark.parametrize("api", ["website"])
async def test_a_cookies_file_is_read_though_there_is_a_token(site: Site, tmp_path: Path) -> None:
    path = site.write_cookies(tmp_path / "cookies.txt")
    async with Client(site.server.url, cookies=path, token=site.server.token) as client, client.chat() as chat:
        await chat.ask("Hello")
    assert all("cookie" in request.headers and "authorization" in request.headers for request in site.server.requests)


@pytest.mark.clause("OA-2.4")
@pytest.mark.parametrize("api", ["website"])
@pytest.mark.parametrize("given", ["cookies", "token"])
async def test_if_credentials_are_given_those_of_the_environment_are_not_sent(
    site: Site, given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OA_TOKEN", "another server's")
    monkeypatch.setenv("OA_COOKIES", "another=server")
    path = site.write_cookies(tmp_path / "cookies.txt")
    credentials: dict[str, Any] = {"cookies": path} if given == "cookies" else {"token": site.server.token}
    async with Client(site.server.url, **credentials) as client, client.chat() as chat:
        await chat.ask("Hello")
        await client.models()
    assert all("another" not in str(request.headers) for request in site.server.requests)


@pytest.mark.parametrize("api", ["website"])
async def test_the_models_can_be_read_with_a_cookies_file(site: Site, tmp_path: Path) -> None:
    path = site.write_cookies(tmp_path / "cookies.txt")
    async with Client(site.server.url, cookies=path) as client:
        assert len(await client.models()) > 0


@pytest.mark.clause("OA-4.1")
async def test_without_credentials_nothing_is_sent(site: Site) -> None:
    async with Client(site.server.url, api=site.api) as client, client.chat() as chat:
        with pytest.raises(AuthenticationError, match="cookies= or token="):
            await chat.ask("Hello")
        if site.api == "website":
            with pytest.raises(AuthenticationError, match="cookies= or token="):
                await client.models()
        assert site.steps == []
        if site.api == "inference":  # it tells them to anybody
            assert len(await client.models()) > 0


@pytest.mark.parametrize("api", ["website"])
async def test_a_cookies_file_that_is_missing_fails_each_prompt_and_sends_nothing(site: Site, tmp_path: Path) -> None:
    async with Client(site.server.url, cookies=tmp_path / "cookies.txt") as client, client.chat() as chat:
        answer = chat.send("Hello")
        with pytest.raises(AuthenticationError, match=r"cookies\.txt"):
            await anext(answer)
        with pytest.raises(AuthenticationError):
            await anext(answer)
    assert site.steps == []


@pytest.mark.clause("OA-2.5")
async def test_no_credentials_in_what_is_logged_shown_or_raised(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="oa_protocol")
    shown: list[str] = []
    client = site.client()
    async with client, client.chat("no such model") as chat:
        shown += [repr(client), repr(chat)]
        with pytest.raises(RuntimeError) as caught:
            await chat.ask("Hello")
        shown += [repr(chat), str(caught.value), repr(caught.value)]
    logged = [record.getMessage() for record in caplog.records if record.name == "oa_protocol"]
    assert any("CreateChat" in line for line in logged)
    secrets = [site.server.token, *site.server.cookies.values()]
    assert not [line for line in shown + logged if any(secret in line for secret in secrets)]


MESSAGES = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "image_url", "image_url": {"url": "x"}}]},
]


async def provide(site: Site, messages: Any = MESSAGES, model: str | None = "", **more: Any) -> str:
    generator = OpenAssistant.create_async_generator(
        model, messages, base_url=site.server.url, api=site.api, **{**site.credentials, **more}
    )
    return "".join([piece async for piece in generator])


async def test_the_provider_answers(site: Site) -> None:
    site.script(Answer(pieces=("Yes", ".")))
    messages = json.loads(json.dumps(MESSAGES))
    assert await provide(site, messages) == "Yes."
    assert messages == MESSAGES
    assert site.prompts() == ["User: a\nAssistant: b\nUser: c\nAssistant:"]
    assert request_bodies(site)[0]["model_config_name"] == DEFAULT_MODEL


@pytest.mark.clause("OA-4.5")
async def test_of_the_provider_s_keywords_only_the_known_ones_leave_the_process(site: Site) -> None:
    secrets: dict[str, Any] = {"api_key": "SECRET-1", "cookie_jar": {"x": "SECRET-2"}, "auth": "SECRET-3", "timeout": 5}
    await provide(site, temperature=0.5, max_new_tokens=9, system_prompt="Be brief.", **secrets)
    assert request_bodies(site) == [
        {
            "model_config_name": DEFAULT_MODEL,
            "sampling_parameters": {**DEFAULTS, "temperature": 0.5, "max_new_tokens": 9},
            "plugins": [],
            "system_prompt": "Be brief.",
        }
    ]
    for request in site.server.requests:
        everything = f"{request.target} {request.headers} {request.body!r}"
        assert "SECRET" not in everything
        assert "timeout" not in everything


async def test_the_provider_s_model_is_sent(site: Site) -> None:
    await provide(site, model="distilgpt2")
    assert request_bodies(site)[0]["model_config_name"] == "distilgpt2"


@pytest.mark.parametrize("model", ["", None])
async def test_no_model_is_the_default(site: Site, model: str | None) -> None:
    await provide(site, model=model)
    assert request_bodies(site)[0]["model_config_name"] == OpenAssistant.model
