"""Records a conversation, whoever drives it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TextIO, TypeVar

from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import NotSent, TransportError
from oa_protocol.engine.events import Event, Failed, Leaked
from oa_protocol.engine.intents import Intent
from oa_protocol.tape.format import Json, encode_config, encode_intent, result, to_line
from oa_protocol.tape.redact import Masks, without_password

logger = logging.getLogger("oa_protocol")

TapeFile = str | os.PathLike[str] | TextIO
"""Where a tape goes: the path of a file, which is written anew, or a text file that is open, and stays so."""

_T = TypeVar("_T")


class Recorder(Conversation):
    """A conversation that writes down each input and each output, as one line of ``tape``, before it returns.

    What a line holds is in specs/vectors/README.md; cookies and tokens are masked, prompts and answers are not. A path
    is opened by the first step, and closed with the last. Where the tape cannot be written, that is logged as a
    warning, once, and the conversation goes on without. A file cannot be pickled or copied, and so a Recorder cannot;
    nor does it ``resume``.
    """

    __slots__ = ("_masks", "_tape")

    def __init__(
        self,
        binding: Binding,
        credentials: Credentials | None = None,
        options: AnswerOptions | None = None,
        *,
        retries: int = 2,
        attempts: int = 3,
        tape: TapeFile,
    ) -> None:
        super().__init__(binding, credentials, options, retries=retries, attempts=attempts)
        self._masks = Masks(binding.base_url)
        config = encode_config(binding, self.options, retries=retries, attempts=attempts)
        if self.credentials:
            config["credentials"] = self._masks.credentials(self.credentials)
        self._tape = _Writer(tape, self._masks.line(to_line({"config": config})))

    def prompt(self, text: str) -> None:
        """Record that the owner asks."""
        self._on_tape({"prompt": text}, partial(super().prompt, text), lambda _: result(self))

    def close(self, *, drain: bool = True) -> list[Event]:
        """Record that the owner leaves."""
        return self._happening({"close": "drain" if drain else "now"}, partial(super().close, drain=drain))

    def abandon(self) -> list[Event]:
        """Record that the owner gives up."""
        return self._happening({"abandon": True}, super().abandon)

    def answer_timed_out(self) -> list[Event]:
        """Record that the owner gives up on the answer."""
        return self._happening({"answer_timed_out": True}, super().answer_timed_out)

    def next_intent(self) -> Intent | None:
        """Record what the engine asks for."""
        return self._on_tape({}, super().next_intent, self._asking)

    def receive_cookies(self, credentials: Credentials | None) -> list[Event]:
        """Record that credentials were found, or none."""
        step = {"credentials": self._masks.credentials(credentials)}
        return self._happening(step, partial(super().receive_cookies, credentials))

    def receive_reply(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> list[Event]:
        """Record a reply."""
        headers = tuple(headers)
        step: Json = {"reply": status}
        if headers:
            step["headers"] = self._masks.headers(headers)
        if body:
            step["body"] = self._masks.content(body)
        return self._happening(step, partial(super().receive_reply, status, headers, body))

    def receive_failure(self, failure: TransportError) -> list[Event]:
        """Record that there was no reply."""
        kind = "NotSent" if isinstance(failure, NotSent) else "MaybeSent"
        step = {"failure": kind, "reason": without_password(str(failure))}
        return self._happening(step, partial(super().receive_failure, failure))

    def receive_stream_opened(self) -> list[Event]:
        """Record the stream's head."""
        return self._happening({"stream_opened": True}, super().receive_stream_opened)

    def receive_stream_data(self, data: bytes) -> list[Event]:
        """Record a chunk of the stream."""
        return self._happening({"stream_data": self._masks.content(data)}, partial(super().receive_stream_data, data))

    def receive_silence(self) -> list[Event]:
        """Record that the stream brought nothing for too long."""
        return self._happening({"silence": True}, super().receive_silence)

    def receive_stream_end(self) -> list[Event]:
        """Record the stream's end."""
        return self._happening({"stream_end": True}, super().receive_stream_end)

    def _happening(self, step: Json, call: Callable[[], list[Event]]) -> list[Event]:
        return self._on_tape(step, call, lambda events: _reason(events) | result(self, events=events))

    def _asking(self, intent: Intent | None) -> Json:
        encoded = encode_intent(intent)
        return result(self, intent=None if encoded is None else self._masks.intent(encoded))

    def _on_tape(self, step: Json, call: Callable[[], _T], tell: Callable[[_T], Json]) -> _T:
        """Make the call, and write the step with what came of it; once the conversation is over nothing more comes."""
        if self.is_over:
            return call()
        try:
            came = call()
        except Exception as error:
            self._write(step | result(self, raises=error))
            raise
        self._write(step | tell(came))
        if self.is_over:
            self._tape.close()
        return came

    def _write(self, step: Json) -> None:
        self._tape.write(self._masks.line(to_line(step)))


def _reason(events: list[Event]) -> Json:
    """Return the words for what went wrong, for people: an event has none that would be the same in another engine."""
    words: list[str] = []
    for event in events:
        match event:
            case Failed(error=error):
                words.append(str(error))
            case Leaked(records=records):
                words.extend(record.reason for record in records)
            case _:
                pass
    return {"reason": without_password("; ".join(words))} if words else {}


class _Writer:
    """Writes lines at once, and lets nothing that goes wrong with them through to the conversation."""

    def __init__(self, tape: TapeFile, head: str) -> None:
        self._tape = tape
        self._head = head
        self._file: TextIO | None = None
        self._failed = False

    def write(self, line: str) -> None:
        """Write a line, after the head where it is the first one."""
        if self._failed:
            return
        try:
            if self._file is None:
                self._file = self._open()
                self._file.write(self._head)
            self._file.write(line)
            self._file.flush()
        except Exception as error:  # an own file object may raise anything
            self._failed = True
            self.close()
            logger.warning("the tape cannot be written, and recording stops: %s", error)

    def close(self) -> None:
        """Close the file, if it is ours."""
        if self._file is not None and self._file is not self._tape:
            with suppress(Exception):  # what could not be written was told
                self._file.close()

    def _open(self) -> TextIO:
        if isinstance(self._tape, (str, os.PathLike)):
            return Path(self._tape).open("w", encoding="utf-8", newline="\n")
        return self._tape
