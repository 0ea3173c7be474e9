"""Writes specs/vectors, except for sse.jsonl: ``python -m tests.tools.vectors``.

One module a file. What is to be expected is derived from specs/protocol.md; nothing of the package is asked for it.
"""
