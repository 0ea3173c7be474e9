"""``oa-protocol sweep``, and the journal it reads."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from oa_protocol.bindings.website import Website
from oa_protocol.client.journal import Journal
from oa_protocol.server import Answer, Close, Echo, Fault, Hold, Reply, Server

from .command import credentials, ended, oa_protocol, started

CHAT_ID = "06b02a54-89e8-7932-8000-0fb1fa73d8de"
FULL = Path("/dev/full")


@pytest.fixture
def server() -> Iterator[Server]:
    """A server without a verdict: here, one command follows another so soon that they look like one hasty client."""
    with Server(Echo(), reader_grace=60) as running:
        yield running


def journal(state_folder: Path) -> Journal:
    return Journal(state_folder / "oa-protocol" / "journal.sqlite3")


def test_what_a_killed_process_left_is_deleted(server: Server, state_folder: Path) -> None:
    hold = Hold()
    server.script(Answer(("a", "b"), after=1, then=hold))
    process = started(["ask", "Hello"], credentials(server))
    server.wait_for("events")
    process.send_signal(signal.SIGKILL)
    ended(process)
    hold.release()
    [chat] = server.chats
    done = oa_protocol("sweep", "--grace", "0", env=credentials(server))
    assert (done.code, done.out.split()) == (0, [chat.id])
    assert not server.chats
    assert not journal(state_folder).lines()


def test_a_conversation_that_ends_leaves_no_line(server: Server, state_folder: Path) -> None:
    assert oa_protocol("ask", "Hello", env=credentials(server)).code == 0
    assert (state_folder / "oa-protocol" / "journal.sqlite3").exists()
    assert not journal(state_folder).lines()


@pytest.mark.parametrize(("arguments", "variables"), [(["--journal", ""], {}), ([], {"OA_JOURNAL": ""})])
def test_an_empty_journal_is_none(
    server: Server, state_folder: Path, arguments: list[str], variables: dict[str, str]
) -> None:
    assert oa_protocol("ask", *arguments, "Hello", env=credentials(server) | variables).code == 0
    assert not (state_folder / "oa-protocol" / "journal.sqlite3").exists()


def test_the_embedded_server_needs_no_journal(state_folder: Path) -> None:
    assert oa_protocol("ask", "Hello").code == 0
    assert not (state_folder / "oa-protocol").exists()


def leave_a_chat_of_another_account(server: Server, state_folder: Path) -> None:
    left = journal(state_folder)
    left.created(left.creating(Website(server.url), "another account"), CHAT_ID)
    left.close()


def test_what_cannot_be_deleted_is_named_and_is_exit_code_6(server: Server, state_folder: Path) -> None:
    leave_a_chat_of_another_account(server, state_folder)
    done = oa_protocol("sweep", env=credentials(server))
    assert done.code == 6
    assert CHAT_ID in done.err
    assert not done.out


def test_what_cannot_be_deleted_is_named_even_if_stdout_is_closed(server: Server, state_folder: Path) -> None:
    leave_a_chat_of_another_account(server, state_folder)
    out_end, in_end = os.pipe()
    os.close(out_end)
    command = started(["sweep", "--json"], credentials(server), stdout=in_end)
    os.close(in_end)
    done = ended(command)
    assert (done.code, f"Left behind: chat {CHAT_ID}: " in done.err) == (6, True)


@pytest.mark.skipif(not FULL.exists(), reason="needs a disk that is full")
def test_what_cannot_be_deleted_is_named_even_if_stdout_is_full(server: Server, state_folder: Path) -> None:
    leave_a_chat_of_another_account(server, state_folder)
    with FULL.open("wb") as full:
        done = ended(started(["sweep", "--json"], credentials(server), stdout=full.fileno()))
    assert (done.code, f"Left behind: chat {CHAT_ID}: " in done.err) == (6, True)
    assert "Error: stdout: No space left on device" in done.err


def test_a_leaked_chat_stays_in_the_journal_until_a_sweep(server: Server, state_folder: Path) -> None:
    server.script(Fault("delete", before=Reply(500, b"Internal Server Error"), times=3))
    assert oa_protocol("ask", "Hello", env=credentials(server)).code == 6
    [line] = journal(state_folder).lines()
    assert line.chat_id == server.chats[0].id
    assert oa_protocol("sweep", env=credentials(server)).code == 0
    assert not server.chats


def test_a_create_of_unknown_outcome_is_resolved_by_the_list(server: Server, state_folder: Path) -> None:
    server.script(Fault("create", after=Close(), times=3))
    assert oa_protocol("ask", "Hello", env=credentials(server)).code == 6
    assert len(server.chats) == 3
    done = oa_protocol("sweep", "--grace", "0", env=credentials(server))
    assert (done.code, len(done.out.split())) == (0, 3)
    assert not server.chats
    assert not journal(state_folder).lines()


@pytest.mark.parametrize("arguments", [["sweep"], ["sweep", "--url", "http://127.0.0.1:1", "--journal", ""]])
def test_without_a_server_or_a_journal_there_is_nothing_to_sweep(arguments: list[str]) -> None:
    assert oa_protocol(*arguments).code == 2


def test_a_journal_that_cannot_be_written_is_said_and_no_chat_is_made(server: Server, tmp_path: Path) -> None:
    done = oa_protocol("ask", "--journal", str(tmp_path), "Hello", env=credentials(server))
    assert done.code == 1
    assert f"the journal {tmp_path} cannot be used" in done.err
    assert "--journal ''" in done.err
    assert not any(request.step == "create" for request in server.requests)


def test_json_says_what_was_deleted(server: Server) -> None:
    server.script(Fault("delete", before=Reply(500, b"Internal Server Error"), times=3))
    oa_protocol("ask", "Hello", env=credentials(server))
    [chat] = server.chats
    done = oa_protocol("sweep", "--json", env=credentials(server))
    assert done.events == [{"event": "deleted", "chat_id": chat.id}]


def test_a_sweep_that_finds_nothing_says_so(server: Server) -> None:
    done = oa_protocol("sweep", env=credentials(server))
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith(f"Nothing is left on {server.url}, according to the journal ")
    assert oa_protocol("sweep", "--quiet", env=credentials(server)).err == ""


def test_a_sweep_names_chats_in_use_and_other_servers_and_that_is_no_failure(
    server: Server, state_folder: Path
) -> None:
    owner = journal(state_folder)
    owner.creating(Website(server.url), "an account")
    owner.creating(Website("http://elsewhere.example.org"), "an account")
    done = oa_protocol("sweep", env=credentials(server))
    assert done.code == 0
    assert "In use: chat (id unknown): the process that made it still runs" in done.err
    assert "The journal also lists chats on http://elsewhere.example.org" in done.err
    assert "Nothing is left" not in done.err
    owner.close()


def test_a_line_that_somebody_has_looked_at_can_be_forgotten(server: Server, state_folder: Path) -> None:
    left = journal(state_folder)
    left.creating(Website(server.url), "another account")
    assert oa_protocol("sweep", "--forget", "1").code == 1  # its owner lives
    left.close()
    done = oa_protocol("sweep", env=credentials(server))
    assert done.code == 6
    assert "(line 1 of the journal)" in done.err
    assert "sweep --forget LINE" in done.err
    done = oa_protocol("sweep", "--forget", "1")
    assert (done.code, done.err) == (0, f"Dropped line 1: chat (id unknown) on {server.url}\n")
    assert oa_protocol("sweep", "--forget", "1").code == 1
    assert oa_protocol("sweep", env=credentials(server)).code == 0
