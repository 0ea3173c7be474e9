"""The forms in which a server may repeat a secret."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from urllib.parse import quote, unquote

SHORTEST = 16
"""The fewest characters of a secret that is searched for. A shorter one may be a word of the protocol."""


_LEFT_IN_URLS = ("", "/", "!'()*", ";,/?:@&=+$#!'()*")
"""What is not percent-encoded, by urllib and by JavaScript, in a part of a URL and in a whole one."""


def is_searched(secret: str, base_url: str) -> bool:
    """Return whether to search texts for a secret. A part of the base URL isn't one, because many texts contain it."""
    return len(secret) >= SHORTEST and secret not in base_url and base_url not in secret


def spellings(secret: str) -> list[str]:
    """Return a secret in plain text, in JSON, in JSON within JSON, in a URL and in HTML. The longest form is first."""
    in_json = _in_json(secret)
    slashed = in_json.replace("/", "\\/")  # PHP escapes slashes in JSON.
    found = {secret, in_json, slashed, _in_json(in_json), _in_json(slashed)}
    found |= {quote(secret, safe=safe) for safe in _LEFT_IN_URLS} | {unquote(secret), html.escape(secret)}
    return sorted((each for each in found if len(each) >= SHORTEST), key=len, reverse=True)


def hide(text: str, secrets: Iterable[str], base_url: str) -> str:
    """Return a server's text with ``***`` in place of each secret."""
    for secret in secrets:
        if is_searched(secret, base_url):
            for spelled in spellings(secret):
                text = text.replace(spelled, "***")
    return text


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]
