"""A Hypothesis state machine that tests an engine, and a transport, against models of owner, network and server.

Subclass it, override what you want to test, and let pytest find its test case::

    class MyMachine(ConversationMachine):
        def make_transport(self, far_end):
            return MyTransport(far_end)

    TestMyTransport = MyMachine.TestCase

The explorer uses the same models. The explorer tries every story, but only with a few faults. The machine tries random
stories with many turns and faults. Because it never copies the engine, it can test code of yours, too.
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
from oa_protocol.testing._model.simulation import EXTRAS, KEEPS
from oa_protocol.transports import Transport

__tracebackhide__ = True  # pytest leaves the frames of this module out of its tracebacks.

_CHOICES = st.integers(0, 31)
_SELDOM = st.integers(0, 3)
_ENDS = ("owner_closes", "owner_abandons", "owner_keeps")
_HAVE_CHOICES = (
    "owner_edits",
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
    """Tests an engine and a transport with anything that owner, network, server, workers and the clock can do.

    After each step, all invariants of the explorer must hold, and the transport must hand everything on unchanged. At
    the end, the owner leaves, there are no more faults, and the conversation must end. docs/testing.md lists the
    clauses that this checks. A failure is an ``AssertionError`` with the shortest story that was found, although there
    may be a shorter one. Time is virtual, so tests don't wait.

    There is a rule for each sort of thing that can happen (``SORTS``). To change Hypothesis' settings, set
    ``TestCase.settings``.

    Attributes:
        binding: the API: ``Website``, ``InferenceServer``, or a subclass. Another API raises ``ValueError``.
        retries: the engine's argument.
        timeouts: the engine's argument.
        cleanup: the engine's argument.
        turns: how many prompts the owner has.
        faults: the most faults before cleanup begins. During cleanup, there is no limit.

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
    """The story so far, and what can happen next."""

    # ---- what is tested

    def make_conversation(self, credentials: Credentials | None) -> ConversationLike:
        """Return the engine to test. By default, it is a ``Conversation``.

        An engine of your own needs all members of ``ConversationLike``. If some are missing, the test fails with a
        ``TypeError`` that lists them.

        Args:
            credentials: the engine's credentials, or None if the engine has to ask for them.

        """
        return Conversation(
            self.binding, credentials, retries=self.retries, timeouts=self.timeouts, cleanup=self.cleanup
        )

    def make_transport(self, far_end: Transport) -> Transport:
        """Return the transport to test. By default, it is ``far_end`` itself.

        This method is called in a running event loop of asyncio. The transport must hand on each request, reply and
        failure unchanged. It may only add the headers ``host``, ``content-length`` and ``connection``. If a reply
        hangs, ``open`` is cancelled.

        Args:
            far_end: the transport to which yours must send its requests. It raises ``AssertionError`` if yours asks for
                more of a stream than has arrived, because then yours holds bytes back.

        """
        return far_end

    # ---- how a conversation begins and ends

    def _make_engine(self, credentials: Credentials | None) -> ConversationLike:
        engine = self.make_conversation(credentials)
        names = (name for name in dir(ConversationLike) if not name.startswith("_"))
        if lacking := [name for name in names if not hasattr(engine, name)]:
            raise TypeError(f"{type(engine).__name__} is not an engine, because it lacks {', '.join(lacking)}")
        return engine

    @initialize(asks_for_credentials=st.booleans(), steps=st.integers(0, 20))
    def begin(self, asks_for_credentials: bool, steps: int) -> None:
        """Begin, and take so many steps without a fault. The owner prompts whenever that is possible.

        If ``asks_for_credentials``, the engine has no credentials at first.
        """
        simulation = TransportedSimulation.new(
            self._make_engine,
            Limits(self.retries, self.timeouts, self.cleanup),
            faults=self.faults,
            turns=self.turns,
            credentials=not asks_for_credentials,
            extras=EXTRAS if self.binding.has_branches else EXTRAS & {KEEPS},
        )
        self._runner = asyncio.Runner()
        simulation.connect(self.make_transport, self._runner.run)
        self._simulation = simulation
        self.scenario = Scenario(simulation)
        self.scenario.begin(steps)

    def teardown(self) -> None:
        """Let the owner leave, and check that the conversation ends if there are no more faults."""
        if not hasattr(self, "_runner"):
            return  # Hypothesis stopped before ``begin``.
        with self._runner:
            if not hasattr(self, "scenario"):
                return  # ``make_transport`` raised an error.
            try:
                if not self.scenario.is_broken:
                    self.scenario.leave()
            finally:
                self.scenario.let_go(self._simulation.disconnect)

    # ---- the rules (those for the sorts are added below)

    @rule(steps=st.integers(1, 20))
    def all_goes_well(self, steps: int) -> None:
        """Take so many steps without a fault, or fewer if the conversation waits for its owner."""
        self.scenario.go_well(steps)


def _rule_for(sort: str) -> Callable[..., None]:
    """Return the rule for this sort."""

    def happen(machine: ConversationMachine, choice: int = 0) -> None:
        # The rules that end a conversation do nothing three times out of four. Otherwise, all stories would be short.
        if sort not in _ENDS or choice == 0:
            machine.scenario.happen(sort, choice)

    happen.__name__ = happen.__qualname__ = sort
    # Rules without a choice draw no number, because Hypothesis would spend time on shrinking it.
    choices = _CHOICES if sort in _HAVE_CHOICES else _SELDOM if sort in _ENDS else None
    as_rule: Callable[[Callable[..., None]], Callable[..., None]] = rule() if choices is None else rule(choice=choices)
    return precondition(lambda machine: machine.scenario.can_happen(sort))(as_rule(happen))


for _sort in SORTS:
    if _sort != "driver_asks":  # The scenario does this by itself, as soon as it is possible.
        setattr(ConversationMachine, _sort, _rule_for(_sort))
