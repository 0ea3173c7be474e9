"""Sections 1 to 4: how requests are spelled, ids, credentials, prompts and options, over whole conversations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from oa_protocol.engine.inputs import Prompt
from tests.request_table import Api

from .notation import (
    ANSWER_2,
    BOTH,
    CHAT,
    CREATED,
    FRESH,
    NEVER_CREATED,
    PROMPT_2,
    Case,
    a_pending,
    a_token,
    answered,
    emitted,
    failed,
    happened,
    queued,
    sse,
    the_end,
    token,
    words,
)

_SERVER: dict[Api, str] = {"website": "the website", "inference": "the inference server"}

_BAD_IDS: dict[str, object] = {
    "a path": "../account/",
    "empty": "",
    "no UUID": "1",
    "without hyphens": "06b02a53f28e708d8000044bde7b4953",
    "with hyphens elsewhere": "06b02a53f28e-708d-8000-044b-de7b4953",
    "in braces": "{06b02a53-f28e-708d-8000-044bde7b4953}",
    "a URN": "urn:uuid:06b02a53-f28e-708d-8000-044bde7b4953",
    "with a line feed after it": "06b02a53-f28e-708d-8000-044bde7b4953\n",
    "with a space before it": " 06b02a53-f28e-708d-8000-044bde7b4953",
    "with more after it": "06b02a53-f28e-708d-8000-044bde7b4953/../..",
    "with a letter that is no hexadecimal digit": "06b02a53-f28e-708d-8000-044bde7b495g",
    "with digits of another script": "06b02a53-f28e-708d-8000-044bde7b495\u0663",
    "a number": 1,
    "null": None,
}


def cases() -> Iterator[Case]:
    for each in (_whole, _options, _credentials, _prompts, _ids, _redirects):
        yield from each()


def _whole() -> Iterator[Case]:
    for api in BOTH:
        yield (
            Case(
                api,
                f"one turn with {_SERVER[api]}",
                *("OA-1.2", "OA-2.2", "OA-2.3", "OA-2.4", "OA-4.2", "OA-4.3", "OA-4.5", "OA-5.3"),
                *("OA-7.2", "OA-7.3", "OA-7.7"),
            )
            .asks_nothing()
            .streaming()
            .data(sse(a_pending()), queued())
            .data(sse(a_token("Hi ")), token("Hi "))
            .data(sse(a_token("there")), token("there"))
            .data(sse(the_end("Hi there")), answered("Hi there"), to="ANSWERED")
            .closes_stream()
            .asks_nothing()
            .leaves()
        )
    for api in BOTH:
        yield (
            Case(api, f"two turns with {_SERVER[api]}, the second prompt under the first answer", "OA-1.2", "OA-3.3")
            .prompting_again()
            .reply(200, {"id": PROMPT_2}, emitted("Prompted", message_id=PROMPT_2), to="PROMPTED")
            .asks("RequestAssistant")
            .reply(200, {"id": ANSWER_2}, emitted("Requested", message_id=ANSWER_2), to="ASSISTANT_REQUESTED")
            .asks("OpenStream")
            .opens()
            .data(sse(a_token("Aga")), token("Aga"))
            .data(sse(a_token("in")), token("in"))
            .data(
                sse(the_end("Again", message_id=ANSWER_2, parent_id=PROMPT_2)),
                answered("Again", ANSWER_2),
                to="ANSWERED",
            )
            .closes_stream()
            .leaves()
        )
    for api in BOTH:
        yield (
            Case(api, f"the base URL of {_SERVER[api]} has a port and a path", "OA-1.2", base_url="https://[::1]:8/oa")
            .streaming()
            .ends(to="POLLING")
            .asks("FetchMessage")
        )
        odd, usual = "HTTPS://B%C3%BCcher.Example:443/./o%61/", "https://xn--bcher-kva.example/oa"
        name = f"the base URL of {_SERVER[api]} is sent in its normal form"
        yield Case(api, name, "OA-1.3", base_url=odd, normal_url=usual).creating()
    yield (
        Case("website", "closed before there was a prompt: nothing is sent", "OA-4.2", "OA-7.2")
        .close(NEVER_CREATED, to="NEVER_CREATED")
        .asks_nothing()
    )


def _options() -> Iterator[Case]:
    yield Case(
        "website",
        "the options that are set are sent, and no others",
        *("OA-4.5", "OA-4.6"),
        options={"model": "_lorem", "sampling": {"temperature": 1, "top_k": None}, "system_prompt": "Be brief"},
    ).requesting()
    plugins = [{"name": "calculator", "url": "http://plugins.example.org", "enabled": True, "trusted": False}]
    yield Case(
        "inference",
        "all the options there are",
        *("OA-4.5", "OA-4.6"),
        options={
            "model": "OA_SFT_Llama_30B_7",
            "sampling": {
                "top_k": 1,
                "top_p": 0.95,
                "typical_p": 0.3,
                "temperature": 0,
                "repetition_penalty": None,
                "max_new_tokens": 1,
            },
            "plugins": plugins,
            "system_prompt": "",
            "user_profile": "A programmer",
            "user_response_instructions": "Answer in “English”",
        },
    ).requesting()
    sampling = dict.fromkeys(("top_k", "top_p", "typical_p", "temperature", "repetition_penalty"))
    options: dict[str, Any] = {"sampling": sampling}
    yield Case("website", "every sampling parameter that can be null", "OA-4.6", options=options).requesting()


def _credentials() -> Iterator[Case]:
    parts = {"__Secure-next-auth.session-token.0": "first=", "__Secure-next-auth.session-token.1": "second"}
    yield Case(
        "website", "the parts of a cookie in one header, as named", "OA-2.4", credentials={"cookies": parts}
    ).creating()
    yield Case("website", "a token at a website", "OA-2.4", credentials={"token": "t1"}).creating()
    both = {"cookies": {"next-auth.session-token": "s1"}, "token": "t1"}
    yield Case("website", "a cookie and a token", "OA-2.4", credentials=both).creating()
    missing = failed("AuthenticationError", status=None)
    yield (
        Case("website", "credentials are asked for first, and there are none", "OA-4.1", credentials={})
        .asks_nothing()
        .prompt()
        .asks_for_credentials()
        .asks_nothing()
        .finds(None, missing, NEVER_CREATED, to="NEVER_CREATED")
        .asks_nothing()
    )
    for api in BOTH:
        yield (
            Case(api, f"credentials are asked for first, found, and used, {api}", "OA-4.1", "OA-4.2", credentials={})
            .prompt()
            .asks_for_credentials()
            .finds(FRESH[api], to="COOKIES")
            .asks("CreateChat")
            .reply(200, {"id": CHAT}, CREATED, to="CHAT_CREATED")
            .asks("SendPrompt")
        )


def _prompts() -> Iterator[Case]:
    for name, text in (
        ("the empty prompt", ""),
        ("a prompt of white space", " \n\t"),
        ("a prompt beyond the basic plane, with quotes and controls", 'é – 😀 "\\"\r\n\u2028\x7f'),
    ):
        yield Case("website", f"{name} is sent as it is", "OA-4.4").prompting(text)
    for name, prompt, error in (
        ("a NUL", "a\0b", "ValueError"),
        ("a lone high surrogate", "a\ud83d", "ValueError"),
        ("a lone low surrogate", "\ude00b", "ValueError"),
        ("no text", 5, "TypeError"),
        ("null", None, "TypeError"),
    ):
        yield (
            Case("inference", f"a prompt that is or has {name} is refused before any request", "OA-4.4")
            .refuses(happened(Prompt, text=prompt), error)
            .asks_nothing()
            .creating()
        )


def _ids() -> Iterator[Case]:
    upper = CHAT.upper()
    yield (
        Case("inference", "an id in upper case is one, and is sent as the server spelled it", "OA-2.6")
        .creating()
        .reply(200, {"id": upper}, emitted("Created", chat_id=upper), to="CHAT_CREATED")
        .in_chat(upper)
        .asks("SendPrompt")
    )
    for name, bad in _BAD_IDS.items():
        yield (
            Case("website", f"the id of a message: {name}", "OA-2.6", "OA-6.11")
            .prompting()
            .reply(200, {"id": bad}, failed("RemoteProtocolError"), to="FAILED")
            .asks_nothing()
            .leaves()
        )


def _redirects() -> Iterator[Case]:
    elsewhere = {"location": "http://elsewhere.example.org/"}

    def moved(status: int) -> dict[str, Any]:
        return failed("HTTPStatusError", status=status)

    name = "a redirect is not followed"
    yield (
        Case("website", f"{name}: create", "OA-2.7", "OA-6.2")
        .creating()
        .reply(308, None, moved(308), NEVER_CREATED, to="NEVER_CREATED", headers=elsewhere)
        .asks_nothing()
    )
    yield (
        Case("inference", f"{name}: prompt", "OA-2.7", "OA-6.2")
        .prompting()
        .reply(307, None, moved(307), to="FAILED", headers=elsewhere)
        .asks_nothing()
    )
    yield (
        Case("website", f"{name}: request", "OA-2.7", "OA-6.2")
        .requesting()
        .reply(303, None, moved(303), to="FAILED", headers=elsewhere)
        .asks_nothing()
    )
    yield (
        Case("inference", f"{name}: events, whose message is polled", "OA-2.7", "OA-6.5")
        .opening()
        .reply(302, None, to="POLLING", headers=elsewhere)
        .asks("FetchMessage")
        .reply(302, None, moved(302), to="FAILED", headers=elsewhere)
        .asks_nothing()
    )
    yield (
        Case("website", f"{name}: delete, and says nothing", "OA-2.7", "OA-7.3")
        .created()
        .leaving()
        .reply(301, None, to="DELETE_UNCLEAR", headers=elsewhere)
        .asks("FetchChat")
    )
    yield (
        Case("website", "a login page instead of the API", "OA-2.7", "OA-6.2")
        .creating()
        .reply(
            302,
            words("website", "Moved"),
            failed("ApiError", status=302, message="Moved"),
            NEVER_CREATED,
            to="NEVER_CREATED",
            headers={"location": "http://oa.example.org/auth/signin"},
        )
    )
