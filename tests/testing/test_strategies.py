"""The strategies: what they draw is what this protocol's servers, and the engine, say it is."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import Phase as Stage
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from oa_protocol import Conversation, Credentials, InferenceServer, Phase, Website
from oa_protocol.bindings.base import Binding
from oa_protocol.bindings.ids import is_id
from oa_protocol.bindings.json import encode
from oa_protocol.engine.inputs import Close, Prompt, ReplyReceived, StreamOpened
from oa_protocol.engine.intents import (
    CreateChat,
    DeleteChat,
    FetchChat,
    FetchMessage,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.server import Answer, Fault, Reset, Scripted, StreamFault, WorkerError
from oa_protocol.server.ids import timed_id
from oa_protocol.tape import replay
from oa_protocol.testing import play
from oa_protocol.testing._model.invariants import Moment
from oa_protocol.testing._model.scenario import SORTS
from oa_protocol.testing._model.simulation import Action, Simulation
from oa_protocol.testing.playbook import Lost, Pause, Play, Reply
from oa_protocol.testing.strategies import answers, chunkings, faults, ids, json_values, replies, spellings, tapes

pytestmark = pytest.mark.once

CHAT, PROMPT, ANSWER = (f"06b02a54-89e8-7932-8000-00000000000{number}" for number in range(3))
WEBSITE, INFERENCE = Website("http://oa.test"), InferenceServer("http://oa.test")
FEW = settings(max_examples=50, derandomize=True, deadline=None)


T = TypeVar("T")


def asked_for(*made: str) -> Play:
    """A conversation whose create, prompt and request were answered with these ids, as far as they go."""
    script = play(Conversation(WEBSITE, Credentials(token="secret"))) >> Prompt("") << CreateChat
    for reply, following in zip(made, (SendPrompt, RequestAssistant, OpenStream), strict=False):
        script = (script >> Reply(200, {"id": reply})).drop_events() << following
    return script


def streaming() -> Conversation:
    """A conversation whose stream is open."""
    return (asked_for(CHAT, PROMPT, ANSWER) >> StreamOpened()).conversation


def can_be(strategy: st.SearchStrategy[T], fits: Callable[[T], object], *, within: int = 1000) -> bool:
    """Whether one of the first values that the strategy draws is so.

    Hypothesis varies earlier values, and draws constants from all modules that are loaded. So one seed may miss for
    long what others find at once.
    """
    first = settings(FEW, derandomize=False, max_examples=within // 4, database=None, phases=[Stage.generate])
    for seed in range(4):
        with suppress(NoSuchExample):
            find(strategy, lambda value: bool(fits(value)), settings=first, random=Random(seed))
            return True
    return False


@given(ids())
def test_an_id_has_the_form_of_the_servers_own(drawn: str) -> None:
    own = timed_id(1, salt="")
    assert is_id(drawn)
    assert [drawn[place] for place in (8, 13, 18, 23)] == ["-"] * 4
    assert (drawn[14], drawn[19:23]) == (own[14], own[19:23]) == ("7", "8000")


@pytest.mark.clause("OA-5.2", "OA-5.7")
@FEW
@given(events=answers(message_id=ANSWER), data=st.data())
def test_a_whole_answer_ends_the_turn_however_it_is_spelled_and_cut(
    events: list[dict[str, object]], data: st.DataObject
) -> None:
    stream = data.draw(spellings([encode(event) for event in events]))
    conversation = streaming()
    for chunk in data.draw(chunkings(stream)):
        conversation.receive_stream_data(chunk, now=0.0)
    ended_well = events[-1]["event_type"] == "message"
    assert conversation.phase is (Phase.ANSWERED if ended_well else Phase.FAILED)


FINALS: dict[str, Callable[[str, str], object]] = {
    "have white space at its ends": lambda told, final: final == told != told.strip(),
    "lack it": lambda told, final: final == told.strip() != told,
    "continue the tokens": lambda told, final: told.strip() and final != told and final.startswith(told),
    "continue them without it": lambda told, final: (
        final.startswith(told.lstrip()) and not final.startswith(told) and final.strip() != told.strip() != ""
    ),
    "contradict them": lambda told, final: not final.startswith(told.lstrip()) and not told.strip().startswith(final),
}


@pytest.mark.parametrize("fits", FINALS.values(), ids=list(FINALS))
def test_a_final_text_can(fits: Callable[[str, str], object]) -> None:
    def ends_so(events: list[dict[str, Any]]) -> object:
        told = "".join(event["text"] for event in events if event["event_type"] == "token")
        return events[-1]["event_type"] == "message" and fits(told, events[-1]["message"]["content"])

    assert can_be(answers(), ends_so)


def test_a_spelling_of_a_payload_with_cr_is_refused() -> None:
    with pytest.raises(ValueError, match="CR"):
        spellings([b"fine", b"a\rb"])


ENDS = [b"\r\n\r\n", b"\n\n", b"\r\r", b"\n\r\n", b"\r\n\n", b"\r\n\r", b"\n\r"]


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_a_stream_can_be_cut_event_by_event_whatever_its_line_ends(end: bytes) -> None:
    events = [b"data: 1\r\ndata: 2" + end, b"id: 3\ndata: 4\rdata: 5" + end, b"data: 6"]
    assert can_be(chunkings(b"".join(events)), lambda chunks: chunks == events)


@pytest.mark.parametrize("cuts", [[], [5], [17]], ids=str)
def test_a_failure_is_shown_with_the_cuts_that_it_needs(cuts: list[int]) -> None:
    stream = b"data: 1\n\ndata: 2\n\ndata: 3\n\n"

    def fails(chunks: list[bytes]) -> bool:
        return set(cuts) <= set(accumulate(map(len, chunks)))

    shown = find(chunkings(stream), fails, settings=settings(FEW, max_examples=1000, database=None))
    assert shown == [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


STATES = ["manual", "pending", "in_progress", "complete", "aborted_by_worker", "cancelled", "timeout"]
JSON: dict[str, Callable[[Any], object]] = {
    "a token": lambda value: value["event_type"] == "token",
    "a final event": lambda value: value["event_type"] == "message",
    "a message in a state of its own": lambda value: value["state"] not in STATES,
    "a chat with a message in it": lambda value: value["messages"][0]["role"],
    "a chat without messages": lambda value: value["title"] is None and "messages" not in value,
    "anything with an id": lambda value: is_id(value["id"]),
    "anything with another id": lambda value: not (isinstance(value["id"], str) and is_id(value["id"])),
    "a list of models": lambda value: value[0]["parameter_configs"],
    "an error": lambda value: value["detail"][0]["msg"],
    "a list": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
}


@pytest.mark.parametrize("fits", JSON.values(), ids=list(JSON))
def test_any_json_can_be(fits: Callable[[Any], object]) -> None:
    def is_so(value: Any) -> object:
        with suppress(TypeError, LookupError):
            return fits(value)
        return False

    assert can_be(json_values(), is_so)


def test_any_json_cannot_be_what_is_no_json() -> None:
    def is_none(value: object) -> bool:
        return re.search(r"\b(NaN|Infinity)\b", json.dumps(value)) is not None

    assert not can_be(json_values(), is_none, within=400)


def phase_after(script: Play, reply: ReplyReceived) -> Phase:
    return (script >> reply).drop_events().conversation.phase


@pytest.mark.parametrize("binding", [WEBSITE, INFERENCE], ids=lambda one: one.api)
@pytest.mark.parametrize("phase", [Phase.DELETED, Phase.DELETE_UNCLEAR], ids=lambda phase: phase.name)
def test_a_reply_to_delete_can_lead_to(binding: Website | InferenceServer, phase: Phase) -> None:
    def leads_there(reply: ReplyReceived) -> bool:
        conversation = Conversation(binding, Credentials(token="secret"), chat_id=CHAT)
        return phase_after((play(conversation) >> Close(drain=False)).drop_events() << DeleteChat, reply) is phase

    assert can_be(replies("website" if binding is WEBSITE else "inference"), leads_there)


@pytest.mark.parametrize("status", [200, 204, 302, 401, 404, 429, 502, 503])
def test_a_reply_can_be_a_bare_status(status: int) -> None:
    assert can_be(replies("inference"), lambda reply: (reply.status, reply.body) == (status, b""))


LOST: dict[str, tuple[Callable[[], Play], str, Phase]] = {
    "prompt": (
        lambda: (asked_for(CHAT) >> Lost()).drop_events() << Pause() << FetchChat,
        PROMPT,
        Phase.PROMPTED,
    ),
    "request": (
        lambda: (asked_for(CHAT, PROMPT) >> Lost()).drop_events() << Pause() << FetchChat,
        PROMPT,
        Phase.ASSISTANT_REQUESTED,
    ),
    "stream": (
        lambda: (asked_for(CHAT, PROMPT, ANSWER) >> Lost()).drop_events() << FetchMessage,
        ANSWER,
        Phase.ANSWERED,
    ),
}


@pytest.mark.parametrize(("lose", "message_id", "found"), LOST.values(), ids=list(LOST))
def test_a_reply_can_show_what_came_of_a_lost(lose: Callable[[], Play], message_id: str, found: Phase) -> None:
    shown = replies("website", chat_id=CHAT, message_id=message_id)
    assert can_be(shown, lambda reply: phase_after(lose(), reply) is found)


@pytest.mark.parametrize("further", [True, False], ids=["further pages", "no further page"])
def test_a_list_can_have_the_chat_in_it_and(further: bool) -> None:
    def is_so(reply: ReplyReceived) -> object:
        if b"chats" not in reply.body:
            return False
        page: Any = json.loads(reply.body)
        return CHAT in str(page["chats"]) and bool(page["next"]) is further

    assert can_be(replies("website", chat_id=CHAT), is_so)


FAULTS: dict[str, Callable[[Scripted], object]] = {
    "a refused stream": lambda fault: fault.step == "events" and isinstance(fault, Fault),
    "a refused request for models": lambda fault: fault.step == "models",
    "a reply that is lost": lambda fault: (
        isinstance(fault, Fault) and fault.step == "delete" and fault.after == Reset()
    ),
    "a stream that breaks": lambda fault: isinstance(fault, StreamFault) and fault.then == Reset(),
    "a worker that fails": lambda fault: isinstance(fault, Answer) and fault.then == WorkerError(),
}


@pytest.mark.parametrize("fits", FAULTS.values(), ids=list(FAULTS))
def test_a_fault_can_be(fits: Callable[[Scripted], object]) -> None:
    assert can_be(faults(), fits)


def test_most_faults_are_not_the_workers() -> None:
    drawn: list[Scripted] = []

    @settings(FEW, max_examples=1000, database=None)
    @given(faults())
    def draw(fault: Scripted) -> None:
        drawn.append(fault)

    draw()
    assert sum(isinstance(fault, Answer) for fault in drawn) < len(drawn) / 2


class AllMet(Exception):
    """There is nothing more to look for."""


@pytest.mark.parametrize(
    "binding", [Website("http://oa.test"), InferenceServer("http://oa.test")], ids=lambda one: one.api
)
def test_a_tape_is_a_whole_conversation_and_replays(binding: Binding) -> None:
    ends: Counter[Any] = Counter()
    streamed = 0

    @settings(FEW, max_examples=200)
    @given(tapes(binding))
    def check(tape: Any) -> None:
        nonlocal streamed
        assert replay(tape) is None
        ends[tape.steps[-1]["phase"]] += 1
        streamed += any(step.get("input", {}).get("type") == "StreamData" for step in tape.steps)

    check()
    assert set(ends) == {"DELETED", "NEVER_CREATED", "LEAKED"}
    assert streamed > ends.total() / 3


def test_every_sort_happens_on_some_tape(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only a transport's simulation has the first, and the others need a chat that exists already.
    left = set(SORTS) - {"time_passes_partly", "owner_regenerates", "owner_edits", "owner_keeps"}
    take = Simulation.take

    def note(simulation: Simulation, action: Action) -> Moment:
        left.difference_update([name for name, is_of_sort in SORTS.items() if is_of_sort(action)])
        return take(simulation, action)

    monkeypatch.setattr(Simulation, "take", note)

    @settings(FEW, max_examples=4_000, phases=[Stage.generate])
    @given(tapes(Website("http://oa.test")))
    def check(tape: Any) -> None:
        if not left:
            raise AllMet

    with pytest.raises(AllMet):
        check()
