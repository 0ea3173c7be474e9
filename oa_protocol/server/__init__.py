"""The embedded Open Assistant server: both HTTP APIs on one port of loopback, in memory.

It stands on the other side of the protocol from the client library, and shares no code with it. What it does is a
value without sockets or clocks (core.py), which the server holds and the tests copy::

    with Server() as server:
        ...  # server.url, server.cookies, server.token
        assert not server.chats
"""

from __future__ import annotations

from oa_protocol.server.faults import (
    Abandon,
    Answer,
    Close,
    End,
    Fault,
    Freeze,
    Hang,
    Hold,
    Never,
    Outcome,
    Raw,
    Reply,
    Reset,
    Scripted,
    Send,
    StreamAction,
    StreamFault,
    WorkerError,
)
from oa_protocol.server.http.app import RequestRecord
from oa_protocol.server.models import Echo, Lorem, Model, PluginStep, Turn
from oa_protocol.server.requests import Api, Step
from oa_protocol.server.server import Server
from oa_protocol.server.state import Account, ChatRecord, MessageRecord, Quirks, Role, State

__all__ = [
    "Abandon", "Account", "Answer", "Api", "ChatRecord", "Close", "Echo", "End", "Fault", "Freeze", "Hang", "Hold",
    "Lorem", "MessageRecord", "Model", "Never", "Outcome", "PluginStep", "Quirks", "Raw", "Reply", "RequestRecord",
    "Reset", "Role", "Scripted", "Send", "Server", "State", "Step", "StreamAction", "StreamFault", "Turn",
    "WorkerError",
]  # fmt: skip
