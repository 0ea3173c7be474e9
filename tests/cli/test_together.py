"""Several processes that use one account at the same time."""

from __future__ import annotations

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
