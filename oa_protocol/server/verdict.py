"""Judges what a client did, from the requests that it sent and the replies that it got.

It doesn't matter in which language the client is written, because only the wire is looked at. So a finding is always
something that happened. But what can't be seen on the wire can't be found, for example that a client forgets a chat
whose create was lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from oa_protocol.server.exchanges import ExchangeRecord, hash_of
from oa_protocol.server.state import ChatRecord

FindingKind = Literal[
    "sent twice",
    "stream opened twice",
    "Retry-After ignored",
    "no back-off",
    "truncated answer",
    "deleted while running",
    "used after deletion",
    "chat left",
]
"""What a client can do wrong."""

SHORTEST_PAUSE = 0.1
"""How long a client has to wait at least before it tries a failed step again, in seconds."""

_WRITES = {"prompt": "prompt", "request": "request for an answer", "delete": "DELETE"}
_NOT_CARRIED_OUT = (401, 403, 429, 503)

Exchanges = list[ExchangeRecord]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the client did wrong. ``str()`` is the sentence, the clause, and a line for each request.

    Attributes:
        kind: The kind of the mistake.
        sentence: What the client did.
        clause: The clause of specs/protocol.md that it broke, for example ``OA-6.1``.
        chat_id: The chat, or None if it isn't known.
        requests: The requests concerned, in the order in which they arrived.

    """

    kind: FindingKind
    sentence: str
    clause: str
    chat_id: str | None
    requests: tuple[ExchangeRecord, ...]

    def __str__(self) -> str:
        chat = f", chat {self.chat_id}" if self.chat_id else ""
        return "\n".join([f"{self.sentence} ({self.clause}{chat})", *(f"    {each}" for each in self.requests)])


def judge(
    exchanges: Iterable[ExchangeRecord], *, chats: Iterable[ChatRecord] = (), answers: Collection[str] = ()
) -> tuple[Finding, ...]:
    """Return what the client did wrong, or an empty tuple if there is nothing.

    Args:
        exchanges: The requests with their outcomes, in the order in which they arrived.
        chats: The chats that are on the server now.
        answers: The texts that the client took for complete answers.

    """
    everything = list(exchanges)
    of_chat: defaultdict[str, Exchanges] = defaultdict(list)
    creates: defaultdict[int, Exchanges] = defaultdict(list)
    for each in everything:
        if each.step == "create":
            creates[each.sender].append(each)
        elif each.chat_id is not None:
            of_chat[each.chat_id].append(each)
    findings = [finding for chat in of_chat.values() for rule in _RULES for finding in rule(chat)]
    findings += [finding for group in creates.values() for finding in _hasty_creates(group)]
    findings += _truncated(everything, answers)
    findings += [
        Finding("chat left", "The chat is still on the server.", "OA-7.2", chat.id, tuple(of_chat[chat.id]))
        for chat in chats
    ]
    return tuple(findings)


# ---- the rules for the requests of one chat


def _sent_twice(chat: Exchanges) -> Iterator[Finding]:
    """A write whose outcome is unclear was sent again without reading the chat in between."""
    unclear: dict[tuple[str, object], ExchangeRecord] = {}
    for each in chat:
        if each.step in _WRITES:
            key = (each.step, each.content)
            before = unclear.pop(key, None)
            if before is not None:
                what = _WRITES[each.step]
                sentence = f"The {what} was sent again, although its first reply was unclear and the chat wasn't read."
                clause = "OA-7.4" if each.step == "delete" else "OA-6.1"
                yield Finding("sent twice", sentence, clause, each.chat_id, (before, each))
            if _is_unclear(each):
                unclear[key] = each
        elif each.step == "chat":
            was_read = each.is_whole and each.status < 300
            unclear = {key: write for key, write in unclear.items() if not (was_read or write.step == "delete")}


def _is_unclear(write: ExchangeRecord) -> bool:
    if not write.is_whole:
        return True
    if write.step == "delete":
        return not write.confirms_gone and write.status not in _NOT_CARRIED_OUT
    return write.status >= 500 and write.status != 503


def _stream_opened_twice(chat: Exchanges) -> Iterator[Finding]:
    opened: defaultdict[str | None, Exchanges] = defaultdict(list)
    for each in chat:
        # A reply with another status says that there is no stream.
        if each.step == "events" and (each.status < 300 or not each.is_whole):
            opened[each.message_id].append(each)
    for streams in opened.values():
        if len(streams) > 1:
            sentence = f"The stream of a message was opened {len(streams)} times, and each takes events from the other."
            yield Finding("stream opened twice", sentence, "OA-6.5", streams[0].chat_id, tuple(streams))


def _hasty(chat: Exchanges) -> Iterator[Finding]:
    """A failed step was tried again too early."""
    same: defaultdict[tuple[object, ...], Exchanges] = defaultdict(list)
    for each in chat:
        same[each.step, each.message_id, each.content].append(each)
    for tries in same.values():
        yield from _too_early(tries)
        if tries[0].step in _WRITES:
            yield from _constant_pauses(tries)


def _too_early(tries: Exchanges) -> Iterator[Finding]:
    for before, after in pairwise(tries):
        if not _failed(before) or before.ended is None:
            continue
        pause = after.began - before.ended
        if before.retry_after is not None and pause < before.retry_after:
            sentence = (
                f"The server asked to wait for {before.retry_after:g} s (Retry-After), but the next try came after"
                f" {pause:.3f} s."
            )
            yield Finding("Retry-After ignored", sentence, "OA-6.3", after.chat_id, (before, after))
        elif pause < SHORTEST_PAUSE:
            sentence = f"A failed step was tried again after only {pause:.3f} s."
            yield Finding("no back-off", sentence, "OA-6.3", after.chat_id, (before, after))


def _constant_pauses(tries: Exchanges) -> Iterator[Finding]:
    """From the fourth try on, the pauses must have grown. A busy machine makes pauses longer, and never shorter."""
    pauses: list[float] = []
    run: Exchanges = []
    for each in tries:
        before = run[-1] if run else None
        if before is None or not _failed(before) or before.ended is None or before.retry_after is not None:
            pauses, run = [], [each]
            continue
        pauses.append(each.began - before.ended)
        run.append(each)
        if len(pauses) > 2 and SHORTEST_PAUSE <= pauses[-1] < 1.5 * min(pauses[:-1]):
            sentence = f"A step was tried {len(run)} times, and the pauses between the tries didn't grow."
            yield Finding("no back-off", sentence, "OA-6.3", each.chat_id, tuple(run))
            return


def _failed(exchange: ExchangeRecord) -> bool:
    """Return whether the server failed or refused for now. If the client has left, it did so on purpose."""
    return exchange.end == "cut" or (exchange.is_whole and (exchange.status == 429 or exchange.status >= 500))


def _deleted_while_running(chat: Exchanges) -> Iterator[Finding]:
    looked = True
    for each in chat:
        if each.step in ("request", "events"):
            looked = False
        elif each.step in ("message", "chat"):
            looked = True
        elif each.ran and not looked:
            sentence = "The chat was deleted while its answer was waiting or running, without asking if it had ended."
            yield Finding("deleted while running", sentence, "OA-7.1", each.chat_id, (each,))


def _used_after_deletion(chat: Exchanges) -> Iterator[Finding]:
    """The chat was used after the reply that confirms its end. Reading it is right if that reply didn't arrive."""
    gone = next((each for each in chat if each.confirms_gone and each.is_whole), None)
    if gone is None:
        return
    later = [each for each in chat if gone.ended is not None and each.began > gone.ended and each.step != "chat"]
    if later:
        sentence = f"The server had confirmed that the chat is gone, but it was used again ({len(later)} requests)."
        yield Finding("used after deletion", sentence, "OA-7.7", gone.chat_id, (gone, *later))


_RULES: tuple[Callable[[Exchanges], Iterator[Finding]], ...] = (
    _sent_twice,
    _stream_opened_twice,
    _hasty,
    _deleted_while_running,
    _used_after_deletion,
)


# ---- the rules for all requests


def _hasty_creates(creates: Exchanges) -> Iterator[Finding]:
    """A create has no id. So if a later one was patient, the early ones may belong to other conversations."""
    for place, each in enumerate(creates):
        due = (each.ended or 0.0) + (each.retry_after or SHORTEST_PAUSE)
        later = creates[place + 1 :]
        if later and not any(other.began >= due for other in later):
            yield from _too_early([each, later[0]])


def _truncated(exchanges: Exchanges, answers: Collection[str]) -> Iterator[Finding]:
    complete = {answer for each in exchanges for answer in each.answers}
    broken = tuple(each for each in exchanges if each.step == "events" and not each.finished)
    for text in answers:
        if hash_of(text) not in complete:
            shown = text if len(text) <= 60 else f"{text[:60]}…"
            sentence = f"The client took this for a complete answer, but no complete answer reads like this: {shown!r}."
            yield Finding("truncated answer", sentence, "OA-5.7", None, broken)
