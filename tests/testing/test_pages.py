"""The pages about failures that the pytest plugin writes."""

from __future__ import annotations

import pytest

from oa_protocol.testing import Line, Story

pytest_plugins = ["pytester"]

PLAYBOOK = """
from oa_protocol import *
from oa_protocol.testing.playbook import *

def test_it():
    conversation = Conversation(Website("http://oa.test"), Credentials({"session": "a-long-and-secret-cookie"}))
    play(conversation) >> Prompt("Hello") << CreateChat >> Unsent() << CreateChat
"""
EXPLORER = """
from oa_protocol import *
from oa_protocol.testing import Explorer

def test_it(monkeypatch):
    broken = lambda moment: ("guarantee", "a chat is left behind") if moment.intent else None
    monkeypatch.setattr("oa_protocol.testing.explorer.first_violation", broken)
    found = Explorer(Website("http://oa.test")).run()
    assert found.violation is None, found.violation
"""
MACHINE = """
from hypothesis import Phase, settings
from oa_protocol.testing import ConversationMachine

class Raises:
    def __init__(self, far_end):
        self.aclose = far_end.aclose

    async def open(self, request):
        raise KeyError("a bug of mine")

class Machine(ConversationMachine):
    faults = 0

    def make_transport(self, far_end):
        return Raises(far_end)

TestMachine = Machine.TestCase
TestMachine.settings = settings(deadline=None, database=None, derandomize=True, phases=[Phase.generate])
"""

FAILING = {
    "playbook": (PLAYBOOK, ["&lt;&lt; CreateChat", "<b>3</b>", "&gt;&gt; ExchangeFailed", "+ &lt;&lt; Pause(0.5)"]),
    "explorer": (EXPLORER, ["guarantee does not hold (website)", "a chat is left behind", "asks what to do"]),
    "machine": (
        MACHINE,
        ["the transport&#x27;s contract does not hold", "it raises KeyError: &#x27;a bug of mine&#x27;"],
    ),
}


def run(pytester: pytest.Pytester, test: str, *arguments: str) -> list[str]:
    """Run a failing test, and return the pages that it writes."""
    pytester.makepyfile(test)
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)
    done.assert_outcomes(failed=1)
    return [path.read_text("utf-8") for path in pytester.path.glob("pages/*.html")]


@pytest.mark.parametrize("kind", FAILING)
def test_a_failure_has_a_page(pytester: pytest.Pytester, kind: str) -> None:
    test, words = FAILING[kind]
    (page,) = run(pytester, test, "--oa-html=pages")
    assert [word for word in words if word not in page] == []
    assert "a-long-and-secret-cookie" not in page


def test_without_the_option_there_is_no_page(pytester: pytest.Pytester) -> None:
    assert run(pytester, PLAYBOOK) == []


def test_a_test_that_fails_for_another_reason_has_no_page(pytester: pytest.Pytester) -> None:
    caught = PLAYBOOK.replace("    play(", "    with pytest.raises(AssertionError):\n        play(")
    assert run(pytester, f"import pytest\n{caught}    assert False, 'something else'", "--oa-html=pages") == []


def test_a_story_of_several_conversations_shows_the_way_of_the_last() -> None:
    lines = (
        Line("owner 1", "prompts", "START"),
        Line("network 2", "CreateChat is answered by the server", "CHAT_CREATED"),
        Line("network 1", "CreateChat is lost on its way", "LEAKED"),
    )
    page = Story("website", "guarantee", "a chat isn't named", lines).to_html()
    assert "The way through the phases: START, LEAKED" in page
    assert "owner 1: prompts" in page
    assert page.count('class="fault"') == 1
