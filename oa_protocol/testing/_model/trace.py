"""A path through the states, as a story: who did what, and the phase afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, zip_longest

from oa_protocol.engine.phases import Phase
from oa_protocol.tape._page import LANES, Diagram, Row, render
from oa_protocol.testing._model.network import ARRIVES

TRANSPORT = "the transport's contract"
"""The title of a story about a transport, in which no invariant of the engine is broken."""


class TransportFault(AssertionError):
    """The transport that is tested did something wrong."""


@dataclass(frozen=True, slots=True)
class Line:
    """One step: who did what, and the phase afterwards.

    >>> print(Line("owner", "prompts", "START"))
    owner    prompts  [START]
    """

    who: str
    what: str
    phase: str

    def __str__(self) -> str:
        return f"{self.who:<8} {self.what}  [{self.phase}]"


@dataclass(frozen=True, slots=True)
class Story:
    """The steps to a state in which an invariant doesn't hold.

    ``str()`` leaves out the driver's question for an intent if the next line shows the intent, too.

    Attributes:
        api: the API.
        invariant: the name of the invariant.
        problem: what is wrong.
        lines: the steps.

    >>> asks = Line("driver", "asks what to do: CreateChat", "START")
    >>> lines = Line("owner", "prompts", "START"), asks, Line("network", "CreateChat is lost on its way", "LEAKED")
    >>> story = Story("website", "guarantee", "a chat is left behind without being named", lines)
    >>> print(story)
    guarantee does not hold (website, 2 steps):
      1. owner    prompts  [START]
      2. network  CreateChat is lost on its way  [LEAKED]
      => a chat is left behind without being named
    >>> story.mentions("CreateChat")
    True

    """

    api: str
    invariant: str
    problem: str
    lines: tuple[Line, ...]

    @property
    def shown(self) -> list[Line]:
        """The steps to show. A driver's question is left out if there was no intent, or if the next line shows it."""
        pairs = zip_longest(self.lines, self.lines[1:])
        return [line for line, following in pairs if following is None or not _is_implied(line, following)]

    def __str__(self) -> str:
        shown = self.shown
        numbered = [f"{number:>3}. {line}" for number, line in enumerate(shown, 1)]
        title = f"{self.invariant} does not hold ({self.api}, {len(shown)} steps):"
        return "\n".join([title, *numbered, f"  => {self.problem}"])

    def to_html(self) -> str:
        """Return a page with the story as a sequence diagram, in one HTML file (``oa_protocol.tape.to_html``)."""
        title = f"{self.invariant} does not hold ({self.api})"
        return render(
            title, [Diagram("The shortest story that was found", list(self._rows()), self._way(), self.problem)]
        )

    def _rows(self) -> Iterator[Row]:
        phase = "START"
        shown = self.shown
        for number, line in enumerate(shown, 1):
            who = line.who.partition(" ")[0]
            arrives = line.what.endswith(ARRIVES.words)
            is_fault = number == len(shown) or (who == "network" and not arrives)
            moved, phase = line.phase != phase, line.phase
            what = line.what if line.who == who else f"{line.who}: {line.what}"
            yield Row(
                number, *_ENDS["server" if arrives else who], what, phase=phase if moved else None, is_fault=is_fault
            )

    def _way(self) -> list[Phase]:
        """Return the phases of the conversation of the last line, because there may be several conversations."""
        number = self.lines[-1].who.partition(" ")[2] if self.lines else ""
        phases = [line.phase for line in self.lines if line.who.partition(" ")[2] == number]
        return [Phase[name] for name, _ in groupby(["START", *phases])]

    def mentions(self, words: str) -> bool:
        """Return whether a step of the story contains these words."""
        return any(words in line.what for line in self.lines)


_OWNER, _ENGINE, _NETWORK, _SERVER = range(len(LANES))
_ENDS = {
    "owner": (_OWNER, _ENGINE),
    "driver": (_ENGINE, _ENGINE),
    "network": (_NETWORK, _ENGINE),
    "server": (_SERVER, _ENGINE),
    "worker": (_SERVER, _SERVER),
    "clock": (_ENGINE, _ENGINE),
}
"""From whom and to whom a line goes, by who did it."""

_ASKS = "asks what to do: "


def _is_implied(line: Line, following: Line) -> bool:
    asked = line.what.removeprefix(_ASKS)
    return asked != line.what and (asked == "nothing" or following.what.startswith(f"{asked} "))
