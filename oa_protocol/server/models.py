"""The models that write the embedded server's answers."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

WORDS = (
    "adipisci", "aliquam", "amet", "consectetur", "dolor", "dolore", "dolorem", "eius", "est", "etincidunt",
    "ipsum", "labore", "magnam", "modi", "neque", "non", "numquam", "porro", "quaerat", "quiquia", "quisquam",
    "sed", "sit", "tempora", "ut", "velit", "voluptatem",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PluginStep:
    """One step of a plugin's work. The stream shows it as ``plugin_intermediate`` and an empty token."""

    thought: str
    action: str
    input: str
    response: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier message, on the path from the chat's first prompt to the prompt that is answered."""

    role: str
    content: str


class Model(Protocol):
    """Writes answers.

    It is called in the server's event loop, so it must not take long to make a piece.
    """

    def answer(self, prompt: str, history: Sequence[Turn]) -> Iterable[str | PluginStep]:
        """Answer ``prompt``.

        Args:
            prompt: The text of the prompt.
            history: The chat's earlier messages, oldest first.

        Returns:
            The pieces of the answer. If an exception is raised, the message is aborted with its text as the error.

        """
        ...


@dataclass(frozen=True, slots=True)
class Lorem:
    """Answers in random Latin words.

    The words are the same for the same ``seed``, prompt and number of earlier turns.
    """

    seed: int = 0
    sentences: int = 8

    def answer(self, prompt: str, history: Sequence[Turn]) -> Iterator[str]:
        """Yield tokens such as ``"Dolorem "``: a word and the space after it."""
        choice = random.Random(f"{self.seed}/{len(history)}/{prompt}")  # noqa: S311 - nothing here is a secret
        for _ in range(self.sentences):
            words = choice.choices(WORDS, k=choice.randint(3, 7))
            yield from (f"{word} " for word in (words[0].capitalize(), *words[1:-1]))
            yield f"{words[-1]}. "


@dataclass(frozen=True, slots=True)
class Echo:
    """Repeats the prompt."""

    def answer(self, prompt: str, history: Sequence[Turn]) -> Iterator[str]:
        """Yield the words of ``prompt``, each with the white space after it."""
        del history
        yield from re.findall(r"\S+\s*|^\s+", prompt)
