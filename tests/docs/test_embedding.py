"""Runs the page on embedding from its top to its end, as a reader would."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from oa_protocol import Cleanup, Conversation, Credentials, Phase, Website
from oa_protocol.engine.inputs import Prompt
from oa_protocol.server import Fault, Hang, Server
from tests.docs.readme import ROOT

PAGE = ROOT / "docs" / "embedding.md"
TEXT = PAGE.read_text(encoding="utf-8")
pytest_plugins = ["pytester"]
CODE = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_page_runs_and_leaves_no_chat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with Server() as server:
        cookies = [f"127.0.0.1\tFALSE\t/\tFALSE\t0\t{name}\t{value}\n" for name, value in server.cookies.items()]
        Path("cookies.txt").write_text("".join(cookies), "utf-8")
        names: dict[str, Any] = {"__name__": "page"}
        for code in CODE:
            exec(compile(code.replace("https://oa.example.org", server.url), PAGE.name, "exec"), names)
        assert [request.step for request in server.requests].count("events") == 3
        assert server.chats == ()
    assert "Phase.DELETED ()" in capsys.readouterr().out


@pytest.mark.clause("OA-7.2")
def test_the_page_s_test_passes_and_finds_a_driver_that_forgets_an_interruption(pytester: pytest.Pytester) -> None:
    good = "\n".join([*CODE[1:3], CODE[-1]])
    forgetful = good.replace("conversation.handle(inputs.Interrupted(), time.monotonic())", "pass")
    pytester.makepyfile(test_good=good, test_forgetful=forgetful.replace("range(1, 8)", "[2]"))
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    done.assert_outcomes(passed=7, failed=1)


def converse_through_the_page(server: Server, cleanup: Cleanup) -> Conversation:
    """Hold a conversation through the page's driver, and close it."""
    names: dict[str, Any] = {}
    for code in CODE[1:3]:
        exec(compile(code, PAGE.name, "exec"), names)
    conversation = Conversation(Website(server.url), Credentials(server.cookies), cleanup=cleanup)
    driver = names["Driver"](conversation)
    conversation.handle(Prompt("Hello"), time.monotonic())
    while driver.step() is not None:
        pass
    driver.close()
    return conversation


@pytest.mark.clause("OA-7.2")
def test_the_driver_of_the_page_ends_in_time_if_every_delete_hangs() -> None:
    with Server() as server:
        server.script(Fault("delete", before=Hang(), times=1000))
        conversation = converse_through_the_page(server, Cleanup(timeout=1.0))
        assert [leaked.chat_id for leaked in conversation.leaked] == [chat.id for chat in server.chats]


@pytest.mark.clause("OA-7.2")
def test_the_driver_of_the_page_deletes_the_chat_if_one_delete_hangs() -> None:
    with Server() as server:
        server.script(Fault("delete", before=Hang()))
        assert converse_through_the_page(server, Cleanup(timeout=6.0)).phase is Phase.DELETED
        assert server.chats == ()
