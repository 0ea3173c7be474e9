"""The explorer itself, and what it says of the shipped engine: nothing is wrong."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import pytest

from oa_protocol.bindings.base import Binding, Credentials
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.website import Website
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.phases import Phase
from oa_protocol.testing import Exploration, Explorer, Line, Story
from oa_protocol.testing._model.invariants import Limits
from oa_protocol.testing._model.simulation import Simulation
from oa_protocol.testing.explore import main
from oa_protocol.testing.explorer import SHORT_CLEANUP, SHORT_TIMEOUTS
from tests.examples.smallest_binding import Talks

pytestmark = pytest.mark.once

BINDINGS: list[Binding] = [Website("http://oa.test"), InferenceServer("http://oa.test")]

# The phases that only a chat that exists already, or is kept, comes to.
_EXISTING = {Phase.OPENING, Phase.KEPT}

each_binding = pytest.mark.parametrize("binding", BINDINGS, ids=lambda binding: binding.api)


@each_binding
@pytest.mark.clause("OA-1.2", "OA-3.3")
@pytest.mark.clause("OA-4.3", "OA-5.6", "OA-5.7", "OA-5.8", "OA-6.1", "OA-6.3", "OA-6.5", "OA-6.6", "OA-6.7", "OA-6.8")
@pytest.mark.clause("OA-3.3", "OA-3.5", "OA-6.9", "OA-6.11", "OA-6.12", "OA-6.13", "OA-6.14")
@pytest.mark.clause("OA-7.1", "OA-7.2", "OA-7.3", "OA-7.4", "OA-7.5", "OA-7.6", "OA-7.7", "OA-7.8", "OA-7.9")
@pytest.mark.parametrize("existing", [False, True], ids=["new_chat", "existing_chat"])
def test_whatever_happens_every_promise_is_kept(
    binding: Binding, existing: bool, record_property: Callable[[str, object], None]
) -> None:
    found = (Explorer(binding, faults=1, turns=1, existing=True) if existing else Explorer(binding)).run()
    print(f"{binding.api}: {found.states:,} states, {found.transitions:,} transitions, {found.depth} steps deep")
    record_property("states", found.states)
    record_property("transitions", found.transitions)
    assert found.violation is None, found.violation
    elsewhere = {Phase.START, Phase.COOKIES, Phase.CHAT_CREATED, Phase.NEVER_CREATED} if existing else _EXISTING
    assert found.phases == set(Phase) - elsewhere
    assert found.states > (10_000 if existing else 100_000)


@each_binding
@pytest.mark.clause("OA-6.9")
def test_an_answer_whose_time_is_over_fails_wherever_it_stands(binding: Binding) -> None:
    timeouts = replace(SHORT_TIMEOUTS, answer=6.0)  # so that a hung request leaves less than a silent stream takes
    found = Explorer(binding, faults=1, turns=1, timeouts=timeouts).run()
    assert found.violation is None, found.violation


@pytest.mark.clause("OA-7.6", "OA-7.8")
@pytest.mark.parametrize("attempts", [1, 3])
def test_cleanup_keeps_its_time_however_many_attempts_share_it(attempts: int) -> None:
    cleanup = replace(SHORT_CLEANUP, attempts=attempts, timeout=3.0)
    found = Explorer(BINDINGS[0], faults=1, turns=1, cleanup=cleanup).run()
    assert found.violation is None, found.violation


@each_binding
def test_without_faults_nothing_leaks_but_what_is_abandoned(binding: Binding) -> None:
    found = Explorer(binding, faults=0).run()
    assert found.violation is None, found.violation
    assert found.phases == set(Phase) - {Phase.PROMPT_LOST, Phase.REQUEST_LOST} - _EXISTING


def test_two_conversations_of_one_account_can_be_explored() -> None:
    found = Explorer(BINDINGS[0], faults=0, turns=1, conversations=2, depth=14).run()
    assert found.violation is None, found.violation
    assert found.states > 1_000


@pytest.mark.clause("OA-7.5")
def test_a_chat_on_the_second_page_of_the_list_is_not_taken_for_gone() -> None:
    found = Explorer(BINDINGS[0], faults=1, turns=1, newer_chats=20).run()
    assert found.violation is None, found.violation


def test_a_binding_for_another_api_is_refused_and_not_blamed() -> None:
    with pytest.raises(ValueError, match="only the APIs of Website and InferenceServer, and the binding's is 'talks'"):
        Explorer(Talks("http://oa.test"), faults=0, turns=1).run()


def test_the_search_is_the_same_each_time() -> None:
    first, second = (Explorer(BINDINGS[0], depth=14).run() for _ in range(2))
    assert first == second


def test_the_depth_can_be_bounded() -> None:
    found = Explorer(BINDINGS[0], depth=3).run()
    assert found.depth == 3
    assert found.phases == {Phase.START, Phase.NEVER_CREATED}


@each_binding
def test_a_simulation_that_is_put_away_comes_back_the_same_and_is_not_changed_by_what_follows(binding: Binding) -> None:
    """An engine is copied by its slots, which is faster than pickling. It has to be as good."""

    def make(credentials: Credentials | None) -> Conversation:
        return Conversation(binding, credentials, retries=1, timeouts=SHORT_TIMEOUTS, cleanup=SHORT_CLEANUP)

    simulation = Simulation.new(make, Limits(1, SHORT_TIMEOUTS, SHORT_CLEANUP), faults=1, turns=1, credentials=True)
    seen = {simulation.key()}
    todo = deque([simulation])
    while todo and len(seen) < 3_000:
        simulation = todo.popleft()
        key, frozen = simulation.key(), pickle.dumps(simulation.peers[0].conversation)
        for action in simulation.actions():
            following, _ = simulation.after(action)
            twin = following.peers[0].conversation
            following.peers[0].conversation = pickle.loads(pickle.dumps(twin))
            pickled = following.key()
            following.peers[0].conversation = twin
            assert following.key() == pickled
            if pickled not in seen:
                seen.add(pickled)
                todo.append(following)
        assert simulation.key() == key
        assert pickle.loads(frozen).phase is simulation.peers[0].conversation.phase


def test_a_story_can_be_read_and_tells_what_is_asked_for_once() -> None:
    asks = [Line("driver", f"asks what to do: {what}", "START") for what in ("nothing", "CreateChat")]
    lines = (
        asks[0],
        Line("owner", "prompts", "START"),
        asks[1],
        Line("network", "CreateChat is lost on its way", "START"),
    )
    story = Story("website", "guarantee", "a chat is left", lines)
    assert str(story) == (
        "guarantee does not hold (website, 2 steps):\n"
        "  1. owner    prompts  [START]\n"
        "  2. network  CreateChat is lost on its way  [START]\n"
        "  => a chat is left"
    )
    assert story.mentions("is lost")
    assert not story.mentions("DELETE")
    assert pickle.loads(pickle.dumps(story)) == story


def test_from_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--api", "website", "--faults", "0", "--turns", "1"]) == 0
    assert capsys.readouterr().out.startswith("website: ")


def test_from_a_shell_with_a_timeout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--api", "website", "--faults", "0", "--turns", "1", "--depth", "9", "--timeout", "answer=1.5"]) == 0
    with pytest.raises(SystemExit):
        main(["--timeout", "patience=1"])
    assert "Timeouts has no field 'patience'" in capsys.readouterr().err


def test_from_a_shell_a_violation_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story("website", "guarantee", "a chat is left", ())
    violated = Exploration(states=1, transitions=1, depth=1, phases=frozenset(), violation=story)

    def run(explorer: Explorer) -> Exploration:
        return violated

    monkeypatch.setattr(Explorer, "run", run)
    assert main(["--api", "website"]) == 1
    assert "=> a chat is left" in capsys.readouterr().out
