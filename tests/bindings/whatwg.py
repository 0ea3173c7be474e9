"""The WHATWG algorithm for interpreting an event stream, transcribed word by word; slow, and for tests only.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

# ruff: noqa: ERA001, FURB188 -- the comments quote the algorithm, and the code follows its words

from __future__ import annotations

import codecs


class EventStream:
    """Interprets a stream byte by byte, each as soon as it is there.

    ``payloads`` holds the data of the events that were dispatched as ``message``; ``keepalives`` counts the comments
    and the events of other types since the last of those.
    """

    def __init__(self) -> None:
        self.payloads: list[str] = []
        self.keepalives = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = True
        self._line = ""
        self._after_carriage_return = False
        self._data_buffer = ""
        self._event_type_buffer = ""

    def feed(self, data: bytes) -> None:
        for index in range(len(data)):
            # "Streams must be decoded using the UTF-8 decode algorithm", which strips one leading BOM.
            for character in self._decoder.decode(data[index : index + 1]):
                if self._at_start:
                    self._at_start = False
                    if character == "\N{BYTE ORDER MARK}":
                        continue
                self._take(character)

    def _take(self, character: str) -> None:
        # "Lines must be separated by either a CRLF pair, a single LF, or a single CR."
        if character == "\n" and self._after_carriage_return:
            self._after_carriage_return = False
            return
        self._after_carriage_return = character == "\r"
        if character in "\r\n":
            line, self._line = self._line, ""
            self._interpret(line)
        else:
            self._line += character

    def _interpret(self, line: str) -> None:
        # "If the line is empty (a blank line): Dispatch the event, as defined below."
        if line == "":
            self._dispatch()
        # "If the line starts with a U+003A COLON character (:): Ignore the line."
        elif line.startswith(":"):
            self.keepalives += 1
        # "If the line contains a U+003A COLON character (:): Collect the characters on the line before the first
        # colon, and let field be that string. Collect the characters on the line after the first colon, and let value
        # be that string. If value starts with a U+0020 SPACE character, remove it from value."
        elif ":" in line:
            colon = line.index(":")
            field = line[:colon]
            value = line[colon + 1 :]
            if value.startswith(" "):
                value = value[1:]
            self._process(field, value)
        # "Otherwise: Process the field using the whole line as the field name, and the empty string as the value."
        else:
            self._process(line, "")

    def _process(self, field: str, value: str) -> None:
        # "event: Set the event type buffer to the field value."
        if field == "event":
            self._event_type_buffer = value
        # "data: Append the field value to the data buffer, then append a single U+000A LINE FEED (LF) character."
        elif field == "data":
            self._data_buffer += value
            self._data_buffer += "\n"
        # "id" and "retry" are about reconnecting; "Otherwise: The field is ignored."

    def _dispatch(self) -> None:
        # "If the data buffer is an empty string, set the data buffer and the event type buffer to the empty string and
        # return."
        if self._data_buffer == "":
            self._event_type_buffer = ""
            return
        # "If the data buffer's last character is a U+000A LINE FEED (LF) character, then remove the last character."
        if self._data_buffer.endswith("\n"):
            self._data_buffer = self._data_buffer[:-1]
        # "Initialize event's type attribute to "message" … If the event type buffer has a value other than the empty
        # string, change the type of the newly created event to equal the value of the event type buffer."
        event_type = "message"
        if self._event_type_buffer != "":
            event_type = self._event_type_buffer
        if event_type == "message":
            self.payloads.append(self._data_buffer)
            self.keepalives = 0
        else:
            self.keepalives += 1
        self._data_buffer = ""
        self._event_type_buffer = ""
