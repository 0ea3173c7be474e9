"""A reply as the engine judges it, and the exception that an unwelcome one is to be raised as."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

from msgspec import Struct

from oa_protocol.bindings import json as schemas
from oa_protocol.bindings.base import server_words
from oa_protocol.engine.errors import ApiError, AuthenticationError, HTTPStatusError, OAError, RemoteProtocolError

MAX_BODY = 8 * 1024 * 1024
"""The most bytes a reply's body may have. A driver may stop reading one byte after it."""

_SNIPPET = 200
_BUSY = frozenset({429, 503})
_AWAY = _BUSY | {502, 504}

T = TypeVar("T")


class Reply(Struct, frozen=True):
    """A status, a body, and the three headers that matter; ``retry_after`` is in seconds."""

    status: int
    body: bytes
    date: str | None = None
    location: str | None = None
    retry_after: float | None = None

    @classmethod
    def of(cls, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> Reply:
        """Pick what matters out of ``headers``, whose names may have any case."""
        found = {name.lower(): value for name, value in headers}
        return cls(status, body, found.get("date"), found.get("location"), _seconds(found.get("retry-after")))

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def is_busy(self) -> bool:
        """Whether the server says that it did not do it, and that it may later (OA-6.3)."""
        return self.status in _BUSY

    @property
    def is_away(self) -> bool:
        """Whether the server cannot answer at present: it is busy, or a proxy says that it does not reach it."""
        return self.status in _AWAY

    @property
    def is_refusal(self) -> bool:
        """Whether the server says that it did not and will not do it (OA-6.2)."""
        return 300 <= self.status < 500 and not self.is_busy

    @property
    def rejects_credentials(self) -> bool:
        """Whether other credentials may help."""
        return self.status in (401, 403)

    def decode(self, decoder: Callable[[bytes], T], what: str, phase: str | None) -> T:
        """Return the body decoded.

        Raises ApiError where it holds an error message after all, RemoteProtocolError where it is not ``what``.
        """
        problem = f"more than {MAX_BODY:,} bytes"
        if len(self.body) <= MAX_BODY:
            try:
                return decoder(self.body)
            except schemas.DecodeErrors as error:
                problem = str(error)
            if words := server_words(self.body):
                raise ApiError(
                    f"{words} (instead of {what}){_in(phase)}", phase=phase, status=self.status, message=words
                )
        raise RemoteProtocolError(
            f"the server sent something else than {what}: {problem}{_in(phase)}. "
            "Is the base URL that of an Open Assistant server, and the api the right one?",
            phase=phase,
        )

    def error(self, doing: str, phase: str | None = None) -> OAError:
        """Return what this reply is to be raised as; ``doing`` is what was being done, such as "creating the chat"."""
        words = server_words(self.body) if len(self.body) <= MAX_BODY else ""
        said = f"HTTP {self.status} while {doing}{_in(phase)}"
        hint = self._hint(words)
        if self.rejects_credentials:
            return AuthenticationError(
                f"{words or 'the server rejects the credentials'}: {said}{hint}", phase=phase, status=self.status
            )
        if words:
            return ApiError(f"{words}: {said}{hint}", phase=phase, status=self.status, message=words)
        text = self.body[:_SNIPPET].decode(errors="replace").strip()
        return HTTPStatusError(f"{said}{f': {text!r}' if text else ''}{hint}", phase=phase, status=self.status)

    def _hint(self, words: str) -> str:
        match self.status:
            case 401 | 403:
                return ". Log in again and give the new cookies or token"
            case 413:
                return ". Shorten the prompt, or begin a new chat"
            case 422 if words.startswith("Model "):
                return ". The server's models: await client.models(), or oa-protocol models"
            case 429 | 503:
                return ". The server is busy: try again later"
            case 404 if words in ("", "Not Found"):  # the latter are the words of a server that has no such path
                return ". Is the base URL right, the API the right one, and the chat feature on?"
            case 500:
                return ". Servers of this protocol say that for a rate limit, too: wait some minutes"
            case status if 300 <= status < 400:
                return f". It points to {self.location!r}, and redirects are not followed: use that server's URL"
            case _:
                return ""


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _in(phase: str | None) -> str:
    return f" (phase {phase})" if phase else ""
