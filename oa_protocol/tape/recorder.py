"""Records conversations, with any driver."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn, SupportsIndex, TextIO, TypeVar

from msgspec.structs import replace

from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials
from oa_protocol.bindings.replies import header_pairs
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.events import Event, Failed, Leaked
from oa_protocol.engine.inputs import Input, ReplyReceived, StreamData
from oa_protocol.engine.intents import Intent
from oa_protocol.engine.timers import Cleanup, Timeouts
from oa_protocol.tape.format import Json, decode_bytes, encode_bytes, encode_config, encode_intent, result, to_line
from oa_protocol.tape.redact import Masks

logger = logging.getLogger("oa_protocol")

TapeFile = str | os.PathLike[str] | TextIO
"""A tape's destination: the path of a file, which is overwritten, or an open text file, which isn't closed."""

_T = TypeVar("_T")


class Recorder(Conversation):
    """A conversation that records its inputs and outputs. Each call writes one line to ``tape`` before it returns.

    specs/vectors/README.md explains the lines. Cookies and tokens are masked, but prompts and answers aren't. If the
    tape can't be written, a warning is logged once, and the conversation goes on without a tape. You can't pickle or
    copy a ``Recorder``, because it has an open file. Trying that raises ``TypeError``.

    The engine gets the rounded time that is on the tape, so a replay is exact.

    Args:
        binding: the API to use.
        credentials: as for ``Conversation``.
        options: as for ``Conversation``.
        chat_id: as for ``Conversation``.
        keep: as for ``Conversation``.
        retries: as for ``Conversation``.
        timeouts: as for ``Conversation``.
        cleanup: as for ``Conversation``.
        tape: a path, or an open text file. A path is opened by the first step, and closed by the last one. A file that
            exists is overwritten.

    """

    __slots__ = ("_held", "_masks", "_start", "_tape")

    def __init__(
        self,
        binding: Binding,
        credentials: Credentials | None = None,
        options: AnswerOptions | None = None,
        *,
        chat_id: str | None = None,
        keep: bool = False,
        retries: int = 2,
        timeouts: Timeouts | None = None,
        cleanup: Cleanup | None = None,
        tape: TapeFile,
    ) -> None:
        super().__init__(
            binding,
            credentials,
            options,
            chat_id=chat_id,
            keep=keep,
            retries=retries,
            timeouts=timeouts,
            cleanup=cleanup,
        )
        self._start: float | None = None
        self._masks = Masks(binding.base_url)
        config = encode_config(self.settings)
        if self.credentials:
            config["credentials"] = self._masks.credentials(self.credentials)
        self._tape = _Writer(tape, to_line(self._masks.texts({"config": config})))
        self._held: list[Json] = []

    @property
    def deadline(self) -> float | None:
        """The time at which to hand in ``TimePassed``, in seconds by your clock, or None if there is no deadline."""
        ends = super().deadline
        return None if ends is None or self._start is None else self._start + ends

    def __reduce_ex__(self, _: SupportsIndex) -> NoReturn:
        raise TypeError("a Recorder can't be pickled or copied, because its tape is an open file")

    def next_intent(self, now: float) -> Intent | None:
        """Return the next intent, and record it."""
        return self._on_tape(now, {}, super().next_intent, self._asked)

    def handle(self, happened: Input, now: float) -> list[Event]:
        """Handle an input, and record it with its outcome."""
        match happened:
            case StreamData(data):
                return self.receive_stream_data(data, now)
            case ReplyReceived(headers=headers):
                happened = replace(happened, headers=tuple(header_pairs(headers)))
            case _:
                pass
        return self._on_tape(now, self._happened(happened), partial(super().handle, happened), self._caused)

    def receive_stream_data(self, data: bytes, now: float) -> list[Event]:
        """Handle bytes of the open stream, and record them with their outcome."""
        happened = self._happened(StreamData(data))
        return self._on_tape(now, happened, partial(super().receive_stream_data, data), self._caused)

    def _happened(self, happened: Input) -> Json:
        return {"input": self._masks.input(happened)}

    def _caused(self, events: list[Event]) -> Json:
        return _reason(events) | result(self, super().deadline, events=events)

    def _asked(self, intent: Intent | None) -> Json:
        encoded = encode_intent(intent)
        return result(self, super().deadline, intent=None if encoded is None else self._masks.intent(encoded))

    def _on_tape(self, now: float, step: Json, call: Callable[[float], _T], tell: Callable[[_T], Json]) -> _T:
        """Make the call, and write the step with its outcome. Once the conversation is over, nothing is written."""
        now = self._to_tape(now)
        if self.is_over:
            return call(now)
        step = {"now": now, **step}
        try:
            came = call(now)
        except Exception as error:
            self._write(step | result(self, super().deadline, raises=error))
            raise
        self._write(step | tell(came))
        if self.is_over:
            self._tape.close()
        return came

    def _to_tape(self, now: float) -> float:
        """Return ``now`` in the tape's count, which is seconds since the first step, rounded up to a microsecond.

        If a deadline has passed by the caller's clock, it must have passed in this count, too, in spite of rounding.
        Otherwise, a caller whose clock stands still until something happens would hand in ``TimePassed`` forever.
        """
        if self._start is None:
            self._start = now
        elapsed, ends = now - self._start, super().deadline
        is_due = ends is not None and now >= self._start + ends
        return _round_up(max(elapsed, ends or 0.0) if is_due else elapsed)

    def _write(self, step: Json) -> None:
        """Write the step.

        If a piece of a stream may end within a secret, the piece is held until the next one, so that it can be masked.
        """
        self._held.append(step)
        is_data = _is_data(step)
        pieces = [decode_bytes(each["input"]["data"]) for each in self._held if _is_data(each)]
        whole = b"".join(pieces)
        if is_data and not self.is_over and self._masks.is_cut(whole):
            return
        if len(self._held) > 1:
            for each, piece in zip(self._held, self._masks.join(pieces), strict=False):
                each["input"] |= {"data": encode_bytes(piece)}
        for each in self._held:
            self._tape.write(to_line(self._masks.texts(each)))
        self._held.clear()


def _is_data(step: Json) -> bool:
    return "input" in step and step["input"]["type"] == "StreamData"


def _round_up(seconds: float) -> float:
    rounded = math.ceil(seconds * 1e6)
    return rounded / 1e6 if rounded / 1e6 >= seconds else (rounded + 1) / 1e6


def _reason(events: list[Event]) -> Json:
    """Return the error messages. A replay doesn't compare them, because other engines may have other texts."""
    words: list[str] = []
    for event in events:
        match event:
            case Failed(error):
                words.append(str(error))
            case Leaked(leaked):
                words.extend(record.reason for record in leaked)
            case _:
                pass
    return {"reason": "; ".join(words)} if words else {}


class _Writer:
    """Writes and flushes each line. An error is logged, and doesn't reach the conversation."""

    def __init__(self, tape: TapeFile, head: str) -> None:
        self._tape = tape
        self._head = head
        self._file: TextIO | None = None
        self._failed = False

    def write(self, line: str) -> None:
        """Write a line, and the head before the first one."""
        if self._failed:
            return
        try:
            if self._file is None:
                self._file = self._open()
                self._file.write(self._head)
            self._file.write(line)
            self._file.flush()
        except Exception as error:  # The caller's file object may raise anything.
            self._failed = True
            self.close()
            logger.warning("the tape cannot be written, and recording stops: %s", error)

    def close(self) -> None:
        """Close the file if the recorder opened it."""
        if self._file is not None and self._file is not self._tape:
            with suppress(Exception):  # If lines are missing, that has been logged already.
                self._file.close()

    def _open(self) -> TextIO:
        if isinstance(self._tape, (str, os.PathLike)):
            return Path(self._tape).open("w", encoding="utf-8", newline="\n")
        return self._tape
