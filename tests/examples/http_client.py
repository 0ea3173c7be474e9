"""The engine and the standard library, nothing else. Set OA_URL and OA_COOKIES, and run it."""

import http.client
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from oa_protocol import Conversation, Credentials, MaybeSent, NotSent, Website, load_cookies
from oa_protocol.engine.events import Event, Failed
from oa_protocol.engine.intents import CloseStream, Exchange, LoadCookies, OpenStream

TIMEOUT = 45.0  # for anything from the server, whose streams show a ping every 15 s
DRAIN, CLEANUP = 5.0, 10.0


class Driver:
    """Carries out what a conversation asks for, one thing after the other."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.stream: tuple[http.client.HTTPConnection, http.client.HTTPResponse] | None = None

    def step(self) -> list[Event] | None:
        """Do one thing; return its events, or None where there is nothing to do."""
        match self.conversation.next_intent():
            case Exchange(shielded=True) as exchange:
                with interrupts_held():
                    return self.exchange(exchange)
            case Exchange() as exchange:
                return self.exchange(exchange)
            case LoadCookies():
                return self.conversation.receive_cookies(None)  # there are no others
            case CloseStream():
                return self.end_stream()
            case None:
                return self.read_stream(self.stream[1]) if self.stream else None

    def exchange(self, exchange: Exchange) -> list[Event]:
        time.sleep(exchange.delay)
        request, url = exchange.request, urlsplit(exchange.request.url)
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.netloc, timeout=TIMEOUT)
        failure: type[NotSent | MaybeSent] = NotSent
        try:
            connection.connect()
            failure = MaybeSent
            connection.request(request.method, request.target, request.body, dict(request.headers))
            response = connection.getresponse()
            if isinstance(exchange, OpenStream) and response.status == 200:
                self.stream = connection, response
                return self.conversation.receive_stream_opened()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return self.conversation.receive_failure(failure(str(error)))
        connection.close()
        return self.conversation.receive_reply(response.status, response.getheaders(), body)

    def read_stream(self, stream: http.client.HTTPResponse) -> list[Event]:
        try:
            data = stream.read1()
        except TimeoutError:
            return self.conversation.receive_silence()
        except (OSError, http.client.HTTPException):
            data = b""
        return self.conversation.receive_stream_data(data) if data else self.end_stream()

    def end_stream(self) -> list[Event]:
        if self.stream:
            self.stream[0].close()
        self.stream = None
        return self.conversation.receive_stream_end()

    def close(self) -> None:
        """Have the chat deleted, wherever the conversation stands; what is left is in its ``records``."""
        with interrupts_held():
            match self.conversation.outstanding:
                case Exchange():  # an interruption struck it
                    self.conversation.receive_failure(MaybeSent("interrupted"))
                case LoadCookies():
                    self.conversation.receive_cookies(None)
                case CloseStream():
                    self.end_stream()
                case None:
                    pass
            begun = time.monotonic()
            self.conversation.close()
            while self.step() is not None:
                if time.monotonic() > begun + DRAIN:
                    self.conversation.close(drain=False)
                if time.monotonic() > begun + CLEANUP:
                    self.conversation.abandon()


@contextmanager
def interrupts_held() -> Generator[None]:
    """Ctrl-C waits for the end of what must not be interrupted."""
    waiting: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if waiting:
            signal.raise_signal(signal.SIGINT)


def converse(conversation: Conversation, prompts: Sequence[str], tell: Callable[[Event], object]) -> None:
    """Ask, and tell each event. In the end the chat is deleted, or named."""
    driver = Driver(conversation)
    try:
        for prompt in prompts:
            conversation.prompt(prompt)
            while (events := driver.step()) is not None:
                for event in events:
                    tell(event)
                    if isinstance(event, Failed):
                        raise event.error
    finally:
        driver.close()
        for record in conversation.records:
            print("left behind:", record, file=sys.stderr)


if __name__ == "__main__":
    credentials = Credentials(load_cookies(os.environ["OA_COOKIES"], os.environ["OA_URL"]))
    converse(Conversation(Website(os.environ["OA_URL"]), credentials), ["Hello", "And again?"], print)
