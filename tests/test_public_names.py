"""What is promised: every name without an underscore at its beginning. Change the lists here only on purpose."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_args

import pytest

import oa_protocol
import oa_protocol.server
from oa_protocol import sync
from oa_protocol.bindings import json
from oa_protocol.engine.events import Event
from oa_protocol.engine.inputs import Input
from oa_protocol.engine.intents import EXCHANGES, Intent
from oa_protocol.server import Server
from oa_protocol.tape import TapeFile

PACKAGE = Path(oa_protocol.__file__).parent

NAMES = [
    "Abandon", "AccountSlot", "Answer", "AnswerFailed", "AnswerOptions", "Answered", "ApiError", "AuthenticationError",
    "Binding", "Bulk", "BulkPrompt", "BulkResult", "Chat", "ChatLeakedWarning", "ChatSummary", "Cleanup", "Client",
    "Close", "CloseStream", "ClosedError", "Conversation", "CookieSource", "Corrected", "CreateChat", "Created",
    "Credentials", "CredentialsFound", "DeleteChat", "Deleted", "Event", "Exchange", "ExchangeFailed", "Failed",
    "FetchChat", "FetchMessage", "HTTPStatusError", "HttpRequest", "InProcessSlot", "InferenceServer", "Input",
    "Intent", "Interrupted", "JournalError", "Keep", "Kept", "LeakRecord", "Leaked", "ListChats", "LoadCredentials",
    "LocalProtocolError", "LockFileSlot", "MaybeSent", "Message", "MessageTree", "ModelConfig", "NeverCreated",
    "NotSent", "OAError", "OpenAssistant", "OpenStream", "ParameterConfig", "Phase", "PluginStep", "Prompt", "Prompted",
    "ProtocolError", "Queued", "Regenerate", "RemoteProtocolError", "ReplyReceived", "RequestAssistant", "Requested",
    "Response", "SamplingParameters", "SendPrompt", "SlotError", "StreamData", "StreamEnded", "StreamOpened",
    "SweepResult", "Telemetry", "TextStream", "Ticket", "TimePassed", "Timeouts", "Token", "Transport",
    "TransportError", "TransportFactory", "Website", "load_cookies", "sync", "watch",
]  # fmt: skip
MODULES = [
    "bindings", "bindings.base", "bindings.ids", "bindings.inference", "bindings.json", "bindings.replies",
    "bindings.sse", "bindings.tree", "bindings.website", "cli", "client", "client.answer", "client.bulk", "client.chat",
    "client.client", "client.compat", "client.cookies", "client.journal", "client.slots", "client.sweep", "client.sync",
    "client.telemetry", "engine", "engine.conversation", "engine.errors", "engine.events", "engine.inputs",
    "engine.intents", "engine.moves", "engine.phases", "engine.state", "engine.steps", "engine.timers", "models",
    "models.base", "models.gguf", "models.openai", "models.simple", "server", "server.chats", "server.core",
    "server.exchanges", "server.faults", "server.http", "server.http.app", "server.http.connection",
    "server.http.event_stream", "server.http.live", "server.http.reader", "server.http.responses", "server.http.runner",
    "server.http.worker", "server.ids", "server.inference", "server.model_configs", "server.render", "server.requests",
    "server.server", "server.state", "server.validation", "server.verdict", "server.website", "server.work", "tape",
    "tape.format", "tape.har", "tape.html", "tape.normalize", "tape.recorder", "tape.redact", "tape.replay",
    "tape.transcript", "testing", "testing.conformance", "testing.error_table", "testing.explore", "testing.explorer",
    "testing.faults", "testing.machine", "testing.peers", "testing.playbook", "testing.plugin", "testing.servers",
    "testing.strategies", "testing.vectors", "testing.vectors.check", "testing.vectors.engine", "testing.vectors.files",
    "testing.vectors.program", "transports", "transports.aiohttp", "transports.blocking", "transports.blocking_httpx",
    "transports.default", "transports.fast", "transports.fast.httptools", "transports.fast.sockets", "transports.httpx",
    "transports.httpx2", "transports.memory", "watching", "watching.factory", "watching.page", "worker",
    "worker.model_configs", "worker.protocol", "worker.worker",
]  # fmt: skip

# Whose types a signature may name as well.
_FOREIGN = ("builtins", "collections", "os", "types", "typing", "typing_extensions", "pathlib")


def modules() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names = parts[:-1] if parts[-1] == "__init__" else parts
        if names and not any(name.startswith("_") for name in names):
            yield ".".join(names)


def test_the_public_names_are_these() -> None:
    assert oa_protocol.__all__ == sorted(NAMES)


def test_the_public_modules_are_these() -> None:
    assert sorted(modules()) == sorted(MODULES)


def test_every_name_is_there() -> None:
    for name in oa_protocol.__all__:
        assert getattr(oa_protocol, name) is not None


@pytest.mark.parametrize("kinds", [get_args(Event), get_args(Input), EXCHANGES, get_args(Intent)])
def test_what_an_engine_takes_and_returns_is_exported(kinds: tuple[type, ...]) -> None:
    assert {kind.__name__ for kind in kinds} <= set(oa_protocol.__all__)


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties; and how it is made, if users make one."""
    for name, member in inspect.getmembers_static(kind):
        if not name.startswith("_") or (name == "__init__" and kind in MADE_BY_USERS):
            function: Any = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if inspect.isfunction(function) and function.__module__.startswith("oa_protocol"):
                yield name, function


def named(annotation: Any) -> Iterator[type]:
    """The classes that an annotation names, however deep."""
    if isinstance(annotation, list):
        for each in cast("list[object]", annotation):
            yield from named(each)
    elif arguments := get_args(annotation):
        if typing.get_origin(annotation) is not typing.Literal:
            for argument in arguments:
                yield from named(argument)
    elif isinstance(annotation, type) and annotation is not types.NoneType:
        yield annotation


MADE_BY_USERS = [oa_protocol.Client, oa_protocol.Conversation, sync.Client, Server]
CALLED = [
    *MADE_BY_USERS, oa_protocol.InProcessSlot, oa_protocol.LockFileSlot, oa_protocol.Ticket,
    oa_protocol.Bulk, sync.Bulk, oa_protocol.Chat, oa_protocol.Answer, oa_protocol.TextStream,
    oa_protocol.OpenAssistant, sync.Chat, sync.Answer, sync.TextStream,
]  # fmt: skip


def exported() -> list[object]:
    """What the package exports, and the server; and a chat as bindings read it."""
    top = [getattr(oa_protocol, name) for name in oa_protocol.__all__]
    return [
        *top,
        *CALLED,
        json.ChatSnapshot,
        *(getattr(oa_protocol.server, name) for name in oa_protocol.server.__all__),
    ]


@pytest.mark.parametrize("kind", CALLED, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_what_a_public_call_takes_and_returns_is_exported(kind: type) -> None:
    """Also those of a union, such as ``Event``, because ``get_type_hints`` takes it apart."""
    known = exported()
    odd: set[str] = set()
    for method, function in methods(kind):
        names = vars(sys.modules[function.__module__]) | {"TapeFile": TapeFile, "Telemetry": oa_protocol.Telemetry}
        for argument, annotation in typing.get_type_hints(function, globalns=names).items():
            for each in named(annotation):
                if each not in known and each.__module__.partition(".")[0] not in _FOREIGN:
                    odd.add(f"{method}({argument}): {each.__module__}.{each.__name__}")
    assert not odd
