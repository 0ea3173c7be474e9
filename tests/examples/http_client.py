"""The engine and the standard library, nothing else. Set OA_URL and OA_COOKIES, and run it."""

import http.client
import io
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Self, cast
from urllib.parse import urlsplit

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


class Driver:
    """Carries out what a conversation asks for, one thing after the other. The one timer is its deadline."""

    def __init__(self, conversation: Conversation, ctrl_c: "CtrlC") -> None:
        self.conversation = conversation
        self.ctrl_c = ctrl_c
        self.intent: Intent | None = None
        self.stream: http.client.HTTPResponse | None = None
        self.leaving = False

    def step(self) -> list[Event] | None:
        """Do one thing and return its events, or None if there is nothing to do."""
        conversation = self.conversation
        self.intent = intent = conversation.next_intent(time.monotonic())
        if intent is None and not conversation.has_stream and conversation.deadline is None:
            return None
        shielded = self.leaving or isinstance(intent, CloseStream) or (isinstance(intent, Exchange) and intent.shielded)
        try:
            with nullcontext() if shielded else self.ctrl_c.allowed():
                happened = self.carry_out(intent)
        except TimeoutError:
            happened = TimePassed()
        except BaseException:
            conversation.handle(Interrupted(), time.monotonic())
            raise
        events = conversation.handle(happened, time.monotonic())
        if not conversation.has_stream:
            self.end_stream()
        return events

    def carry_out(self, intent: Intent | None) -> Input:
        match intent:
            case Exchange():
                return self.exchange(intent)
            case LoadCredentials():
                return CredentialsFound(None)  # there are no others
            case CloseStream():
                return self.end_stream()
            case None if self.stream:
                return self.read_stream(self.stream)
            case None:
                time.sleep(self.left())
                return TimePassed()

    def close(self) -> None:
        """Delete the chat. You can call this in every phase. What may be left is in ``leaked`` of the conversation."""
        self.leaving = True
        self.conversation.handle(Close(), time.monotonic())
        try:
            while not self.conversation.is_over:
                self.step()
        finally:
            self.conversation.handle(Abandon(), time.monotonic())  # says nothing new unless an error ended the loop
            self.end_stream()

    # ---- on the network

    def exchange(self, exchange: Exchange) -> Input:
        request, url = exchange.request, urlsplit(exchange.request.url)
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.netloc)
        try:
            connection.sock = dial(connection.host, connection.port, self.left)
            if url.scheme == "https":
                connection.sock.settimeout(self.left())
                context = ssl.create_default_context()
                connection.sock = context.wrap_socket(connection.sock, server_hostname=connection.host)
        except OSError as error:
            connection.close()
            return ExchangeFailed(NotSent(str(error)))
        response = http.client.HTTPResponse(cast("socket.socket", Incoming(connection.sock, self.left)))
        try:
            connection.sock.settimeout(self.left())
            connection.request(request.method, request.target, request.body, dict(request.headers))
            response.begin()
            if isinstance(exchange, OpenStream) and response.status == 200:
                self.stream = response
                return StreamOpened()
            return ReplyReceived(response.status, response.getheaders(), response.read())
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as error:
            return ExchangeFailed(MaybeSent(f"{type(error).__name__} {error}"))
        finally:
            if self.stream is not response:
                response.close()

    def read_stream(self, stream: http.client.HTTPResponse) -> Input:
        try:
            data = stream.read1()
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            data = b""
        return StreamData(data) if data else StreamEnded()

    def end_stream(self) -> StreamEnded:
        if self.stream:
            self.stream.close()
        self.stream = None
        return StreamEnded()

    def left(self) -> float:
        """Return the seconds until the timer goes off: for so long the next call may block.

        Raises:
            TimeoutError: the deadline has passed, or the intent is no longer outstanding.

        """
        if self.ctrl_c.noted and not self.leaving:
            self.conversation.handle(Interrupted(), time.monotonic())
        deadline = self.conversation.deadline
        left = 0.0 if deadline is None else deadline - time.monotonic()
        if left <= 0 or self.conversation.outstanding is not self.intent:
            raise TimeoutError("no reply in time")
        return left


class Incoming(io.RawIOBase):
    """What arrives on a socket. The timer is set before each read, so that a peer can't delay it byte by byte."""

    def __init__(self, sock: socket.socket, left: Callable[[], float]) -> None:
        self.sock = sock
        self.left = left

    def makefile(self, _: str) -> io.BufferedReader:
        """Do the one thing for which an ``HTTPResponse`` needs a socket."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            self.sock.settimeout(min(self.left(), 1.0))
            try:
                return self.sock.recv_into(buffer)
            except TimeoutError:
                pass  # Ctrl-C may have brought the deadline forward, so look at it again

    def close(self) -> None:
        self.sock.close()
        super().close()


def dial(host: str, port: int, left: Callable[[], float]) -> socket.socket:
    """Connect to one of the host's addresses."""
    failure = OSError(f"{host} has no address")
    for *_, (address, *_) in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            return socket.create_connection((str(address), port), left())
        except OSError as error:
            failure = error
    raise failure


class CtrlC:
    """Holds Ctrl-C back unless it is allowed, because it must not interrupt the engine or a shielded exchange."""

    def __init__(self) -> None:
        self.noted = False
        self._allowed = False
        self._previous: Any = None

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)
        if self.noted and kind is not KeyboardInterrupt:
            raise KeyboardInterrupt

    def _note(self, *_: object) -> None:
        self.noted = True
        if self._allowed:
            self._allowed = False
            raise KeyboardInterrupt

    @contextmanager
    def allowed(self) -> Generator[None]:
        self._allowed = True
        try:
            if self.noted:
                raise KeyboardInterrupt
            yield
        finally:
            self._allowed = False


def converse(conversation: Conversation, prompts: Sequence[str], tell: Callable[[Event], object]) -> None:
    """Ask, and tell each event; leave if ``tell`` returns True. In the end the chat is deleted, or named."""
    with CtrlC() as ctrl_c:
        driver = Driver(conversation, ctrl_c)
        try:
            for prompt in prompts:
                conversation.handle(Prompt(prompt), time.monotonic())
                while (events := driver.step()) is not None:
                    for event in events:
                        with ctrl_c.allowed():
                            if tell(event):
                                return
                        if isinstance(event, Failed):
                            raise event.error
        finally:
            driver.close()
            for leaked in conversation.leaked:
                print("left behind:", leaked, file=sys.stderr)


if __name__ == "__main__":
    credentials = Credentials(load_cookies(os.environ["OA_COOKIES"], os.environ["OA_URL"]))
    converse(Conversation(Website(os.environ["OA_URL"]), credentials), ["Hello", "And again?"], print)
