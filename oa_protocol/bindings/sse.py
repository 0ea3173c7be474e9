"""Server-sent events: bytes in, the data of events out, as the WHATWG algorithm says (OA-5.2).

Servers of this protocol write one ``data:`` line an event, ended by CR LF CR LF; whole runs of that spelling are split
at once. Everything else the algorithm allows (LF, CR, mixed ends, a BOM, comments, several ``data`` lines, no space
after the colon, any split) is read line by line. Events of a type that the binding doesn't name are dropped: a ping is
one, and its data is not JSON. ``id`` and ``retry`` are ignored, for a stream is never opened twice.
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
    r"""Decodes one stream. Feed it what arrives; it keeps what is not complete yet.

    The payload of a ``message`` event is its data. The payload of an event of one of the other ``types`` is its type,
    an LF and its data, so that a binding can tell the types apart: ``kind, _, data = payload.partition(b"\n")``.

    Args:
        limit: the most bytes that a line may have together with the data of its event so far.
        types: the types of the events that matter besides ``message``.

    Attributes:
        too_large: a line was over the limit. Nothing that follows is of any use.
        keepalives: how many comments and events of other types have come since the last payload: a server that only
            says that it is still there.
        settled: there is nothing of the sort, and no event is open.

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
            # A token that comes alone, which is how servers send them, costs no more than this.
            payload = data.removeprefix(_FIELD).removesuffix(_EVENT_END)
            if _LF not in payload and _CR not in payload and len(payload) + _AROUND == len(data) <= self._limit:
                return (payload,)
        payloads = self._feed(data)
        is_open = self._pieces or self._data or self._type or self._after_cr or not self._started
        self.settled = not (is_open or self.keepalives or self.too_large)
        return payloads

    def _feed(self, data: bytes) -> list[bytes]:
        payloads: list[bytes] = []
        data = self._join(data)
        if data.startswith(_LINE_BREAK):  # the last chunk was cut right before the line that ends its event
            self._dispatch(payloads)
            data = data[len(_LINE_BREAK) :]
        if not self._data and not self._type and len(data) <= self._limit:
            # After CR LF CR LF no event is open, so that a run of whole events in the usual spelling splits at once.
            events, _, rest = data.rpartition(_EVENT_END)
            run = _split(events)
            if run is not None:
                self.keepalives = 0
                payloads += run
                data = rest
        self._read_lines(data, payloads)
        return payloads

    def _join(self, data: bytes) -> bytes:
        """Return ``data`` after what was kept, or nothing where it completes no line."""
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
        """Take ``data`` line by line, add to ``payloads`` those it completes, and keep what has no end yet."""
        if _LF not in data and _CR not in data:  # as the start of the next event is, after a run of whole ones
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
        """End the event. If its type matters, it is a payload."""
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
    """Return the data of events that are one ``data: `` line each, or None where anything else is among them."""
    if not events.startswith(_FIELD):
        return None
    payloads = events[len(_FIELD) :].split(_NEXT)
    run = b"".join(payloads)
    return None if _LF in run or _CR in run else payloads
