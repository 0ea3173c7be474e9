"""The slot in every order in which chats can come, wait, begin, pause, end and give up: found by exhaustive search."""

from collections import deque
from collections.abc import Callable
from typing import Any, cast

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from oa_protocol.client._pending_slot import PendingSlot
from oa_protocol.client.slots import InProcessSlot
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
        self._slots = [slot(self._look)] * CHATS

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
        chat, slot = self._chats[move[1]], self._slots[move[1]]
        conversation = cast("Conversation", chat)
        match move[0]:
            case "comes":
                chat.place, chat.outstanding, chat.scope = "queues", REQUEST, anyio.CancelScope()
                self._group.start_soon(self._come, chat, slot)
            case "gives up":
                chat.place, chat.outstanding = "away", None
                chat.scope.cancel()
            case "begins unnoticed":  # its owner has paused
                chat.place = "runs unnoticed"
            case "begins" | "notices":
                chat.place, chat.awaits_worker = "away", False
                slot.note(conversation)
            case _:
                chat.place, chat.awaits_worker = "away", False
                slot.leave(conversation)
        await settle()

    def end(self) -> None:
        """Let everybody leave."""
        for chat, slot in zip(self._chats, self._slots, strict=True):
            slot.leave(cast("Conversation", chat))

    async def _come(self, chat: Stub, slot: PendingSlot) -> None:
        with chat.scope:
            await slot.enter(cast("Conversation", chat))
            chat.place, chat.outstanding, chat.awaits_worker = "waits", None, True

    def order(self) -> tuple[object, ...]:
        """What the next moves depend on."""
        insides = [cast("Any", slot) for slot in dict.fromkeys(self._slots)]
        return (
            self.places,
            *(tuple(self._chats.index(stub) for stub, _ in inside._queue) for inside in insides),
            "holders",
            *(number for number, chat in enumerate(self._chats) if chat in [inside._holder for inside in insides]),
        )

    def problem(self) -> str | None:
        if self.places.count("waits") > 1:
            return "two messages wait"
        if "queues" in self.places and "waits" not in self.places:
            return "a chat queues, and no message waits"
        return None


class TwoClients(Scene):
    """Two chats of one client and one of another, which share the slot of their account."""

    def __init__(self, group: anyio.abc.TaskGroup, slot: type[PendingSlot]) -> None:
        super().__init__(group, slot)
        shared = InProcessSlot()
        one, other = (slot(self._look, shared, self._name) for _ in range(2))
        self._slots = [one, one, other]

    async def _name(self, conversation: object) -> str:
        return "account"


async def settle() -> None:
    for _ in range(30):
        await anyio.lowlevel.checkpoint()


async def play(
    slot: type[PendingSlot], story: list[Move], kind: type[Scene]
) -> tuple[str | None, tuple[object, ...], list[Move]]:
    """Return what is wrong at the end of the story, what the next moves depend on, and these moves."""
    end: list[tuple[str | None, tuple[object, ...], list[Move]]] = []
    async with anyio.create_task_group() as group:
        scene = kind(group, slot)
        for move in story:
            await scene.make(move)
        end.append((scene.problem(), scene.order(), scene.moves()))
        group.cancel_scope.cancel()
        scene.end()
    await settle()
    return end[0]


async def search(slot: type[PendingSlot], kind: type[Scene] = Scene) -> tuple[int, list[Move] | None, str | None]:
    """Return how many states there are, and the shortest story of a broken promise with what is wrong."""
    seen: set[tuple[object, ...]] = set()
    todo: deque[list[Move]] = deque([[]])
    while todo:
        story = todo.popleft()
        problem, order, moves = await play(slot, story, kind)
        if problem is not None:
            return len(seen), story, problem
        if order not in seen:
            seen.add(order)
            todo.extend([*story, move] for move in moves)
    return len(seen), None, None


@pytest.fixture(autouse=True)
def looks_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oa_protocol.client._pending_slot._PROBE_EVERY", 0)
    monkeypatch.setattr("oa_protocol.client._pending_slot._WATCH_EVERY", 0)


@pytest.mark.clause("OA-4.8")
@pytest.mark.parametrize("kind", [Scene, TwoClients])
async def test_one_message_waits_at_a_time_and_a_free_slot_is_always_taken(
    record_property: Callable[[str, object], None], kind: type[Scene]
) -> None:
    states, story, problem = await search(PendingSlot, kind)
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
