"""The thread pool's conversations, each with a chat of its own."""

from __future__ import annotations

import pytest

from oa_protocol import AnswerFailed, sync
from oa_protocol.engine.events import Event, Token
from oa_protocol.server import Answer, Hold, WorkerError
from tests.examples import thread_pool
from tests.examples.running import PATIENT, Site

pytestmark = pytest.mark.clause("OA-7.2")


class Boom(Exception):
    pass


def client_of(site: Site) -> sync.Client:
    return sync.Client(site.server.url, cleanup=PATIENT, **site.access)


def test_a_conversation_of_two_turns(site: Site) -> None:
    site.script(Answer(pieces=("One ", "two.")), Answer(pieces=("Three.",)))
    answers = thread_pool.converse_all(client_of(site), [["Count", "And on"]], print)
    assert answers == [["One two.", "Three."]]
    assert site.chats == ()


def test_an_exception_in_the_middle_of_an_answer(site: Site) -> None:
    def fail(event: Event) -> None:
        if isinstance(event, Token):
            raise Boom

    site.script(Answer(pieces=("One ", "two.")))
    with pytest.raises(Boom):
        thread_pool.converse_all(client_of(site), [["Count"]], fail)
    assert site.chats == ()


def test_a_conversation_that_fails_ends_those_beside_it(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ",), after=1, then=WorkerError("out of memory")), Answer(then=hold))

    def await_the_other(event: Event) -> None:
        if isinstance(event, Token):
            site.server.wait_until(lambda: site.server.unused_faults == ())

    with pytest.raises(AnswerFailed, match="out of memory"):
        thread_pool.converse_all(client_of(site), [["Count"], ["And wait"]], await_the_other)
    hold.release()
