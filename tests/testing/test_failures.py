"""A failure of the kit shows what a user wrote, and nothing of the kit's own."""

from __future__ import annotations

import re

import pytest

pytest_plugins = ["pytester"]

WRONG = """
from hypothesis import Phase, settings
from oa_protocol import Conversation, Website
from oa_protocol.engine.inputs import Prompt
from oa_protocol.engine.intents import DeleteChat
from oa_protocol.testing import ConversationMachine, TransportConformance, play
from oa_protocol.transports.fast.httptools import HttptoolsTransport


class Raises(HttptoolsTransport):
    def __init__(self, far_end=None):
        super().__init__()

    async def open(self, request):
        raise KeyError("a bug of mine")


class TestSuite(TransportConformance):
    backends = ("asyncio",)

    def make(self, **options):
        return Raises(**options)


class Machine(ConversationMachine):
    faults = 0

    def make_transport(self, far_end):
        return Raises(far_end)


TestMachine = Machine.TestCase
TestMachine.settings = settings(deadline=None, database=None, derandomize=True, phases=[Phase.generate])


def test_playbook():
    play(Conversation(Website("http://oa.test"))) >> Prompt("Hello") << DeleteChat
"""


@pytest.mark.parametrize(
    ("test", "shown"),
    [
        ("test_open_returns_when_the_head_is_there", "KeyError: 'a bug of mine'"),
        ("TestMachine", "AssertionError: the transport's contract does not hold"),
        ("TestMachine", "=> it raises KeyError: 'a bug of mine'"),
        ("test_playbook", "- << DeleteChat"),
    ],
)
def test_a_failure_shows_no_frames_of_the_kit(pytester: pytest.Pytester, test: str, shown: str) -> None:
    pytester.makepyfile(test_wrong=WRONG)
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-k", test)
    told = done.stdout.str()
    assert shown in told
    assert not re.search(r"^\S*(oa_protocol/testing|asyncio|anyio)\S*:\d+: ", told, re.MULTILINE)
