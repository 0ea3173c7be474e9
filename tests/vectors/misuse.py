"""OA-6.11: what the caller does wrong is refused, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from .notation import (
    CHAT,
    CREATED,
    PROMPT,
    PROMPTED,
    Case,
    Json,
    a_token,
    answered,
    assistant,
    failed,
    sse,
    the_end,
    token,
    words,
)

_PROMPT: Json = {"prompt": "More"}
_REPLY: Json = {"reply": 200, "body": "{}"}
_LOST: Json = {"failure": "MaybeSent"}
_FOUND: Json = {"credentials": {"token": "t9"}}
_OPENED: Json = {"stream_opened": True}
_DATA: Json = {"stream_data": sse(a_token("!"))}
_SILENCE: Json = {"silence": True}
_ENDED: Json = {"stream_end": True}
_GIVES_UP: Json = {"answer_timed_out": True}

_OF_STREAMS = (_OPENED, _DATA, _SILENCE, _ENDED)
_OF_EXCHANGES = (_REPLY, _LOST, _FOUND)


def _refusing(case: Case, *calls: Json) -> Case:
    for call in calls:
        case.refuses(call)
    return case


def cases() -> Iterator[Case]:
    def misuse(name: str) -> Case:
        return Case("inference", f"misuse {name}", "OA-6.11")

    yield _refusing(misuse("before anything"), *_OF_EXCHANGES, *_OF_STREAMS, _GIVES_UP).creating()
    yield (
        _refusing(misuse("while the chat is made").creating(), _PROMPT, _FOUND, *_OF_STREAMS, _GIVES_UP)
        .reply(200, {"id": CHAT}, CREATED, to="CHAT_CREATED")
        .asks("SendPrompt")
    )
    asked = misuse("where an exchange was not asked for yet").created()
    yield _refusing(asked, _PROMPT, *_OF_EXCHANGES, *_OF_STREAMS, _GIVES_UP).asks("SendPrompt")
    yield (
        _refusing(
            Case("inference", "misuse while credentials are looked for", "OA-6.11", credentials={})
            .prompt()
            .asks_for_credentials(),
            *(_PROMPT, _REPLY, _LOST, *_OF_STREAMS, _GIVES_UP),
        )
        .finds({"token": "t1"}, to="COOKIES")
        .asks("CreateChat")
    )
    yield (
        _refusing(misuse("after the prompt").prompting(), _PROMPT, _FOUND, *_OF_STREAMS, _GIVES_UP)
        .reply(200, {"id": PROMPT}, PROMPTED, to="PROMPTED")
        .asks("RequestAssistant")
    )
    yield _refusing(misuse("where the stream is awaited").opening(), _PROMPT, _FOUND, _DATA, _SILENCE, _ENDED).opens()
    yield (
        _refusing(misuse("of an open stream").streaming("Hi"), _PROMPT, *_OF_EXCHANGES, _OPENED)
        .data(sse(the_end("Hi")), answered("Hi"), to="ANSWERED")
        .closes_stream()
    )
    yield (
        _refusing(misuse("while polling").polling(), _PROMPT, _FOUND, *_OF_STREAMS)
        .reply(200, assistant("complete", "Hi"), token("Hi"), answered("Hi"), to="ANSWERED")
        .asks_nothing()
    )
    yield _refusing(misuse("after an answer").answered(), *_OF_EXCHANGES, *_OF_STREAMS, _GIVES_UP).leaves()
    refused = failed("ApiError", status=400, message="No")
    yield _refusing(
        misuse("after a failure").prompting().reply(400, words("inference", "No"), refused, to="FAILED"),
        *(_PROMPT, *_OF_EXCHANGES, *_OF_STREAMS, _GIVES_UP),
    ).leaves()
    yield _refusing(misuse("on the way out").created().leaving(), _PROMPT, _FOUND, *_OF_STREAMS, _GIVES_UP).gone()
    over = misuse("after the end").created().leaves()
    yield _refusing(over, _PROMPT, *_OF_EXCHANGES, *_OF_STREAMS, _GIVES_UP).asks_nothing()
