"""A Hypothesis state machine: an engine, and a transport under it, against the models of owner, network and server.

Subclass it, say what is to be tested, and let pytest find its test case::

    class MyMachine(ConversationMachine):
        def make_transport(self, far_end):
            return MyTransport(far_end)

    TestMyTransport = MyMachine.TestCase

The models are the explorer's. It goes every way there is, up to a few faults; this goes far, through many turns and
faults, and through code of yours that cannot be copied at every step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from oa_protocol.bindings.base import Binding, Credentials
from oa_protocol.bindings.website import Website
from oa_protocol.engine.conversation import Conversation
from oa_protocol.testing._model.conversation_like import ConversationLike
from oa_protocol.testing._model.invariants import Limits
from oa_protocol.testing._model.model_transport import TransportedWorld
from oa_protocol.testing._model.scenario import Course
from oa_protocol.transports import Transport

_CHOICES = st.integers(0, 31)


def _when(sort: str) -> Callable[[ConversationMachine], bool]:
    return lambda machine: machine.course.can_happen(sort)


class ConversationMachine(RuleBasedStateMachine):
    """Owner, driver, network, server and workers play with an engine, over a transport, in any order.

    After each step every invariant of the explorer must hold, and a transport must carry what it is given; at the end
    the owner leaves, all goes well, and the conversation must come to its end. Which clauses that checks is listed in
    docs/testing.md. A failure raises AssertionError with its story, the shortest that was found.

    ``binding`` is the API spoken, ``retries`` and ``attempts`` go to the engine. ``turns`` is how many prompts the
    owner has, ``faults`` how many faults the network has before cleanup begins (then they cost nothing). Hypothesis'
    settings are those of ``TestCase.settings``.

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
    AssertionError: never_raises does not hold (website, ...
    ...
      => AssertionError: the transport sends a request of its own accord
    ...
    """

    binding: Binding = Website("http://oa.test")
    retries: int = 1
    attempts: int = 2
    turns: int = 3
    faults: int = 5

    course: Course
    """What has happened so far, and what can happen next."""

    # ---- what is tested

    def make_conversation(self, credentials: Credentials | None) -> ConversationLike:
        """Return the engine to be tested: a Conversation by default, or one of yours, which is ConversationLike.

        There are no ``credentials`` in some runs: it has to ask for them then. An engine that lacks something is
        refused with a TypeError that names all of it.
        """
        return Conversation(self.binding, credentials, retries=self.retries, attempts=self.attempts)

    def make_transport(self, far_end: Transport) -> Transport:
        """Return the transport to be tested, which sends its requests on to ``far_end``; that itself by default.

        Called in the event loop; it runs on asyncio. ``far_end`` never waits: asked for more of a stream than has
        arrived, it raises AssertionError, for the transport holds bytes back then. What passes through must stay as it
        is: each request, but for ``host``, ``content-length`` and ``connection``, and each reply, its failure included.
        """
        return far_end

    # ---- how a conversation begins and ends

    def _make_engine(self, credentials: Credentials | None) -> ConversationLike:
        engine = self.make_conversation(credentials)
        names = (name for name in dir(ConversationLike) if not name.startswith("_"))
        if lacking := [name for name in names if not hasattr(engine, name)]:
            raise TypeError(f"{type(engine).__name__} is no engine, for it lacks {', '.join(lacking)}")
        return engine

    @initialize(asks_for_credentials=st.booleans(), steps=st.integers(0, 20))
    def begin(self, asks_for_credentials: bool, steps: int) -> None:
        """Nothing has happened yet, or the owner has prompted, once or more, and all went well for so many steps.

        With ``asks_for_credentials`` there are none at first.
        """
        world = TransportedWorld.new(
            self._make_engine,
            Limits(self.retries, self.attempts),
            faults=self.faults,
            turns=self.turns,
            credentials=not asks_for_credentials,
        )
        self._runner = asyncio.Runner()
        world.connect(self.make_transport, self._runner.run)
        self._world = world
        self.course = Course(world)
        self.course.begin(steps)

    def teardown(self) -> None:
        """The owner leaves, all goes well, and the end comes."""
        if not hasattr(self, "_runner"):
            return  # Hypothesis gave up before the beginning
        with self._runner:
            if not hasattr(self, "course"):
                return  # there is no transport
            try:
                if not self.course.is_broken:
                    self.course.leave()
            finally:
                self.course.let_go(self._world.disconnect)

    # ---- the rules

    @rule(steps=st.integers(1, 20))
    def all_goes_well(self, steps: int) -> None:
        """For so many steps, or until the owner is awaited."""
        self.course.go_well(steps)

    @precondition(_when("owner_prompts"))
    @rule()
    def owner_prompts(self) -> None:
        """The owner asks for an answer."""
        self.course.happen("owner_prompts")

    @precondition(_when("owner_closes"))
    @rule(really=st.integers(0, 3))
    def owner_closes(self, really: int) -> None:
        """The owner leaves; not as often as everything else, or there would be no long conversations."""
        if really == 0:
            self.course.happen("owner_closes")

    @precondition(_when("owner_loses_patience"))
    @rule()
    def owner_loses_patience(self) -> None:
        """The owner waits no longer, for the answer or for the drain."""
        self.course.happen("owner_loses_patience")

    @precondition(_when("owner_gives_up"))
    @rule()
    def owner_gives_up(self) -> None:
        """The owner has left, and there is no more time."""
        self.course.happen("owner_gives_up")

    @precondition(_when("owner_finds_no_credentials"))
    @rule()
    def owner_finds_no_credentials(self) -> None:
        """There are none, or no others."""
        self.course.happen("owner_finds_no_credentials")

    @precondition(_when("owner_finds_credentials"))
    @rule()
    def owner_finds_credentials(self) -> None:
        """There are some, or others."""
        self.course.happen("owner_finds_credentials")

    @precondition(_when("driver_closes_the_stream"))
    @rule()
    def driver_closes_the_stream(self) -> None:
        """The driver does as it was asked."""
        self.course.happen("driver_closes_the_stream")

    @precondition(_when("network_delivers"))
    @rule()
    def network_delivers(self) -> None:
        """The request arrives, and so does its reply."""
        self.course.happen("network_delivers")

    @precondition(_when("network_sends_nothing"))
    @rule()
    def network_sends_nothing(self) -> None:
        """The request certainly did not leave."""
        self.course.happen("network_sends_nothing")

    @precondition(_when("network_loses_the_request"))
    @rule()
    def network_loses_the_request(self) -> None:
        """It left, and nobody knows how far it came: it never arrives."""
        self.course.happen("network_loses_the_request")

    @precondition(_when("network_delays_the_request"))
    @rule()
    def network_delays_the_request(self) -> None:
        """It is given up, and may still be carried out later."""
        self.course.happen("network_delays_the_request")

    @precondition(_when("network_loses_the_reply"))
    @rule()
    def network_loses_the_reply(self) -> None:
        """The request is carried out, and nobody says so."""
        self.course.happen("network_loses_the_reply")

    @precondition(_when("network_spoils_the_reply"))
    @rule(choice=_CHOICES)
    def network_spoils_the_reply(self, choice: int) -> None:
        """The request is carried out, and something else is said."""
        self.course.happen("network_spoils_the_reply", choice)

    @precondition(_when("network_rejects_the_credentials"))
    @rule()
    def network_rejects_the_credentials(self) -> None:
        """Something between the two says that they are not good enough."""
        self.course.happen("network_rejects_the_credentials")

    @precondition(_when("network_refuses_the_request"))
    @rule(choice=_CHOICES)
    def network_refuses_the_request(self, choice: int) -> None:
        """Something between the two refuses it: it has moved, or there is no such thing."""
        self.course.happen("network_refuses_the_request", choice)

    @precondition(_when("network_is_busy"))
    @rule(choice=_CHOICES)
    def network_is_busy(self, choice: int) -> None:
        """Something between the two says that the request may be sent again, now or later."""
        self.course.happen("network_is_busy", choice)

    @precondition(_when("network_answers_garbage"))
    @rule(choice=_CHOICES)
    def network_answers_garbage(self, choice: int) -> None:
        """Something between the two fails, or answers in the server's place."""
        self.course.happen("network_answers_garbage", choice)

    @precondition(_when("network_breaks_the_stream"))
    @rule(choice=_CHOICES)
    def network_breaks_the_stream(self, choice: int) -> None:
        """It ends, and nothing is wrong to see, or it breaks off."""
        self.course.happen("network_breaks_the_stream", choice)

    @precondition(_when("network_falls_silent"))
    @rule()
    def network_falls_silent(self) -> None:
        """The open stream brings nothing for too long."""
        self.course.happen("network_falls_silent")

    @precondition(_when("network_garbles_the_stream"))
    @rule()
    def network_garbles_the_stream(self) -> None:
        """Something in it is no event."""
        self.course.happen("network_garbles_the_stream")

    @precondition(_when("server_streams"))
    @rule()
    def server_streams(self) -> None:
        """The open stream brings the answer's next event."""
        self.course.happen("server_streams")

    @precondition(_when("server_streams_no_event"))
    @rule()
    def server_streams_no_event(self) -> None:
        """The open stream shows for long that the answer waits, or nothing but pings; or it ends."""
        self.course.happen("server_streams_no_event")

    @precondition(_when("server_is_busy"))
    @rule()
    def server_is_busy(self) -> None:
        """The queue is full, and a message stays behind."""
        self.course.happen("server_is_busy")

    @precondition(_when("server_is_late"))
    @rule(choice=_CHOICES)
    def server_is_late(self, choice: int) -> None:
        """What had been given up is carried out."""
        self.course.happen("server_is_late", choice)

    @precondition(_when("server_drops_the_answer"))
    @rule(choice=_CHOICES)
    def server_drops_the_answer(self, choice: int) -> None:
        """A waiting answer is cancelled, or times out."""
        self.course.happen("server_drops_the_answer", choice)

    @precondition(_when("worker_works"))
    @rule(choice=_CHOICES)
    def worker_works(self, choice: int) -> None:
        """A worker takes an answer, or finishes it."""
        self.course.happen("worker_works", choice)

    @precondition(_when("worker_fails"))
    @rule(choice=_CHOICES)
    def worker_fails(self, choice: int) -> None:
        """A worker dies."""
        self.course.happen("worker_fails", choice)
