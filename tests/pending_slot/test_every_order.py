"""The slot in every order in which chats can come, wait, begin, pause, end and give up: found by exhaustive search."""

from collections import deque
from collections.abc import Callable
from typing import Any, cast

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from oa_protocol.client._pending_slot import PendingSlot
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.intents import HttpRequest, RequestAssistant

pytestmark = [pytest.mark.anyio, pytest.mark.clause("OA-4.7")]

CHATS = 3
REQUEST = RequestAssistant(HttpRequest("POST", "http://127.0.0.1/", ()))
Move = tuple[str, int]


class Stub:
    """What the slot asks of a conversation."""

    def __init__(self) -> None:
        self.awaits_worker = False
        self.outstanding: object | None = None
        self.deadline: float | None = None
        self.place = "away"  # or: queues, waits, runs unnoticed
        self.scope = anyio.CancelScope()


class Scene:
    """Some chats at one slot, whose moves are made one after the other."""

    def __init__(self, group: anyio.abc.TaskGroup, slot: type[PendingSlot]) -> None:
        self._group = group
        self._chats = [Stub() for _ in range(CHATS)]
        self._slot = slot(self._look)

    async def _look(self, conversation: object) -> bool:
        return cast("Stub", conversation).place == "waits"

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(chat.place for chat in self._chats)

    def moves(self) -> list[Move]:
        can = {
            "away": ["comes"],
            "queues": ["gives up"],
            "waits": ["begins", "begins unnoticed", "ends"],
            "runs unnoticed": ["notices", "ends"],
        }
        return [(move, number) for number, chat in enumerate(self._chats) for move in can[chat.place]]

    async def make(self, move: Move) -> None:
        chat = self._chats[move[1]]
        conversation = cast("Conversation", chat)
        match move[0]:
            case "comes":
                chat.place, chat.outstanding, chat.scope = "queues", REQUEST, anyio.CancelScope()
                self._group.start_soon(self._come, chat)
            case "gives up":
                chat.place, chat.outstanding = "away", None
                chat.scope.cancel()
            case "begins unnoticed":  # its owner has paused
                chat.place = "runs unnoticed"
            case "begins" | "notices":
                chat.place, chat.awaits_worker = "away", False
                self._slot.note(conversation)
            case _:
                chat.place, chat.awaits_worker = "away", False
                self._slot.leave(conversation)
        for _ in range(30):
            await anyio.lowlevel.checkpoint()

    async def _come(self, chat: Stub) -> None:
        with chat.scope:
            await self._slot.enter(cast("Conversation", chat))
            chat.place, chat.outstanding, chat.awaits_worker = "waits", None, True

    def order(self) -> tuple[object, ...]:
        """What the next moves depend on."""
        inside = cast("Any", self._slot)
        return (
            self.places,
            *(self._chats.index(stub) for stub, _ in inside._queue),
            "holder",
            *(number for number, chat in enumerate(self._chats) if chat is inside._holder),
        )

    def problem(self) -> str | None:
        if self.places.count("waits") > 1:
            return "two messages wait"
        if "queues" in self.places and "waits" not in self.places:
            return "a chat queues, and no message waits"
        return None


async def play(slot: type[PendingSlot], story: list[Move]) -> tuple[str | None, tuple[object, ...], list[Move]]:
    """Return what is wrong at the end of the story, what the next moves depend on, and these moves."""
    end: list[tuple[str | None, tuple[object, ...], list[Move]]] = []
    async with anyio.create_task_group() as group:
        scene = Scene(group, slot)
        for move in story:
            await scene.make(move)
        end.append((scene.problem(), scene.order(), scene.moves()))
        group.cancel_scope.cancel()
    return end[0]


async def search(slot: type[PendingSlot]) -> tuple[int, list[Move] | None, str | None]:
    """Return how many states there are, and the shortest story of a broken promise with what is wrong."""
    seen: set[tuple[object, ...]] = set()
    todo: deque[list[Move]] = deque([[]])
    while todo:
        story = todo.popleft()
        problem, order, moves = await play(slot, story)
        if problem is not None:
            return len(seen), story, problem
        if order not in seen:
            seen.add(order)
            todo.extend([*story, move] for move in moves)
    return len(seen), None, None


@pytest.fixture(autouse=True)
def looks_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oa_protocol.client._pending_slot._PROBE_EVERY", 0)


async def test_one_message_waits_at_a_time_and_a_free_slot_is_always_taken(
    record_property: Callable[[str, object], None],
) -> None:
    states, story, problem = await search(PendingSlot)
    assert story is None, f"{problem}: {story}"
    record_property("states", states)
    assert states > 20


class LetsEverybodyIn(PendingSlot):
    async def enter(self, conversation: Conversation) -> None:
        self._holder = conversation


class WakesNobody(PendingSlot):
    def leave(self, conversation: Conversation) -> None:
        if self._holder is conversation:
            self._holder = None


class NeverLooks(PendingSlot):
    async def _probe_holder(self) -> None:
        pass


class ForgetsWhoGaveUp(PendingSlot):
    def __init__(self, look: Any) -> None:
        super().__init__(look)
        self._queue = Sticky()


class Sticky(deque[Any]):
    def remove(self, value: object, /) -> None:
        pass


@pytest.mark.parametrize(
    ("bug", "wrong", "length"),
    [
        (LetsEverybodyIn, "two messages wait", 2),
        (WakesNobody, "a chat queues, and no message waits", 3),
        (NeverLooks, "a chat queues, and no message waits", 3),
        (ForgetsWhoGaveUp, "a chat queues, and no message waits", 5),
    ],
)
async def test_a_planted_bug_is_found_by_a_shortest_story(bug: type[PendingSlot], wrong: str, length: int) -> None:
    _, story, problem = await search(bug)
    assert problem == wrong
    assert story is not None
    assert len(story) == length
