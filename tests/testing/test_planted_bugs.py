"""The explorer finds bugs: each test plants one into the shipped engine, and reads the shortest story that shows it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace
from oa_protocol.engine.turn import Turn

from oa_protocol.bindings.base import Binding
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.json import Chat
from oa_protocol.bindings.replies import Reply
from oa_protocol.bindings.website import Website
from oa_protocol.engine import conversation as engine
from oa_protocol.engine import events as ev
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import MaybeSent, NotSent, OAError, TransportError
from oa_protocol.engine.intents import (
    CreateChat,
    DeleteChat,
    Exchange,
    Intent,
    ListChats,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import Phase, Trigger
from oa_protocol.testing import Explorer
from oa_protocol.testing._model.invariants import INVARIANTS

pytestmark = pytest.mark.once

# The engine's own names are patched here, so that a test says in one line what the bug is.
Patch = pytest.MonkeyPatch
Outcome = Reply | TransportError
Events = list[ev.Event]

WEBSITE, INFERENCE = Website("http://oa.test"), InferenceServer("http://oa.test")


def judge(patch: Patch, phase: Phase, kind: type[Exchange], judged: Callable[[Any, Outcome, Events], None]) -> None:
    patch.setitem(getattr(Conversation, "_JUDGES"), (phase, kind), judged)  # noqa: B009 - nobody else's business


def always(value: object) -> Callable[..., object]:
    return lambda *_given, **_named: value


def method(name: str) -> Any:
    return getattr(Conversation, name)


def not_shielded(patch: Patch, kind: type[Exchange]) -> None:
    decide: Callable[[Any], Intent | None] = method("_decide")

    def unshielded(self: Conversation) -> Intent | None:
        intent = decide(self)
        return replace(intent, shielded=False) if isinstance(intent, kind) else intent

    patch.setattr(Conversation, "_decide", unshielded)


def create_not_shielded(patch: Patch) -> None:
    not_shielded(patch, CreateChat)


def delete_not_shielded(patch: Patch) -> None:
    not_shielded(patch, DeleteChat)


def no_drain(patch: Patch) -> None:
    close = Conversation.close

    def at_once(self: Conversation, *, drain: bool = True) -> Events:
        return close(self, drain=False)

    patch.setattr(Conversation, "close", at_once)


def drain_never_ends(patch: Patch) -> None:
    close = Conversation.close

    def never_at_once(self: Conversation, *, drain: bool = True) -> Events:
        return close(self)

    patch.setattr(Conversation, "close", never_at_once)


def drain_sees_nothing_in_the_chat(patch: Patch) -> None:
    patch.setattr(Turn, "is_running", always(False))


def a_website_500_is_taken_for_deleted(patch: Patch) -> None:
    def is_deleted(self: Website, status: int, body: bytes) -> bool:
        return status in (200, 500)

    patch.setattr(Website, "is_deleted", is_deleted)


def any_200_is_taken_for_deleted(patch: Patch) -> None:
    def is_deleted(self: Website, status: int, body: bytes) -> bool:
        return status == 200

    patch.setattr(Website, "is_deleted", is_deleted)


def a_website_404_is_believed_without_the_list(patch: Patch) -> None:
    patch.setattr(Website, "list_confirms_gone", False)


def any_404_is_believed(patch: Patch) -> None:
    def is_not_found(self: InferenceServer, status: int, body: bytes) -> bool:
        return status == 404

    patch.setattr(InferenceServer, "is_not_found", is_not_found)


def a_list_is_believed_unread(patch: Patch) -> None:
    judge(patch, Phase.DELETE_UNCLEAR, ListChats, lambda self, _, events: self._gone(events))


def stream_opened_again_after_a_loss(patch: Patch) -> None:
    def again(self: Any, outcome: Outcome, events: Events) -> None:
        self._try_again(OAError("lost"))

    judge(patch, Phase.ASSISTANT_REQUESTED, OpenStream, again)


def prompt_sent_again_without_looking(patch: Patch) -> None:
    honest = getattr(Conversation, "_JUDGES")[Phase.CHAT_CREATED, SendPrompt]  # noqa: B009

    def again(self: Any, outcome: Outcome, events: Events) -> None:
        if isinstance(outcome, TransportError):
            self._try_again(outcome)
        else:
            honest(self, outcome, events)

    judge(patch, Phase.CHAT_CREATED, SendPrompt, again)


def a_lost_delete_is_sent_again_without_looking(patch: Patch) -> None:
    honest = getattr(Conversation, "_JUDGES")[Phase.DELETING, DeleteChat]  # noqa: B009

    def again(self: Any, outcome: Outcome, events: Events) -> None:
        if isinstance(outcome, MaybeSent):
            self._delete_again(events)
        else:
            honest(self, outcome, events)

    judge(patch, Phase.DELETING, DeleteChat, again)


def no_delay(patch: Patch) -> None:
    patch.setattr(engine, "_back_off", always(0.0))


def no_delay_is_handed_out(patch: Patch) -> None:
    decide: Callable[[Any], Intent | None] = method("_decide")

    def at_once(self: Conversation) -> Intent | None:
        intent = decide(self)
        return replace(intent, delay=0.0) if isinstance(intent, Exchange) else intent

    patch.setattr(Conversation, "_decide", at_once)


def retry_after_is_ignored(patch: Patch) -> None:
    patch.setattr(engine, "_retry_after", always(0.0))


def a_long_retry_after_is_waited_for(patch: Patch) -> None:
    patch.setattr(engine, "_LONGEST_RETRY_AFTER", 1e9)


def a_delete_is_looked_for_before_its_retry_after(patch: Patch) -> None:
    honest = getattr(Conversation, "_JUDGES")[Phase.DELETING, DeleteChat]  # noqa: B009

    def at_once(self: Any, outcome: Outcome, events: Events) -> None:
        honest(self, outcome, events)
        if isinstance(outcome, Reply):
            self._delay = 0.0

    judge(patch, Phase.DELETING, DeleteChat, at_once)


def silence_is_ignored(patch: Patch) -> None:
    patch.setattr(Conversation, "receive_silence", always([]))


def a_silent_stream_is_left_open(patch: Patch) -> None:
    decide: Callable[[Any], Intent | None] = method("_decide")

    def leave_open(self: Any) -> Intent | None:
        if self.phase is Phase.POLLING:
            self._decoder = None
        intent: Intent | None = decide(self)
        return intent

    patch.setattr(Conversation, "_decide", leave_open)


def patience_is_ignored(patch: Patch) -> None:
    patch.setattr(Conversation, "answer_timed_out", always([]))


def request_sent_again_without_looking(patch: Patch) -> None:
    honest = getattr(Conversation, "_JUDGES")[Phase.PROMPTED, RequestAssistant]  # noqa: B009

    def again(self: Any, outcome: Outcome, events: Events) -> None:
        if isinstance(outcome, TransportError):
            self._try_again(outcome)
        else:
            honest(self, outcome, events)

    judge(patch, Phase.PROMPTED, RequestAssistant, again)


def what_a_503_left_behind_is_adopted(patch: Patch) -> None:
    def newest(self: Turn, chat: Chat) -> str | None:
        return max(
            (m.id for m in chat.messages if m.role == "assistant" and m.parent_id == self.prompt_id), default=None
        )

    patch.setattr(Turn, "find_answer", newest)


def no_answer_is_adopted(patch: Patch) -> None:
    patch.setattr(Turn, "find_answer", always(None))


def a_prompt_is_known_by_its_text_alone(patch: Patch) -> None:
    def any_parent(self: Turn, chat: Chat) -> str | None:
        return max((m.id for m in chat.messages if m.role == "prompter" and m.content == self.prompt), default=None)

    patch.setattr(Turn, "find_prompt", any_parent)


def a_clean_end_is_taken_for_success(patch: Patch) -> None:
    end = Conversation.receive_stream_end

    def well_ended(self: Any) -> Events:
        if self.phase is not Phase.STREAMING:
            return end(self)
        self._decoder = None
        self._move(Trigger.ANSWERED)
        turn, self._turn = self._turn, None
        message = ev.Message(id=turn.message_id, role="assistant", state="complete", content=turn.text)
        return [ev.Answered(message)]

    patch.setattr(Conversation, "receive_stream_end", well_ended)


def pending_is_believed_for_ever(patch: Patch) -> None:
    patch.setattr(engine, "_PENDINGS_PER_CHECK", 10**9)


def pings_are_believed_for_ever(patch: Patch) -> None:
    patch.setattr(engine, "_KEEPALIVES_PER_CHECK", 10**9)


def the_final_text_is_ignored(patch: Patch) -> None:
    patch.setattr(Turn, "reconcile", always([]))


def tries_without_bound(patch: Patch) -> None:
    try_again = method("_try_again")

    def as_if_first(self: Any, *given: object) -> None:
        self._tries = 1
        try_again(self, *given)

    patch.setattr(Conversation, "_try_again", as_if_first)


def deletes_without_bound(patch: Patch) -> None:
    def again(self: Any, events: Events) -> None:
        self._delay = 0.5

    patch.setattr(Conversation, "_delete_again", again)


def an_unclear_create_is_not_recorded(patch: Patch) -> None:
    record = method("_record")

    def forgetful(self: Conversation, chat_id: str | None, *rest: object) -> None:
        if chat_id or self.outstanding:  # one that is abandoned is
            record(self, chat_id, *rest)

    patch.setattr(Conversation, "_record", forgetful)


def abandoned_without_a_record(patch: Patch) -> None:
    def leak(self: Any, reason: str, events: Events) -> None:
        self._move(Trigger.LEAK)

    patch.setattr(Conversation, "_leak", leak)


def lost_and_busy_are_mixed_up(patch: Patch) -> None:
    def is_unclear(outcome: Outcome) -> bool:
        return isinstance(outcome, Reply) and outcome.status == 503

    patch.setattr(engine, "_is_unclear", is_unclear)


def every_failure_is_taken_for_not_sent(patch: Patch) -> None:
    receive = Conversation.receive_failure

    def not_sent(self: Conversation, failure: TransportError) -> Events:
        return receive(self, NotSent(str(failure)))

    patch.setattr(Conversation, "receive_failure", not_sent)


def something_is_sent_after_deleted(patch: Patch) -> None:
    following = method("_next_exchange")

    def one_more(self: Conversation) -> type[Exchange] | None:
        return DeleteChat if self.phase is Phase.DELETED else following(self)

    patch.setattr(Conversation, "_next_exchange", one_more)


def a_failed_conversation_is_never_cleaned_up(patch: Patch) -> None:
    advance = method("_advance")

    def not_when_failed(self: Conversation, events: Events) -> None:
        if self.phase is not Phase.FAILED:
            advance(self, events)

    patch.setattr(Conversation, "_advance", not_when_failed)


def a_lost_delete_raises(patch: Patch) -> None:
    honest = getattr(Conversation, "_JUDGES")[Phase.DELETING, DeleteChat]  # noqa: B009

    def raises(self: Any, outcome: Outcome, events: Events) -> None:
        if isinstance(outcome, MaybeSent):
            raise KeyError("status")
        honest(self, outcome, events)

    judge(patch, Phase.DELETING, DeleteChat, raises)


@dataclass(frozen=True)
class Planted:
    """A bug, and what is to be found: the broken promise, the decisive step, and how short the story is."""

    bug: Callable[[Patch], None]
    invariant: str
    decisive: str
    steps: int
    binding: Binding = WEBSITE
    faults: int = 1


PLANTED = [
    Planted(an_unclear_create_is_not_recorded, "guarantee", "CreateChat is carried out, its reply is lost", 6),
    Planted(abandoned_without_a_record, "guarantee", "abandons", 7),
    Planted(lost_and_busy_are_mixed_up, "guarantee", "CreateChat is carried out", 9),
    Planted(something_is_sent_after_deleted, "nothing_after_the_end", "asks what to do: DeleteChat", 10),
    Planted(a_website_500_is_taken_for_deleted, "gone_is_gone", "DeleteChat is answered with 500", 9),
    Planted(any_200_is_taken_for_deleted, "gone_is_gone", "200 and garbage", 9),
    Planted(a_website_404_is_believed_without_the_list, "gone_is_gone", "FetchChat is answered with 404", 9),
    Planted(any_404_is_believed, "gone_is_gone", "is answered with 404", 9, INFERENCE),
    Planted(a_list_is_believed_unread, "gone_is_gone", "FetchChat is answered with 404", 11),
    Planted(tries_without_bound, "bounded_tries", "CreateChat is not sent", 9, faults=2),
    Planted(deletes_without_bound, "bounded_tries", "DeleteChat is not sent", 11),
    Planted(stream_opened_again_after_a_loss, "one_reader", "OpenStream is lost", 12),
    Planted(prompt_sent_again_without_looking, "looks_before_sending_again", "SendPrompt is lost", 7),
    Planted(request_sent_again_without_looking, "looks_before_sending_again", "RequestAssistant is lost", 9),
    Planted(a_lost_delete_is_sent_again_without_looking, "looks_before_deleting_again", "DeleteChat is lost", 9),
    Planted(no_delay, "waits_before_trying_again", "CreateChat is not sent", 5),
    Planted(no_delay_is_handed_out, "waits_before_trying_again", "CreateChat is not sent", 5),
    Planted(retry_after_is_ignored, "waits_before_trying_again", "retry-after: 3600", 5),
    Planted(a_long_retry_after_is_waited_for, "waits_before_trying_again", "retry-after: 3600", 5),
    Planted(a_delete_is_looked_for_before_its_retry_after, "waits_before_trying_again", "retry-after: 7", 9),
    Planted(silence_is_ignored, "polls_a_silent_stream", "falls silent", 12),
    Planted(a_silent_stream_is_left_open, "polls_a_silent_stream", "falls silent", 13),
    Planted(patience_is_ignored, "fails_when_patience_ends", "loses patience with the answer", 12, faults=0),
    Planted(every_failure_is_taken_for_not_sent, "guarantee", "CreateChat is carried out, its reply is lost", 6),
    Planted(what_a_503_left_behind_is_adopted, "adopts_what_is_there", "is refused with 503", 14, faults=2),
    Planted(no_answer_is_adopted, "adopts_what_is_there", "RequestAssistant is carried out", 12),
    Planted(a_prompt_is_known_by_its_text_alone, "adopts_what_is_there", "SendPrompt is lost", 26),
    Planted(drain_never_ends, "ends", "closes without draining", 12),
    Planted(a_failed_conversation_is_never_cleaned_up, "ends", "closes", 10),
    Planted(pending_is_believed_for_ever, "looks_while_it_waits", "streams ten pending events", 13, faults=0),
    Planted(pings_are_believed_for_ever, "looks_while_it_waits", "streams three pings", 16, faults=0),
    Planted(a_clean_end_is_taken_for_success, "success_is_the_truth", "ends the stream, cleanly", 13),
    Planted(the_final_text_is_ignored, "success_is_the_truth", "finishes", 16, faults=0),
    Planted(no_drain, "drains_first", "RequestAssistant is answered by the server", 9, faults=0),
    Planted(drain_sees_nothing_in_the_chat, "drains_first", "FetchChat", 12),
    Planted(create_not_shielded, "shields", "asks what to do: CreateChat", 3),
    Planted(delete_not_shielded, "shields", "asks what to do: DeleteChat", 6, INFERENCE),
    Planted(a_lost_delete_raises, "never_raises", "DeleteChat is lost", 8),
]


@contextmanager
def planted(bug: Callable[[Patch], None]) -> Generator[None]:
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        yield


def test_every_invariant_has_a_bug_that_breaks_it() -> None:
    assert {case.invariant for case in PLANTED} == {invariant.__name__ for invariant in INVARIANTS} | {"never_raises"}


@pytest.mark.parametrize("case", PLANTED, ids=lambda case: case.bug.__name__)
def test_a_planted_bug_is_found(case: Planted, record_property: Callable[[str, object], None]) -> None:
    with planted(case.bug):
        found = Explorer(case.binding, faults=case.faults).run()
    story = found.violation
    print(f"{case.bug.__name__}: {found.states:,} states\n{story}")
    assert story is not None
    record_property("steps", len(story.lines))
    assert story.invariant == case.invariant
    assert story.mentions(case.decisive)
    assert len(story.lines) <= case.steps
