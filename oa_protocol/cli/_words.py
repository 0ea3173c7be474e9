"""Translates error messages: the library names arguments, and the command line has options instead."""

from __future__ import annotations

import re

_OPTIONS = {
    "base_url": "--url", "cookies": "--cookies", "token": "--token-file", "proxy": "--proxy", "journal": "--journal",
    "answer": "--timeout", "system_prompt": "--system-prompt", "temperature": "--temperature", "top_k": "--top-k",
    "top_p": "--top-p", "typical_p": "--typical-p", "repetition_penalty": "--repetition-penalty",
    "max_new_tokens": "--max-new-tokens",
}  # fmt: skip
_NAME = f"({'|'.join(_OPTIONS)})"
# For example, in "give cookies= or token=", and at the start of "base_url must have no query".
_ARGUMENT = re.compile(rf"\b{_NAME}=(?!\w)|^{_NAME}(?= (?:must|has|is)\b)")


def in_our_words(error: BaseException) -> str:
    """Return the error's text, with option names in place of argument names."""
    text = str(error).replace("await client.models(), or ", "")  # only the command is left, which a user can run
    return _ARGUMENT.sub(lambda found: _OPTIONS[found[1] or found[2]], text)
