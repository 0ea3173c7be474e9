"""OA-6.11: what the caller does wrong is refused, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from oa_protocol.engine.inputs import (
    CredentialsFound,
    Prompt,
    ReplyReceived,
    StreamData,
    StreamEnded,
    StreamOpened,
    TimePassed,
)

from .notation import (
    CHAT,
    CREATED,
    LOST,
    PROMPT,
    PROMPTED,
    Case,
    Json,
    a_token,
    answered,
    assistant,
    failed,
    happened,
    sse,
    the_end,
    token,
    words,
)

_PROMPT = happened(Prompt, text="More")
_REPLY = happened(ReplyReceived, status=200, body="{}")
_FOUND = happened(CredentialsFound, credentials={"token": "t9"})
_OPENED = happened(StreamOpened)
_DATA = happened(StreamData, data=sse(a_token("!")))
_ENDED = happened(StreamEnded)

_OF_STREAMS = (_OPENED, _DATA, _ENDED)
_OF_EXCHANGES = (_REPLY, LOST, _FOUND)


def _refusing(case: Case, *inputs: Json) -> Case:
    for each in inputs:
        case.refuses(each)
    return case.step(happened(TimePassed))


def cases() -> Iterator[Case]:
    def misuse(name: str) -> Case:
        return Case("inference", f"misuse {name}", "OA-6.11")

    yield _refusing(misuse("before anything"), *_OF_EXCHANGES, *_OF_STREAMS).creating()
    yield (
        _refusing(misuse("while the chat is made").creating(), _PROMPT, _FOUND, *_OF_STREAMS)
        .reply(200, {"id": CHAT}, CREATED, to="CHAT_CREATED")
        .asks("SendPrompt")
    )
    asked = misuse("if an exchange was not asked for yet").created()
    yield _refusing(asked, _PROMPT, *_OF_EXCHANGES, *_OF_STREAMS).asks("SendPrompt")
    yield (
        _refusing(
            Case("inference", "misuse while credentials are looked for", "OA-6.11", credentials={})
            .prompt()
            .asks_for_credentials(),
            *(_PROMPT, _REPLY, LOST, *_OF_STREAMS),
        )
        .finds({"token": "t1"}, to="COOKIES")
        .asks("CreateChat")
    )
    yield (
        _refusing(misuse("after the prompt").prompting(), _PROMPT, _FOUND, *_OF_STREAMS)
        .reply(200, {"id": PROMPT}, PROMPTED, to="PROMPTED")
        .asks("RequestAssistant")
    )
    yield _refusing(misuse("while the stream is awaited").opening(), _PROMPT, _FOUND, _DATA, _ENDED).opens()
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
    yield _refusing(misuse("after an answer").answered(), *_OF_EXCHANGES, *_OF_STREAMS).leaves()
    refused = failed("ApiError", status=400, message="No")
    yield _refusing(
        misuse("after a failure").prompting().reply(400, words("inference", "No"), refused, to="FAILED"),
        *(_PROMPT, *_OF_EXCHANGES, *_OF_STREAMS),
    ).leaves()
    yield _refusing(misuse("on the way out").created().leaving(), _PROMPT, _FOUND, *_OF_STREAMS).gone()
    over = misuse("after the end").created().leaves()
    yield _refusing(over, _PROMPT, *_OF_EXCHANGES, *_OF_STREAMS).asks_nothing()
