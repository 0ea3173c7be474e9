"""The explorer finds bugs. Each test plants one in the shipped engine, and reads the shortest story that shows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.json import ChatSnapshot
from oa_protocol.bindings.replies import Reply
from oa_protocol.bindings.website import Website
from oa_protocol.engine import events as ev
from oa_protocol.engine import moves, steps
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import MaybeSent, NotSent, OAError, TransportError
from oa_protocol.engine.inputs import Close, ExchangeFailed, Input, StreamEnded
from oa_protocol.engine.intents import (
    CreateChat,
    DeleteChat,
    Exchange,
    HttpRequest,
    Intent,
    ListChats,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import Phase, Trigger
from oa_protocol.engine.state import Leaving, Turn
from oa_protocol.testing import Explorer
from oa_protocol.testing._model.invariants import INVARIANTS

pytestmark = pytest.mark.once

# The engine's own names are patched here, so that a test says in one line what the bug is.
Patch = pytest.MonkeyPatch
Outcome = Reply | TransportError
Events = list[ev.Event]
Handler = Callable[[Any, Any, Events], None]

WEBSITE, INFERENCE = Website("http://oa.test"), InferenceServer("http://oa.test")


def always(value: object) -> Callable[..., object]:
    return lambda *_given, **_named: value


def method(name: str) -> Any:
    return getattr(Conversation, name)


def honest(phase: Phase, kind: type[Exchange]) -> Handler:
    return next(step.handler for step in steps.STEPS[phase] if step.kind is kind)


def on(patch: Patch, phase: Phase, kind: type[Exchange], handler: Handler) -> None:
    """Let ``handler`` take what comes of this exchange in this phase."""
    row = [step._replace(handler=handler) if step.kind is kind else step for step in steps.STEPS[phase]]
    patch.setitem(steps.STEPS, phase, row)


def on_loss(patch: Patch, phase: Phase, kind: type[Exchange], handler: Handler) -> None:
    """Let ``handler`` take the loss of this exchange in this phase."""
    otherwise = honest(phase, kind)

    def take(self: Any, outcome: Outcome, events: Events) -> None:
        (handler if isinstance(outcome, MaybeSent) else otherwise)(self, outcome, events)

    on(patch, phase, kind, take)


def after(patch: Patch, name: str, change: Callable[[Any], None]) -> None:
    """Change something whenever this method was called."""
    original = method(name)

    def changed(self: Conversation, *given: object, **named: object) -> object:
        result = original(self, *given, **named)
        change(self)
        return result

    patch.setattr(Conversation, name, changed)


def instead(patch: Patch, name: str, does: Callable[[Any, Any], None]) -> None:
    """Let a method that takes one argument do something else."""
    patch.setattr(Conversation, name, does)


def mistaken(patch: Patch, take_for: Callable[[Any, Input], Input]) -> None:
    """Take each input for another one."""
    handle = Conversation.handle

    def mistaking(self: Conversation, happened: Input, now: float) -> Events:
        return handle(self, take_for(self, happened), now)

    patch.setattr(Conversation, "handle", mistaking)


# ---- cleanup


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
    mistaken(patch, lambda _, happened: Close(drain=False) if isinstance(happened, Close) else happened)


def the_owner_cannot_end_the_drain(patch: Patch) -> None:
    mistaken(patch, lambda _, happened: Close() if isinstance(happened, Close) else happened)


def the_drain_ends_only_with_the_cleanup(patch: Patch) -> None:
    def drain_on(self: Any) -> None:
        if not self._clock.has_come(self._leaving.drained):
            self._leaving.drained = self._leaving.ends

    after(patch, "_leave", drain_on)


def drain_sees_nothing_in_the_chat(patch: Patch) -> None:
    patch.setattr(Turn, "is_running", always(False))


def the_deadline_of_the_cleanup_is_forgotten(patch: Patch) -> None:
    def take_all_the_time(self: Any) -> None:
        self._leaving.ends = math.inf

    after(patch, "_leave", take_all_the_time)


def each_close_begins_the_cleanup_anew(patch: Patch) -> None:
    def begin_anew(self: Any) -> None:
        now, cleanup = self._clock.elapsed, self.settings.cleanup
        self._leaving = Leaving(now + cleanup.timeout, self._leaving.drained)

    after(patch, "_leave", begin_anew)


def the_end_of_the_cleanup_is_ignored(patch: Patch) -> None:
    abandon = method("_abandon")

    def only_for_the_owner(self: Any, events: Events) -> None:
        if self._leaving is None or not self._clock.has_come(self._leaving.ends):
            abandon(self, events)

    patch.setattr(Conversation, "_abandon", only_for_the_owner)


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
    on(patch, Phase.DELETE_UNCLEAR, ListChats, lambda self, _, events: self._gone(events))


def a_lost_delete_is_sent_again_without_looking(patch: Patch) -> None:
    on_loss(patch, Phase.DELETING, DeleteChat, lambda self, _, events: self._delete_again(events))


def a_lost_delete_raises(patch: Patch) -> None:
    def fails(self: Any, outcome: Outcome, events: Events) -> None:
        raise KeyError("status")

    on_loss(patch, Phase.DELETING, DeleteChat, fails)


def deletes_without_bound(patch: Patch) -> None:
    instead(patch, "_delete_again", lambda self, _: self._pause(0.5))


def a_delete_is_looked_for_before_its_retry_after(patch: Patch) -> None:
    def at_once(self: Any, outcome: Outcome, events: Events) -> None:
        otherwise(self, outcome, events)
        if isinstance(outcome, Reply):
            self._pause(0.0)

    otherwise = honest(Phase.DELETING, DeleteChat)
    on(patch, Phase.DELETING, DeleteChat, at_once)


def a_chat_that_is_still_there_is_deleted_again_at_once(patch: Patch) -> None:
    def at_once(self: Any, events: Events) -> None:
        still_there(self, events)
        if not self.is_over:
            self._pause(0.0)

    still_there = method("_still_there")
    patch.setattr(Conversation, "_still_there", at_once)


def abandoned_without_a_record(patch: Patch) -> None:
    def leak(self: Any, reason: str, events: Events) -> None:
        self._move(Trigger.LEAK)

    patch.setattr(Conversation, "_leak", leak)


def something_is_sent_after_deleted(patch: Patch) -> None:
    patch.setitem(steps.STEPS, Phase.DELETED, steps.STEPS[Phase.DELETING])


def a_failed_conversation_is_never_cleaned_up(patch: Patch) -> None:
    advance = method("_advance")

    def not_when_failed(self: Conversation, events: Events) -> None:
        if self.phase is not Phase.FAILED:
            advance(self, events)

    patch.setattr(Conversation, "_advance", not_when_failed)


# ---- what was lost


def stream_opened_again_after_a_loss(patch: Patch) -> None:
    on(patch, Phase.ASSISTANT_REQUESTED, OpenStream, lambda self, _, _events: self._try_again(OAError("lost")))


def prompt_sent_again_without_looking(patch: Patch) -> None:
    on_loss(patch, Phase.CHAT_CREATED, SendPrompt, lambda self, outcome, _: self._try_again(outcome))


def request_sent_again_without_looking(patch: Patch) -> None:
    on_loss(patch, Phase.PROMPTED, RequestAssistant, lambda self, outcome, _: self._try_again(outcome))


def an_interrupted_request_is_sent_again_without_looking(patch: Patch) -> None:
    patch.setattr(Conversation, "_give_up", always(None))


def what_a_503_left_behind_is_adopted(patch: Patch) -> None:
    def newest(self: Turn, chat: ChatSnapshot) -> str | None:
        return max(
            (m.id for m in chat.messages if m.role == "assistant" and m.parent_id == self.prompt_id), default=None
        )

    patch.setattr(Turn, "find_answer", newest)


def no_answer_is_adopted(patch: Patch) -> None:
    patch.setattr(Turn, "find_answer", always(None))


def a_prompt_is_known_by_its_text_alone(patch: Patch) -> None:
    def any_parent(self: Turn, chat: ChatSnapshot) -> str | None:
        return max((m.id for m in chat.messages if m.role == "prompter" and m.content == self.prompt), default=None)

    patch.setattr(Turn, "find_prompt", any_parent)


def an_earlier_answer_is_adopted(patch: Patch) -> None:
    def any_answer(self: Turn, chat: ChatSnapshot) -> str:
        return max(message.id for message in chat.messages if message.parent_id == self.prompt_id)

    patch.setattr(Turn, "find_answer", any_answer)


def a_kept_chat_is_deleted(patch: Patch) -> None:
    def delete(self: Conversation, _: object) -> None:
        self._delete()  # pyright: ignore[reportPrivateUsage]

    patch.setattr(Conversation, "_keep", delete)


def an_unclear_create_is_not_recorded(patch: Patch) -> None:
    name_leak = method("_name_leak")

    def forgetful(self: Conversation, chat_id: str | None, *rest: object) -> None:
        if chat_id or self.outstanding:  # one that is abandoned is
            name_leak(self, chat_id, *rest)

    patch.setattr(Conversation, "_name_leak", forgetful)


def lost_and_busy_are_mixed_up(patch: Patch) -> None:
    def is_unclear(outcome: Outcome) -> bool:
        return isinstance(outcome, Reply) and outcome.status == 503

    patch.setattr(steps, "_is_unclear", is_unclear)


def every_failure_is_taken_for_not_sent(patch: Patch) -> None:
    def not_sent(_: object, happened: Input) -> Input:
        return ExchangeFailed(NotSent(str(happened.failure))) if isinstance(happened, ExchangeFailed) else happened

    mistaken(patch, not_sent)


def tries_without_bound(patch: Patch) -> None:
    try_again = method("_try_again")

    def as_if_first(self: Any, *given: object) -> None:
        self._attempt.tries = 1
        try_again(self, *given)

    patch.setattr(Conversation, "_try_again", as_if_first)


# ---- requests


def every_prompt_is_sent_as_the_first_one(patch: Patch) -> None:
    send_prompt = Website.send_prompt

    def without_parent(self: Website, credentials: Credentials, chat_id: str, _: object, content: str) -> HttpRequest:
        return send_prompt(self, credentials, chat_id, None, content)

    patch.setattr(Website, "send_prompt", without_parent)


def the_answer_is_requested_under_the_chat(patch: Patch) -> None:
    request_assistant = Website.request_assistant

    def under_the_chat(
        self: Website, credentials: Credentials, chat_id: str, _: object, options: AnswerOptions
    ) -> HttpRequest:
        return request_assistant(self, credentials, chat_id, chat_id, options)

    patch.setattr(Website, "request_assistant", under_the_chat)


# ---- time


def a_hung_exchange_has_no_deadline(patch: Patch) -> None:
    patch.setattr(Conversation, "_ends_of", always(math.inf))


def an_attempt_may_take_all_the_time(patch: Patch) -> None:
    ends_of = method("_ends_of")

    def all_the_time(self: Any, intent: Intent) -> float:
        return float(self._leaving.ends if isinstance(intent, DeleteChat) else ends_of(self, intent))

    patch.setattr(Conversation, "_ends_of", all_the_time)


def a_hung_exchange_is_never_settled(patch: Patch) -> None:
    patch.setattr(Conversation, "_expire", always(None))


def a_hung_request_is_taken_for_not_sent(patch: Patch) -> None:
    def expire(self: Any, exchange: Exchange, patience: float, events: Events) -> None:
        self._outstanding = None
        self._settle(exchange, NotSent("no reply"), events)

    patch.setattr(Conversation, "_expire", expire)


def no_delay(patch: Patch) -> None:
    patch.setattr(moves, "_back_off", always(0.0))


def pauses_are_ignored(patch: Patch) -> None:
    patch.setattr(Conversation, "_pause", always(None))


def retry_after_is_ignored(patch: Patch) -> None:
    patch.setattr(moves, "retry_after", always(0.0))


def a_long_retry_after_is_waited_for(patch: Patch) -> None:
    patch.setattr(moves, "LONGEST_RETRY_AFTER", 1e9)


def a_failed_turn_keeps_its_pause(patch: Patch) -> None:
    fail = method("_fail")

    def keep(self: Any, *given: object) -> None:
        attempt = self._attempt
        fail(self, *given)
        self._attempt = attempt

    patch.setattr(Conversation, "_fail", keep)


def an_interrupted_read_goes_on(patch: Patch) -> None:
    patch.setattr(Conversation, "_interrupt", always(None))


def a_silent_stream_has_no_deadline(patch: Patch) -> None:
    patch.setattr(Conversation, "_silence_ends", math.inf)


def silence_is_ignored(patch: Patch) -> None:
    lose_stream = method("_lose_stream")

    def unless_it_is_silent(self: Any) -> None:
        if self._stream is None:
            lose_stream(self)

    patch.setattr(Conversation, "_lose_stream", unless_it_is_silent)


def a_silent_stream_is_left_open(patch: Patch) -> None:
    def leave_open(self: Any) -> None:
        self._stream = None

    after(patch, "_lose_stream", leave_open)


def the_end_of_the_answers_time_is_ignored(patch: Patch) -> None:
    patch.setattr(Conversation, "_give_up_on_answer", always(None))


# ---- the stream and the answer


def a_clean_end_is_taken_for_success(patch: Patch) -> None:
    handle = Conversation.handle

    def well_ended(self: Any, happened: Input, now: float) -> Events:
        if self.phase is not Phase.STREAMING or not isinstance(happened, StreamEnded):
            return handle(self, happened, now)
        self._stream = None
        self._move(Trigger.ANSWERED)
        turn, self._turn = self._turn, None
        message = ev.Message(id=turn.message_id, role="assistant", state="complete", content=turn.text)
        return [ev.Answered(message)]

    patch.setattr(Conversation, "handle", well_ended)


def pending_is_believed_for_good(patch: Patch) -> None:
    patch.setattr(steps, "_PENDINGS_PER_CHECK", 10**9)


def pings_are_believed_for_good(patch: Patch) -> None:
    patch.setattr(steps, "_KEEPALIVES_PER_CHECK", 10**9)


def the_final_text_is_ignored(patch: Patch) -> None:
    patch.setattr(Turn, "reconcile", always([]))


@dataclass(frozen=True)
class Planted:
    """A bug, and what is to be found: the broken promise, the decisive step, and how short the story is."""

    bug: Callable[[Patch], None]
    invariant: str
    decisive: str
    steps: int
    binding: Binding = WEBSITE
    faults: int = 1
    existing: bool = False


PLANTED = [
    Planted(an_unclear_create_is_not_recorded, "guarantee", "CreateChat is carried out", 4),
    Planted(abandoned_without_a_record, "guarantee", "abandons", 5),
    Planted(lost_and_busy_are_mixed_up, "guarantee", "CreateChat is carried out", 5),
    Planted(something_is_sent_after_deleted, "nothing_after_the_end", "asks what to do: DeleteChat", 8),
    Planted(a_website_500_is_taken_for_deleted, "gone_is_gone", "DeleteChat is answered with 500", 7),
    Planted(any_200_is_taken_for_deleted, "gone_is_gone", "200 and garbage", 7),
    Planted(a_website_404_is_believed_without_the_list, "gone_is_gone", "FetchChat is answered with 404", 9),
    Planted(any_404_is_believed, "gone_is_gone", "is answered with 404", 7, INFERENCE),
    Planted(a_list_is_believed_unread, "gone_is_gone", "FetchChat is answered with 404", 11),
    Planted(tries_without_bound, "bounded_tries", "CreateChat is not sent", 11, faults=2),
    Planted(deletes_without_bound, "bounded_tries", "DeleteChat is lost", 18),
    Planted(stream_opened_again_after_a_loss, "one_reader", "OpenStream is lost", 13),
    Planted(prompt_sent_again_without_looking, "looks_before_sending_again", "SendPrompt is lost", 9),
    Planted(request_sent_again_without_looking, "drains_first", "RequestAssistant is carried out", 9),
    Planted(a_lost_delete_is_sent_again_without_looking, "looks_before_deleting_again", "DeleteChat is lost", 10),
    Planted(no_delay, "waits_before_trying_again", "CreateChat is not sent", 5),
    Planted(pauses_are_ignored, "waits_before_trying_again", "CreateChat is not sent", 5),
    Planted(retry_after_is_ignored, "waits_before_trying_again", "retry-after: 3600", 7),
    Planted(a_long_retry_after_is_waited_for, "waits_before_trying_again", "retry-after: 3600", 7),
    Planted(a_delete_is_looked_for_before_its_retry_after, "waits_before_trying_again", "retry-after: 2", 8),
    Planted(silence_is_ignored, "polls_a_silent_stream", "falls silent", 12),
    Planted(a_silent_stream_is_left_open, "polls_a_silent_stream", "falls silent", 13),
    Planted(the_end_of_the_answers_time_is_ignored, "fails_when_its_time_is_over", "time passes", 17),
    Planted(a_hung_exchange_has_no_deadline, "has_a_deadline", "CreateChat", 3, faults=0),
    Planted(a_silent_stream_has_no_deadline, "has_a_deadline", "asks what to do: nothing", 11, faults=0),
    Planted(a_failed_turn_keeps_its_pause, "has_a_deadline", "time passes", 22),
    Planted(a_hung_exchange_is_never_settled, "never_busy", "CreateChat hangs", 5),
    Planted(a_chat_that_is_still_there_is_deleted_again_at_once, "never_busy", "DeleteChat", 20),
    Planted(a_hung_request_is_taken_for_not_sent, "guarantee", "CreateChat hangs, and is carried out", 6),
    Planted(an_attempt_may_take_all_the_time, "leaves_time_for_others", "asks what to do: DeleteChat", 6, faults=0),
    Planted(the_deadline_of_the_cleanup_is_forgotten, "over_in_time", "closes", 5, faults=0),
    Planted(each_close_begins_the_cleanup_anew, "over_in_time", "closes without draining", 12),
    Planted(the_end_of_the_cleanup_is_ignored, "over_in_time", "time passes", 6),
    Planted(an_interrupted_read_goes_on, "gives_control_back", "interrupts", 4),
    Planted(
        an_interrupted_request_is_sent_again_without_looking, "looks_before_sending_again", "interrupts: SendPrompt", 7
    ),
    Planted(every_failure_is_taken_for_not_sent, "guarantee", "CreateChat is carried out, its reply is lost", 5),
    Planted(what_a_503_left_behind_is_adopted, "adopts_what_is_there", "is refused with 503", 16, faults=2),
    Planted(no_answer_is_adopted, "drains_first", "RequestAssistant is carried out", 13),
    Planted(a_prompt_is_known_by_its_text_alone, "stays_in_its_branch", "SendPrompt is lost", 25),
    Planted(an_earlier_answer_is_adopted, "stays_in_its_branch", "RequestAssistant is lost", 11, existing=True),
    Planted(a_kept_chat_is_deleted, "keeps_what_is_kept", "keeps", 7, faults=0, existing=True),
    Planted(the_owner_cannot_end_the_drain, "stops_draining", "closes without draining", 11),
    Planted(the_drain_ends_only_with_the_cleanup, "stops_draining", "time passes", 18, faults=0),
    Planted(a_failed_conversation_is_never_cleaned_up, "over_in_time", "closes", 8),
    Planted(pending_is_believed_for_good, "looks_while_it_waits", "streams ten pending events", 13, faults=0),
    Planted(pings_are_believed_for_good, "looks_while_it_waits", "streams three pings", 16, faults=0),
    Planted(a_clean_end_is_taken_for_success, "success_is_the_truth", "ends the stream, cleanly", 12),
    Planted(the_final_text_is_ignored, "success_is_the_truth", "finishes", 16, faults=0),
    Planted(every_prompt_is_sent_as_the_first_one, "answers_if_all_goes_well", "SendPrompt", 20, faults=0),
    Planted(the_answer_is_requested_under_the_chat, "answers_if_all_goes_well", "RequestAssistant", 20, faults=0),
    Planted(no_drain, "drains_first", "RequestAssistant is answered by the server", 9, faults=0),
    Planted(drain_sees_nothing_in_the_chat, "drains_first", "FetchChat", 11),
    Planted(create_not_shielded, "shields", "asks what to do: CreateChat", 3),
    Planted(delete_not_shielded, "shields", "asks what to do: DeleteChat", 6, INFERENCE),
    Planted(a_lost_delete_raises, "never_raises", "DeleteChat is lost", 7),
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
        turns = 1 if case.existing else 2
        found = Explorer(case.binding, faults=case.faults, turns=turns, existing=case.existing).run()
    story = found.violation
    print(f"{case.bug.__name__}: {found.states:,} states\n{story}")
    assert story is not None
    record_property("steps", len(story.lines))
    assert story.invariant == case.invariant
    assert story.mentions(case.decisive)
    assert len(story.lines) <= case.steps
