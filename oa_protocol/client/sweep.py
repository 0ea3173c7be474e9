"""Deletes what the journal says was left behind by owners that do not live any more."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import anyio
import anyio.to_thread

from oa_protocol.bindings.base import Binding, Credentials
from oa_protocol.bindings.replies import Reply
from oa_protocol.client._carrier import Shared, fetch
from oa_protocol.client._driver import Driver
from oa_protocol.client.journal import Journal, Line, fingerprint
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import NotSent, OAError
from oa_protocol.engine.events import LeakRecord
from oa_protocol.engine.phases import Phase

# A create whose sender is gone may still be carried out for a while; and a server's date is behind its clock, for it is
# told in whole seconds, and some servers look at the clock once a second.
_LATE = 120.0
_SLACK = 2.0
_LOOK_EVERY = 0.5

_Window = tuple[float, float]


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep did: the ids of the chats that are confirmed gone, and the chats that are or may be left."""

    deleted: tuple[str, ...]
    leaked: tuple[LeakRecord, ...]


class Sweeper:
    """Sweeps one server's chats of one account.

    ``grace`` is in seconds: a chat whose id nobody wrote down is left alone while it is younger than that.
    """

    def __init__(
        self, journal: Journal, binding: Binding, credentials: Credentials, shared: Shared, grace: float
    ) -> None:
        self._journal = journal
        self._binding = binding
        self._credentials = credentials
        self._shared = shared
        self._grace = grace
        self._deleted: list[str] = []
        self._unreachable: NotSent | None = None
        self._leaked: list[LeakRecord] = []

    async def sweep(self) -> SweepResult:
        """Delete what can be deleted, and cross it out. Raises OSError or sqlite3.Error for a journal that fails."""
        account = fingerprint(self._credentials)
        with self._journal.abandoned() as lines:
            ours = [line for line in lines if (line.api, line.base_url) == (self._binding.api, self._binding.base_url)]
            unknown: list[Line] = []
            await self._drain([line.chat_id for line in ours if line.chat_id is not None and line.account == account])
            for line in ours:
                if line.chat_id is None and line.account == account:
                    unknown.append(line)
                elif line.chat_id is None:
                    self._leaked.append(LeakRecord(chat_id=None, reason="another account may have made it"))
                elif line.account == account:
                    await self._delete(line.chat_id, line)
                else:
                    await self._delete_for_another_account(line.chat_id, line)
            if unknown:
                await self._resolve(unknown, held={line.line for line in lines})
        return SweepResult(tuple(self._deleted), tuple(self._leaked))

    async def _drain(self, chat_ids: list[str]) -> None:
        """Wait for the answers that still run, all together: deleting their chats breaks other users' (OA-7.1)."""
        with anyio.move_on_after(self._shared.cleanup.drain):
            while chat_ids:
                chat_ids = [chat_id for chat_id in chat_ids if await self._is_running(chat_id)]
                await anyio.sleep(_LOOK_EVERY if chat_ids else 0)

    async def _is_running(self, chat_id: str) -> bool:
        try:
            request = self._binding.fetch_chat(self._credentials, chat_id)
            status, headers, body = await fetch(self._shared.open_transport, request, self._shared.timeouts.reply)
            chat = Reply.of(self._binding, status, headers, body).decode(self._binding.read_chat, "a chat", None)
        except NotSent as error:
            self._unreachable = error
            return False
        except (OAError, ValueError):
            return False  # nothing to wait for; deleting it will show what is wrong
        return any(message.state in ("pending", "in_progress") for message in chat.messages)

    async def _delete(self, chat_id: str, line: Line) -> None:
        """Delete the chat as a conversation deletes its own; if the server can't be reached, don't try each one."""
        if self._unreachable is not None:
            self._leaked.append(LeakRecord(chat_id=chat_id, reason=str(self._unreachable)))
            return
        try:
            conversation = Conversation.resume(
                self._binding,
                self._credentials,
                chat_id,
                timeouts=self._shared.timeouts,
                cleanup=self._shared.cleanup,
            )
        except ValueError as error:
            self._leaked.append(LeakRecord(chat_id=chat_id, reason=str(error)))
            return
        driver = Driver(conversation, self._shared)
        await driver.aclose()
        if conversation.phase is not Phase.DELETED:
            self._leaked.append(LeakRecord(chat_id=chat_id, reason=conversation.leaked[-1].reason))
            return
        self._deleted.append(chat_id)
        await self._cross_out(line)

    async def _delete_for_another_account(self, chat_id: str, line: Line) -> None:
        """Try it with the credentials at hand; "not found" says nothing here, for it is said of foreign chats, too."""
        why = "another account made it, and these credentials cannot delete it"
        try:
            request = self._binding.delete_chat(self._credentials, chat_id)
            status, _, body = await fetch(self._shared.open_transport, request, self._shared.timeouts.reply)
        except (OAError, ValueError) as error:
            self._leaked.append(LeakRecord(chat_id=chat_id, reason=str(error)))
            return
        if status == 200 and self._binding.is_deleted(status, body):
            self._deleted.append(chat_id)
            await self._cross_out(line)
        else:
            self._leaked.append(LeakRecord(chat_id=chat_id, reason=why))

    async def _resolve(self, lines: list[Line], held: set[int]) -> None:
        """Find the chats whose ids nobody wrote down: empty, untitled, made when a create of ours was under way.

        ``held`` are the numbers of all lines whose owners do not live any more.
        """
        try:
            made, skew = await self._empty_chats()
        except OAError as error:
            self._leaked.extend(LeakRecord(chat_id=None, reason=str(error)) for _ in lines)
            return
        # Read after the list: each chat in there that a living owner has made is in here, or is gone.
        written = await anyio.to_thread.run_sync(self._journal.lines)
        named = {line.chat_id for line in written}
        others = [_window(line, skew) for line in written if line.chat_id is None and line.line not in held]
        windows = {line: _window(line, skew) for line in lines}
        ours = {
            chat_id: at for chat_id, at in made.items() if chat_id not in named and _is_in_any(windows.values(), at)
        }
        makers = _makers(ours, windows)
        if len(makers) < len(ours):
            why = f"{len(ours)} empty chats were made at that time, and only {len(makers)} can be ours"
            self._leaked.extend(LeakRecord(chat_id=chat_id, reason=why) for chat_id in ours)
            return
        now = time.time() + skew
        for chat_id, line in makers.items():
            if _is_in_any(others, ours[chat_id]):
                self._leaked.append(LeakRecord(chat_id=chat_id, reason="an owner that is alive may have made it"))
            elif now + _SLACK - ours[chat_id] < self._grace:
                self._leaked.append(
                    LeakRecord(
                        chat_id=chat_id, reason=f"younger than {self._grace:g} s: somebody may be about to use it"
                    )
                )
            else:
                await self._delete(chat_id, line)
        for line, (_, end) in windows.items():
            if line in makers.values():
                continue
            if now <= end:
                self._leaked.append(LeakRecord(chat_id=None, reason="its create may still be carried out"))
            else:
                await self._cross_out(line)

    async def _empty_chats(self) -> tuple[dict[str, float], float]:
        """Return when the account's empty, untitled chats were made, and how far the server's clock is ahead of ours.

        Times are Unix times in seconds by the server's clock.
        """
        made: dict[str, float] = {}
        cursor: str | None = None
        seen: set[str | None] = set()
        while True:
            seen.add(cursor)
            request = self._binding.list_chats(self._credentials, after=cursor)
            status, headers, body = await fetch(self._shared.open_transport, request, self._shared.timeouts.reply)
            reply = Reply.of(self._binding, status, headers, body, self._credentials)
            if not reply.is_success:
                raise reply.error("listing the chats")
            page = reply.decode(self._binding.read_chat_list, "a list of chats", None)
            for chat in page.chats:
                with suppress(ValueError):  # a time that cannot be read is in no window of ours
                    if chat.title is None and chat.created_at is not None:
                        made[chat.id] = datetime.fromisoformat(chat.created_at).replace(tzinfo=UTC).timestamp()
            cursor = page.next
            if cursor is None or cursor in seen:
                return made, _skew(reply)

    async def _cross_out(self, line: Line) -> None:
        await anyio.to_thread.run_sync(self._journal.gone, line.line)


def _window(line: Line, skew: float) -> _Window:
    """When, by the server's clock, the chat of ``line`` was made, if it was."""
    return line.sent_at + skew - _SLACK, (line.settled_at or line.sent_at) + skew + _LATE


def _is_in_any(windows: Iterable[_Window], at: float) -> bool:
    return any(begin <= at <= end for begin, end in windows)


def _makers(made: dict[str, float], windows: dict[Line, _Window]) -> dict[str, Line]:
    """Say which line may have made which chat, one each; where a chat is missing, there are too many of them."""
    free = sorted(windows, key=lambda line: windows[line][1])
    makers: dict[str, Line] = {}
    for chat_id, at in sorted(made.items(), key=lambda chat: chat[1]):
        line = next((line for line in free if _is_in_any([windows[line]], at)), None)
        if line is not None:
            makers[chat_id] = line
            free.remove(line)
    return makers


def _skew(reply: Reply) -> float:
    with suppress(ValueError):
        return parsedate_to_datetime(reply.date or "").timestamp() - time.time()
    return 0.0
