"""The runner of the conformance vectors: it asks an engine, in this process or in another, and compares its answers.

``python -m oa_protocol.testing.vectors check -- COMMAND…`` checks an engine in any language. The vectors are in
``folder()``, with a README.md that says how an engine is to answer.
"""

from oa_protocol.testing.vectors.check import Answers, check
from oa_protocol.testing.vectors.engine import Engine
from oa_protocol.testing.vectors.files import folder
from oa_protocol.testing.vectors.program import Program

__all__ = ["Answers", "Engine", "Program", "check", "folder"]
