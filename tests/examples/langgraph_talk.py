"""One conversation with a LangGraph server: a blocking driver on httpx, and a program.

``python -m tests.examples.langgraph_talk URL GRAPH PROMPT...``
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import httpx

from oa_protocol import Conversation, Credentials, MaybeSent, NotSent
from oa_protocol.engine import inputs
from oa_protocol.engine.events import Event
from oa_protocol.engine.intents import CloseStream, Exchange, LoadCredentials, OpenStream
from tests.examples.langgraph_binding import LangGraph


class Talk:
    """Drives one conversation, and keeps its events."""

    def __init__(
        self,
        conversation: Conversation,
        http: httpx.Client,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.conversation = conversation
        self.events: list[Event] = []
        self._http = http
        self._clock = clock
        self._sleep = sleep
        self._stream: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def hand_in(self, happened: inputs.Input) -> list[Event]:
        """Hand in an input, and return the events that it caused."""
        events = self.conversation.handle(happened, self._clock())
        self.events += events
        return events

    def go_on(self, until: type[Event] | None = None) -> None:
        """Carry out what is asked for, until an event of this kind comes or there is nothing left to do."""
        while happened := self.carry_out_next():
            events = self.hand_in(happened)
            if until is not None and any(isinstance(event, until) for event in events):
                return

    def carry_out_next(self) -> inputs.Input | None:
        """Carry out the next thing, and return what happened; None if there is nothing to do."""
        match self.conversation.next_intent(self._clock()):
            case Exchange() as exchange:
                return self.exchange(exchange)
            case CloseStream():
                return self._close_stream()
            case LoadCredentials():
                return inputs.CredentialsFound(None)
            case None:
                return self._read_stream() if self.conversation.has_stream else self._wait()

    def exchange(self, exchange: Exchange) -> inputs.Input:
        """Send the request, and return what came of it."""
        wanted = exchange.request
        request = self._http.build_request(wanted.method, wanted.url, headers=wanted.headers, content=wanted.body)
        try:
            reply = self._http.send(request, stream=True)
            if isinstance(exchange, OpenStream) and reply.status_code == 200:
                self._stream, self._chunks = reply, reply.iter_raw()
                return inputs.StreamOpened()
            return inputs.ReplyReceived(reply.status_code, reply.headers.raw, reply.read())
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return inputs.ExchangeFailed(NotSent(str(error)))
        except httpx.TransportError as error:
            return inputs.ExchangeFailed(MaybeSent(str(error)))

    def _read_stream(self) -> inputs.Input:
        try:
            return inputs.StreamData(next(self._chunks))
        except (StopIteration, httpx.TransportError):
            return self._close_stream()

    def _close_stream(self) -> inputs.Input:
        if self._stream is not None:
            self._stream.close()
        return inputs.StreamEnded()

    def _wait(self) -> inputs.Input | None:
        deadline = self.conversation.deadline
        if deadline is None:
            return None
        self._sleep(max(deadline - self._clock(), 0.0))
        return inputs.TimePassed()


def main(url: str, graph: str, prompts: Sequence[str]) -> None:
    """Hold a conversation, and delete its thread on every path."""
    credentials = Credentials(token=os.environ.get("LANGSMITH_API_KEY", "none"))
    conversation = Conversation(LangGraph(url, graph), credentials)
    with httpx.Client(timeout=45) as http:
        talk = Talk(conversation, http)
        try:
            for prompt in prompts:
                talk.hand_in(inputs.Prompt(prompt))
                talk.go_on()
                if conversation.error is not None:
                    break
        finally:
            talk.hand_in(inputs.Interrupted())
            talk.hand_in(inputs.Close())
            talk.go_on()
        print(*talk.events, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
