"""A Hypothesis state machine: an engine, and a transport under it, against the models of owner, network and server.

Subclass it, say what is to be tested, and let pytest find its test case::

    class MyMachine(ConversationMachine):
        def make_transport(self, far_end):
            return MyTransport(far_end)

    TestMyTransport = MyMachine.TestCase

The models are the explorer's. The explorer goes every way there is, up to a few faults. The machine goes far, through
many turns and faults, and through code of yours that can't be copied at every step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from oa_protocol.bindings.base import Binding, Credentials
from oa_protocol.bindings.website import Website
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.timers import Cleanup, Timeouts
from oa_protocol.testing._model.conversation_like import ConversationLike
from oa_protocol.testing._model.invariants import Limits
from oa_protocol.testing._model.model_transport import TransportedSimulation
from oa_protocol.testing._model.scenario import SORTS, Scenario
from oa_protocol.transports import Transport

__tracebackhide__ = True  # pytest shows a user's frames, and none of these

_CHOICES = st.integers(0, 31)
_SELDOM = st.integers(0, 3)
_ENDS = ("owner_closes", "owner_abandons")
_HAVE_CHOICES = (
    "network_hangs",
    "network_spoils_the_reply",
    "network_refuses_the_request",
    "network_is_busy",
    "network_answers_garbage",
    "network_breaks_the_stream",
    "owner_is_interrupted",
    "server_is_late",
    "server_drops_the_answer",
    "worker_works",
    "worker_fails",
)


class ConversationMachine(RuleBasedStateMachine):
    """Owner, driver, network, server, workers and the clock play with an engine, over a transport, in any order.

    After each step every invariant of the explorer must hold, and a transport must carry what it is given. At the end
    the owner leaves, all goes well, and the conversation must come to its end. docs/testing.md lists the clauses that
    this checks. A failure raises an AssertionError with its story, the shortest that was found. The time in it is
    virtual, so nothing has to wait.

    There is a rule for everything that can happen (``SORTS``). Hypothesis' settings are those of ``TestCase.settings``.

    Attributes:
        binding: the API spoken.
        retries, timeouts, cleanup: those of the engine.
        turns: how many prompts the owner has.
        faults: how many faults the network has before cleanup begins. Then they cost nothing.

    >>> import hypothesis
    >>> from hypothesis.stateful import run_state_machine_as_test
    >>> class Doubter:  # a transport that sends everything twice, to be sure
    ...     def __init__(self, far_end):
    ...         self.far_end = far_end
    ...     async def open(self, request):
    ...         await self.far_end.open(request)
    ...         return await self.far_end.open(request)
    ...     async def aclose(self):
    ...         await self.far_end.aclose()
    >>> class Doubting(ConversationMachine):
    ...     def make_transport(self, far_end):
    ...         return Doubter(far_end)
    >>> quick = hypothesis.settings(derandomize=True, phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink])
    >>> run_state_machine_as_test(Doubting, settings=quick)
    Traceback (most recent call last):
    AssertionError: the transport's contract does not hold (website, ...
    ...
      => the transport sends a request of its own accord
    ...

    """

    binding: Binding = Website("http://oa.test")
    retries: int = 1
    timeouts: Timeouts = Timeouts(answer=120.0)
    cleanup: Cleanup = Cleanup(attempts=2)
    turns: int = 3
    faults: int = 5

    scenario: Scenario
    """What has happened so far, and what can happen next."""

    # ---- what is tested

    def make_conversation(self, credentials: Credentials | None) -> ConversationLike:
        """Return the engine to be tested: a Conversation by default, or one of yours, which is ConversationLike.

        If there are no ``credentials``, it has to ask for them. An engine that lacks something is refused with a
        TypeError that names all of it.
        """
        return Conversation(
            self.binding, credentials, retries=self.retries, timeouts=self.timeouts, cleanup=self.cleanup
        )

    def make_transport(self, far_end: Transport) -> Transport:
        """Return the transport to be tested, which sends its requests on to ``far_end``; that itself by default.

        It is called in the event loop, and runs on asyncio. If it asks ``far_end`` for more of a stream than has
        arrived, that raises an AssertionError, because it holds bytes back. What passes through must stay as it is:
        each request, except for ``host``, ``content-length`` and ``connection``, and each reply, including its failure.
        If a reply hangs, ``open`` is cancelled.
        """
        return far_end

    # ---- how a conversation begins and ends

    def _make_engine(self, credentials: Credentials | None) -> ConversationLike:
        engine = self.make_conversation(credentials)
        names = (name for name in dir(ConversationLike) if not name.startswith("_"))
        if lacking := [name for name in names if not hasattr(engine, name)]:
            raise TypeError(f"{type(engine).__name__} is no engine, because it lacks {', '.join(lacking)}")
        return engine

    @initialize(asks_for_credentials=st.booleans(), steps=st.integers(0, 20))
    def begin(self, asks_for_credentials: bool, steps: int) -> None:
        """Begin with nothing, or let the owner prompt, once or more, and all go well for so many steps.

        With ``asks_for_credentials`` there are no credentials at first.
        """
        simulation = TransportedSimulation.new(
            self._make_engine,
            Limits(self.retries, self.timeouts, self.cleanup),
            faults=self.faults,
            turns=self.turns,
            credentials=not asks_for_credentials,
        )
        self._runner = asyncio.Runner()
        simulation.connect(self.make_transport, self._runner.run)
        self._simulation = simulation
        self.scenario = Scenario(simulation)
        self.scenario.begin(steps)

    def teardown(self) -> None:
        """The owner leaves, all goes well, and the end comes."""
        if not hasattr(self, "_runner"):
            return  # Hypothesis gave up before the beginning
        with self._runner:
            if not hasattr(self, "scenario"):
                return  # there is no transport
            try:
                if not self.scenario.is_broken:
                    self.scenario.leave()
            finally:
                self.scenario.let_go(self._simulation.disconnect)

    # ---- the rules; those for what can happen are added below

    @rule(steps=st.integers(1, 20))
    def all_goes_well(self, steps: int) -> None:
        """Let all go well for so many steps, or until the owner is awaited."""
        self.scenario.go_well(steps)


def _rule_for(sort: str) -> Callable[..., None]:
    """Return the rule that lets something of this sort happen."""

    def happen(machine: ConversationMachine, choice: int = 0) -> None:
        if sort not in _ENDS or choice == 0:  # otherwise there would be no long conversations
            machine.scenario.happen(sort, choice)

    happen.__name__ = happen.__qualname__ = sort
    # A draw that makes no difference would only be in the way when Hypothesis shrinks.
    choices = _CHOICES if sort in _HAVE_CHOICES else _SELDOM if sort in _ENDS else None
    as_rule: Callable[[Callable[..., None]], Callable[..., None]] = rule() if choices is None else rule(choice=choices)
    return precondition(lambda machine: machine.scenario.can_happen(sort))(as_rule(happen))


for _sort in SORTS:
    if _sort != "driver_asks":  # it asks by itself
        setattr(ConversationMachine, _sort, _rule_for(_sort))
