"""Draws the picture of the phases. The places of the boxes are written here, and the arrows come from the table.

A trigger that is possible in all phases of a frame is one arrow from that frame, because sixty arrows show nothing.
The same picture can show the way that one conversation took.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import hypot
from typing import NamedTuple

from oa_protocol.engine.phases import TRANSITIONS, Phase

WIDTH, HEIGHT = 1000, 480
HALF_WIDTH, HALF_HEIGHT = 72, 17  # of a box

Point = tuple[float, float]
P = Phase

# The main way is the row in the middle, recovery is above it, and leaving is below.
PLACES: dict[Phase, Point] = {
    P.COOKIES: (95, 80),
    P.PROMPT_LOST: (430, 80),
    P.REQUEST_LOST: (590, 80),
    P.POLLING: (760, 80),
    P.START: (95, 180),
    P.CHAT_CREATED: (270, 180),
    P.OPENING: (270, 80),
    P.PROMPTED: (430, 180),
    P.ASSISTANT_REQUESTED: (590, 180),
    P.STREAMING: (760, 180),
    P.ANSWERED: (912, 180),
    P.DRAINING: (640, 310),
    P.FAILED: (890, 310),
    P.NEVER_CREATED: (104, 310),
    P.DELETED: (190, 400),
    P.KEPT: (257, 310),
    P.DELETING: (430, 400),
    P.DELETE_UNCLEAR: (640, 400),
    P.LEAKED: (890, 400),
}
MAIN = (P.START, P.CHAT_CREATED, P.PROMPTED, P.ASSISTANT_REQUESTED, P.STREAMING, P.ANSWERED)
KINDS: dict[Phase, str] = {
    **dict.fromkeys(MAIN, "main"),
    **dict.fromkeys((P.PROMPT_LOST, P.REQUEST_LOST, P.POLLING, P.DELETE_UNCLEAR), "recovery"),
    P.FAILED: "bad",
    P.NEVER_CREATED: "end",
    P.DELETED: "end good",
    P.LEAKED: "end bad",
    P.KEPT: "end good",
}


class Frame(NamedTuple):
    """Phases with a line around them."""

    title: str
    phases: frozenset[Phase]
    left: float
    top: float
    right: float
    bottom: float


_RUNNING = frozenset({P.REQUEST_LOST, P.ASSISTANT_REQUESTED, P.STREAMING, P.POLLING})
_CHAT = _RUNNING | {P.OPENING, P.CHAT_CREATED, P.PROMPT_LOST, P.PROMPTED, P.ANSWERED}
# The larger ones first, because the first that fits is taken.
FRAMES = (
    Frame("there is a chat", _CHAT, 193, 20, 990, 235),
    Frame("an answer may run", _RUNNING, 514, 40, 836, 215),
    Frame("the owner has left", frozenset({P.DRAINING, P.DELETING, P.DELETE_UNCLEAR}), 338, 270, 725, 440),
    Frame("no chat yet", frozenset({P.START, P.COOKIES}), 15, 20, 175, 235),
)

Source = Phase | Frame

ROUTES: dict[tuple[str, Phase], list[Point]] = {
    # Arrows that aren't a straight line from box to box.
    ("no chat yet", P.CHAT_CREATED): [(175, 180), (198, 180)],
    ("no chat yet", P.NEVER_CREATED): [(112, 235), (112, 293)],
    ("no chat yet", P.LEAKED): [(22, 235), (22, 462), (890, 462), (890, 417)],
    ("there is a chat", P.FAILED): [(890, 235), (890, 293)],
    ("there is a chat", P.DELETING): [(430, 235), (430, 383)],
    ("there is a chat", P.LEAKED): [(975, 235), (975, 400), (962, 400)],
    ("there is a chat", P.DRAINING): [(640, 235), (640, 293)],
    ("there is a chat", P.KEPT): [(240, 235), (240, 293)],
    ("FAILED", P.KEPT): [(850, 293), (850, 256), (290, 256), (290, 293)],
    ("OPENING", P.ANSWERED): [(300, 63), (300, 38), (920, 38), (920, 163)],
    ("the owner has left", P.LEAKED): [(725, 400), (818, 400)],
    ("DRAINING", P.DELETING): [(590, 327), (490, 383)],
    ("DELETE_UNCLEAR", P.DELETED): [(640, 417), (640, 431), (190, 431), (190, 417)],
    ("PROMPTED", P.REQUEST_LOST): [(452, 163), (518, 90)],
    ("REQUEST_LOST", P.PROMPTED): [(540, 97), (478, 163)],
    ("CHAT_CREATED", P.PROMPT_LOST): [(300, 163), (385, 97)],
    ("PROMPT_LOST", P.CHAT_CREATED): [(410, 97), (325, 163)],
    ("ANSWERED", P.PROMPTED): [(900, 197), (900, 226), (430, 226), (430, 197)],
    ("ANSWERED", P.PROMPT_LOST): [(935, 163), (935, 32), (450, 32), (450, 63)],
    ("PROMPT_LOST", P.ANSWERED): [(410, 63), (410, 26), (950, 26), (950, 163)],
    ("FAILED", P.DELETING): [(870, 327), (870, 355), (460, 355), (460, 383)],
    ("DELETE_UNCLEAR", P.DELETING): [(568, 407), (502, 407)],
    ("DELETING", P.DELETE_UNCLEAR): [(502, 393), (568, 393)],
}

STYLE = """
.phases { --line: #57606a; --text: #1f2328; --soft: #656d76; --way: #8250df;
  --plain: #fff; --main: #ddf4ff; --main-line: #0969da; --recovery: #fff8c5; --recovery-line: #9a6700;
  --good: #dafbe1; --good-line: #1a7f37; --bad: #ffebe9; --bad-line: #cf222e; --end: #f6f8fa }
@media (prefers-color-scheme: dark) {
  .phases { --line: #8b949e; --text: #e6edf3; --soft: #9198a1; --way: #d2a8ff;
    --plain: #161b22; --main: #0c2d6b; --main-line: #58a6ff; --recovery: #3b2300; --recovery-line: #d29922;
    --good: #0f2d17; --good-line: #3fb950; --bad: #3c1414; --bad-line: #f85149; --end: #21262d }
}
.phases .box { fill: var(--plain); stroke: var(--line); stroke-width: 1.2 }
.phases .main { fill: var(--main); stroke: var(--main-line) }
.phases .recovery { fill: var(--recovery); stroke: var(--recovery-line) }
.phases .end { fill: var(--end); stroke-width: 2.6 }
.phases .good { fill: var(--good); stroke: var(--good-line) }
.phases .bad { fill: var(--bad); stroke: var(--bad-line) }
.phases .frame { fill: none; stroke: var(--line); stroke-opacity: .7; stroke-dasharray: 5 4 }
.phases .arrow { stroke: var(--line); stroke-width: 1.3; fill: none; marker-end: url(#head) }
.phases .head { fill: var(--line) }
.phases text { font: 11px system-ui, sans-serif; fill: var(--text); text-anchor: middle }
.phases .title { fill: var(--soft); text-anchor: start; font-style: italic }
.phases.way .box, .phases.way .arrow, .phases.way .name { opacity: .35 }
.phases.way .taken { opacity: 1 }
.phases.way .taken .box, .phases.way .taken .name { opacity: 1 }
.phases.way .taken .box { stroke-width: 2.6 }
.phases.way .arrow.taken { stroke: var(--way); stroke-width: 2.6; marker-end: url(#taken) }
.phases .taken-head, .phases .number { fill: var(--way) }
.phases .order { fill: var(--plain); font-weight: 700 }
"""
"""The style of the picture. A page that contains it has to allow it."""


def _marker(name: str, kind: str, size: float) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerUnits="userSpaceOnUse" markerWidth="{size}"'
        f' markerHeight="{size}" orient="auto"><path class="{kind}" d="M0 0L8 4L0 8z"/></marker>'
    )


MARKERS = _marker("head", "head", 9) + _marker("taken", "taken-head", 13)
"""The heads of arrows. The style refers to them by their ids."""


def phases_svg(way: Sequence[Phase] = (), *, standalone: bool = True) -> str:
    """Return the whole picture.

    Args:
        way: the phases that a conversation was in, in their order. They and the arrows between them stand out, and each
            has the number of its first place on the way.
        standalone: whether the picture contains ``STYLE`` and ``MARKERS``. A page with several has them once.

    """
    moves = set(pairwise(way))
    order = {phase: number for number, phase in enumerate(dict.fromkeys(way), 1)}
    # The way comes last, so that it is drawn above the other arrows.
    drawn = sorted(arrows(), key=lambda arrow: (_is_taken(arrow[0], arrow[1], moves), str(arrow)))
    classes = "phases way" if way else "phases"
    title = (
        f"The way through the phases: {', '.join(phase.name for phase in order)}"
        if way
        else "The phases of a conversation"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="{classes}">',
            f"<title>{title}</title>",
            *([f"<style>{STYLE}</style>", MARKERS] if standalone else []),
            *(_frame(frame) for frame in FRAMES),
            *(_arrow(source, target, _is_taken(source, target, moves)) for source, target in drawn),
            *(_box(phase, order.get(phase)) for phase in Phase),
            "</svg>\n",
        ]
    )


def _is_taken(source: Source, target: Phase, moves: set[tuple[Phase, Phase]]) -> bool:
    starts = source.phases if isinstance(source, Frame) else {source}
    return any((start, target) in moves for start in starts)


def arrows() -> set[tuple[Source, Phase]]:
    """Return the start and the end of each arrow, so that each row of the table is drawn."""
    found: set[tuple[Source, Phase]] = set()
    for _, sources, target in TRANSITIONS:
        left = set(sources)
        for frame in FRAMES:
            if frame.phases <= left:
                found.add((frame, target))
                left -= frame.phases
        found |= {(source, target) for source in left}
    return found


def _frame(frame: Frame) -> str:
    width, height = frame.right - frame.left, frame.bottom - frame.top
    return (
        f'<rect class="frame" x="{frame.left}" y="{frame.top}" width="{width}" height="{height}" rx="10"/>'
        f'<text class="title" x="{frame.left + 10}" y="{frame.top + 16}">{frame.title}</text>'
    )


def _box(phase: Phase, order: int | None) -> str:
    x, y = PLACES[phase]
    left, top = x - HALF_WIDTH, y - HALF_HEIGHT
    kind, number = "phase", ""
    if order is not None:
        kind = "phase taken"
        number = (
            f'<circle class="number" cx="{left}" cy="{top}" r="9"/>'
            f'<text class="order" x="{left}" y="{top + 4}">{order}</text>'
        )
    return (
        f'<g class="{kind}" data-phase="{phase.name}"><title>{phase.value}</title>'
        f'<rect class="box {KINDS.get(phase, "")}" x="{left}" y="{top}" '
        f'width="{2 * HALF_WIDTH}" height="{2 * HALF_HEIGHT}" rx="7"/>'
        f'<text class="name" x="{x}" y="{y + 4}">{phase.name}</text>{number}</g>'
    )


def _arrow(source: Source, target: Phase, taken: bool) -> str:
    name = source.title if isinstance(source, Frame) else source.name
    route = ROUTES.get((name, target))
    if route is None:
        if isinstance(source, Frame):
            raise ValueError(f"say in ROUTES how the arrow goes from {name!r} to {target.name}")
        route = [_edge(source, target), _edge(target, source)]
    points = "L".join(f"{x:g} {y:g}" for x, y in route)
    return f'<path class="arrow{" taken" if taken else ""}" d="M{points}"/>'


def _edge(phase: Phase, other: Phase) -> Point:
    """Return the point at which the line between the middles of two boxes leaves the first one."""
    (x, y), (to_x, to_y) = PLACES[phase], PLACES[other]
    across, down = to_x - x, to_y - y
    length = hypot(across, down)
    part = min(
        HALF_WIDTH * length / abs(across) if across else length, HALF_HEIGHT * length / abs(down) if down else length
    )
    return x + across * part / length, y + down * part / length
