"""Tapes: everything that went into and came out of an engine, as JSON lines (docs/tapes.md, specs/vectors).

``Recorder`` makes one, for any driver. ``replay`` runs the engine over it again, ``transcript`` puts it into words, and
``normalize`` makes two tapes of the same conversation comparable, even of different drivers. ``oa_protocol.tape.har``
reads a browser's recording.
"""

from oa_protocol.tape.format import Tape, load_tapes, parse_tapes
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
    "transcript",
]
