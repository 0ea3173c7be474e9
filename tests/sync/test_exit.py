"""Programs that end without closing their client: its chats are deleted, or named, and nothing hangs."""

from __future__ import annotations

from pathlib import Path

import pytest

from oa_protocol.client.journal import Journal
from oa_protocol.server import Answer, Fault, Hold, Reply, Server
from tests.driver.site import Api
from tests.programs import Program, program

pytestmark = pytest.mark.clause("OA-7.2")

CARELESS = """
import sys
from oa_protocol import Cleanup, sync
client = sync.Client(api=sys.argv[1], cleanup=Cleanup(drain=0.05))
chats = [client.chat(), client.chat()]
print(*(chat.ask("Hello") for chat in chats))
"""

WITH_JOURNAL = """
import sys
from oa_protocol import sync
chat = sync.Client(journal=sys.argv[1]).chat()
chat.ask("Hello")
"""

BREAKS = """
import sys
from oa_protocol import Cleanup, sync
chat = sync.Client(cleanup=Cleanup(drain=0)).chat()
for piece in chat.stream("Hello"):
    {leaves}
"""

OTHER_THREAD = """
import threading
from oa_protocol import sync
client = sync.Client()
client.models()
chat = client.chat()
threading.Thread(target=lambda: print(chat.ask("Hello"))).start()
"""

IDLE = """
from oa_protocol import sync
client = sync.Client()
chat = client.chat()
"""


def ends(running: Program) -> tuple[int, str, str]:
    out, errors = running.communicate(timeout=30)
    return running.returncode, out, errors


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_program_that_never_closes_its_client(api: Api, host: str, server: Server) -> None:
    server.script(Answer(pieces=("Yes.",), times=2))
    # Looking up a name needs a thread, and at the interpreter's exit no thread can be started.
    url = server.url.replace("127.0.0.1", host)
    with program(server, api, "-c", CARELESS, api, url=url) as running:
        assert ends(running) == (0, "Yes. Yes.\n", "")
    assert server.chats == ()


def test_a_journal_has_nothing_that_is_left_when_it_ends(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with program(server, "website", "-c", WITH_JOURNAL, str(path)) as running:
        assert ends(running) == (0, "", "")
    assert server.chats == ()
    assert Journal(path).lines() == []


@pytest.mark.parametrize(("leaves", "code"), [("break", 0), ("sys.exit(3)", 3), ("1 / 0", 1)])
def test_a_program_that_ends_in_the_middle_of_an_answer(leaves: str, code: int, server: Server) -> None:
    hold = Hold()
    server.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    with program(server, "website", "-c", BREAKS.format(leaves=leaves)) as running:
        returned, _, errors = ends(running)
    assert returned == code
    assert ("ZeroDivisionError" in errors) == (code == 1)
    assert server.chats == ()
    hold.release()


def test_a_thread_that_still_asks_gets_its_answer_first(server: Server) -> None:
    hold = Hold()
    server.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    with program(server, "website", "-c", OTHER_THREAD) as running:
        server.wait_for("events")
        hold.release()
        assert ends(running) == (0, "One two.\n", "")
    assert server.chats == ()


def test_a_chat_that_cannot_be_deleted_is_named(server: Server) -> None:
    server.script(Fault("delete", before=Reply(400, b"no"), times=6))
    with program(server, "website", "-c", CARELESS, "website") as running:
        code, _, errors = ends(running)
    assert code == 0
    for chat in server.chats:
        assert f"ChatLeakedWarning: left, or maybe left, on {server.url}: chat {chat.id}" in errors


def test_a_program_that_asks_nothing_starts_and_waits_for_nothing(server: Server) -> None:
    watch = f"{IDLE}\nimport threading\nassert threading.active_count() == 1\n"
    with program(server, "website", "-c", watch) as running:
        assert ends(running) == (0, "", "")
    assert server.requests == ()


def test_a_server_that_hangs_does_not_keep_the_program(server: Server) -> None:
    hold = Hold()
    server.script(Fault("delete", before=hold, times=6))
    hasty = CARELESS.replace("drain=0.05", "drain=0, timeout=3")
    with program(server, "website", "-c", hasty, "website") as running:
        code, _, errors = ends(running)
    assert code == 0
    assert errors.count("ChatLeakedWarning: left, or maybe left") == 2
    assert len(server.chats) == 2
