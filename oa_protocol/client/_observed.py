"""Conversations that tell an observer what happens to them. A client without telemetry doesn't import this module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from oa_protocol.client._carrier import log
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.events import Event
from oa_protocol.engine.inputs import Input, StreamData
from oa_protocol.tape import Recorder, TapeFile


class Observer(Protocol):
    """Observes one conversation."""

    def note(self, conversation: Conversation, happened: Input | None, events: list[Event], now: float) -> None:
        """Take note of an input and its events. ``happened`` is None for bytes of the stream."""
        ...


class _Observed(Conversation):
    """A conversation with an observer. An error of the observer is logged, and doesn't reach the conversation."""

    __slots__ = ()

    _observer: Observer

    def handle(self, happened: Input, now: float) -> list[Event]:
        """Handle an input, and let the observer know."""
        if isinstance(happened, StreamData):
            return self.receive_stream_data(happened.data, now)
        return self._noted(happened, super().handle(happened, now), now)

    def receive_stream_data(self, data: bytes, now: float) -> list[Event]:
        """Handle bytes of the open stream, and let the observer know."""
        return self._noted(None, super().receive_stream_data(data, now), now)

    def _noted(self, happened: Input | None, events: list[Event], now: float) -> list[Event]:
        try:
            self._observer.note(self, happened, events, now)
        except Exception as error:
            log("telemetry failed: %s", type(error).__name__)
        return events


# The arguments of both classes below are those of what they observe.


class _ObservedConversation(_Observed):
    __slots__ = ("_observer",)

    def __init__(self, *arguments: Any, observer: Observer, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments, **settings)
        self._observer = observer


class _ObservedRecorder(_Observed, Recorder):
    __slots__ = ("_observer",)

    def __init__(self, *arguments: Any, observer: Observer, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments, **settings)
        self._observer = observer


def observed(observer: Observer, tape: TapeFile | None) -> Callable[..., Conversation]:
    """Return what makes a conversation with an observer, and with a tape if there is one."""
    if tape is None:
        return partial(_ObservedConversation, observer=observer)
    return partial(_ObservedRecorder, observer=observer, tape=tape)
