"""Who is measured: this package's client over each of its two transports, and the historic client's loop."""

import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp

from oa_protocol import Cleanup, Client, Timeouts
from oa_protocol.transports import TransportFactory
from oa_protocol.transports.fast.httptools import HttptoolsTransport
from oa_protocol.transports.httpx import HttpxTransport

from .driver_server import CHAT

Converse = Callable[[Callable[[], None]], Coroutine[Any, Any, None]]
"""Has one conversation, from the create to the DELETE, and calls its argument for each token."""

COOKIE = ("next-auth.session-token", "x")


@asynccontextmanager
async def historic(url: str) -> AsyncGenerator[Converse]:
    """The loop of 2023: a session of aiohttp's for each conversation, the stream line by line, the standard JSON."""

    async def converse(note: Callable[[], None]) -> None:
        async with aiohttp.ClientSession(cookies=dict([COOKIE])) as session:
            async with session.post(f"{url}/api/chat", json={}) as response:
                chat_id = (await response.json())["id"]
            prompt = {"chat_id": chat_id, "content": "Hello", "parent_id": None}
            async with session.post(f"{url}/api/chat/prompter_message", json=prompt) as response:
                parent_id = (await response.json())["id"]
            request: dict[str, Any] = {
                "chat_id": chat_id,
                "parent_id": parent_id,
                "model_config_name": "OA_SFT_Llama_30B_6",
                "sampling_parameters": {"top_k": 50, "temperature": 0.35, "max_new_tokens": 1024},
                "plugins": [],
            }
            async with session.post(f"{url}/api/chat/assistant_message", json=request) as response:
                message_id = (await response.json())["id"]
            query = {"chat_id": chat_id, "message_id": message_id}
            async with session.post(f"{url}/api/chat/events", params=query) as response:
                async for line in response.content:
                    if line.startswith(b"data: "):
                        event = json.loads(line[6:])
                        if event["event_type"] == "token":
                            note()
            async with session.delete(f"{url}/api/chat", params={"chat_id": CHAT}) as response:
                response.raise_for_status()

    yield converse


def ours(transport: TransportFactory) -> Callable[[str], AbstractAsyncContextManager[Converse]]:
    @asynccontextmanager
    async def contender(url: str) -> AsyncGenerator[Converse]:
        timeouts = Timeouts(connect=60, reply=60, idle=60)
        cleanup = Cleanup(drain=0, timeout=60)
        async with Client(
            url, cookies=dict([COOKIE]), transport=transport, timeouts=timeouts, cleanup=cleanup
        ) as client:

            async def converse(note: Callable[[], None]) -> None:
                async with client.chat() as chat:
                    async for _ in chat.stream("Hello"):
                        note()

            yield converse

    return contender


CONTENDERS = {
    "httptools": ours(HttptoolsTransport),
    "httpx": ours(HttpxTransport),
    "historic": historic,
}
