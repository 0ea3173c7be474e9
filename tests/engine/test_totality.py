"""Whatever happens in whatever state, the engine takes it or refuses it; nothing else (OA-6.11)."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field

import pytest

from oa_protocol.engine import conversation as engine
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.events import Created, Deleted, Event, Leaked, NeverCreated
from oa_protocol.engine.intents import CloseStream, CreateChat, DeleteChat, Exchange, FetchChat, ListChats, LoadCookies
from oa_protocol.engine.phases import TERMINAL, TRANSITIONS, HasPhase, Phase, Trigger, fire
from oa_protocol.testing.playbook import Abandon, Close, Cookies, Ended, Happening, Lost, Reply, Unsent

from .explorer import Answers, State, Step, alphabet, contents, essence, explore
from .stories import COOKIES, GARBAGE, INFERENCE, WEBSITE, Story, chats

pytestmark = pytest.mark.once

Row = tuple[Trigger, Phase, Phase]

ROWS: set[Row] = {(trigger, source, target) for trigger, sources, target in TRANSITIONS for source in sources}

# More than any cleanup needs: two reads and a wait for each of two DELETEs, credentials for each, a stream to close.
MANY_STEPS = 20


@dataclass
class Walk:
    """What a walk over all states met."""

    story: Story
    states: list[State] = field(default_factory=list[State])
    fired: set[Row] = field(default_factory=set[Row])
    steps: int = 0
    refusals: int = 0
    faults: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def fault(self, rule: str, step: Step) -> None:
        trace = [*step.before.path, step.happening]
        self.faults.setdefault(rule, []).append(f"{step.before.phase.name}/{step.before.outstanding}: {trace}")


def walk_all(story: Story) -> Walk:
    """Walk over all states; every rule is judged on the way, for the walk is too long to be kept."""
    walk = Walk(story)
    records = 0
    starts = [story.conversation(credentials, retries=1, attempts=2) for credentials in (None, COOKIES)]
    for step in explore(starts, alphabet(story)):
        walk.steps += 1
        if not walk.states or step.before is not walk.states[-1]:
            walk.states.append(step.before)
            records = len(step.before.thaw().records)
        if step.refusal is None:
            _judge(walk, step, records)
            continue
        walk.refusals += 1
        if step.changed:
            walk.fault("a refused call changes nothing", step)
        if step.before.phase.name not in str(step.refusal) or "() is not possible" not in str(step.refusal):
            walk.fault("a refusal names phase and call", step)
    return walk


def _judge(walk: Walk, step: Step, records: int) -> None:
    after, phase = step.after, step.before.phase
    if phase in TERMINAL and (after.phase is not phase or step.told):
        walk.fault("nothing follows a terminal phase", step)
    if phase in TERMINAL and step.before.outstanding == "-" and after.outstanding is not None:
        walk.fault("a terminal phase asks for nothing", step)
    if after.is_over and after.has_stream:
        walk.fault("no stream outlives a conversation", step)
    if after.is_over and (after.phase is Phase.LEAKED) != bool(after.records):
        walk.fault("LEAKED if and only if something is named", step)
    if after.phase is Phase.DELETED and phase is not Phase.DELETED and not _confirms(walk.story, step):
        walk.fault("DELETED only after the server confirmed it", step)
    if len(after.records) < records:
        walk.fault("a record is never taken back", step)
    if any(isinstance(event, Leaked) and event.records != after.records for event in step.told):
        walk.fault("Leaked tells all the records", step)
    if phase not in TERMINAL and after.is_over and not _tells_the_end(step.told, after):
        walk.fault("an end is told", step)
    intent = after.outstanding
    if isinstance(intent, CreateChat | DeleteChat) and not intent.shielded:
        walk.fault("what may leave a chat behind is shielded", step)
    if isinstance(intent, Exchange) and after.chat_id is None and not isinstance(intent, CreateChat):
        walk.fault("nothing but a create is sent without a chat", step)
    if any(isinstance(event, Created) for event in step.told) and step.before.outstanding != "CreateChat":
        walk.fault("only a create makes a chat", step)


def _confirms(story: Story, step: Step) -> bool:
    """Whether what happened says that the chat is gone."""
    asked, reply = step.before.outstanding, step.happening
    if asked == DeleteChat.__name__ and story.is_website:
        return reply == Reply(200)
    if asked == DeleteChat.__name__:
        said_yes = isinstance(reply, Answers) or (isinstance(reply, Reply) and 200 <= reply.status < 300)
        return said_yes or reply == story.not_found
    if asked == FetchChat.__name__:
        return reply == story.not_found and not story.is_website
    return asked == ListChats.__name__ and reply == Reply(200, chats())


def _tells_the_end(told: list[Event], after: Conversation) -> bool:
    ends = [type(event) for event in told if isinstance(event, Deleted | NeverCreated | Leaked)]
    match after.phase:
        case Phase.DELETED:
            return ends == [Deleted]
        case Phase.NEVER_CREATED:
            return ends == [NeverCreated]
        case _:
            return ends in ([Leaked], [Deleted, Leaked])


@pytest.fixture(scope="module", params=[WEBSITE, INFERENCE], ids=lambda story: story.binding.api)
def walk(request: pytest.FixtureRequest) -> Walk:
    fired: set[Row] = set()

    def fire_and_note(trigger: Trigger, conversation: HasPhase) -> None:
        source = conversation.phase
        fire(trigger, conversation)
        fired.add((trigger, source, conversation.phase))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "fire", fire_and_note)
        walked = walk_all(request.param)
    walked.fired = fired
    return walked


def _at_most_five(faults: list[str]) -> str:
    return "\n".join(sorted(faults, key=len)[:5])


@pytest.mark.clause("OA-6.11")
def test_every_happening_in_every_state_is_taken_or_refused(walk: Walk) -> None:
    """Any exception but LocalProtocolError would have ended the walk."""
    assert len(walk.states) > 5_000
    assert walk.steps == len(walk.states) * len(alphabet(walk.story))
    assert 0 < walk.refusals < walk.steps


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param("a refused call changes nothing", marks=pytest.mark.clause("OA-6.11")),
        pytest.param("a refusal names phase and call", marks=pytest.mark.clause("OA-6.11")),
        "nothing follows a terminal phase",
        pytest.param("a terminal phase asks for nothing", marks=pytest.mark.clause("OA-7.7")),
        "no stream outlives a conversation",
        pytest.param("LEAKED if and only if something is named", marks=pytest.mark.clause("OA-7.2")),
        pytest.param("DELETED only after the server confirmed it", marks=pytest.mark.clause("OA-7.3")),
        pytest.param("a record is never taken back", marks=pytest.mark.clause("OA-6.8")),
        pytest.param("Leaked tells all the records", marks=pytest.mark.clause("OA-7.2")),
        "an end is told",
        pytest.param("what may leave a chat behind is shielded", marks=pytest.mark.clause("OA-4.3")),
        "nothing but a create is sent without a chat",
        "only a create makes a chat",
    ],
)
def test_everywhere(walk: Walk, rule: str) -> None:
    assert not walk.faults.get(rule), _at_most_five(walk.faults[rule])


def test_every_phase_is_reached(walk: Walk) -> None:
    assert {state.phase for state in walk.states} == set(Phase)


def test_every_row_of_the_table_is_fired_and_no_other(walk: Walk) -> None:
    assert walk.fired == ROWS


def test_the_states_are_these(walk: Walk) -> None:
    """Which intents can be outstanding in which phase; late ones included."""
    found: dict[Phase, set[str]] = {}
    for state in walk.states:
        found.setdefault(state.phase, set()).add(state.outstanding)
    expected = {phase: set(outstanding.split()) for phase, outstanding in OUTSTANDING.items()}
    if not walk.story.is_website:
        expected[Phase.DELETE_UNCLEAR].remove("ListChats")
    assert found == expected


OUTSTANDING = {
    Phase.START: "- LoadCookies CreateChat",
    Phase.COOKIES: "- LoadCookies CreateChat",
    Phase.CHAT_CREATED: "- LoadCookies SendPrompt",
    Phase.PROMPT_LOST: "- LoadCookies FetchChat",
    Phase.PROMPTED: "- LoadCookies RequestAssistant",
    Phase.REQUEST_LOST: "- LoadCookies FetchChat",
    Phase.ASSISTANT_REQUESTED: "- LoadCookies OpenStream",
    Phase.STREAMING: "- LoadCookies FetchMessage",
    Phase.POLLING: "- LoadCookies FetchMessage CloseStream",
    Phase.ANSWERED: "- LoadCookies FetchMessage CloseStream SendPrompt",
    Phase.FAILED: "- LoadCookies FetchMessage CloseStream OpenStream",
    Phase.DRAINING: "- LoadCookies FetchMessage FetchChat CloseStream OpenStream",
    Phase.DELETING: "- LoadCookies FetchMessage FetchChat CloseStream OpenStream DeleteChat",
    Phase.DELETE_UNCLEAR: "- LoadCookies FetchChat ListChats",
    Phase.DELETED: "-",
    Phase.NEVER_CREATED: "- LoadCookies",
    Phase.LEAKED: "- LoadCookies",
}


def _finish(conversation: Conversation, answer: Happening) -> int:
    """Let cleanup run, each exchange being answered so; return how many steps it took."""
    for steps in range(MANY_STEPS):
        intent = conversation.outstanding or conversation.next_intent()
        match intent:
            case None:
                return steps
            case LoadCookies():
                Cookies(None).happen(conversation)
            case CloseStream():
                Ended().happen(conversation)
            case _:
                answer.happen(conversation)
    return MANY_STEPS


ANSWERS: dict[str, Happening] = {
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
def test_closing_ends_every_state_in_bounded_steps_whatever_the_server_says(walk: Walk) -> None:
    closed: dict[str, Conversation] = {}
    for state in walk.states:
        conversation = state.thaw()
        conversation.close()
        conversation.close(drain=False)
        closed.setdefault(essence(conversation), conversation)
    for name, answer in ANSWERS.items():
        for before in closed.values():
            conversation = copy.deepcopy(before)
            assert _finish(conversation, answer) < MANY_STEPS, (before, name)
            assert conversation.is_over, (before, name)
            assert (conversation.phase is Phase.LEAKED) == bool(conversation.records), (before, name)


@pytest.mark.clause("OA-7.2")
def test_abandoning_ends_every_state_at_once(walk: Walk) -> None:
    for state in walk.states:
        conversation = state.thaw()
        was_over = conversation.is_over
        told = Abandon().happen(conversation)
        assert conversation.is_over, state.path
        assert conversation.next_intent() is None, state.path
        assert was_over == (not told), state.path
        assert (conversation.phase is Phase.LEAKED) == bool(conversation.records), state.path
        if state.outstanding == "CreateChat":
            assert conversation.phase is Phase.LEAKED


def test_closing_twice_is_closing_once(walk: Walk) -> None:
    for state in walk.states:
        for drain in (True, False):
            conversation = state.thaw()
            Close(drain).happen(conversation)
            closed = contents(conversation)
            assert Close(drain).happen(conversation) == [], state.path
            assert contents(conversation) == closed, state.path


def test_the_same_happenings_lead_to_the_same_state_pickled_on_the_way_or_not(walk: Walk) -> None:
    for state in walk.states:
        conversation: Conversation = pickle.loads(state.start)
        for happening in state.path:
            happening.happen(conversation)
        assert contents(conversation) == contents(state.thaw()), state.path


def test_a_deep_copy_is_the_same_and_apart(walk: Walk) -> None:
    for state in walk.states[::10]:
        conversation = state.thaw()
        copied = copy.deepcopy(conversation)
        assert contents(copied) == contents(conversation), state.path
        Abandon().happen(copied)
        assert contents(conversation) == contents(state.thaw()), state.path
