"""The engine on asyncio and aiohttp, without anyio. Set OA_URL and OA_COOKIES, and run it."""

import asyncio
import math
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from oa_protocol import Conversation, Credentials, MaybeSent, NotSent, Website, load_cookies
from oa_protocol.engine.events import Event, Failed
from oa_protocol.engine.inputs import (
    Abandon,
    Close,
    CredentialsFound,
    ExchangeFailed,
    Input,
    Interrupted,
    Prompt,
    ReplyReceived,
    StreamData,
    StreamEnded,
    StreamOpened,
    TimePassed,
)
from oa_protocol.engine.intents import CloseStream, Exchange, Intent, LoadCredentials, OpenStream

CONNECT = 10.0  # seconds; only here a timeout means that nothing was sent

T = TypeVar("T")


class Driver:
    """Carries out what a conversation asks for, one thing after the other. The one timer is its deadline."""

    def __init__(self, conversation: Conversation, session: aiohttp.ClientSession) -> None:
        self.conversation = conversation
        self.session = session
        self.stream: aiohttp.ClientResponse | None = None
        self.timer: asyncio.Timeout | None = None
        self.now = asyncio.get_running_loop().time

    async def step(self) -> list[Event] | None:
        """Do one thing and return its events, or None if there is nothing to do."""
        conversation = self.conversation
        intent = conversation.next_intent(self.now())
        if intent is None and not conversation.has_stream and conversation.deadline is None:
            return None
        if isinstance(intent, Exchange) and intent.shielded:
            return await uninterrupted(self.under_timer(intent), self.interrupt)
        try:
            return await self.under_timer(intent)
        except BaseException:
            self.interrupt()
            raise

    async def under_timer(self, intent: Intent | None) -> list[Event]:
        conversation = self.conversation
        try:
            async with asyncio.timeout_at(conversation.deadline) as self.timer:
                happened = await self.carry_out(intent)
        except TimeoutError:
            happened = TimePassed()
        finally:
            self.timer = None
        events = conversation.handle(happened, self.now())
        if not conversation.has_stream:
            self.end_stream()
        return events

    async def carry_out(self, intent: Intent | None) -> Input:
        match intent:
            case Exchange():
                return await self.exchange(intent)
            case LoadCredentials():
                return CredentialsFound(None)  # there are no others
            case CloseStream():
                return self.end_stream()
            case None if self.stream:
                return await self.read_stream(self.stream)
            case None:
                await asyncio.sleep(math.inf)  # until the timer goes off
                return TimePassed()

    def interrupt(self) -> None:
        """Hand in that the owner wants control back. That may bring the deadline forward, and the timer with it."""
        self.conversation.handle(Interrupted(), self.now())
        if self.timer and not self.timer.expired():
            is_settled = self.conversation.outstanding is None  # its time was over
            self.timer.reschedule(self.now() if is_settled else self.conversation.deadline)

    async def close(self) -> None:
        """Delete the chat. You can call this in every phase. What may be left is in ``leaked`` of the conversation."""
        self.conversation.handle(Close(), self.now())
        try:
            while not self.conversation.is_over:
                await self.step()
        finally:
            self.conversation.handle(Abandon(), self.now())  # says nothing new unless an error ended the loop
            self.end_stream()

    # ---- on the network

    async def exchange(self, exchange: Exchange) -> Input:
        request = exchange.request
        try:
            response = await self.session.request(
                request.method,
                URL(request.url, encoded=True),
                headers=request.headers,
                data=request.body,
                allow_redirects=False,
            )
            if isinstance(exchange, OpenStream) and response.status == 200:
                self.stream = response
                return StreamOpened()
            async with response:
                body = await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return ExchangeFailed(NotSent(str(error)))
        except (aiohttp.ClientError, OSError) as error:
            return ExchangeFailed(MaybeSent(f"{type(error).__name__} {error}"))
        return ReplyReceived(response.status, list(response.headers.items()), body)

    async def read_stream(self, stream: aiohttp.ClientResponse) -> Input:
        try:
            data = await stream.content.readany()
        except (aiohttp.ClientError, OSError):
            data = b""
        return StreamData(data) if data else StreamEnded()

    def end_stream(self) -> StreamEnded:
        if self.stream:
            self.stream.close()
        self.stream = None
        return StreamEnded()


async def sent_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a GET or DELETE again: a second reader of a stream would lose tokens."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # it was never sent
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error)) from error  # which it does not take as a reason


async def uninterrupted(operation: Coroutine[Any, Any, T], interrupt: Callable[[], None] = lambda: None) -> T:
    """Wait for the end of ``operation`` even if this is cancelled. Call ``interrupt`` then, and raise it afterwards."""
    task = asyncio.ensure_future(operation)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])  # which does not cancel what it waits for
        except asyncio.CancelledError as error:
            cancellation = error
            interrupt()
    if cancellation is not None:
        raise cancellation
    return task.result()


async def converse(conversation: Conversation, prompts: Sequence[str], tell: Callable[[Event], object]) -> None:
    """Ask, and tell each event; leave if ``tell`` returns True. In the end the chat is deleted, or named."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),  # the engine sends them
        middlewares=[sent_once],
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT),
    ) as session:
        driver = Driver(conversation, session)
        try:
            for prompt in prompts:
                conversation.handle(Prompt(prompt), driver.now())
                while (events := await driver.step()) is not None:
                    for event in events:
                        if tell(event):
                            return
                        if isinstance(event, Failed):
                            raise event.error
        finally:
            await uninterrupted(driver.close())
            for leaked in conversation.leaked:
                print("left behind:", leaked, file=sys.stderr)


if __name__ == "__main__":
    credentials = Credentials(load_cookies(os.environ["OA_COOKIES"], os.environ["OA_URL"]))
    chat = Conversation(Website(os.environ["OA_URL"]), credentials)
    asyncio.run(converse(chat, ["Hello", "And again?"], print))
