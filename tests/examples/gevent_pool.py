"""Several conversations at once, the engine of each on a greenlet of gevent. Set OA_URL and OA_COOKIES, and run it.

Nothing is patched, so it can live in a program whose other threads know nothing of gevent.
"""

import http.client
import os
import signal
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, cast
from urllib.parse import urlsplit

import gevent.pool
import gevent.socket
import gevent.ssl

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


class Driver:
    """Carries out what a conversation asks for, one thing after the other. The one timer is its deadline."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.stream: tuple[http.client.HTTPConnection, http.client.HTTPResponse] | None = None
        self.leaving = False
        self.interruption: BaseException | None = None

    def step(self) -> list[Event] | None:
        """Do one thing and return its events, or None if there is nothing to do."""
        conversation = self.conversation
        intent = conversation.next_intent(monotonic())
        if intent is None and not conversation.has_stream and conversation.deadline is None:
            return None
        shielded = self.leaving or isinstance(intent, CloseStream) or (isinstance(intent, Exchange) and intent.shielded)
        events = conversation.handle(self.under_timer(intent, shielded), monotonic())
        if not conversation.has_stream:
            self.end_stream()
        if self.interruption and not self.leaving:
            raise self.interruption
        return events

    def under_timer(self, intent: Intent | None, shielded: bool) -> Input:
        """Carry an intent out in a greenlet of its own, because an interruption ends only the one that waits."""
        operation = cast("Any", gevent.spawn(self.carry_out, intent))
        try:
            while not operation.ready() and self.conversation.outstanding is intent:
                deadline = self.conversation.deadline
                try:
                    operation.join(None if deadline is None else max(0.0, deadline - monotonic()))
                except BaseException as interruption:
                    self.interruption = interruption
                    if not self.leaving:
                        self.conversation.handle(Interrupted(), monotonic())
                    if not shielded:
                        raise
                else:
                    break
            happened: Input = operation.get() if operation.ready() else TimePassed()
            return happened
        finally:
            operation.kill(block=False)

    def carry_out(self, intent: Intent | None) -> Input:
        match intent:
            case Exchange():
                return self.exchange(intent)
            case LoadCredentials():
                return CredentialsFound(None)  # there are no others
            case CloseStream():
                return self.end_stream()
            case None if self.stream:
                return self.read_stream(self.stream[1])
            case None:
                while True:
                    gevent.sleep(3600)  # until the timer goes off

    def close(self) -> None:
        """Delete the chat. You can call this in every phase. What may be left is in ``leaked`` of the conversation."""
        self.leaving = True
        self.conversation.handle(Close(), monotonic())
        try:
            while not self.conversation.is_over:
                self.step()
        finally:
            self.conversation.handle(Abandon(), monotonic())  # says nothing new unless an error ended the loop
            self.end_stream()

    # ---- on the network

    def exchange(self, exchange: Exchange) -> Input:
        request = exchange.request
        try:
            connection = dial(request.url)
        except OSError as error:
            return ExchangeFailed(NotSent(str(error)))
        try:
            connection.request(request.method, request.target, request.body, dict(request.headers))
            response = connection.getresponse()
            if isinstance(exchange, OpenStream) and response.status == 200:
                self.stream = connection, response
                return StreamOpened()
            return ReplyReceived(response.status, response.getheaders(), response.read())
        except (OSError, http.client.HTTPException) as error:
            return ExchangeFailed(MaybeSent(f"{type(error).__name__} {error}"))
        finally:
            if not self.stream or self.stream[0] is not connection:
                connection.close()

    def read_stream(self, stream: http.client.HTTPResponse) -> Input:
        try:
            data = stream.read1()
        except (OSError, http.client.HTTPException):
            data = b""
        return StreamData(data) if data else StreamEnded()

    def end_stream(self) -> StreamEnded:
        for each in self.stream or ():
            each.close()
        self.stream = None
        return StreamEnded()


def dial(url: str) -> http.client.HTTPConnection:
    """Connect through gevent's sockets, which ``http.client`` then uses like any others."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc)
    sock = gevent.socket.create_connection((connection.host, connection.port), CONNECT)
    try:
        if parts.scheme == "https":
            sock = gevent.ssl.create_default_context().wrap_socket(sock, server_hostname=connection.host)
        sock.settimeout(None)  # from here on, the one timer counts
    except BaseException:
        sock.close()
        raise
    connection.sock = sock
    return connection


def converse(conversation: Conversation, prompts: Sequence[str], tell: Callable[[Event], object]) -> None:
    """Ask, and tell each event; leave if ``tell`` returns True. In the end the chat is deleted, or named."""
    driver = Driver(conversation)
    try:
        for prompt in prompts:
            conversation.handle(Prompt(prompt), monotonic())
            while (events := driver.step()) is not None:
                for event in events:
                    if tell(event):
                        return
                    if isinstance(event, Failed):
                        raise event.error
    finally:
        driver.close()
        for leaked in conversation.leaked:
            print("left behind:", leaked, file=sys.stderr)
    if driver.interruption:
        raise driver.interruption


def converse_all(conversations: Sequence[tuple[Conversation, Sequence[str]]], tell: Callable[[Event], object]) -> None:
    """Hold all conversations, four at a time. If one fails, or this is interrupted, the others delete their chats."""
    # Otherwise, Ctrl-C is raised in the greenlet that happens to run. It may be in the middle of a shielded exchange.
    ctrl_c = gevent.signal_handler(signal.SIGINT, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)
    pool = gevent.pool.Pool(4)
    running = [pool.spawn(converse, conversation, prompts, tell) for conversation, prompts in conversations]
    try:
        gevent.joinall(running, raise_error=True)
    finally:
        pool.kill()  # which waits for them
        ctrl_c.cancel()


if __name__ == "__main__":
    credentials = Credentials(load_cookies(os.environ["OA_COOKIES"], os.environ["OA_URL"]))
    questions = [["Hello", "And again?"], ["What is a pool?"], ["What is a greenlet?", "And what is a hub?"]]
    website = Website(os.environ["OA_URL"])
    converse_all([(Conversation(website, credentials), prompts) for prompts in questions], print)
