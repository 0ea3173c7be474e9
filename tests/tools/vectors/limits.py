"""OA-5.10: an event or a body over 8 MiB, an answer over 64 Mi characters, and a stream over 128 MiB."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .notation import BOTH, PROMPT, PROMPTED, Case, failed, token

_EIGHT = 8 * 1024 * 1024
_BROKEN = failed("RemoteProtocolError")
_HEAD, _TAIL = 'data: {"event_type":"token","text":"', '"}'


def _text(size: int) -> Any:
    return {"repeat": ["a", size]}


def cases() -> Iterator[Case]:
    head, tail = f'{{"id":"{PROMPT}","content":"', '"}'
    for api in BOTH:
        fits = _EIGHT - len(head) - len(tail)
        yield (
            Case(api, f"a body of 8 MiB is read, {api}", "OA-5.10")
            .prompting()
            .reply(200, [head, _text(fits), tail], PROMPTED, to="PROMPTED")
        )
        yield (
            Case(api, f"a body of one byte more is not, {api}", "OA-5.10")
            .prompting()
            .reply(200, [head, _text(fits + 1), tail], _BROKEN, to="FAILED")
            .asks_nothing()
            .leaves()
        )
    yield (
        Case("inference", "an error body of more than 8 MiB has no words", "OA-5.10", "OA-8.1")
        .prompting()
        .reply(400, ['{"detail":"', _text(_EIGHT), '"}'], failed("HTTPStatusError", status=400), to="FAILED")
    )
    fits = _EIGHT - len(_HEAD) - len(_TAIL)
    yield (
        Case("inference", "an event of 8 MiB is emitted", "OA-5.10")
        .streaming()
        .data([_HEAD, _text(fits), _TAIL, "\r\n\r\n"], token(_text(fits)))
    )
    yield (
        Case("inference", "an event of one byte more is not", "OA-5.10")
        .streaming()
        .data([_HEAD, _text(fits + 1), _TAIL, "\r\n\r\n"], _BROKEN, to="FAILED")
        .closes_stream()
        .asks_nothing()
    )
    yield (
        Case("website", "an event that grows and never ends", "OA-5.10")
        .streaming()
        .data([_HEAD, _text(_EIGHT // 2)])
        .data(_text(_EIGHT // 2), _BROKEN, to="FAILED")
        .closes_stream()
    )
    yield (
        Case("website", "a comment that grows and never ends", "OA-5.10")
        .streaming()
        .data([": ", _text(_EIGHT // 2)])
        .data(_text(_EIGHT // 2), _BROKEN, to="FAILED")
        .closes_stream()
    )
    half = 4 * 1024 * 1024
    long = Case("website", "an answer of 64 Mi characters is emitted, and one more fails it", "OA-5.10").streaming()
    for _ in range(16):
        long.data([_HEAD, _text(half), _TAIL, "\r\n\r\n"], token(_text(half)))
    yield (long.data([_HEAD, "a", _TAIL, "\r\n\r\n"], token("a"), _BROKEN, to="FAILED").closes_stream().asks_nothing())
    endless = Case("website", "a stream of 128 MiB is read, and one byte more fails it", "OA-5.10").streaming()
    for _ in range(16):
        endless.data([": ", _text(_EIGHT - 4), "\r\n"])
    yield (endless.data(":", _BROKEN, to="FAILED").closes_stream().asks_nothing())
