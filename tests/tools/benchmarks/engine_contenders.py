"""Who reads a stream that is held in memory: this package's engine, and what else one would take."""

import asyncio
import json
from collections.abc import Callable, Sequence

import aiohttp
import httpx
import httpx_sse
import msgspec
from aiohttp.base_protocol import BaseProtocol

from oa_protocol.bindings.json import StreamEvent
from tests.engine.stories import WEBSITE, token

WORDS = ("Lorem ", "ipsum ", "dolor ", "sit ", "amet, ", "consectetur ", "adipisci ", "velit ", "“sed” ", "quia ")

Read = Callable[[Sequence[bytes]], int]
"""Reads a stream's chunks to their end, and counts its events."""

_decode: Callable[[bytes | str], StreamEvent] = msgspec.json.Decoder(StreamEvent).decode


def events_of(tokens: int) -> list[bytes]:
    """A stream of tokens, spelled as servers do, one event an item."""
    payloads = [json.dumps(token(word)).encode() for word in WORDS]
    return [b"data: %s\r\n\r\n" % payloads[number % len(WORDS)] for number in range(tokens)]


def cut(events: Sequence[bytes], size: int) -> list[bytes]:
    """The same stream in chunks of ``size`` bytes."""
    stream = b"".join(events)
    return [stream[start : start + size] for start in range(0, len(stream), size)]


def engine(chunks: Sequence[bytes]) -> int:
    """The engine, from the stream's bytes to the events that it tells."""
    conversation = WEBSITE.streaming().conversation
    events = 0
    for chunk in chunks:
        events += len(conversation.receive_stream_data(chunk, 0.0))
    return events


def payloads_of(events: Sequence[bytes]) -> list[bytes]:
    """The events' JSON."""
    return [event.removeprefix(b"data: ").removesuffix(b"\r\n\r\n") for event in events]


def msgspec_alone(payloads: Sequence[bytes]) -> int:
    """The limit: only the JSON is decoded."""
    for payload in payloads:
        _decode(payload)
    return len(payloads)


def naive_split(chunks: Sequence[bytes]) -> int:
    """What one would write in five lines, with msgspec: no server-sent events, but for this very spelling."""
    rest = b""
    events = 0
    for chunk in chunks:
        *blocks, rest = (rest + chunk).split(b"\r\n\r\n")
        for block in blocks:
            if block.startswith(b"data: "):
                _decode(block[6:])
                events += 1
    return events


def httpx_sse_and_json(chunks: Sequence[bytes]) -> int:
    """httpx-sse over an httpx response, and the standard JSON."""
    return _httpx_sse(chunks, json.loads)


def httpx_sse_and_msgspec(chunks: Sequence[bytes]) -> int:
    """httpx-sse over an httpx response, and msgspec."""
    return _httpx_sse(chunks, _decode)


def _httpx_sse(chunks: Sequence[bytes], decode: Callable[[str], object]) -> int:
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter(chunks))
    events = 0
    for event in httpx_sse.EventSource(response).iter_sse():
        decode(event.data)
        events += 1
    return events


def historic(chunks: Sequence[bytes]) -> int:
    """The loop of 2023: aiohttp's reader line by line, and the standard JSON."""
    return asyncio.run(_historic(chunks))


async def _historic(chunks: Sequence[bytes]) -> int:
    loop = asyncio.get_running_loop()
    # With room for all of it there is no connection to pause.
    reader = aiohttp.StreamReader(BaseProtocol(loop), limit=sum(map(len, chunks)), loop=loop)
    for chunk in chunks:
        reader.feed_data(chunk)
    reader.feed_eof()
    events = 0
    async for line in reader:
        if line.startswith(b"data: "):
            json.loads(line[6:])
            events += 1
    return events


CONTENDERS: dict[str, Read] = {
    "oa_protocol's engine": engine,
    "naive split + msgspec": naive_split,
    "httpx-sse + msgspec": httpx_sse_and_msgspec,
    "httpx-sse + json": httpx_sse_and_json,
    "the historic loop": historic,
}
