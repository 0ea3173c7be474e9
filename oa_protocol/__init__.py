"""An explicit state-machine protocol engine for Open Assistant conversations.

Names are imported when they are first used, so that the engine stays free of I/O::

    from oa_protocol import Conversation, Website     # no I/O library is imported
    from oa_protocol import Client, OpenAssistant     # anyio and httpx are
    from oa_protocol import sync                      # sync.Client, for threads
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oa_protocol import sync
    from oa_protocol.client import Answer, Chat, Client, TextStream
    from oa_protocol.conversation import Conversation
    from oa_protocol.cookies import load_cookies
    from oa_protocol.driver import Cleanup, Timeouts
    from oa_protocol.errors import (
        AnswerFailed,
        ApiError,
        AuthenticationError,
        ChatLeakedWarning,
        HTTPStatusError,
        LocalProtocolError,
        MaybeSent,
        NotSent,
        OAError,
        ProtocolError,
        RemoteProtocolError,
        TransportError,
    )
    from oa_protocol.phases import Phase
    from oa_protocol.provider import OpenAssistant
    from oa_protocol.wire.binding import AnswerOptions, Credentials
    from oa_protocol.wire.inference import InferenceServer
    from oa_protocol.wire.schemas import ModelConfig, SamplingParameters
    from oa_protocol.wire.website import Website

__version__ = "0.1.0"

_HOMES = {
    "Answer": "client",
    "AnswerFailed": "errors",
    "AnswerOptions": "wire.binding",
    "ApiError": "errors",
    "AuthenticationError": "errors",
    "Chat": "client",
    "ChatLeakedWarning": "errors",
    "Cleanup": "driver",
    "Client": "client",
    "Conversation": "conversation",
    "Credentials": "wire.binding",
    "HTTPStatusError": "errors",
    "InferenceServer": "wire.inference",
    "LocalProtocolError": "errors",
    "MaybeSent": "errors",
    "ModelConfig": "wire.schemas",
    "NotSent": "errors",
    "OAError": "errors",
    "OpenAssistant": "provider",
    "Phase": "phases",
    "ProtocolError": "errors",
    "RemoteProtocolError": "errors",
    "SamplingParameters": "wire.schemas",
    "TextStream": "client",
    "Timeouts": "driver",
    "TransportError": "errors",
    "Website": "wire.website",
    "load_cookies": "cookies",
}

__all__ = [
    "Answer",
    "AnswerFailed",
    "AnswerOptions",
    "ApiError",
    "AuthenticationError",
    "Chat",
    "ChatLeakedWarning",
    "Cleanup",
    "Client",
    "Conversation",
    "Credentials",
    "HTTPStatusError",
    "InferenceServer",
    "LocalProtocolError",
    "MaybeSent",
    "ModelConfig",
    "NotSent",
    "OAError",
    "OpenAssistant",
    "Phase",
    "ProtocolError",
    "RemoteProtocolError",
    "SamplingParameters",
    "TextStream",
    "Timeouts",
    "TransportError",
    "Website",
    "load_cookies",
    "sync",
]


def __getattr__(name: str) -> object:
    if name == "sync":
        return import_module("oa_protocol.sync")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
