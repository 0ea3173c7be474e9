"""The state machine finds nothing in what is shipped, and tells planted bugs as readable stories."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from functools import partial
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Stage
from hypothesis.stateful import run_state_machine_as_test
from msgspec.structs import replace

from oa_protocol import Conversation, Credentials, InferenceServer, MaybeSent, NotSent
from oa_protocol.bindings.base import Binding
from oa_protocol.engine.events import Event, Token
from oa_protocol.engine.inputs import Close, ExchangeFailed, Input, Interrupted, ReplyReceived, TimePassed
from oa_protocol.engine.intents import HttpRequest, Intent
from oa_protocol.engine.phases import TERMINAL
from oa_protocol.engine.timers import Cleanup, Timeouts
from oa_protocol.testing import ConversationMachine
from oa_protocol.testing._model.conversation_like import ConversationLike
from oa_protocol.testing._model.invariants import Limits, Moment
from oa_protocol.testing._model.scenario import SORTS
from oa_protocol.testing._model.server import EXISTING
from oa_protocol.testing._model.simulation import EXTRAS, Action, Simulation
from oa_protocol.transports import Response, Transport

pytestmark = pytest.mark.once

FIXED = settings(derandomize=True, deadline=None, report_multiple_bugs=False)
FEW = settings(FIXED, max_examples=60, stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow])
# A bug is to be found however rare it is; the search ends with the first one.
UNSHRUNK = settings(FIXED, max_examples=500, stateful_step_count=30, phases=[Stage.generate])
# Whatever is rare is met sooner or later; the search ends when everything was.
ALL = settings(UNSHRUNK, max_examples=5_000, suppress_health_check=[HealthCheck.too_slow])
SHRUNK = settings(UNSHRUNK, phases=[Stage.generate, Stage.shrink])

CLAUSES = (
    *("OA-5.6", "OA-5.7", "OA-6.1", "OA-6.5", "OA-6.11", "OA-6.12", "OA-6.13"),
    *("OA-7.1", "OA-7.2", "OA-7.6", "OA-7.7", "OA-7.8"),
)


class OverTheInferenceServer(ConversationMachine):
    binding = InferenceServer("http://oa.test")


BINDINGS: list[Binding] = [ConversationMachine.binding, OverTheInferenceServer.binding]

each_binding = pytest.mark.parametrize("binding", BINDINGS, ids=lambda binding: binding.api)

TestOverTheWebsite = pytest.mark.clause(*CLAUSES)(ConversationMachine.TestCase)
TestOverTheWebsite.settings = FEW
TestOverTheInferenceServer = pytest.mark.clause(*CLAUSES)(OverTheInferenceServer.TestCase)
TestOverTheInferenceServer.settings = FEW


def story_of(machine: type[ConversationMachine], how: settings = UNSHRUNK) -> str:
    """A story in which ``machine`` fails."""
    with pytest.raises(AssertionError) as failure:
        run_state_machine_as_test(machine, settings=how)
    return str(failure.value)


@each_binding
def test_whatever_can_happen_is_of_one_sort_and_every_sort_happens(binding: Binding) -> None:
    def make(credentials: Credentials | None, chat_id: str | None = None) -> Conversation:
        return Conversation(
            binding, credentials, chat_id=chat_id, retries=1, timeouts=limits.timeouts, cleanup=limits.cleanup
        )

    class Slow(Simulation):
        is_slow = True

    short = 0.15  # so that there are few different times
    limits = Limits(1, Timeouts(reply=short, idle=short, poll=short), Cleanup(short, short, attempts=1))
    todo = deque(Slow.new(make, limits, faults=1, turns=1, credentials=credentials) for credentials in (True, False))
    existing = partial(make, chat_id=EXISTING)
    todo.append(Slow.new(existing, limits, faults=0, turns=1, credentials=True, extras=EXTRAS, existing=True))
    seen = {simulation.key() for simulation in todo}
    met: set[str] = set()
    while todo and len(seen) < 2_000:
        simulation = todo.popleft()
        for action in simulation.actions():
            (sort,) = (name for name, is_of_sort in SORTS.items() if is_of_sort(action))
            met.add(sort)
            following, _ = simulation.after(action)
            if following.key() not in seen:
                seen.add(following.key())
                todo.append(following)
    assert met == set(SORTS)


def test_every_sort_has_its_rule_except_that_the_driver_asks_by_itself() -> None:
    assert {name for name in SORTS if not hasattr(ConversationMachine, name)} == {"driver_asks"}


# ---- how often things happen

ENDS = {phase.name for phase in TERMINAL}


class AllMet(Exception):
    """There is nothing more to look for."""


def watched(binding: Binding, patch: pytest.MonkeyPatch) -> tuple[type[ConversationMachine], list[set[str]]]:
    """A machine, and what its runs meet, each of them: the sorts of what happens, and the ends."""
    runs: list[set[str]] = [set()]
    take = Simulation.take

    def note(simulation: Simulation, action: Action) -> Moment:
        runs[-1].update(name for name, is_of_sort in SORTS.items() if is_of_sort(action))
        moment = take(simulation, action)
        runs[-1].update({moment.conversation.phase.name} & ENDS)
        return moment

    patch.setattr(Simulation, "take", note)

    class Watched(ConversationMachine):
        def teardown(self) -> None:
            super().teardown()
            runs.append(set())

    Watched.binding = binding
    return Watched, runs


def test_every_sort_happens_in_the_machine_and_every_end_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, runs = watched(ConversationMachine.binding, monkeypatch)

    class UntilAllWasMet(machine):  # type: ignore[valid-type, misc]
        def teardown(self) -> None:
            super().teardown()
            if set[str]().union(*runs) == {*SORTS, *ENDS}:
                raise AllMet

    with pytest.raises(AllMet):
        run_state_machine_as_test(UntilAllWasMet, settings=ALL)


@each_binding
def test_most_answers_in_the_machine_are_streamed(binding: Binding, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, runs = watched(binding, monkeypatch)
    run_state_machine_as_test(machine, settings=FEW)
    counts = Counter(name for run in runs for name in run)
    assert counts["server_streams"] > len(runs) / 3
    assert counts["server_streams_no_event"] > len(runs) / 4
    assert counts["LEAKED"]


# ---- bugs of an engine


class TakesLostForNotSent(Conversation):
    __slots__ = ()

    def handle(self, happened: Input, now: float) -> list[Event]:
        if isinstance(happened, ExchangeFailed):
            happened = ExchangeFailed(NotSent(str(happened.failure)))
        return super().handle(happened, now)


class RaisesInTheStream(Conversation):
    __slots__ = ()

    def receive_stream_data(self, data: bytes, now: float) -> list[Event]:
        raise KeyError("event_type")


class NeverCloses(Conversation):
    __slots__ = ()

    def handle(self, happened: Input, now: float) -> list[Event]:
        return [] if isinstance(happened, Close) else super().handle(happened, now)


class DropsTokens(Conversation):
    __slots__ = ()

    def receive_stream_data(self, data: bytes, now: float) -> list[Event]:
        return [event for event in super().receive_stream_data(data, now) if not isinstance(event, Token)]


class LosesTheFirstEventOfEachRead(Conversation):
    __slots__ = ()

    def receive_stream_data(self, data: bytes, now: float) -> list[Event]:
        return super().receive_stream_data(data, now)[1:]


class WaitsForNothing(Conversation):
    __slots__ = ()

    def _pause(self, seconds: float) -> None:
        pass


class IgnoresHeaders(Conversation):
    __slots__ = ()

    def handle(self, happened: Input, now: float) -> list[Event]:
        return super().handle(replace(happened, headers=()) if isinstance(happened, ReplyReceived) else happened, now)


class IgnoresTheClock(Conversation):
    __slots__ = ()

    def handle(self, happened: Input, now: float) -> list[Event]:
        return [] if isinstance(happened, TimePassed) else super().handle(happened, now)


class BeginsEachCleanupAnew(Conversation):
    """An engine that takes each exchange of its cleanup for the first one."""

    __slots__ = ()

    def next_intent(self, now: float) -> Intent | None:
        if self._leaving is not None:
            self._leaving.ends = now + self.settings.cleanup.timeout
        return super().next_intent(now)


class CountsNoDelete(Conversation):
    __slots__ = ()

    def _delete_again(self, events: list[Event]) -> None:
        self._attempt.tries = 0
        super()._delete_again(events)


class IgnoresInterruptions(Conversation):
    __slots__ = ()

    def handle(self, happened: Input, now: float) -> list[Event]:
        return [] if isinstance(happened, Interrupted) else super().handle(happened, now)


def machine_of(engine: type[Conversation]) -> type[ConversationMachine]:
    class Engine(ConversationMachine):
        def make_conversation(self, credentials: Credentials | None) -> Conversation:
            return engine(self.binding, credentials, retries=self.retries, timeouts=self.timeouts, cleanup=self.cleanup)

    return Engine


def test_a_planted_bug_in_an_engine_is_found_and_its_story_can_be_read() -> None:
    title, *lines, problem = story_of(machine_of(WaitsForNothing), SHRUNK).splitlines()
    assert re.fullmatch(r"\w+ does not hold \(website, \d+ steps\):", title)
    assert all(
        re.fullmatch(r" *\d+\. (owner|driver|network|server|worker|clock) +.+  \[[A-Z_]+\]", line) for line in lines
    )
    assert any("not sent" in line or "is answered with" in line for line in lines)
    assert len(lines) <= 20
    assert problem.startswith("  => ")


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (RaisesInTheStream, "=> KeyError: 'event_type'"),
        (NeverCloses, "over_in_time does not hold"),
        (BeginsEachCleanupAnew, "over_in_time does not hold"),
        (CountsNoDelete, "bounded_tries does not hold"),
        (WaitsForNothing, "waits_before_trying_again does not hold"),
        (IgnoresHeaders, "waits_before_trying_again does not hold"),
        (IgnoresTheClock, "polls_a_silent_stream does not hold"),
        (TakesLostForNotSent, "does not hold"),
        (IgnoresInterruptions, "gives_control_back does not hold"),
    ],
)
def test_bugs_of_other_kinds_are_found_as_well(engine: type[Conversation], words: str) -> None:
    assert words in story_of(machine_of(engine))


class OnlyAnEngine:
    """An engine that has what is listed, and nothing else."""

    def __init__(self, conversation: ConversationLike) -> None:
        self.conversation = conversation

    def __getattr__(self, name: str) -> Any:
        if name not in dir(ConversationLike):
            raise AttributeError(name)
        return getattr(self.conversation, name)


def test_an_engine_needs_no_more_than_what_is_listed() -> None:
    class Foreign(ConversationMachine):
        def make_conversation(self, credentials: Credentials | None) -> ConversationLike:
            return cast(
                "ConversationLike",
                OnlyAnEngine(
                    Conversation(self.binding, credentials, retries=1, timeouts=self.timeouts, cleanup=self.cleanup)
                ),
            )

    run_state_machine_as_test(Foreign, settings=FEW)


def test_an_engine_that_lacks_something_gets_one_error_for_all_of_it() -> None:
    class Incomplete:
        def next_intent(self, now: float) -> None: ...

    class Foreign(ConversationMachine):
        def make_conversation(self, credentials: Credentials | None) -> ConversationLike:
            return cast("ConversationLike", Incomplete())

    with pytest.raises(
        TypeError, match=r"Incomplete is not an engine, because it lacks awaits_prompt, binding, .*, phase"
    ):
        run_state_machine_as_test(Foreign, settings=UNSHRUNK)


@pytest.mark.parametrize("engine", [DropsTokens, LosesTheFirstEventOfEachRead])
def test_a_lost_token_is_found_in_as_few_runs_as_the_shipped_engine_passes(engine: type[Conversation]) -> None:
    assert "success_is_the_truth does not hold" in story_of(machine_of(engine), settings(FEW, phases=[Stage.generate]))


# ---- bugs of a transport


class Wrapper:
    """A transport over another one."""

    def __init__(self, far_end: Transport) -> None:
        self.far_end = far_end

    async def open(self, request: HttpRequest) -> Response:
        return await self.far_end.open(request)

    async def aclose(self) -> None:
        await self.far_end.aclose()


class TriesAgainByItself(Wrapper):
    async def open(self, request: HttpRequest) -> Response:
        try:
            return await self.far_end.open(request)
        except MaybeSent:
            return await self.far_end.open(request)


class ReportsSentAsNotSent(Wrapper):
    async def open(self, request: HttpRequest) -> Response:
        try:
            return await self.far_end.open(request)
        except MaybeSent as failure:
            raise NotSent(str(failure)) from failure


class Held:
    """A stream's reply that joins two pieces."""

    def __init__(self, reply: Response) -> None:
        self.status, self.headers, self.reply = reply.status, reply.headers, reply

    async def receive(self) -> bytes:
        return await self.reply.receive() + await self.reply.receive()

    async def aclose(self) -> None:
        await self.reply.aclose()


class HoldsBytesBack(Wrapper):
    async def open(self, request: HttpRequest) -> Response:
        return Held(await self.far_end.open(request))


class Other:
    """A reply that is not quite what has arrived."""

    def __init__(self, reply: Response) -> None:
        self.status, self.headers, self.reply = reply.status, reply.headers, reply

    async def receive(self) -> bytes:
        return await self.reply.receive()

    async def aclose(self) -> None:
        await self.reply.aclose()


class Twice(Other):
    async def receive(self) -> bytes:
        return 2 * await self.reply.receive()


class SaysEachPieceTwice(Wrapper):
    async def open(self, request: HttpRequest) -> Response:
        return Twice(await self.far_end.open(request))


class SaysEachTokenTwice(Wrapper):
    async def open(self, request: HttpRequest) -> Response:
        reply = await self.far_end.open(request)
        return Twice(reply) if "/events" in request.url and reply.status == 200 else reply


class NothingIsWrong(Other):
    async def receive(self) -> bytes:
        try:
            return await self.reply.receive()
        except MaybeSent:
            return b""


class SwallowsResetsOfReplies(Wrapper):
    async def open(self, request: HttpRequest) -> Response:
        reply = await self.far_end.open(request)
        return reply if "/events" in request.url else NothingIsWrong(reply)


class SwallowsResetsOfStreams(Wrapper):
    async def open(self, request: HttpRequest) -> Response:
        reply = await self.far_end.open(request)
        return NothingIsWrong(reply) if "/events" in request.url else reply


class BrokenAtItsEnd(Other):
    async def receive(self) -> bytes:
        piece = await self.reply.receive()
        if not piece:
            raise MaybeSent("the connection was closed")
        return piece


class TakesAnEndForAReset(Wrapper):
    async def open(self, request: HttpRequest) -> Response:
        reply = await self.far_end.open(request)
        return BrokenAtItsEnd(reply) if "/events" in request.url and reply.status == 200 else reply


class BreaksOnce(Other):
    broken = False

    async def receive(self) -> bytes:
        if self.broken:
            return b""
        try:
            return await self.reply.receive()
        except MaybeSent:
            self.broken = True
            raise


class ForgetsResets(Wrapper):
    async def open(self, request: HttpRequest) -> Response:
        return BreaksOnce(await self.far_end.open(request))


class DropsHeaders(Wrapper):
    async def open(self, request: HttpRequest) -> Response:
        return await self.far_end.open(replace(request, headers=()))


class DropsHeadersAndCatchesAll(DropsHeaders):
    async def open(self, request: HttpRequest) -> Response:
        try:
            return await super().open(request)
        except AssertionError as error:
            raise MaybeSent(str(error)) from error


class DropsHeadersOfReplies(Wrapper):
    async def open(self, request: HttpRequest) -> Response:
        reply = Other(await self.far_end.open(request))
        reply.headers = ()
        return reply


class FollowsRedirects(Wrapper):
    async def open(self, request: HttpRequest) -> Response:
        reply = Other(await self.far_end.open(request))
        reply.status = 200 if reply.status == 302 else reply.status
        return reply


class TakesErrorsForLosses(Wrapper):
    async def open(self, request: HttpRequest) -> Response:
        reply = await self.far_end.open(request)
        if reply.status == 500:
            raise MaybeSent("the server failed")
        return reply


class SendsNothing(Wrapper):
    async def open(self, request: HttpRequest) -> Response:
        raise NotSent("too busy")


class FailsToClose(Wrapper):
    async def aclose(self) -> None:
        raise ValueError("already closed")


class OneByteAtATime:
    """A reply in the smallest pieces there are; nothing is wrong with it."""

    def __init__(self, reply: Response) -> None:
        self.status, self.headers, self.reply = reply.status, reply.headers, reply
        self.rest = b""

    async def receive(self) -> bytes:
        await asyncio.sleep(0)
        self.rest = self.rest or await self.reply.receive()
        piece, self.rest = self.rest[:1], self.rest[1:]
        return piece

    async def aclose(self) -> None:
        await self.reply.aclose()


class Slow(Wrapper):
    def __init__(self, far_end: Transport) -> None:
        super().__init__(far_end)
        self.loop = asyncio.get_running_loop()

    async def open(self, request: HttpRequest) -> Response:
        assert self.loop is asyncio.get_running_loop()
        headers = (("Host", "oa.test"), *((name.title(), value) for name, value in request.headers))
        return OneByteAtATime(await self.far_end.open(replace(request, headers=headers)))


def machine_over(transport: type[Wrapper]) -> type[ConversationMachine]:
    class Transported(ConversationMachine):
        def make_transport(self, far_end: Transport) -> Transport:
            return transport(far_end)

    return Transported


def test_a_good_transport_passes_and_is_made_in_the_loop_that_it_runs_on() -> None:
    run_state_machine_as_test(machine_over(Slow), settings=FEW)


@pytest.mark.parametrize(
    ("transport", "words"),
    [
        (ReportsSentAsNotSent, " (the transport says NotSent)"),
        (TriesAgainByItself, "sends a request of its own accord"),
        (HoldsBytesBack, "holds back what has arrived"),
        (SendsNothing, "the transport did not send the request"),
        (DropsHeaders, "the transport changed the request: its field "),
        (DropsHeadersAndCatchesAll, "the transport changed the request: its field "),
        (DropsHeadersOfReplies, "the transport changed the reply: its field "),
        (FollowsRedirects, "the transport changed the reply: its status was 302, and became 200"),
        (TakesErrorsForLosses, "the transport changed the reply: it was FarReply(status=500"),
        (SaysEachPieceTwice, "the transport changed the reply: its body was"),
        (SaysEachTokenTwice, "the transport changed the reply: of b'data: "),
        (SwallowsResetsOfReplies, "the reply broke off after 6 bytes, and the transport reported a clean end"),
        (SwallowsResetsOfStreams, "the transport ends a stream cleanly that broke off"),
        (TakesAnEndForAReset, "the transport breaks off a stream that ended cleanly"),
        (ForgetsResets, "the transport goes on after a reply broke off, with b''"),
    ],
)
def test_a_planted_bug_in_a_transport_is_found(transport: type[Wrapper], words: str) -> None:
    story = story_of(machine_over(transport))
    assert words in story
    assert transport is ReportsSentAsNotSent or story.startswith("the transport's contract does not hold")


def test_a_transport_that_cannot_be_closed_fails_at_the_end_of_the_story() -> None:
    *_, last, problem = story_of(machine_over(FailsToClose)).splitlines()
    assert "driver   closes the transport" in last
    assert problem == "  => ValueError: already closed"


def test_a_transport_that_cannot_be_closed_hides_no_other_failure() -> None:
    class FailsAltogether(DropsHeaders):
        has_sent = False

        async def open(self, request: HttpRequest) -> Response:
            self.has_sent = True
            return await super().open(request)

        async def aclose(self) -> None:
            if self.has_sent:
                raise ValueError("already closed")

    assert "the transport changed the request" in story_of(machine_over(FailsAltogether))


def test_a_transport_that_cannot_be_made_fails_with_its_own_words() -> None:
    class CannotBeMade(Wrapper):
        def __init__(self, far_end: Transport) -> None:
            raise ValueError("no such option")

    with pytest.raises(ValueError, match="no such option"):
        run_state_machine_as_test(machine_over(CannotBeMade), settings=UNSHRUNK)
