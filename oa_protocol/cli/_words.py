"""The library's words in the command line's: it names arguments, and somebody at a shell knows options."""

from __future__ import annotations

import re

_OPTIONS = {"base_url": "--url", "token": "--token-file"}
_NAMES = (
    "base_url", "cookies", "token", "proxy", "journal", "system_prompt", "temperature", "top_k", "top_p", "typical_p",
    "repetition_penalty", "max_new_tokens",
)  # fmt: skip
# As in "give cookies= or token=", and at the start of "base_url must have no query".
_ARGUMENT = re.compile(rf"\b({'|'.join(_NAMES)})=(?!\w)|^({'|'.join(_NAMES)})(?= )")


def in_our_words(error: Exception) -> str:
    """Return the text of the library's error, with options in place of arguments."""
    return _ARGUMENT.sub(_option, str(error))


def _option(found: re.Match[str]) -> str:
    name = found[1] or found[2]
    return _OPTIONS.get(name, f"--{name.replace('_', '-')}")
