"""Models that need nothing: random words, and an echo."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from oa_protocol.models.base import AnswerRequest

WORDS = (
    "adipisci", "aliquam", "amet", "consectetur", "dolor", "dolore", "dolorem", "eius", "est", "etincidunt",
    "ipsum", "labore", "magnam", "modi", "neque", "non", "numquam", "porro", "quaerat", "quiquia", "quisquam",
    "sed", "sit", "tempora", "ut", "velit", "voluptatem",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lorem:
    """Answers in random Latin words.

    The words are the same for the same ``seed``, prompt and number of earlier turns.
    """

    seed: int = 0
    sentences: int = 8

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[str, None]:
        """Yield tokens such as ``"Dolorem "``: a word and the space after it."""
        choice = random.Random(f"{self.seed}/{len(request.history)}/{request.prompt}")  # noqa: S311 - nothing here is a secret
        for _ in range(self.sentences):
            words = choice.choices(WORDS, k=choice.randint(3, 7))
            for word in (words[0].capitalize(), *words[1:-1]):
                yield f"{word} "
            yield f"{words[-1]}. "


@dataclass(frozen=True, slots=True)
class Echo:
    """Repeats the prompt."""

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[str, None]:
        """Yield the words of the prompt, each with the white space after it."""
        for word in re.findall(r"\S+\s*|^\s+", request.prompt):
            yield word
