"""The answer to a prompt, as events or as pieces of text."""

# The first two of these classes use each other's private parts, and so does a chat.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import anyio

from oa_protocol.client._driver import Driver
from oa_protocol.engine.errors import AnswerFailed, MaybeSent
from oa_protocol.engine.events import Answered, Corrected, Event, Failed, Message, Token
from oa_protocol.engine.inputs import ExchangeFailed, Prompt, Regenerate, StreamEnded
from oa_protocol.engine.intents import Exchange
from oa_protocol.engine.phases import Phase

Asked = Prompt | Regenerate
"""What an owner asks for an answer with."""


class _Turns:
    """What a chat and its answers share: the driver, and which answer is being read."""

    def __init__(self, driver: Driver, note_use: Callable[[], None]) -> None:
        self.driver = driver
        self.note_use = note_use
        self.current: Answer | None = None

    async def begin(self, answer: Answer, asked: Asked) -> None:
        """Hand in what the owner asked. If an earlier answer was given up half-way, read it to its end first."""
        self.driver.check_open()
        if self.current is not None:
            await self.current._finish()
        self.note_use()
        self.driver.conversation.handle(asked, anyio.current_time())
        self.current = answer

    def resume(self) -> None:
        """Go on with a conversation that was driven elsewhere. What was in flight there is lost."""
        self.note_use()
        driver, conversation, now = self.driver, self.driver.conversation, anyio.current_time()
        is_idle = conversation.awaits_prompt or conversation.phase is Phase.OPENING
        is_asked = not (is_idle or conversation.error or conversation.is_over)
        if conversation.has_stream:
            driver.undelivered += conversation.handle(StreamEnded(), now)
        if isinstance(conversation.outstanding, Exchange):
            lost = MaybeSent("it was in flight when the conversation was handed over")
            driver.undelivered += conversation.handle(ExchangeFailed(lost), now)
        if is_asked:
            self.current = Answer(self, Regenerate())
            self.current._begun = True


class Answer:
    """One answer to a prompt, as an asynchronous iterator of its events, up to ``Answered``.

    Attributes:
        message: the server's final message, or None until it has come.

    """

    def __init__(self, turns: _Turns, asked: Asked) -> None:
        self.message: Message | None = None
        self._turns = turns
        self._asked = asked
        # What the driver returned, and how many of these events the owner has. A deque would take more memory and time.
        self._events: list[Event] = []
        self._taken = 0
        self._tokens: list[str] = []
        self._begun = False
        self._done = False

    @property
    def text(self) -> str:
        """The whole answer if it is complete. Otherwise the tokens so far, even if you gave it up."""
        if self.message is not None:
            return self.message.content or ""
        left = self._events[self._taken :] if self._done else []
        unread = [event.text for event in left if isinstance(event, Token)]
        return "".join(self._tokens + unread)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while (event := self._take()) is None:
            if not await self._advance():
                raise StopAsyncIteration
        return event

    def _take(self) -> Event | None:
        """Return the next event that is here already, or None. If the answer failed, raise its error."""
        if self._taken == len(self._events):
            return None
        event = self._events[self._taken]
        self._taken += 1
        if isinstance(event, Token):  # nearly all events are tokens, and this is faster than the match below
            self._tokens.append(event.text)
            return event
        match event:
            case Answered(message=message):
                self.message = message
            case Failed(error=error):
                self._done = True
                self._events, self._taken = [], 0
                raise error
            case _:
                pass
        return event

    async def _finish(self) -> None:
        """Read to the end, even of a failed answer. Keep the events, in case somebody still iterates over it."""
        while await self._advance():
            pass
        for event in self._events:
            if isinstance(event, Answered):
                self.message = event.message

    async def _advance(self) -> bool:
        """Begin, or do one more thing, and keep its events for ``_take``. Return False if there is nothing left to do.

        The events are kept, and not returned, so that a cancellation between two calls loses none.
        """
        if self._done:
            return False
        if not self._begun:
            await self._turns.begin(self, self._asked)
            self._begun = True
        driver = self._turns.driver
        try:
            events = await driver.step()
        except StopAsyncIteration as stop:
            # It comes from a transport or a binding. Passed on, it would look like the end of the answer.
            raise RuntimeError(f"StopAsyncIteration was raised in phase {driver.conversation.phase.name}") from stop
        if events is not None:
            self._keep(events)
            return True
        self._done = True
        error = driver.conversation.error
        if error is not None and self.message is None and self._taken == len(self._events):
            self._keep([Failed(error)])
        return True

    def _keep(self, events: list[Event]) -> None:
        if self._taken == len(self._events):
            self._events, self._taken = events, 0
        else:
            self._events.extend(events)


class TextStream:
    """The pieces of an answer's text, as an asynchronous iterator.

    Attributes:
        answer: the answer itself, which has the final text at the end.

    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        answer = self.answer
        while True:
            event = answer._take()
            if event is None:  # the same as anext(answer), but without one more coroutine for each token
                if not await answer._advance():
                    raise StopAsyncIteration
            elif piece := streamed_text(event):
                return piece


def streamed_text(event: Event) -> str:
    """Return the text that ``event`` adds to the stream. Raise AnswerFailed if what was streamed turns out wrong."""
    if isinstance(event, Token):
        return event.text
    if isinstance(event, Corrected) and event.cut:
        raise AnswerFailed(
            "the stream was cut, and the final text does not continue what was streamed; "
            "the exception's text is the whole answer",
            text=event.text,
        )
    return ""
