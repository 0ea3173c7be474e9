"""The engine on Twisted's Agent. Set OA_URL and OA_COOKIES, and run it."""

# Twisted's interfaces are zope's, which type checkers cannot follow: hence Any, and
# mypy: disable-error-code="no-untyped-call"

import os
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from time import monotonic
from typing import Any, TypeVar

from twisted.internet import error, reactor, task
from twisted.internet.defer import CancelledError, Deferred, DeferredQueue
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer, RequestTransmissionFailed, ResponseFailed
from twisted.web.http_headers import Headers

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
REACTOR: Any = reactor


class Body(Protocol):
    """The body of a reply: its bytes as they come, and then ``b""``; ``failure`` says what cut it off."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.failure: ResponseFailed | None = None
        self.chunks: DeferredQueue[bytes] = DeferredQueue()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's names
        self.chunks.put(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        end: Any = reason
        self.failure = end.value if end.check(ResponseFailed) else None
        self.chunks.put(b"")

    def close(self) -> None:
        if self.transport:
            self.transport.loseConnection()


class Driver:
    """Carries out what a conversation asks for, one thing after the other. The one timer is its deadline."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.agent: Any = Agent(REACTOR, connectTimeout=CONNECT)
        self.stream: Body | None = None
        self.leaving = False
        self.cancelled = False

    async def step(self) -> list[Event] | None:
        """Do one thing and return its events, or None if there is nothing to do."""
        conversation = self.conversation
        intent = conversation.next_intent(monotonic())
        if intent is None and not conversation.has_stream and conversation.deadline is None:
            return None
        shielded = self.leaving or (isinstance(intent, Exchange) and intent.shielded)
        happened = await Waiting(self, intent, shielded)
        events = conversation.handle(happened, monotonic())
        if not conversation.has_stream:
            self.end_stream()
        if self.cancelled and not self.leaving:
            raise CancelledError
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
                data = await self.stream.chunks.get()
                return StreamData(data) if data else StreamEnded()
            case None:
                return await Deferred()  # until the timer goes off

    def interrupt(self) -> None:
        """Hand in that the owner wants control back, which may bring the deadline forward."""
        self.cancelled = True
        if not self.leaving:
            self.conversation.handle(Interrupted(), monotonic())

    async def close(self) -> None:
        """Delete the chat. You can call this in every phase. What may be left is in ``leaked`` of the conversation."""
        self.leaving = True
        self.conversation.handle(Close(), monotonic())
        try:
            while not self.conversation.is_over:
                await self.step()
        finally:
            self.conversation.handle(Abandon(), monotonic())  # says nothing new unless an error ended the loop
            self.end_stream()

    # ---- on the network

    async def exchange(self, exchange: Exchange) -> Input:
        request = exchange.request
        headers = Headers()
        for name, value in request.headers:
            headers.addRawHeader(name, value)
        content = FileBodyProducer(BytesIO(request.body)) if request.body else None
        body = Body()
        try:
            response = await self.agent.request(request.method.encode(), request.url.encode(), headers, content)
            response.deliverBody(body)
            if isinstance(exchange, OpenStream) and response.code == 200:
                self.stream = body
                return StreamOpened()
            received = b""
            while data := await body.chunks.get():
                received += data
            if body.failure:
                raise body.failure
        except (error.ConnectError, error.DNSLookupError) as failure:
            return ExchangeFailed(NotSent(str(failure)))
        except (error.ConnectionClosed, RequestTransmissionFailed, ResponseFailed) as failure:
            return ExchangeFailed(MaybeSent(str(failure)))
        finally:
            if self.stream is not body:
                body.close()
        fields = [
            (name.decode(), value.decode()) for name, values in response.headers.getAllRawHeaders() for value in values
        ]
        return ReplyReceived(response.code, fields, received)

    def end_stream(self) -> StreamEnded:
        if self.stream:
            self.stream.close()
        self.stream = None
        return StreamEnded()


class Waiting(Deferred[Input]):
    """What a step awaits: it ends with what happened, when the timer goes off, or with a cancellation.

    If it is shielded, a cancellation doesn't end it, but sets the timer again. What is still in flight at its end is
    dropped.
    """

    def __init__(self, driver: Driver, intent: Intent | None, shielded: bool) -> None:
        super().__init__()
        self.driver = driver
        self.intent = intent
        self.shielded = shielded
        self.timer: Any = None
        self.has_ended = False
        self.operation = Deferred.fromCoroutine(driver.carry_out(intent))
        self.set_timer()
        self.operation.addBoth(self.end)

    def set_timer(self) -> None:
        if self.timer:
            self.timer.cancel()
        deadline = self.driver.conversation.deadline
        if deadline is not None:
            self.timer = REACTOR.callLater(max(0.0, deadline - monotonic()), self.time_passed)

    def time_passed(self) -> None:
        self.timer = None
        self.end(TimePassed())

    def end(self, outcome: Any) -> None:
        if self.has_ended:
            return
        self.has_ended = True
        if self.timer:
            self.timer.cancel()
        self.callback(outcome)
        self.operation.cancel()

    def cancel(self) -> None:
        if not self.has_ended:
            self.driver.interrupt()
            if not self.shielded:
                self.end(Failure(CancelledError()))
            elif self.driver.conversation.outstanding is self.intent:
                self.set_timer()
            else:
                self.end(TimePassed())


async def converse(conversation: Conversation, prompts: Sequence[str], tell: Callable[[Event], object]) -> None:
    """Ask, and tell each event; leave if ``tell`` returns True. In the end the chat is deleted, or named."""
    driver = Driver(conversation)
    try:
        for prompt in prompts:
            conversation.handle(Prompt(prompt), monotonic())
            while (events := await driver.step()) is not None:
                for event in events:
                    if tell(event):
                        return
                    if isinstance(event, Failed):
                        raise event.error
    finally:
        await driver.close()
        for leaked in conversation.leaked:
            print("left behind:", leaked, file=sys.stderr)
    if driver.cancelled:
        raise CancelledError


def main(_: object) -> Deferred[None]:
    """Hold a conversation. If the reactor is stopped meanwhile, it waits until the chat is deleted."""
    credentials = Credentials(load_cookies(os.environ["OA_COOKIES"], os.environ["OA_URL"]))
    chat = Conversation(Website(os.environ["OA_URL"]), credentials)
    running = Deferred.fromCoroutine(converse(chat, ["Hello", "And again?"], print))
    ended: Deferred[None] = Deferred()

    def leave() -> Deferred[None]:
        running.cancel()
        return ended

    def end(result: T) -> T:
        ended.callback(None)
        return result

    REACTOR.addSystemEventTrigger("before", "shutdown", leave)
    return running.addBoth(end)


if __name__ == "__main__":
    task.react(main)
