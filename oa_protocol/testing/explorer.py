"""An exhaustive search over the real engine: everything that owner, network, server and clock can do, in every order.

The search is breadth-first, so it finds the shortest story in which something is wrong. It is exhaustive within its
bounds, which are the number of turns, of tries, and of faults in one story. A fault is an error of the network, a
stream that falls silent, or an interruption of the owner. Once a conversation deletes its chat, faults are free,
because then the conversation must end no matter what the network does.

Time is virtual. An exchange finishes at once or hangs, and then time jumps to the next deadline. A state has only the
*remaining* times, so two stories that have waited for different times can lead to the same state. The timeouts are
multiples of half a second, so there are few different remaining times.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from oa_protocol.bindings.base import Binding, Credentials
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.phases import Phase
from oa_protocol.engine.timers import Cleanup, Timeouts
from oa_protocol.testing._model.invariants import Limits, first_violation
from oa_protocol.testing._model.server import EXISTING
from oa_protocol.testing._model.simulation import EXTRAS, Action, Simulation, line, words
from oa_protocol.testing._model.trace import Line, Story
from oa_protocol.testing._pages import note

SHORT_TIMEOUTS = Timeouts(reply=5.0, idle=3.0, poll=2.0)
SHORT_CLEANUP = Cleanup(drain=1.0, timeout=4.0, attempts=2)


@dataclass(frozen=True, slots=True)
class Exploration:
    """The result of a search.

    Attributes:
        states: how many different states were found.
        transitions: how many steps between states were tried.
        depth: how many steps the farthest state is from the beginning.
        phases: the phases that occurred.
        violation: the shortest story in which an invariant doesn't hold, or None.

    >>> found = Explorer(Website("http://oa.test"), depth=4).run()
    >>> (found.states, found.depth, sorted(phase.name for phase in found.phases), found.violation)
    (25, 4, ['CHAT_CREATED', 'COOKIES', 'LEAKED', 'NEVER_CREATED', 'START'], None)

    """

    states: int
    transitions: int
    depth: int
    phases: frozenset[Phase]
    violation: Story | None = None


@dataclass(frozen=True, slots=True)
class Explorer:
    """A search over the shipped engine, and its bounds.

    Attributes:
        binding: the API: ``Website``, ``InferenceServer``, or a subclass. Another API raises ``ValueError``.
        faults: the most faults in one story before the deletion begins.
        turns: how many prompts the owner has. With ``existing``, keeping the chat counts as one.
        retries: the engine's argument.
        timeouts: the engine's argument. If the times are short multiples of each other, there are fewer states.
        cleanup: the engine's argument. The same applies to its times.
        conversations: how many conversations use the account at the same time.
        existing: whether the chat exists already, with two turns in it. Then the owner may also ask for another answer,
            go on after an earlier one, and keep the chat.
        newer_chats: how many newer chats the account has. With 20, a website lists our chat on the second page.
        depth: the most steps of one story, or None for no limit.

    >>> exploration = Explorer(InferenceServer("http://oa.test"), faults=0, turns=1).run()
    >>> assert exploration.violation is None, str(exploration.violation)

    """

    binding: Binding
    faults: int = 2
    turns: int = 2
    retries: int = 1
    timeouts: Timeouts = SHORT_TIMEOUTS
    cleanup: Cleanup = SHORT_CLEANUP
    conversations: int = 1
    existing: bool = False
    newer_chats: int = 0
    depth: int | None = None

    def run(self) -> Exploration:
        """Search until all states have been visited, or until the first violation."""
        return _Search(self).run()


@dataclass(slots=True)
class _Search:
    bounds: Explorer
    transitions: int = 0
    depth: int = 0
    phases: set[Phase] = field(default_factory=set[Phase])
    # For each state, the state from which it was reached first, and the action. ``_story`` follows them backwards.
    ways: list[tuple[int, Action | None]] = field(default_factory=list[tuple[int, "Action | None"]])
    seen: set[int] = field(default_factory=set[int])
    todo: deque[tuple[int, int, Simulation]] = field(default_factory=deque[tuple[int, int, Simulation]])

    @property
    def limits(self) -> Limits:
        return Limits(self.bounds.retries, self.bounds.timeouts, self.bounds.cleanup)

    def start(self, *, credentials: bool) -> Simulation:
        bounds = self.bounds

        def make(credentials: Credentials | None) -> Conversation:
            return Conversation(
                bounds.binding,
                credentials,
                chat_id=EXISTING if bounds.existing else None,
                retries=bounds.retries,
                timeouts=bounds.timeouts,
                cleanup=bounds.cleanup,
            )

        return Simulation.new(
            make,
            self.limits,
            faults=bounds.faults,
            turns=bounds.turns,
            conversations=bounds.conversations,
            newer_chats=bounds.newer_chats,
            credentials=credentials,
            extras=EXTRAS if bounds.existing else frozenset(),
            existing=bounds.existing,
        )

    def run(self) -> Exploration:
        for credentials in (True, False):
            self._note(self.start(credentials=credentials), -1 - credentials, None, 0)
        violation: Story | None = None
        while self.todo and violation is None:
            violation = self._expand(*self.todo.popleft())
        return Exploration(len(self.ways), self.transitions, self.depth, frozenset(self.phases), violation)

    def _expand(self, index: int, depth: int, before: Simulation) -> Story | None:
        for action in before.actions():
            self.transitions += 1
            try:
                world, moment = before.after(action)
            except Exception as error:  # The engine mustn't raise, so any exception is a violation.
                return self._story(index, action, ("never_raises", f"{type(error).__name__}: {error}"))
            if problem := first_violation(moment):
                return self._story(index, action, problem)
            self._note(world, index, action, depth + 1)
        return None

    def _note(self, world: Simulation, parent: int, action: Action | None, depth: int) -> None:
        # Only the hash of a state's key is stored, because it has 8 bytes, and the key has hundreds.
        key = hash(world.key())
        if key in self.seen:
            return
        self.seen.add(key)
        self.ways.append((parent, action))
        self.depth = depth
        phases = [peer.conversation.phase for peer in world.peers]
        self.phases.update(phases)
        if depth != self.bounds.depth:
            self.todo.append((len(self.ways) - 1, depth, world))

    def _story(self, index: int, last: Action, problem: tuple[str, str]) -> Story:
        """Repeat the steps to the violation, and return them as a story."""
        actions = [last]
        while index >= 0:
            index, action = self.ways[index]
            if action is not None:
                actions.append(action)
        world = self.start(credentials=index == -2)
        lines: list[Line] = []
        for action in reversed(actions):
            what = words(action, world)
            try:
                world, moment = world.after(action)
            except Exception:  # This is the violation itself.
                moment = None
            lines.append(line(action, what, world, moment))
        story = Story(self.bounds.binding.api, *problem, tuple(lines))
        note(story.problem, story.to_html)
        return story
