"""What the network, and proxies between client and server, may do to one exchange.

In this model, three kinds of replies can't be forged: an empty 200 to DELETE, the error ``Chat not found``, and a
well-formed chat, message or list. The protocol has no other proofs than these, so a client has to believe them. Every
other reply can also come from a proxy, a login page or a broken gateway.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from oa_protocol.engine.errors import MaybeSent, NotSent, TransportError
from oa_protocol.engine.intents import EXCHANGES, DeleteChat, Exchange, OpenStream, RequestAssistant

GARBAGE = b"<html>It works!</html>"

WRITES = tuple(kind for kind in EXCHANGES if kind.is_write or kind is DeleteChat)


class Effect(Enum):
    """What the server does with the request."""

    NONE = "the server never saw it"
    DONE = "the server did it"
    LATER = "the server does it later"
    LEFT_BEHIND = "the server refused it, and leaves a pending message behind"


class Fate(NamedTuple):
    """What becomes of one exchange: its effect on the server, and what the client gets.

    The client gets the server's own reply if ``status`` is 0, otherwise another reply, or ``failure``. If the exchange
    ``hangs``, the client gets nothing until its time is over.
    """

    words: str
    effect: Effect
    status: int = 0
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    failure: type[TransportError] | None = None
    hangs: bool = False

    @property
    def is_fault(self) -> bool:
        """Whether anything goes wrong."""
        return self is not ARRIVES

    @property
    def rejects_credentials(self) -> bool:
        """Whether the reply rejects the credentials."""
        return self.status in (401, 403)

    @property
    def is_lost(self) -> bool:
        """Whether the client can't know what the server did (OA-6.1)."""
        return self.hangs or self.failure is MaybeSent or (self.status >= 500 and self.status != 503)


ARRIVES = Fate("is answered by the server", Effect.DONE)

_NOT_SENT = Fate("is not sent", Effect.NONE, failure=NotSent)
_REQUEST_LOST = Fate("is lost on its way", Effect.NONE, failure=MaybeSent)
_REPLY_LOST = Fate("is carried out, its reply is lost", Effect.DONE, failure=MaybeSent)
_HANGS = Fate("hangs, and is not carried out", Effect.NONE, hangs=True)
_HANGS_DONE = Fate("hangs, and is carried out", Effect.DONE, hangs=True)
_HANGS_LATE = Fate("hangs, and may be carried out once it is given up", Effect.LATER, hangs=True)
_DONE_500 = Fate("is carried out, and answered with 500", Effect.DONE, 500)
_DONE_GARBAGE = Fate("is carried out, and answered with 200 and garbage", Effect.DONE, 200, GARBAGE)
_GARBAGE = Fate("is answered with 200 and garbage by something else", Effect.NONE, 200, GARBAGE)
_BUSY = Fate("is refused with 503, and leaves a pending message behind", Effect.LEFT_BEHIND)


def _answered(status: int, body: bytes = b"", *, retry_after: str = "") -> Fate:
    headers = (("retry-after", retry_after),) if retry_after else ()
    tail = f" and retry-after: {retry_after}" if retry_after else ""
    return Fate(f"is answered with {status}{tail}, not carried out", Effect.NONE, status, body, headers)


def given_up(kind: type[Exchange]) -> tuple[Fate, ...]:
    """Return what may become of an exchange of this kind that the client gives up."""
    if kind in WRITES:
        return _HANGS, _HANGS_DONE, _HANGS_LATE
    return (_HANGS, _HANGS_DONE) if kind is OpenStream else (_HANGS,)


def _possible(api: str, kind: type[Exchange]) -> tuple[Fate, ...]:
    website = api == "website"
    found = [ARRIVES, _NOT_SENT, _REQUEST_LOST, *given_up(kind)]
    found += [
        _answered(302),
        _answered(403 if website else 401),
        # A website also says this if its own key is rejected. For an inference server, it comes from a proxy.
        _answered(404, b"" if website else GARBAGE),
        _answered(429),
        _answered(429, retry_after="3600"),
        _answered(500),
        _answered(503, retry_after="2"),
    ]
    if kind in WRITES:
        found += [_REPLY_LOST, _DONE_500, _DONE_GARBAGE]
    if kind is OpenStream:
        found.append(_REPLY_LOST)
    if kind is RequestAssistant:
        found.append(_BUSY)
    if kind is not OpenStream and (kind is not DeleteChat or website):
        found.append(_GARBAGE)
    return tuple(found)


_FATES: dict[tuple[str, type[Exchange]], tuple[Fate, ...]] = {
    (api, kind): _possible(api, kind) for api in ("website", "inference") for kind in EXCHANGES
}


def fates(api: str, kind: type[Exchange]) -> tuple[Fate, ...]:
    """Return everything that may become of an exchange of this kind. The first one is that all goes well."""
    return _FATES[api, kind]
