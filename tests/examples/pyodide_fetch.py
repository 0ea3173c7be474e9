"""The engine in Pyodide, which is Python in a browser or in Node.js, with ``fetch``. Set OA_URL and OA_TOKEN.

A script can't send a Cookie header in a browser, so this talks to the inference server, with a token. Await ``main()``.
"""

# Pyodide has these two modules, and only it has them.
# pyright: basic, reportMissingImports=false

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import js
from pyodide.ffi import JsException, to_js

from oa_protocol import Conversation, Credentials, InferenceServer, MaybeSent
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

T = TypeVar("T")


class Driver:
    """Carries out what a conversation asks for, one thing after the other. The one timer is its deadline."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.stream: Stream | None = None
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
                return await self.stream.read()
            case None:
                # Wait until the timer goes off. Don't sleep instead: to ``setTimeout``, infinity is no time at all.
                await asyncio.get_running_loop().create_future()
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
        abort = js.AbortController.new()
        request = exchange.request
        options = {
            "method": request.method,
            "headers": request.headers,
            "body": request.body or None,  # a GET must not have one, not even an empty one
            "signal": abort.signal,
            "redirect": "error",
            "credentials": "omit",
            "cache": "no-store",
        }
        try:
            response = await js.fetch(request.url, to_js(options, dict_converter=js.Object.fromEntries))
            if isinstance(exchange, OpenStream) and response.status == 200:
                self.stream = Stream(response.body.getReader(), abort)
                return StreamOpened()
            body = (await response.arrayBuffer()).to_bytes()
        except JsException as error:  # fetch doesn't say whether the request left
            return ExchangeFailed(MaybeSent(str(error)))
        finally:
            if self.stream is None or self.stream.abort is not abort:
                abort.abort()  # does nothing if the reply is complete
        return ReplyReceived(response.status, [tuple(field) for field in response.headers], body)

    def end_stream(self) -> StreamEnded:
        if self.stream:
            self.stream.close()
        self.stream = None
        return StreamEnded()


class Stream:
    """The body of a reply, piece by piece.

    A promise can't be cancelled, so a read that the timer interrupts goes on. The next ``read`` returns its piece.
    """

    def __init__(self, reader: Any, abort: Any) -> None:
        self.reader = reader
        self.abort = abort
        self.reading: asyncio.Future[Any] | None = None

    async def read(self) -> Input:
        reading = self.reading = self.reading or asyncio.ensure_future(self.reader.read())
        await asyncio.wait([reading])  # which does not cancel what it waits for
        self.reading = None
        try:
            piece = reading.result()
        except JsException:
            return StreamEnded()
        return StreamEnded() if piece.done else StreamData(piece.value.to_bytes())

    def close(self) -> None:
        if self.reading:
            self.reading.cancel()
        self.abort.abort()


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
    driver = Driver(conversation)
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


async def main() -> None:
    credentials = Credentials(token=os.environ["OA_TOKEN"])
    await converse(Conversation(InferenceServer(os.environ["OA_URL"]), credentials), ["Hello", "And again?"], print)
