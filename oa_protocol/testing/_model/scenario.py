"""One conversation in a simulation: what can happen next, sorted into categories, and the story so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from oa_protocol.engine.errors import MaybeSent, NotSent, TransportError
from oa_protocol.engine.intents import FetchChat, FetchMessage
from oa_protocol.engine.phases import Phase
from oa_protocol.testing._frames import from_user_code
from oa_protocol.testing._model.conversation_like import ConversationLike
from oa_protocol.testing._model.invariants import first_violation
from oa_protocol.testing._model.network import ARRIVES, Effect, Fate
from oa_protocol.testing._model.simulation import Action, Simulation, line, words
from oa_protocol.testing._model.trace import TRANSPORT, Line, Story, TransportFault
from oa_protocol.testing._pages import note

__tracebackhide__ = True  # pytest leaves the frames of this module out of its tracebacks.

_LAST_STEPS = 60

Sort = Callable[[Action], bool]


# ---- the sorts of actions


def _is(who: str, *whats: str) -> Sort:
    return lambda action: action.who == who and action.what in whats


def _fated(is_of_sort: Callable[[Fate], bool]) -> Sort:
    return lambda action: (
        action.what == "exchange" and action.fate is not None and action.fate.is_fault and is_of_sort(action.fate)
    )


def _arrives(action: Action) -> bool:
    return action.fate is ARRIVES


def _fails(effect: Effect, failure: type[TransportError] = MaybeSent) -> Sort:
    return _fated(lambda fate: fate.effect is effect and fate.failure is failure and not fate.hangs)


def _something_else_answers(*statuses: int) -> Sort:
    return _fated(lambda fate: fate.effect is Effect.NONE and fate.status in statuses)


SORTS: dict[str, Sort] = {
    "driver_asks": _is("driver", "asks"),
    "driver_closes_the_stream": _is("driver", "closes the stream"),
    "owner_prompts": _is("owner", "prompts"),
    "owner_regenerates": _is("owner", "regenerates"),
    "owner_edits": _is("owner", "edits"),
    "owner_keeps": _is("owner", "keeps"),
    "owner_closes": _is("owner", "closes"),
    "owner_stops_draining": _is("owner", "closes without draining"),
    "owner_abandons": _is("owner", "abandons"),
    "owner_is_interrupted": _is("owner", "interrupts"),
    "owner_finds_credentials": _is("owner", "has credentials", "has other credentials"),
    "owner_finds_no_credentials": _is("owner", "has no credentials", "has no other credentials"),
    "network_delivers": _arrives,
    "network_sends_nothing": _fails(Effect.NONE, NotSent),
    "network_loses_the_request": _fails(Effect.NONE),
    "network_hangs": _fated(lambda fate: fate.hangs),
    "network_loses_the_reply": _fails(Effect.DONE),
    "network_spoils_the_reply": _fated(
        lambda fate: fate.effect is Effect.DONE and fate.failure is None and not fate.hangs
    ),
    "network_rejects_the_credentials": _something_else_answers(401, 403),
    "network_refuses_the_request": _something_else_answers(302, 404),
    "network_is_busy": _something_else_answers(429, 503),
    "network_answers_garbage": _something_else_answers(200, 500),
    "network_breaks_the_stream": _is("network", "ends the stream, cleanly", "breaks the stream"),
    "network_falls_silent": _is("network", "falls silent", "time passes"),
    "network_garbles_the_stream": _is("network", "puts garbage into the stream"),
    "server_streams": _is("server", "streams the next event"),
    "server_streams_no_event": _is("server", "streams ten pending events", "streams three pings", "ends the stream"),
    "server_is_busy": _fated(lambda fate: fate.effect is Effect.LEFT_BEHIND),
    "server_is_late": _is("server", "carries out late"),
    "server_drops_the_answer": _is("server", "cancels", "times out"),
    "worker_works": _is("worker", "starts", "finishes"),
    "worker_fails": _is("worker", "aborts"),
    "time_passes": _is("clock", "time passes"),
    "time_passes_partly": _is("clock", "some time passes"),
}
"""The sorts of actions. Each action is of one of them. All except the first are rules of the machine.

Faults are split into many sorts so that a random draw often picks one.
"""

_TURNS = ("owner_prompts", "owner_regenerates", "owner_edits")

# The order of sorts without a fault. The stream is opened before a worker begins, and is read while the worker goes on.
_WELL = (
    "driver_closes_the_stream",
    "owner_finds_credentials",
    "server_is_late",
    "network_delivers",
    "server_streams",
    "worker_works",
    "server_streams_no_event",
    "time_passes",
)
# If the engine reads the message, workers come first. Otherwise, each read would find a message that is still waiting.
_WORKERS_FIRST = ("driver_closes_the_stream", "owner_finds_credentials", "worker_works", *_WELL)


class Scenario:
    """A simulation with one conversation. It takes one action after another, and checks all invariants after each.

    If an invariant doesn't hold, or the engine or the transport raises, it raises ``AssertionError`` with the story.
    The driver asks for the next intent as soon as it can.

    Attributes:
        simulation: the simulation.
        lines: the story so far.
        actions: what can happen next. It is empty before ``begin``.
        is_broken: true if there was a failure.

    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.lines: list[Line] = []
        self.actions: tuple[Action, ...] = ()
        self.is_broken = False
        self._turns = 0
        self._pings = False

    @property
    def conversation(self) -> ConversationLike:
        """The engine."""
        return self.simulation.peers[0].conversation

    def can_happen(self, sort: str) -> bool:
        """Return whether an action of this sort is possible next."""
        return any(map(SORTS[sort], self.actions))

    def happen(self, sort: str, choice: int = 0) -> None:
        """Take an action of this sort. ``choice`` selects one of them, modulo their number."""
        possible = list(filter(SORTS[sort], self.actions))
        self._turns += sort in _TURNS
        self._take(possible[choice % len(possible)])
        self._look()

    def go_well(self, steps: int) -> None:
        """Take so many steps without a fault, or fewer if the conversation waits for its owner.

        The answer arrives in the stream, with some pings in between. In every other turn, the answer is complete before
        the stream is opened.
        """
        for _ in range(steps):
            sort = next(filter(self.can_happen, self._order()), None)
            if sort is None:
                return
            self.happen(sort)
            self._pings = sort == "server_streams"

    def _order(self) -> tuple[str, ...]:
        if self._pings:
            return ("server_streams_no_event", *_WELL)
        waits = self.conversation.phase is not Phase.STREAMING
        looks = waits and isinstance(self.conversation.outstanding, (FetchMessage, FetchChat))
        return _WORKERS_FIRST if looks or self._turns % 2 == 0 else _WELL

    def begin(self, steps: int) -> None:
        """Take so many steps without a fault, in which the owner prompts whenever that is possible."""
        self._look()
        self.go_well(min(steps, 1))  # The first step may be to find credentials, which comes before the prompt.
        for _ in range(steps):
            if self.can_happen("owner_prompts"):
                self.happen("owner_prompts")
            else:
                self.go_well(1)

    def leave(self) -> None:
        """Let the owner leave, and check that the conversation ends if there are no more faults."""
        if self.can_happen("owner_closes"):
            self.happen("owner_closes")
        self.go_well(_LAST_STEPS)
        if not self.conversation.is_over:
            self._break(
                "over_in_time", f"still {self.conversation.phase.name}, though the owner left and all went well"
            )

    def let_go(self, close: Callable[[], None]) -> None:
        """Let the driver close the transport, by ``close``. If there was a failure already, a second one is ignored."""
        try:
            close()
        except Exception as error:
            if not self.is_broken:
                self.lines.append(Line("driver", "closes the transport", self.conversation.phase.name))
                self._break(TRANSPORT, f"{type(error).__name__}: {error}", error)

    def _look(self) -> None:
        """Find the possible actions. If the driver can ask for an intent, it does so first."""
        self.actions = tuple(self.simulation.actions())
        while asked := next(filter(SORTS["driver_asks"], self.actions), None):
            self._take(asked)
            self.actions = tuple(self.simulation.actions())

    def _take(self, action: Action) -> None:
        what = words(action, self.simulation)
        try:
            moment = self.simulation.take(action)
        except Exception as error:  # The engine mustn't raise, so any exception is a violation.
            self.lines.append(line(action, what, self.simulation, None))
            if isinstance(error, TransportFault):
                self._break(TRANSPORT, str(error), error.__cause__)
            self._break("never_raises", f"{type(error).__name__}: {error}", error)
        else:
            what += self.simulation.remark() if action.what == "exchange" else ""
            self.lines.append(line(action, what, self.simulation, moment))
            if problem := first_violation(moment):
                self._break(*problem)

    def _break(self, invariant: str, problem: str, cause: BaseException | None = None) -> NoReturn:
        self.is_broken = True
        story = Story(self.simulation.server.api, invariant, problem, tuple(self.lines))
        note(problem, story.to_html)
        raise AssertionError(story) from (cause and from_user_code(cause))
