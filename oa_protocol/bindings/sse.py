"""A decoder for server-sent events, which follows the WHATWG algorithm (OA-5.2).

Servers of this protocol send one ``data:`` line for each event, and then CR LF CR LF. That is the fast path: a run of
such events is split in one call. Everything else that the algorithm allows is read line by line: LF, CR and mixed line
ends, a byte order mark, comments, several ``data`` lines, no space after the colon, and cuts anywhere.

Events of a type that the binding doesn't name are dropped. For example, pings are such events, and their data isn't
JSON. ``id`` and ``retry`` are ignored, because a stream is never opened twice.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_BOM = b"\xef\xbb\xbf"
_FIELD = b"data: "
_LINE_BREAK = b"\r\n"
_EVENT_END = _LINE_BREAK + _LINE_BREAK
_NEXT = _EVENT_END + _FIELD
_AROUND = len(_FIELD + _EVENT_END)
_CR, _LF = _LINE_BREAK
_LINE_END = re.compile(rb"\r\n?|\n")


class SSEDecoder:
    r"""Decodes one stream. Feed it the bytes as they arrive. It stores the bytes of an incomplete event.

    The payload of a ``message`` event is its data. The payload of an event of one of the other ``types`` is its type,
    an LF and its data, so that a binding can tell the types apart: ``kind, _, data = payload.partition(b"\n")``.

    Args:
        limit: the most bytes that a line and the earlier data of its event may have together.
        types: the types of events to return besides ``message``.

    Attributes:
        too_large: true if a line exceeded the limit. The decoder can't be used any more.
        keepalives: how many comments, and events of other types, have arrived since the last payload. They show that
            the server is still there.
        settled: true if there are no keepalives, nothing was too large, and no event is incomplete.

    """

    __slots__ = (
        "_after_cr",
        "_data",
        "_data_size",
        "_limit",
        "_pieces",
        "_pieces_size",
        "_started",
        "_type",
        "_types",
        "keepalives",
        "settled",
        "too_large",
    )

    def __init__(self, limit: int, types: Collection[bytes] = ()) -> None:
        self.keepalives = 0
        self.too_large = False
        self.settled = False
        self._limit = limit
        self._types = types
        self._pieces: list[bytes] = []
        self._pieces_size = 0
        self._data: list[bytes] = []
        self._data_size = 0
        self._type = b""
        self._after_cr = False
        self._started = False

    def feed(self, data: bytes) -> Sequence[bytes]:
        """Return the payload of each event that ``data`` completes, up to one that is too large."""
        if self.settled:
            # Servers usually send each token alone, in one complete event. This path doesn't touch the decoder's state.
            # It is safe because no event is incomplete, and the payload has no line end.
            payload = data.removeprefix(_FIELD).removesuffix(_EVENT_END)
            if _LF not in payload and _CR not in payload and len(payload) + _AROUND == len(data) <= self._limit:
                return (payload,)
        payloads = self._feed(data)
        self.settled = not (self._pieces or self._data or self._type or self.keepalives or self.too_large)
        return payloads

    def _feed(self, data: bytes) -> list[bytes]:
        payloads: list[bytes] = []
        data = self._join(data)
        if data.startswith(_LINE_BREAK):  # The last chunk ended right before the empty line that ends its event.
            self._dispatch(payloads)
            data = data[len(_LINE_BREAK) :]
        if not self._data and not self._type and len(data) <= self._limit:
            # No event is incomplete after CR LF CR LF, so a run of complete events in the usual form can be split here.
            events, _, rest = data.rpartition(_EVENT_END)
            run = _split(events)
            if run is not None:
                self.keepalives = 0
                payloads += run
                data = rest
        self._read_lines(data, payloads)
        return payloads

    def _join(self, data: bytes) -> bytes:
        """Return the stored bytes and ``data``, or nothing if they don't complete a line."""
        if self._after_cr:
            self._after_cr = not data
            return data.removeprefix(b"\n")
        if self._started and _LF not in data and _CR not in data:
            self._keep(data)
            return b""
        data = b"".join((*self._pieces, data))
        self._pieces.clear()
        self._pieces_size = 0
        if self._started:
            return data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._pieces.append(data)
            return b""
        self._started = True
        return data.removeprefix(_BOM)

    def _keep(self, rest: bytes) -> None:
        self._pieces_size += len(rest)
        if self._pieces_size + self._data_size > self._limit:
            self.too_large = True
        elif rest:
            self._pieces.append(rest)

    def _read_lines(self, data: bytes, payloads: list[bytes]) -> None:
        """Read ``data`` line by line, append complete events to ``payloads``, and store an incomplete line."""
        if _LF not in data and _CR not in data:  # This is usual after a run: the start of the next event.
            self._keep(data)
            return
        start = 0
        for line_end in _LINE_END.finditer(data):
            line = data[start : line_end.start()]
            start = line_end.end()
            if not line:
                self._dispatch(payloads)
            elif len(line) + self._data_size > self._limit:
                self.too_large = True
                return
            else:
                self._line(line)
        self._after_cr = self._after_cr or data.endswith(b"\r")
        self._keep(data[start:])

    def _line(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._data.append(value)
                self._data_size += len(value) + 1
            case b"event":
                self._type = value
            case b"":
                self.keepalives += 1
            case _:
                pass

    def _dispatch(self, payloads: list[bytes]) -> None:
        """End the event. If its type is one to return, append its payload."""
        if self._data:
            if self._type in (b"", b"message"):
                self.keepalives = 0
                payloads.append(b"\n".join(self._data))
            elif self._type in self._types:
                self.keepalives = 0
                payloads.append(b"\n".join((self._type, *self._data)))
            else:
                self.keepalives += 1
            self._data.clear()
            self._data_size = 0
        self._type = b""


def _split(events: bytes) -> list[bytes] | None:
    """Return the data of events that have one ``data: `` line each, or None if there is anything else among them."""
    if not events.startswith(_FIELD):
        return None
    payloads = events[len(_FIELD) :].split(_NEXT)
    run = b"".join(payloads)
    return None if _LF in run or _CR in run else payloads
