"""The runner of the conformance vectors. It compares the answers of an engine with those that a vector expects.

``python -m oa_protocol.testing.vectors check -- COMMAND…`` checks an engine in any language. The vectors are in
``folder()``, with a README.md that says how an engine has to answer.
"""

from oa_protocol.testing.vectors.check import Answers, check
from oa_protocol.testing.vectors.engine import Engine
from oa_protocol.testing.vectors.files import folder
from oa_protocol.testing.vectors.program import Program

__all__ = ["Answers", "Engine", "Program", "check", "folder"]
