"""A live page on loopback: each conversation of a server or of a client is a dot on the diagram of the phases."""

from __future__ import annotations

from oa_protocol._lazy import attach

__getattr__, __all__ = attach(__name__, __file__)
