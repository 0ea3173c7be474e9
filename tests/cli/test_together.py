"""Several processes that use one account at the same time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oa_protocol.server import Answer, Echo, Hold, Server

from .command import credentials, ended, oa_protocol, started

pytestmark = pytest.mark.clause("OA-4.8")


@pytest.mark.parametrize("api", ["website", "inference"])
def test_none_of_them_cancels_anothers_message(api: str) -> None:
    with Server(Echo(), workers=1, pending_interval=0.05, reader_grace=60) as server:
        server.script(Answer(then=Hold()))
        processes = [started(["ask", "--api", api, str(number)], credentials(server)) for number in range(3)]
        server.wait_for("prompt", 3)
        server.release()
        done = [ended(process) for process in processes]
        assert [(one.code, one.out) for one in done] == [(0, f"{number}\n") for number in range(3)]
        assert server.chats == ()


def test_if_the_folder_cannot_be_made_others_are_not_waited_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    done = oa_protocol("ask", "Hello", "--journal", "", env=credentials(server))
    assert (done.code, done.out) == (0, "Hello\n")
    assert "Other processes that use this account aren't waited for" in done.err


def test_if_the_folder_cannot_be_written_others_are_not_waited_for(
    server: Server, state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = state_folder / "oa-protocol" / "slots"
    folder.mkdir(parents=True)
    may = os.access

    def access(path: str | os.PathLike[str], mode: int) -> bool:  # a superuser may do anything, so chmod is no test
        return path != folder and may(path, mode)

    monkeypatch.setattr(os, "access", access)
    done = oa_protocol("ask", "Hello", "--journal", "", env=credentials(server))
    assert (done.code, done.out) == (0, "Hello\n")
    assert done.err == (
        f"Other processes that use this account aren't waited for, because {folder}: Permission denied.\n"
    )
    assert list(folder.iterdir()) == []


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user has no home directory: no HOME, no XDG_STATE_HOME, and no entry in the list of users."""

    def getpwuid(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pytest.importorskip("pwd"), "getpwuid", getpwuid)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)


@pytest.mark.usefixtures("no_home")
def test_without_a_home_others_are_not_waited_for(server: Server, tmp_path: Path) -> None:
    said = "Other processes that use this account aren't waited for, because there is no home directory"
    prompts, out, journal = tmp_path / "in.txt", str(tmp_path / "out.jsonl"), str(tmp_path / "journal.sqlite3")
    prompts.write_text("Hello")
    done = oa_protocol("ask", "Hello", "--journal", "", env=credentials(server))
    assert (done.code, done.out, done.err.count(said)) == (0, "Hello\n", 1)
    done = oa_protocol("ask", "Hello", env=credentials(server) | {"OA_JOURNAL": journal})
    assert (done.code, done.out, done.err.count(said)) == (0, "Hello\n", 1)
    done = oa_protocol("bulk", str(prompts), out, "--journal", "", env=credentials(server))
    assert (done.code, done.err.count(said)) == (0, 1)
    done = oa_protocol("chat", "--journal", "", stdin="Hello\n", env=credentials(server))
    assert (done.code, done.out, done.err.count(said)) == (0, "Hello\n", 1)


@pytest.mark.usefixtures("no_home")
@pytest.mark.parametrize("command", [["ask", "Hello"], ["chat"], ["models"], ["sweep"], ["sweep", "--forget", "1"]])
def test_without_a_home_there_is_no_folder_for_the_journal(server: Server, command: list[str]) -> None:
    done = oa_protocol(*command, env=credentials(server))
    assert (done.code, done.out) == (2, "")
    assert done.err == "Error: there is no home directory: set HOME, XDG_STATE_HOME or OA_JOURNAL (for the journal)\n"
    assert server.requests == ()
