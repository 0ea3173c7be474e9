"""A failure of the kit shows what a user wrote, and nothing of the kit's own."""

from __future__ import annotations

import re

import pytest

pytest_plugins = ["pytester"]

WRONG = """
import json
from hypothesis import Phase, settings
from oa_protocol import Conversation, Website
from oa_protocol.engine.inputs import Prompt
from oa_protocol.engine.intents import DeleteChat
from oa_protocol.testing import ConversationMachine, TransportConformance, play
from oa_protocol.transports.blocking import BlockingTransport
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


class Exchange:
    def begin(self):
        try:
            json.loads("not JSON")
        except ValueError as error:
            raise ExceptionGroup("a bug of mine", [error]) from error

    def close(self):
        pass


class Client:
    def exchange(self, request):
        return Exchange()

    def close(self):
        pass


class TestBlocking(TestSuite):
    def make(self, **options):
        return BlockingTransport(Client())


class Machine(ConversationMachine):
    faults = 0

    def make_transport(self, far_end):
        return Raises(far_end)


TestMachine = Machine.TestCase
TestMachine.settings = settings(deadline=None, database=None, derandomize=True, phases=[Phase.generate])


def test_playbook():
    play(Conversation(Website("http://oa.test"))) >> Prompt("Hello") << DeleteChat
"""


def shown_by(pytester: pytest.Pytester, test: str, *options: str) -> str:
    pytester.makepyfile(test_wrong=WRONG)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-k", test, *options).stdout.str()


@pytest.mark.parametrize(
    ("test", "shown"),
    [
        ("TestSuite and test_open_returns_when_the_head_is_there", "KeyError: 'a bug of mine'"),
        ("TestBlocking and test_open_returns_when_the_head_is_there", "ExceptionGroup: a bug of mine"),
        ("TestMachine", "AssertionError: the transport's contract does not hold"),
        ("TestMachine", "=> it raises KeyError: 'a bug of mine'"),
        ("test_playbook", "- << DeleteChat"),
    ],
)
def test_a_failure_shows_only_frames_of_the_user_s_files(pytester: pytest.Pytester, test: str, shown: str) -> None:
    told = shown_by(pytester, test)
    assert shown in told
    assert not re.search(r'(^|File ")\S*(oa_protocol/testing|/asyncio|/anyio|/json)/', told, re.MULTILINE)


def test_a_failure_shows_all_frames_if_pytest_is_asked_to(pytester: pytest.Pytester) -> None:
    told = shown_by(pytester, "TestBlocking and test_open_returns_when_the_head_is_there", "--full-trace")
    assert "json/decoder.py" in told
