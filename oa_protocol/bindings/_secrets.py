"""How a secret looks where a server repeats it."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from urllib.parse import quote, unquote

SHORTEST = 16
"""A secret with less characters may be a word of the protocol, for example "assistant"."""


_LEFT_IN_URLS = ("", "/", "!'()*", ";,/?:@&=+$#!'()*")
"""What is not percent-encoded, by urllib and by JavaScript, in a part of a URL and in a whole one."""


def is_searched(secret: str, base_url: str) -> bool:
    """Return whether a secret is looked for in texts. Parts of the base URL are in too many of them."""
    return len(secret) >= SHORTEST and secret not in base_url and base_url not in secret


def spellings(secret: str) -> list[str]:
    """Return a secret as it is, in JSON, in JSON in JSON, in a URL and in HTML; the longest spelling first."""
    in_json = _in_json(secret)
    slashed = in_json.replace("/", "\\/")  # as PHP writes it
    found = {secret, in_json, slashed, _in_json(in_json), _in_json(slashed)}
    found |= {quote(secret, safe=safe) for safe in _LEFT_IN_URLS} | {unquote(secret), html.escape(secret)}
    return sorted((each for each in found if len(each) >= SHORTEST), key=len, reverse=True)


def hide(text: str, secrets: Iterable[str], base_url: str) -> str:
    """Return a server's words without the secrets in them."""
    for secret in secrets:
        if is_searched(secret, base_url):
            for spelled in spellings(secret):
                text = text.replace(spelled, "***")
    return text


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]
