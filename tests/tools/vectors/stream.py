"""Section 5: the contents of a stream, for all cuts of its bytes, and the end of an answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

from .notation import (
    BOTH,
    Bytes,
    Case,
    Json,
    a_pending,
    a_token,
    answered,
    assistant,
    corrected,
    emitted,
    failed,
    queued,
    sse,
    the_end,
    token,
)

_PING = "event: ping\r\ndata: 2026-11-22 08:33:18.087159\r\n\r\n"
_COMMENT = ": ping - 2026-11-22 08:50:49.981012\r\n\r\n"

_NO_EVENTS: dict[str, Bytes] = {
    "no JSON": "data: 2026-11-22 08:33:18.087159\r\n\r\n",
    "JSON that is cut": 'data: {"event_type": "token", "text": "Hi\r\n\r\n',
    "more than one JSON value": "data: {} {}\r\n\r\n",
    "no UTF-8": {"base64": base64.b64encode(b'data: {"event_type": "token", "text": "\xff"}\r\n\r\n').decode()},
    "a list": "data: []\r\n\r\n",
    "null": "data: null\r\n\r\n",
    "nested too deep": ["data: ", {"repeat": ["[", 100_000]}, {"repeat": ["]", 100_000]}, "\r\n\r\n"],
    "a token with a field that is nested too deep": [
        'data: {"event_type": "token", "text": "Hi", "more": ',
        *({"repeat": ["[", 500]}, {"repeat": ["]", 500]}),
        "}\r\n\r\n",
    ],
    "without a type": sse({"text": "Hi"}),
    "with a type that is no text": sse({"event_type": 1}),
    "a token without text": sse({"event_type": "token"}),
    "a token whose text is null": sse({"event_type": "token", "text": None}),
    "a pending without numbers": sse({"event_type": "pending"}),
    "a final message without a message": sse({"event_type": "message"}),
    "an error without words": sse({"event_type": "error"}),
}

_ENDS_ALIKE: dict[str, tuple[list[str], str]] = {
    "as it was emitted": (["Hi ", "there"], "Hi there"),
    "without the white space at its ends": ([" Hi ", "there\n"], "Hi there"),
    "with other white space at its ends": (["\tHi there"], "  Hi there\r\n"),
    "empty, and nothing was emitted": ([], ""),
    "empty, and an empty token was emitted": ([""], ""),
    "empty, and white space was emitted": (["\n"], ""),
}
_GOES_ON: dict[str, tuple[list[str], str, str]] = {
    "all of it": ([], "Hi there", "Hi there"),
    "a part of it": (["Hi"], "Hi there", " there"),
    "a part of it, to the white space at its end": (["Hi"], "Hi there\n", " there\n"),
    "a part that begins beyond the basic plane": (["\U0001f600"], "\U0001f600\U0001f601", "\U0001f601"),
}
_CONTRADICTS: dict[str, tuple[list[str], str]] = {
    "other words": (["Hi ", "there"], "Hello"),
    "less than was emitted": (["Hi there</s>"], "Hi there"),
    "nothing, and words were emitted": (["Hi"], ""),
    "other white space between the words": (["Hi  there"], "Hi there"),
    "other case": (["hi"], "Hi"),
    "the composed spelling of what was emitted decomposed": (["e\u0301"], "\u00e9"),
}


def cases() -> Iterator[Case]:
    for each in (_decoding, _events, _truth, _ends, _stuck, _rejected_checks, _bad_ends, _no_events):
        yield from each()


def _decoding() -> Iterator[Case]:
    yield (
        Case("website", "events are emitted as soon as their bytes are there, and not before", "OA-5.2", "OA-5.3")
        .streaming()
        .data(sse(a_token("a"), a_token("b")) + 'data: {"event_type"', token("a"), token("b"))
        .data(': "token", "text": "c"}\r\n')
        .data("\r", token("c"))
        .data("\n" + sse(a_token("d"), the_end("abcd")), token("d"), answered("abcd"), to="ANSWERED")
        .closes_stream()
    )
    text = json.dumps(a_token("é😀"), ensure_ascii=False).encode()
    for cut in (text.index("é".encode()) + 1, text.index("😀".encode()) + 2):
        head, rest = (base64.b64encode(part).decode() for part in (b"data: " + text[:cut], text[cut:] + b"\n\n"))
        yield (
            Case("inference", f"a character that is cut after byte {cut} of its event", "OA-5.2")
            .streaming()
            .data({"base64": head})
            .data({"base64": rest}, token("é😀"))
        )
    yield (
        Case("website", "a surrogate pair in JSON escapes is one character", "OA-5.2")
        .streaming()
        .data('data: {"event_type": "token", "text": "\\ud83d', to="STREAMING")
        .data('\\ude00"}\r\n\r\n', token("😀"))
    )
    yield (
        Case("inference", "pings of both kinds are no data", "OA-5.2")
        .streaming()
        .data(_PING + sse(a_token("a")) + _COMMENT + sse(a_token("b")), token("a"), token("b"))
        .asks_nothing()
    )
    yield (
        Case("inference", "JSON over several lines of data, with LF alone, after a byte order mark", "OA-5.2")
        .streaming()
        .data('\ufeffdata:{"event_type": "token",\ndata: "text": "a"}\n\n', token("a"))
    )


def _events() -> Iterator[Case]:
    yield (
        Case("website", "the numbers of a pending are emitted as they are", "OA-5.4")
        .streaming()
        .data(sse(a_pending(3, 3), a_pending(5, 2), a_pending(0, 0)), queued(3, 3), queued(5, 2), queued(0, 0))
        .data(sse(a_pending(-1, 0)), queued(-1, 0))
    )
    yield (
        Case("inference", "events of an unknown type are ignored, whatever else they have", "OA-5.5")
        .streaming()
        .data(sse({"event_type": "safe_prompt", "safe_prompt": "x", "message": {"id": 1}}, {"event_type": ""}))
        .data(sse({"event_type": "Token", "text": 5}, a_token("a")), token("a"))
        .asks_nothing()
    )
    yield (
        Case("website", "fields that are not known are ignored", "OA-5.5")
        .streaming()
        .data(sse(a_token("a") | {"logprob": -1, "message": None}), token("a"))
    )
    step = {
        "current_plugin_thought": "I need the time",
        "current_plugin_action_taken": "clock",
        "current_plugin_action_input": "now",
        "current_plugin_action_response": None,
    }
    yield (
        Case("website", "a plugin's step, and the empty token after it", "OA-5.3")
        .streaming()
        .data(
            sse({"event_type": "plugin_intermediate", **step, "message": None}, a_token("")),
            emitted("PluginStep", **step),
            token(""),
        )
    )


def _truth() -> Iterator[Case]:
    """OA-5.6, if the stream itself brings the final message, and if it is read after the stream was cut."""
    for name, (texts, final) in _ENDS_ALIKE.items():
        yield from _final(f"the final text is {name}: nothing is emitted", texts, final)
        yield from _read(f"the final text is {name}: nothing is emitted", texts, final)
    for name, (texts, final, rest) in _GOES_ON.items():
        yield from _final(f"the tokens lack {name}: one more token", texts, final, token(rest))
        yield from _read(f"the tokens lack {name}: one more token", texts, final, token(rest))
    for name, (texts, final) in _CONTRADICTS.items():
        yield from _final(f"the final text is {name}: it is emitted", texts, final, corrected(final, cut=False))
        yield from _read(f"the final text is {name}: it is emitted", texts, final, corrected(final, cut=True))


def _final(name: str, texts: list[str], final: str, *events: Json) -> Iterator[Case]:
    yield (
        Case("inference", f"{name}, whole stream", "OA-5.6", "OA-5.7")
        .streaming(*texts)
        .data(sse(the_end(final)), *events, answered(final), to="ANSWERED")
    )


def _read(name: str, texts: list[str], final: str, *events: Json) -> Iterator[Case]:
    yield (
        Case("website", f"{name}, cut stream", "OA-5.6", "OA-5.7")
        .polling(*texts)
        .reply(200, assistant("complete", final), *events, answered(final), to="ANSWERED")
        .asks_nothing()
    )


def _ends() -> Iterator[Case]:
    for api in BOTH:
        yield (
            Case(api, f"a stream without any event is no success, {api}", "OA-5.7", "OA-6.5")
            .streaming()
            .ends(to="POLLING")
            .asks("FetchMessage")
        )
    yield (
        Case("inference", "204 instead of a stream is no success", "OA-5.7", "OA-6.5")
        .opening()
        .reply(204, None, to="POLLING")
        .asks("FetchMessage")
        .reply(200, assistant("complete", "Hi"), token("Hi"), answered("Hi"), to="ANSWERED")
        .asks_nothing()
    )
    yield (
        Case("website", "a clean end after tokens is no success", "OA-5.7")
        .polling("Hi")
        .reply(200, assistant("in_progress"))
        .pauses(0.5)
        .asks("FetchMessage")
    )
    yield (
        Case("inference", "a final event without its empty line is none", "OA-5.2", "OA-5.7")
        .streaming("Hi")
        .data(sse(the_end("Hi")).removesuffix("\r\n"))
        .ends(to="POLLING")
        .asks("FetchMessage")
    )
    yield (
        Case("website", "what follows the final message is ignored", "OA-5.7", "OA-6.11")
        .streaming("Hi")
        .data(sse(the_end("Hi"), a_token("!")) + "data: x\r\n\r\n", answered("Hi"), to="ANSWERED")
        .data("data: x\r\n\r\n")
        .closes_stream()
        .asks_nothing()
    )


def _stuck() -> Iterator[Case]:
    ten = sse(*[a_pending()] * 10)
    for state in ("cancelled", "timeout"):
        yield (
            Case("website", f"an answer in state {state} shows pending without end", "OA-3.1", "OA-5.8", "OA-5.9")
            .streaming()
            .data(sse(*[a_pending()] * 9), *[queued()] * 9)
            .asks_nothing()
            .data(sse(a_pending()), queued())
            .asks("FetchMessage")
            .reply(200, assistant(state), failed("AnswerFailed", text=""), to="FAILED")
            .closes_stream()
            .asks_nothing()
            .leaves()
        )
    for name, ping in (("events of type ping", _PING), ("comments", _COMMENT)):
        yield (
            Case("inference", f"a stream that only keeps alive, by {name}", "OA-5.8")
            .streaming("Hi")
            .data(ping * 2)
            .asks_nothing()
            .data(ping)
            .asks("FetchMessage")
            .reply(200, assistant("cancelled"), failed("AnswerFailed", text="Hi"), to="FAILED")
        )
    yield (
        Case("website", "an answer that waits is waited for, and the stream stays open", "OA-5.8")
        .streaming()
        .data(ten, *[queued()] * 10)
        .asks("FetchMessage")
        .data(sse(a_pending()), queued())
        .reply(200, assistant("pending"))
        .asks_nothing()
        .data(sse(*[a_pending()] * 9), *[queued()] * 9)
        .asks("FetchMessage")
        .data(sse(a_token("Hi"), the_end("Hi")), token("Hi"), answered("Hi"), to="ANSWERED")
        .asks_nothing()
        .reply(200, assistant("complete", "Hi"))
        .closes_stream()
        .asks_nothing()
    )
    yield (
        Case("inference", "an answer that is complete while its stream shows pending", "OA-5.8", "OA-5.6")
        .streaming()
        .data(ten, *[queued()] * 10)
        .asks("FetchMessage")
        .reply(200, assistant("complete", "Hi"), token("Hi"), answered("Hi"), to="ANSWERED")
        .closes_stream()
        .asks_nothing()
    )
    yield (
        Case("inference", "a token says that nothing is stuck", "OA-5.8")
        .streaming()
        .data(ten + sse(a_token("Hi")), *[queued()] * 10, token("Hi"))
        .asks_nothing()
    )
    yield (
        Case("website", "a message that cannot be read for once is read again at the next occasion", "OA-5.8")
        .streaming()
        .data(ten, *[queued()] * 10)
        .asks("FetchMessage")
        .reply(500, "Internal Server Error")
        .asks_nothing()
        .data(ten, *[queued()] * 10)
        .asks("FetchMessage")
        .reply(200, assistant("timeout"), failed("AnswerFailed", text=""), to="FAILED")
    )


def _rejected_checks() -> Iterator[Case]:
    """A check that is answered with an error is a failed one, and too many of them end the stream."""
    ten = sse(*[a_pending()] * 10)
    for status in (401, 403, 404):
        case = Case("website", f"a stream whose message is read with a {status} again and again", "OA-5.8", retries=1)
        case.streaming().data(ten, *[queued()] * 10).asks("FetchMessage").reply(status, None).asks_nothing()
        case.data(ten, *[queued()] * 10).asks("FetchMessage")
        yield case.reply(status, None, to="POLLING").closes_stream().asks("FetchMessage")


def _bad_ends() -> Iterator[Case]:
    words = "Aborted due to worker error."
    for name, texts in (("before any token", ()), ("after tokens", ("Hi ", "the"))):
        for api in BOTH:
            yield (
                Case(api, f"an error {name}, {api}", "OA-5.9")
                .streaming(*texts)
                .data(
                    sse({"event_type": "error", "error": words, "message": assistant("aborted_by_worker")}),
                    failed("AnswerFailed", text="".join(texts)),
                    to="FAILED",
                )
                .closes_stream()
                .asks_nothing()
                .leaves()
            )
    yield (
        Case("inference", "an error without a message", "OA-5.9")
        .streaming("Hi")
        .data(sse({"event_type": "error", "error": words}), failed("AnswerFailed", text="Hi"), to="FAILED")
    )
    for state in ("aborted_by_worker", "cancelled", "timeout"):
        yield (
            Case("website", f"a polled answer in state {state}", "OA-3.1", "OA-5.9")
            .polling("Hi")
            .reply(200, assistant(state), failed("AnswerFailed", text="Hi"), to="FAILED")
            .asks_nothing()
            .leaves()
        )
        yield (
            Case("inference", f"a stream that ends with a message in state {state}", "OA-5.7", "OA-5.9")
            .streaming("Hi")
            .data(sse(the_end(None, state)), failed("AnswerFailed", text="Hi"), to="FAILED")
            .closes_stream()
            .asks_nothing()
        )


def _no_events() -> Iterator[Case]:
    for name, data in _NO_EVENTS.items():
        yield (
            Case("inference", f"data of the stream: {name}", "OA-5.10", "OA-6.11")
            .streaming("Hi")
            .data(data, failed("RemoteProtocolError"), to="FAILED")
            .closes_stream()
            .asks_nothing()
            .close(drain=False, to="DELETING")
            .asks("DeleteChat")
            .gone()
        )
    yield (
        Case("website", "what was emitted before the data that is no event stays", "OA-5.3", "OA-5.10")
        .streaming()
        .data(sse(a_token("Hi")) + "data: x\n\n", token("Hi"), failed("RemoteProtocolError"), to="FAILED")
    )
    for name, data in {"without a type": sse({"text": "there"}), "without data": "data: \r\n\r\n"}.items():
        yield (
            Case("website", f"an event {name} is no token among tokens", "OA-5.10")
            .streaming()
            .data(sse(a_token("Hi")) + data, token("Hi"), failed("RemoteProtocolError"), to="FAILED")
        )
