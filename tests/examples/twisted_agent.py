"""The engine on Twisted's Agent. Set OA_URL and OA_COOKIES, and run it."""

# Twisted's interfaces are zope's, which type checkers cannot follow: hence Any, and
# mypy: disable-error-code="no-untyped-call"

import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from io import BytesIO
from typing import Any, TypeVar

from twisted.internet import defer, error, reactor, task
from twisted.internet.defer import CancelledError, Deferred, DeferredQueue
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer, RequestTransmissionFailed, ResponseFailed
from twisted.web.http_headers import Headers

from oa_protocol import Conversation, Credentials, MaybeSent, NotSent, Website, load_cookies
from oa_protocol.engine.events import Event, Failed
from oa_protocol.engine.intents import CloseStream, Exchange, LoadCookies, OpenStream

CONNECT, REPLY, IDLE = 10.0, 30.0, 45.0  # a stream shows a ping every 15 s
DRAIN, CLEANUP = 5.0, 10.0

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
        self.transport.loseConnection()


class Driver:
    """Carries out what a conversation asks for, one thing after the other."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.agent: Any = Agent(REACTOR, connectTimeout=CONNECT)
        self.stream: Body | None = None

    async def step(self) -> list[Event] | None:
        """Do one thing; return its events, or None where there is nothing to do."""
        match self.conversation.next_intent():
            case Exchange() as exchange:
                # Shielded or not: a request that was cancelled does not always say so, but that it failed.
                return await uninterrupted(self.exchange(exchange))
            case LoadCookies():
                return self.conversation.receive_cookies(None)  # there are no others
            case CloseStream():
                return self.end_stream()
            case None:
                return await self.read_stream(self.stream) if self.stream else None

    async def exchange(self, exchange: Exchange) -> list[Event]:
        await task.deferLater(REACTOR, exchange.delay)
        request = exchange.request
        headers = Headers()
        for name, value in request.headers:
            headers.addRawHeader(name, value)
        content = FileBodyProducer(BytesIO(request.body)) if request.body else None
        try:
            replying = self.agent.request(request.method.encode(), request.url.encode(), headers, content)
            response = await replying.addTimeout(REPLY, REACTOR, no_reply)
            body = Body()
            response.deliverBody(body)
            if isinstance(exchange, OpenStream) and response.code == 200:
                self.stream = body
                return self.conversation.receive_stream_opened()
            received = b""
            try:
                while data := await body.chunks.get().addTimeout(REPLY, REACTOR):
                    received += data
            finally:
                body.close()
            if body.failure:
                raise body.failure
        except (error.ConnectError, error.DNSLookupError) as failure:
            return self.conversation.receive_failure(NotSent(str(failure)))
        except (error.ConnectionClosed, defer.TimeoutError, RequestTransmissionFailed, ResponseFailed) as failure:
            return self.conversation.receive_failure(MaybeSent(str(failure)))
        fields = [
            (name.decode(), value.decode()) for name, values in response.headers.getAllRawHeaders() for value in values
        ]
        return self.conversation.receive_reply(response.code, fields, received)

    async def read_stream(self, stream: Body) -> list[Event]:
        try:
            data = await stream.chunks.get().addTimeout(IDLE, REACTOR)
        except defer.TimeoutError:
            return self.conversation.receive_silence()
        return self.conversation.receive_stream_data(data) if data else self.end_stream()

    def end_stream(self) -> list[Event]:
        if self.stream:
            self.stream.close()
        self.stream = None
        return self.conversation.receive_stream_end()

    async def close(self) -> None:
        """Have the chat deleted, wherever the conversation stands; what is left is in its ``records``."""
        if isinstance(self.conversation.outstanding, Exchange):  # an error of another kind struck it
            self.conversation.receive_failure(MaybeSent("given up"))
        begun = REACTOR.seconds()
        self.conversation.close()
        while await self.step() is not None:
            if REACTOR.seconds() > begun + DRAIN:
                self.conversation.close(drain=False)
            if REACTOR.seconds() > begun + CLEANUP:
                self.conversation.abandon()


def no_reply(result: object, seconds: float) -> object:
    """Raise TimeoutError in place of what a request says that was cancelled."""
    if isinstance(result, Failure):
        raise defer.TimeoutError(f"no reply within {seconds:g} s")
    return result


class Shield(Deferred[T]):
    """What is awaited in place of something that must not be cancelled."""

    was_cancelled = False

    def cancel(self) -> None:
        self.was_cancelled = True


async def uninterrupted(operation: Coroutine[Any, Any, T]) -> T:
    """Wait for the end of ``operation``, however often this is cancelled; raise the cancellation then."""
    shield: Shield[T] = Shield()
    Deferred.fromCoroutine(operation).addBoth(shield.callback)
    result = await shield
    if shield.was_cancelled:
        raise CancelledError
    return result


async def converse(conversation: Conversation, prompts: Sequence[str], tell: Callable[[Event], object]) -> None:
    """Ask, and tell each event. In the end the chat is deleted, or named."""
    driver = Driver(conversation)
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


def main(_: object) -> Deferred[None]:
    """Hold a conversation; where the reactor stops first, it waits until the chat is deleted."""
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
