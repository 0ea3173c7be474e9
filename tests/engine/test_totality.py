"""In every situation, the engine accepts or refuses every input, and does nothing else (OA-6.11).

Inputs are data, so these tests are loops over each input in each situation. A situation is the state after one input
from one of the stories' beginnings. The kit's explorer goes further.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from oa_protocol.engine import moves
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import LocalProtocolError
from oa_protocol.engine.events import Created, Deleted, Event, Kept, Leaked, NeverCreated
from oa_protocol.engine.inputs import (
    Abandon,
    Close,
    CredentialsFound,
    Input,
    Interrupted,
    Keep,
    Prompt,
    Regenerate,
    StreamData,
    StreamEnded,
    StreamOpened,
    TimePassed,
)
from oa_protocol.engine.intents import CloseStream, CreateChat, DeleteChat, Exchange, LoadCredentials, SendPrompt
from oa_protocol.engine.phases import TERMINAL, TRANSITIONS, HasPhase, Phase, Trigger, fire
from oa_protocol.testing.playbook import Data, Lost, Pause, Play, Reply, Unsent, play

from .stories import (
    ANSWER,
    ANSWER_2,
    CHAT,
    COMMENT,
    COOKIES,
    GARBAGE,
    NEWER_COOKIES,
    Beginning,
    Story,
    assistant,
    chat,
    chats,
    complete,
    final,
    pending,
    prompter,
    token,
    worker_error,
)

pytestmark = pytest.mark.once

# More than any cleanup needs: a look, a page and new credentials for each DELETE, and a stream to close.
MANY_STEPS = 50

ALSO_RUNNING = Reply(200, chat(prompter(), complete(), assistant(ANSWER_2, "in_progress")))

DATED = {"date": "Sun, 22 Nov 2026 08:18:16 GMT"}
CHECKING = StreamData(COMMENT * 3)


def inputs(story: Story) -> list[Input]:
    """One input of each kind that makes a difference."""
    return [
        Reply(200, {"id": CHAT}, DATED),
        Reply(200, prompter()),
        Reply(200, assistant()),
        Reply(200, assistant(state="in_progress")),
        Reply(200, assistant(state="cancelled")),
        Reply(200, complete()),
        Reply(200, {"id": "../account/"}),
        Reply(200, story.words("odd, but in the server's words")),
        Reply(200, GARBAGE),
        Reply(200),
        Reply(204),
        Reply(302, headers={"location": "http://elsewhere.test"}),
        Reply(400, story.words("Trying to add first message to non-empty chat")),
        Reply(401, story.words("Invalid token")),
        story.not_found,
        Reply(404, GARBAGE),
        Reply(422, story.words([{"loc": ["body"], "msg": "field required", "type": "value_error.missing"}])),
        Reply(429, headers={"retry-after": "61"}),
        Reply(500, headers=DATED),
        Reply(503, story.words("The server is currently busy. Please try again later."), {"retry-after": "3"}),
        Reply(200, chat()),
        Reply(200, chat(prompter(), prompter(parent_id=ANSWER))),
        Reply(200, chat(prompter(), assistant())),
        ALSO_RUNNING,
        Reply(200, chat(prompter(), assistant(state="aborted_by_worker"))),
        Reply(200, chats()),
        Reply(200, chats(CHAT)),
        Unsent(),
        Lost(),
        StreamOpened(),
        Data(token("Hi")),
        Data(*[pending()] * 10),
        CHECKING,
        Data(final(complete("Hi there"))),
        Data(final(assistant(state="timeout"))),
        Data(final(assistant())),
        Data(worker_error("Aborted due to worker error.")),
        StreamData(b"data: no JSON\n\n"),
        StreamEnded(),
        Prompt("Hello"),
        Prompt("Hello", after=ANSWER),
        Regenerate(),
        Keep(),
        Close(),
        Close(drain=False),
        Abandon(),
        Interrupted(),
        CredentialsFound(None),
        CredentialsFound(COOKIES),
        CredentialsFound(NEWER_COOKIES),
        TimePassed(),
    ]


BEGINNINGS: list[Beginning] = [
    Story.start,
    lambda story: story.start(credentials=None) >> Prompt("Hello") << LoadCredentials,
    lambda story: play(Conversation(story.binding, chat_id=CHAT)) << LoadCredentials,
    Story.existing,
    lambda story: story.existing(keep=True),
    lambda story: story.existing() >> Reply(200, chat()),
    lambda story: story.existing() >> ALSO_RUNNING >> Prompt("Bye") << SendPrompt >> Lost() << Pause(),
    lambda story: story.existing() >> ALSO_RUNNING >> Regenerate(),
    lambda story: story.start(credentials=None) >> Prompt("Hello") << LoadCredentials >> CredentialsFound(COOKIES),
    Story.creating,
    lambda story: story.creating(retries=0),
    Story.prompting,
    Story.prompt_lost,
    Story.requesting,
    Story.request_lost,
    Story.opening,
    Story.streaming,
    Story.polling,
    Story.answered,
    lambda story: story.answered() >> Prompt("Bye") << SendPrompt,
    lambda story: story.answered() >> Prompt("Bye") << SendPrompt >> Lost() << Pause(),
    Story.failed,
    Story.draining,
    Story.draining_by_chat,
    Story.deleting,
    Story.delete_unclear,
    lambda story: story.delete_unclear() >> story.not_found,
    lambda story: story.streaming() >> CHECKING,
]


@dataclass(frozen=True)
class Situation:
    """A conversation at some time, to be made again as often as needed."""

    frozen: bytes
    now: float
    path: str

    def thaw(self) -> Conversation:
        conversation: Conversation = pickle.loads(self.frozen)
        conversation.next_intent(self.now)
        return conversation


@cache
def situations(story: Story) -> list[Situation]:
    """Return the situations that each input leads to from each beginning, without duplicates."""
    found: dict[bytes, Situation] = {}
    for begin in BEGINNINGS:
        play: Play = begin(story).drop_events()
        frozen = pickle.dumps(play.conversation)
        for happens in [None, *inputs(story)]:
            conversation: Conversation = pickle.loads(frozen)
            conversation.next_intent(play.now)
            now = play.now
            if isinstance(happens, TimePassed):
                now = conversation.deadline or now
            if happens is not None and isinstance(taken(conversation, happens, now), LocalProtocolError):
                continue
            key = pickle.dumps(conversation)
            found.setdefault(key, Situation(key, now, f"{play.conversation!r} {happens!r}"))
    return list(found.values())


def taken(conversation: Conversation, happens: Input, now: float) -> list[Event] | LocalProtocolError:
    """The events that the input causes, or why it is refused."""
    if isinstance(happens, TimePassed):
        now = conversation.deadline or now
    try:
        return conversation.handle(happens, now)
    except LocalProtocolError as refusal:
        return refusal


def each_step(story: Story) -> Iterator[tuple[Situation, Input, Conversation, list[Event] | LocalProtocolError]]:
    """Each input in each situation: the conversation afterwards, and its events or its refusal."""
    for situation in situations(story):
        conversation = situation.thaw()
        for happens in inputs(story):
            outcome = taken(conversation, happens, situation.now)
            yield situation, happens, conversation, outcome
            if isinstance(outcome, list):  # otherwise it is unchanged, and serves for the next input as well
                conversation = situation.thaw()


def test_the_situations_have_every_phase_and_every_intent(story: Story) -> None:
    found: dict[Phase, set[str]] = {phase: set() for phase in Phase}
    for situation in situations(story):
        conversation = situation.thaw()
        found[conversation.phase].add(type(conversation.outstanding).__name__)
    expected = {phase: set(outstanding.split()) for phase, outstanding in OUTSTANDING.items()}
    if not story.is_website:
        expected[Phase.DELETE_UNCLEAR].remove("ListChats")
    assert found == expected


OUTSTANDING = {
    Phase.START: "NoneType LoadCredentials CreateChat",
    Phase.COOKIES: "NoneType LoadCredentials CreateChat",
    Phase.OPENING: "NoneType LoadCredentials FetchChat",
    Phase.CHAT_CREATED: "NoneType LoadCredentials SendPrompt",
    Phase.PROMPT_LOST: "NoneType LoadCredentials FetchChat",
    Phase.PROMPTED: "NoneType LoadCredentials RequestAssistant",
    Phase.REQUEST_LOST: "NoneType LoadCredentials FetchChat",
    Phase.ASSISTANT_REQUESTED: "NoneType LoadCredentials OpenStream",
    Phase.STREAMING: "NoneType FetchMessage",
    Phase.POLLING: "NoneType LoadCredentials FetchMessage CloseStream",
    Phase.ANSWERED: "NoneType LoadCredentials FetchMessage CloseStream SendPrompt",
    Phase.FAILED: "NoneType FetchMessage CloseStream",
    Phase.DRAINING: "NoneType LoadCredentials FetchMessage FetchChat CloseStream",
    Phase.DELETING: "NoneType LoadCredentials CloseStream DeleteChat",
    Phase.DELETE_UNCLEAR: "NoneType LoadCredentials FetchChat ListChats",
    Phase.DELETED: "NoneType",
    Phase.NEVER_CREATED: "NoneType",
    Phase.LEAKED: "NoneType",
    Phase.KEPT: "NoneType",
}


@pytest.mark.clause("OA-6.11")
def test_every_input_is_taken_or_refused_and_a_refusal_changes_nothing(story: Story) -> None:
    """Any exception but LocalProtocolError would end the walk."""
    counts = {list: 0, LocalProtocolError: 0}
    for situation, happens, conversation, outcome in each_step(story):
        counts[type(outcome)] += 1
        if isinstance(outcome, list):
            continue
        before = situation.thaw()
        assert pickle.dumps(conversation) == pickle.dumps(before), (situation.path, happens)
        words = f"{type(happens).__name__} is not possible in phase {before.phase.name}"
        assert words in str(outcome), (situation.path, happens)
    assert min(counts.values()) > 4_000


@pytest.mark.clause("OA-4.3", "OA-6.8", "OA-7.2", "OA-7.7")
def test_everywhere_the_end_is_emitted_once_and_nothing_follows_it(story: Story) -> None:
    for situation, happens, after, outcome in each_step(story):
        where = (situation.path, happens)
        before = situation.thaw()
        events = outcome if isinstance(outcome, list) else []
        ends = [type(event) for event in events if isinstance(event, Deleted | Kept | NeverCreated | Leaked)]
        assert len(after.leaked) >= len(before.leaked), where
        if before.is_over:
            assert (after.phase, events, after.outstanding) == (before.phase, [], None), where
        elif after.is_over:
            assert ends in ENDS[after.phase], where
            assert not after.has_stream, where
            assert (after.phase is Phase.LEAKED) == bool(after.leaked), where
            assert all(event.leaked == after.leaked for event in events if isinstance(event, Leaked)), where
            assert (after.next_intent(situation.now), after.deadline) == (None, None), where
        else:
            assert ends == [], where
        if any(isinstance(event, Created) for event in events):
            assert isinstance(before.outstanding, CreateChat), where


ENDS: dict[Phase, list[list[type[Event]]]] = {
    Phase.DELETED: [[Deleted]],
    Phase.NEVER_CREATED: [[NeverCreated]],
    Phase.LEAKED: [[Leaked], [Deleted, Leaked], [Kept, Leaked]],
    Phase.KEPT: [[Kept]],
}


def test_what_may_leave_a_chat_behind_is_shielded(story: Story) -> None:
    for situation in situations(story):
        conversation = situation.thaw()
        intent = conversation.outstanding
        if isinstance(intent, CreateChat | DeleteChat):
            assert intent.shielded, situation.path
        if isinstance(intent, Exchange) and conversation.chat_id is None:
            assert isinstance(intent, CreateChat), situation.path


def test_every_row_of_the_table_is_fired(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    fired: set[tuple[Trigger, Phase]] = set()

    def fire_and_note(trigger: Trigger, conversation: HasPhase) -> None:
        fired.add((trigger, conversation.phase))
        fire(trigger, conversation)

    monkeypatch.setattr(moves, "fire", fire_and_note)
    Conversation(story.binding, chat_id=CHAT)
    for _ in each_step(story):
        pass
    assert fired == {(trigger, source) for trigger, sources, _ in TRANSITIONS for source in sources}


# ---- the way out, from everywhere


@pytest.mark.clause("OA-7.8")
@pytest.mark.clause("OA-7.1", "OA-7.2")
@pytest.mark.parametrize("drain", [True, False])
def test_from_close_on_a_hanging_network_ends_within_the_time_allowed(story: Story, drain: bool) -> None:
    """Only the clock goes on: nothing that is asked for is ever answered."""
    for situation in situations(story):
        conversation, now = situation.thaw(), situation.now
        conversation.handle(Close(drain), now)
        for _ in range(MANY_STEPS):
            conversation.next_intent(now)
            if conversation.deadline is None:
                break
            now = conversation.deadline
            conversation.handle(TimePassed(), now)
        assert conversation.is_over, situation.path
        assert now <= situation.now + conversation.settings.cleanup.timeout + 1e-6, situation.path
        assert (conversation.phase is Phase.LEAKED) == bool(conversation.leaked), situation.path


ANSWERS: dict[str, Input] = {
    "lost": Lost(),
    "not sent": Unsent(),
    "500": Reply(500),
    "503": Reply(503),
    "401": Reply(401),
    "200 garbage": Reply(200, GARBAGE),
    "200 empty": Reply(200),
    "404 empty": Reply(404),
    "404 Chat not found": Reply(404, {"detail": "Chat not found"}),
}


@pytest.mark.clause("OA-7.1", "OA-7.2")
@pytest.mark.parametrize("answer", ANSWERS)
def test_closing_ends_in_bounded_steps_whatever_the_server_says(story: Story, answer: str) -> None:
    for situation in situations(story):
        conversation = situation.thaw()
        conversation.handle(Close(), situation.now)
        steps = finish(conversation, situation.now, ANSWERS[answer])
        assert steps < MANY_STEPS, situation.path
        assert conversation.is_over, situation.path
        assert (conversation.phase is Phase.LEAKED) == bool(conversation.leaked), situation.path


def finish(conversation: Conversation, now: float, answer: Input) -> int:
    """Let cleanup run, each exchange being answered so; return how many steps it took."""
    for steps in range(MANY_STEPS):
        intent = conversation.outstanding or conversation.next_intent(now)
        deadline = conversation.deadline
        match intent:
            case None:
                if deadline is None:
                    return steps
                now = deadline
                conversation.handle(TimePassed(), now)
            case LoadCredentials():
                conversation.handle(CredentialsFound(None), now)
            case CloseStream():
                conversation.handle(StreamEnded(), now)
            case _:
                conversation.handle(answer, now)
    return MANY_STEPS


@pytest.mark.clause("OA-7.2")
def test_abandoning_ends_at_once(story: Story) -> None:
    for situation in situations(story):
        conversation = situation.thaw()
        creates, was_over = isinstance(conversation.outstanding, CreateChat), conversation.is_over
        events = conversation.handle(Abandon(), situation.now)
        assert conversation.is_over, situation.path
        assert conversation.next_intent(situation.now) is None, situation.path
        assert was_over == (not events), situation.path
        assert (conversation.phase is Phase.LEAKED) == bool(conversation.leaked), situation.path
        assert not creates or conversation.phase is Phase.LEAKED, situation.path


def test_closing_twice_is_closing_once(story: Story) -> None:
    for situation in situations(story):
        for drain in (True, False):
            conversation = situation.thaw()
            conversation.handle(Close(drain), situation.now)
            closed = pickle.dumps(conversation)
            assert conversation.handle(Close(drain), situation.now) == [], situation.path
            assert pickle.dumps(conversation) == closed, situation.path


def test_an_interrupted_conversation_stays_usable(story: Story) -> None:
    for situation in situations(story):
        conversation = situation.thaw()
        phase = conversation.phase
        events = conversation.handle(Interrupted(), situation.now)
        assert events == [], situation.path
        assert conversation.is_over == (phase in TERMINAL), situation.path
        assert conversation.phase is not Phase.FAILED or phase is Phase.FAILED, situation.path


def test_a_copy_goes_on_as_the_original_does_with_any_clock(story: Story) -> None:
    """A pickle keeps the remaining times, so it can go on in another process, whose clock stands somewhere else."""
    later = 1024.0
    for situation in situations(story):
        for happens in inputs(story):
            original, copied = situation.thaw(), pickle.loads(situation.frozen)
            copied.next_intent(situation.now + later)
            assert outcome_of(original, happens, situation.now) == outcome_of(copied, happens, situation.now + later)


def test_a_deep_copy_is_the_same_and_apart(story: Story) -> None:
    for situation in situations(story):
        conversation = situation.thaw()
        copied = copy.deepcopy(conversation)
        assert pickle.dumps(copied) == pickle.dumps(conversation), situation.path
        copied.handle(Abandon(), situation.now)
        assert pickle.dumps(conversation) == pickle.dumps(situation.thaw()), situation.path


def outcome_of(conversation: Conversation, happens: Input, now: float) -> list[object]:
    """What an observer sees of this step."""
    outcome = taken(conversation, happens, now)
    intent, deadline = conversation.next_intent(now), conversation.deadline
    seconds_left = None if deadline is None else round(deadline - now, 6)
    return [str(outcome), conversation.phase, str(intent), str(conversation.outstanding), seconds_left]
