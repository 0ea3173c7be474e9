"""A path through the states, as a story: who did what, and the phase afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

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
    def told(self) -> list[Line]:
        """The steps to show. A driver's question is left out if there was no intent, or if the next line shows it."""
        pairs = zip_longest(self.lines, self.lines[1:])
        return [line for line, following in pairs if following is None or not _is_implied(line, following)]

    def __str__(self) -> str:
        told = self.told
        numbered = [f"{number:>3}. {line}" for number, line in enumerate(told, 1)]
        title = f"{self.invariant} does not hold ({self.api}, {len(told)} steps):"
        return "\n".join([title, *numbered, f"  => {self.problem}"])

    def mentions(self, words: str) -> bool:
        """Return whether a step of the story contains these words."""
        return any(words in line.what for line in self.lines)


_ASKS = "asks what to do: "


def _is_implied(line: Line, following: Line) -> bool:
    asked = line.what.removeprefix(_ASKS)
    return asked != line.what and (asked == "nothing" or following.what.startswith(f"{asked} "))
