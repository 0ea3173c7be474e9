"""Tapes, which are JSON lines with all inputs and outputs of an engine (docs/tapes.md, specs/vectors).

``Recorder`` records a tape, with any driver. ``replay`` runs the engine over a tape again, ``transcript`` puts a tape
into words, ``to_html`` shows it as a page, and ``normalize`` makes two tapes of the same conversation comparable, even
if different drivers recorded them. ``oa_protocol.tape.har`` reads a browser's recording.
"""

from oa_protocol.tape.format import Tape, load_tapes, parse_tapes
from oa_protocol.tape.html import to_html
from oa_protocol.tape.normalize import normalize
from oa_protocol.tape.recorder import Recorder, TapeFile
from oa_protocol.tape.replay import Difference, replay
from oa_protocol.tape.transcript import transcript

__all__ = [
    "Difference",
    "Recorder",
    "Tape",
    "TapeFile",
    "load_tapes",
    "normalize",
    "parse_tapes",
    "replay",
    "to_html",
    "transcript",
]
