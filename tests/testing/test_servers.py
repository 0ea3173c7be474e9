"""The suite for servers: the embedded one passes, and one with a bug is caught by the test named for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from oa_protocol import Credentials
from oa_protocol.server import End, Fault, Reply, Scripted, Server, StreamFault
from oa_protocol.testing import ServerConformance
from oa_protocol.testing.servers import vectors_for

pytestmark = pytest.mark.once


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with Server() as running:
        for suite in (TestWebsite, TestInference):
            suite.url, suite.credentials = running.url, Credentials(running.cookies, running.token)
        yield
        assert running.chats == ()


class TestWebsite(ServerConformance):
    api = "website"


class TestInference(ServerConformance):
    api = "inference"


CHAT = b'{"id": "00000000-0000-7000-8000-000000000000", "title": null, "messages": []}'
HELD = "test_a_vector_s_conversation_is_held"
ANY = "test_whatever_the_network_loses_no_chat_is_left"
DELETES = Fault("delete", before=Reply(200), times=10_000)
PROMPTS = Fault("prompt", before=Reply(200, CHAT), times=10_000)


@pytest.mark.parametrize("api", ["website", "inference"])
@pytest.mark.parametrize(
    ("fault", "test", "told"),
    [
        (DELETES, HELD, "a chat that was deleted is still there"),
        (DELETES, ANY, "a chat that was deleted is still there"),
        (StreamFault(2, End(), times=10_000), HELD, "the stream ends in the middle of an answer"),
        (Fault("create", before=Reply(200, b"{}"), times=10_000), HELD, "an answer fails, .*RemoteProtocolError"),
        (PROMPTS, HELD, "an answer fails, although only the network had faults"),
        (Fault("chat", before=Reply(200, CHAT)), "test_an_unknown_chat_is_not_found", "GET /.*: 200"),
        (None, "test_nobody_is_served_without_credentials", "POST /.*: 200"),
    ],
)
def test_a_wrong_server_is_caught(api: str, fault: Scripted | None, test: str, told: str) -> None:
    with Server(require_credentials=fault is not None) as wrong:
        wrong.script(*([] if fault is None else [fault]))
        names = {"api": api, "url": wrong.url, "credentials": Credentials(wrong.cookies, wrong.token)}
        suite = type("Wrong", (ServerConformance,), names)()
        vectors = [vector for vector in vectors_for(api) if vector.name.startswith("one turn")] if test == HELD else []
        with pytest.raises(AssertionError, match=told):
            getattr(suite, test)(*vectors)
