"""The engine on asyncio and aiohttp, without anyio. Set OA_URL and OA_COOKIES, and run it."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from oa_protocol import Conversation, Credentials, MaybeSent, NotSent, Website, load_cookies
from oa_protocol.engine.events import Event, Failed
from oa_protocol.engine.intents import CloseStream, Exchange, LoadCookies, OpenStream

CONNECT, REPLY, IDLE = 10.0, 30.0, 45.0  # a stream shows a ping every 15 s
DRAIN, CLEANUP = 5.0, 10.0

T = TypeVar("T")


class Driver:
    """Carries out what a conversation asks for, one thing after the other."""

    def __init__(self, conversation: Conversation, session: aiohttp.ClientSession) -> None:
        self.conversation = conversation
        self.session = session
        self.stream: aiohttp.ClientResponse | None = None

    async def step(self) -> list[Event] | None:
        """Do one thing; return its events, or None where there is nothing to do."""
        match self.conversation.next_intent():
            case Exchange(shielded=True) as exchange:
                return await uninterrupted(self.exchange(exchange))
            case Exchange() as exchange:
                return await self.exchange(exchange)
            case LoadCookies():
                return self.conversation.receive_cookies(None)  # there are no others
            case CloseStream():
                return self.end_stream()
            case None:
                return await self.read_stream(self.stream) if self.stream else None

    async def exchange(self, exchange: Exchange) -> list[Event]:
        await asyncio.sleep(exchange.delay)
        request = exchange.request
        try:
            async with asyncio.timeout(REPLY):
                response = await self.session.request(
                    request.method,
                    URL(request.url, encoded=True),
                    headers=request.headers,
                    data=request.body,
                    allow_redirects=False,
                )
                if isinstance(exchange, OpenStream) and response.status == 200:
                    self.stream = response
                    return self.conversation.receive_stream_opened()
                async with response:
                    body = await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return self.conversation.receive_failure(NotSent(str(error)))
        except (aiohttp.ClientError, OSError) as error:
            return self.conversation.receive_failure(MaybeSent(f"{type(error).__name__} {error}"))
        return self.conversation.receive_reply(response.status, list(response.headers.items()), body)

    async def read_stream(self, stream: aiohttp.ClientResponse) -> list[Event]:
        try:
            async with asyncio.timeout(IDLE):
                data = await stream.content.readany()
        except TimeoutError:
            return self.conversation.receive_silence()
        except (aiohttp.ClientError, OSError):
            data = b""
        return self.conversation.receive_stream_data(data) if data else self.end_stream()

    def end_stream(self) -> list[Event]:
        if self.stream:
            self.stream.close()
        self.stream = None
        return self.conversation.receive_stream_end()

    async def close(self) -> None:
        """Have the chat deleted, wherever the conversation stands; what is left is in its ``records``."""
        if isinstance(self.conversation.outstanding, Exchange):  # a cancellation struck it
            self.conversation.receive_failure(MaybeSent("cancelled"))
        now = asyncio.get_running_loop().time
        begun = now()
        self.conversation.close()
        while await self.step() is not None:
            if now() > begun + DRAIN:
                self.conversation.close(drain=False)
            if now() > begun + CLEANUP:
                self.conversation.abandon()


async def sent_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a GET or DELETE again: a second reader of a stream would lose tokens."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # it was never sent
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error)) from error  # which it does not take as a reason


async def uninterrupted(operation: Coroutine[Any, Any, T]) -> T:
    """Wait for the end of ``operation``, however often this is cancelled; raise the cancellation then."""
    task = asyncio.ensure_future(operation)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])  # which does not cancel what it waits for
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation
    return task.result()


async def converse(conversation: Conversation, prompts: Sequence[str], tell: Callable[[Event], object]) -> None:
    """Ask, and tell each event. In the end the chat is deleted, or named."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),  # the engine sends them
        middlewares=[sent_once],
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT),
    ) as session:
        driver = Driver(conversation, session)
        try:
            for prompt in prompts:
                conversation.prompt(prompt)
                while (events := await driver.step()) is not None:
                    for event in events:
                        tell(event)
                        if isinstance(event, Failed):
                            raise event.error
        finally:
            await uninterrupted(driver.close())
            for record in conversation.records:
                print("left behind:", record, file=sys.stderr)


if __name__ == "__main__":
    credentials = Credentials(load_cookies(os.environ["OA_COOKIES"], os.environ["OA_URL"]))
    chat = Conversation(Website(os.environ["OA_URL"]), credentials)
    asyncio.run(converse(chat, ["Hello", "And again?"], print))
