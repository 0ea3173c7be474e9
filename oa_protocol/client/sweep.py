"""Deletes the chats in the journal whose owners are no longer alive (see ``oa_protocol.client.journal``)."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import anyio

from oa_protocol.bindings.base import Binding, Credentials
from oa_protocol.bindings.json import ChatSnapshot
from oa_protocol.bindings.replies import Reply
from oa_protocol.client._accounts import session_name
from oa_protocol.client._carrier import Shared, fetch
from oa_protocol.client._driver import Driver
from oa_protocol.client.journal import Journal, Line, in_thread
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import NotSent, OAError
from oa_protocol.engine.events import LeakRecord
from oa_protocol.engine.inputs import Close
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.engine.phases import Phase

# All times are in seconds. A server may still carry out a create some time after the client that sent it is gone.
_LATE = 120.0
# A server's Date field may be behind its clock, because it has whole seconds, and some servers update it only once a
# second.
_SLACK = 2.0
_LOOK_EVERY = 0.5
_MAX_PAGES = 200

# A website's session lasts 30 days. After that, no credentials can prove that they are of the account that sent a
# create.
_END = 30 * 86400.0
_SHOWN = 8

# Between which times a chat was made, if it was made at all.
_Window = tuple[float, float]


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep did.

    Attributes:
        deleted: the ids of the chats that are confirmed gone.
        leaked: the chats that are, or may be, left on the server.
        in_use: the chats of processes that still run. They are left alone.
        elsewhere: the base URLs of the other servers, or of the other API, that the journal has chats of.

    """

    deleted: tuple[str, ...] = ()
    leaked: tuple[LeakRecord, ...] = ()
    in_use: tuple[LeakRecord, ...] = ()
    elsewhere: tuple[str, ...] = ()


class Sweeper:
    """Sweeps the chats of one account on one server.

    ``grace`` is in seconds. A chat whose id isn't in the journal is left alone if it is younger than that.
    """

    def __init__(
        self, journal: Journal, binding: Binding, credentials: Credentials, shared: Shared, grace: float
    ) -> None:
        self._journal = journal
        self._binding = binding
        self._credentials = credentials
        # Other credentials might belong to another account. If the server says "not found" to that account, the chat
        # may still be there. So no others are loaded if these are refused.
        self._shared = replace(shared, load_credentials=_none)
        self._grace = grace
        # The names of our account: the one that these credentials have now, and those whose chats they can read.
        self._accounts: set[str] = set()
        self._dead: set[str] = set()  # a dead owner's name is never used again, so it stays dead
        self._unreachable: NotSent | None = None
        self._deleted: list[str] = []
        self._kept: list[tuple[Line, LeakRecord]] = []
        self._leaked: list[LeakRecord] = []
        self._in_use: list[LeakRecord] = []

    async def sweep(self) -> SweepResult:
        """Delete what can be deleted, and cross it out. Raises JournalError if the journal can't be used."""
        elsewhere = await in_thread(self._journal.elsewhere, self._binding)
        if found := await self._lines():
            claim = await in_thread(self._journal.claim)
            if claim is None:
                self._leave_alone(found, "another sweep of this journal is running")
            else:
                try:
                    await self._sweep({line.owner for line in found})
                finally:
                    with anyio.CancelScope(shield=True):
                        await in_thread(self._journal.release, claim, self._dead)
        return SweepResult(tuple(self._deleted), tuple(self._leaked), tuple(self._in_use), tuple(elsewhere))

    async def _sweep(self, owners: set[str]) -> None:
        self._dead = owners - await in_thread(self._journal.living, owners)
        # Read the lines again, because an owner may have crossed some of them out just before it ended.
        lines = await self._lines()
        dead = [line for line in lines if line.owner in self._dead]
        living = (line for line in lines if line.owner not in self._dead)  # even owners that have begun since
        self._leave_alone(living, "the process that made it still runs")
        if dead:
            known = [line for line in dead if line.chat_id is not None]
            await self._find_accounts(known)
            await self._delete_known(known)
            unknown = [line for line in dead if line.chat_id is None]
            if ours := [line for line in unknown if line.account in self._accounts]:
                await self._resolve(ours, held={line.line for line in dead})
            for line in unknown:
                if line.account not in self._accounts:
                    self._keep(line, "another account may have made it, or an earlier login of this one")
        await self._report_kept()

    async def _lines(self) -> list[Line]:
        return await in_thread(self._journal.lines, self._binding)

    # ---- what is left

    def _leave_alone(self, lines: Iterable[Line], reason: str) -> None:
        self._in_use.extend(LeakRecord(chat_id=line.chat_id, reason=reason) for line in lines)

    def _keep(self, line: Line, reason: str, chat_id: str | None = None) -> None:
        self._kept.append((line, LeakRecord(chat_id=chat_id or line.chat_id, reason=reason)))

    async def _report_kept(self) -> None:
        """Name the chats whose lines stay in the journal. A line without an id is crossed out after 30 days."""
        for line, record in self._kept:
            note = f"line {line.line} of the journal"
            if line.chat_id is None and abs(time.time() - line.sent_at) > _END:
                await self._cross_out(line)
                note += ", which is over 30 days old, and dropped now"
            self._leaked.append(LeakRecord(chat_id=record.chat_id, reason=f"{record.reason} ({note})"))

    # ---- chats whose ids are known

    async def _find_accounts(self, lines: Iterable[Line]) -> None:
        """Find out which names our account has in the journal.

        A server shows a chat only to the account that made it. So if these credentials can read a chat, they belong to
        the account that made it. Then the other lines with the same name are our account's, too.
        """
        name = await self._shared.accounts.name(self._binding, self._credentials)
        self._accounts |= {name, session_name(self._binding, self._credentials)}
        for line in lines:
            if line.account not in self._accounts and await self._read(line.chat_id or "") is not None:
                self._accounts.add(line.account)

    async def _delete_known(self, lines: Iterable[Line]) -> None:
        ours: list[tuple[str, Line]] = []
        for line in lines:
            chat_id = line.chat_id or ""
            if line.account in self._accounts or not self._binding.is_id(chat_id):
                ours.append((chat_id, line))
            else:
                why = "another account made it, or it is gone: these credentials cannot read it"
                self._keep(line, str(self._unreachable or why))
        await self._drain([chat_id for chat_id, _ in ours])
        for chat_id, line in ours:
            await self._delete(chat_id, line)

    async def _drain(self, chat_ids: list[str]) -> None:
        """Wait for the answers that still run, because deleting their chats breaks other users' answers (OA-7.1).

        All of them together get the time that ``Cleanup.drain`` allows.
        """
        left = self._shared.cleanup.drain  # only the pauses count, so even if reading is slow, each chat is read
        while left > 0 and chat_ids:
            chat_ids = [chat_id for chat_id in chat_ids if _is_running(await self._read(chat_id))]
            if chat_ids:
                await anyio.sleep(min(_LOOK_EVERY, left))
                left -= _LOOK_EVERY

    async def _read(self, chat_id: str) -> ChatSnapshot | None:
        """Read a chat. Return None if it can't be read for any reason."""
        if self._unreachable is not None or not self._binding.is_id(chat_id):
            return None
        try:
            request = self._binding.fetch_chat(self._credentials, chat_id)
            reply = Reply.of(self._binding, *await self._fetch(request))
            return reply.decode(self._binding.read_chat, "a chat", None) if reply.is_success else None
        except NotSent as error:
            self._unreachable = error
        except OAError:
            pass  # the DELETE will show what is wrong
        return None

    async def _delete(self, chat_id: str, line: Line) -> None:
        """Delete the chat as a conversation deletes its own, unless the server was found to be unreachable."""
        if self._unreachable is not None:
            self._keep(line, str(self._unreachable), chat_id)
            return
        if not self._binding.is_id(chat_id):
            self._keep(line, f"not an id of this API: {chat_id!r}", chat_id)
            return
        conversation = Conversation(
            self._binding,
            self._credentials,
            chat_id=chat_id,
            timeouts=self._shared.timeouts,
            cleanup=self._shared.cleanup,
        )
        conversation.handle(Close(drain=False), anyio.current_time())  # all chats together were drained before
        driver = Driver(conversation, self._shared)
        await driver.aclose()
        if conversation.phase is not Phase.DELETED:
            self._keep(line, conversation.leaked[-1].reason, chat_id)
            return
        self._deleted.append(chat_id)
        await self._cross_out(line)

    # ---- creates of unknown outcome

    async def _resolve(self, lines: list[Line], held: set[int]) -> None:
        """Find the chats whose ids aren't in the journal, and delete them if they can only be ours.

        Such a chat is empty, has no title, and was made while a create of ours was under way. If more such chats were
        made at that time than we sent creates, some of them are somebody else's, and none is deleted.

        Args:
            lines: the lines without an id whose account is ours.
            held: the numbers of all lines whose owners are no longer alive.

        """
        try:
            made, reached, skew = await self._empty_chats()
        except OAError as error:
            for line in lines:
                self._keep(line, str(error))
            return
        # The journal is read after the list of chats. So each chat in the list that a living owner has made is in the
        # journal already, unless it is gone by now.
        written = await self._lines()
        others = [_window(line, skew) for line in written if line.chat_id is None and line.line not in held]
        windows = {line: _window(line, skew) for line in lines}
        named = {line.chat_id for line in written}
        unexplained = {chat_id: at for chat_id, at in made.items() if chat_id not in named}
        ours = {chat_id: at for chat_id, at in unexplained.items() if _is_in_any(windows.values(), at)}
        makers = _makers(ours, windows)
        if len(makers) < len(ours):
            why = f"{len(ours)} empty chats were made at that time, and only {len(makers)} can be ours: {_shown(ours)}"
            for line in lines:
                self._keep(line, why)
            return
        now = time.time() + skew
        for chat_id, line in makers.items():
            if _is_in_any(others, ours[chat_id]):
                self._keep(line, "a process that still runs may have made it", chat_id)
            elif now + _SLACK - ours[chat_id] < self._grace:
                self._keep(line, f"younger than {self._grace:g} s: somebody may be about to use it", chat_id)
            else:
                await self._delete(chat_id, line)
        strangers = [chat_id for chat_id, at in unexplained.items() if not _is_in_any([*windows.values(), *others], at)]
        for line in sorted(set(lines).difference(makers.values()), key=lambda line: line.line):
            begin, end = windows[line]
            if begin - _LATE <= now <= end:
                self._keep(line, "its create may still be carried out")
            elif begin < reached:
                self._keep(line, f"the first {_MAX_PAGES} pages of the list of chats don't reach back to its create")
            else:
                await self._give_up(line, strangers)

    async def _give_up(self, line: Line, strangers: list[str]) -> None:
        """Cross out a create that made no chat at its time, and name the chats that it may have made after all.

        If this machine's clock was wrong then, the create made one of ``strangers``.
        """
        await self._cross_out(line)
        if strangers:
            at = (
                datetime.fromtimestamp(line.sent_at, UTC).isoformat(" ", "seconds") if abs(line.sent_at) < 1e11 else "?"
            )
            reason = (
                f"no empty chat is from the time of its create ({at} by this machine's clock then). If that clock was"
                f" wrong, it made one of these: {_shown(strangers)}. Line {line.line} of the journal is dropped now"
            )
            self._leaked.append(LeakRecord(chat_id=strangers[0] if len(strangers) == 1 else None, reason=reason))

    async def _empty_chats(self) -> tuple[dict[str, float], float, float]:
        """Read the list of chats.

        Returns:
            When each of the account's empty, untitled chats was made, how far back the list was read, and by how many
            seconds the server's clock is ahead of ours. Times are Unix times in seconds by the server's clock. A time
            that can't be read is given as minus infinity, so it matches no create of ours.

        """
        made: dict[str, float] = {}
        cursor: str | None = None
        seen: set[str | None] = set()
        reached, skew = math.inf, 0.0
        for _ in range(_MAX_PAGES):
            seen.add(cursor)
            request = self._binding.list_chats(self._credentials, after=cursor)
            reply = Reply.of(self._binding, *await self._fetch(request), self._credentials)
            if not reply.is_success:
                raise reply.error("listing the chats")
            page = reply.decode(self._binding.read_chat_list, "a list of chats", None)
            skew = _skew(reply)
            for chat in page.chats:
                at = _time(chat.created_at)
                if chat.title is None:
                    made[chat.id] = -math.inf if at is None else at
                reached = reached if at is None else min(reached, at)
            cursor = page.next
            if cursor is None or cursor in seen:
                return made, -math.inf, skew
        return made, reached, skew

    async def _fetch(self, request: HttpRequest) -> tuple[int, Sequence[tuple[str, str]], bytes]:
        return await fetch(self._shared.open_transport, request, self._shared.timeouts.reply)

    async def _cross_out(self, line: Line) -> None:
        await in_thread(self._journal.gone, line)


async def _none() -> None:
    return None


def _is_running(chat: ChatSnapshot | None) -> bool:
    return chat is not None and chat.tree.is_running


def _time(created_at: str | None) -> float | None:
    try:
        return datetime.fromisoformat(created_at or "").replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def _shown(chat_ids: Collection[str]) -> str:
    more = len(chat_ids) - _SHOWN
    return ", ".join([*list(chat_ids)[:_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def _window(line: Line, skew: float) -> _Window:
    """Return between which times, by the server's clock, the chat of ``line`` was made, if it was made."""
    return line.sent_at + skew - _SLACK, (line.settled_at or line.sent_at) + skew + _LATE


def _is_in_any(windows: Iterable[_Window], at: float) -> bool:
    return any(begin <= at <= end for begin, end in windows)


def _makers(made: dict[str, float], windows: dict[Line, _Window]) -> dict[str, Line]:
    """Return which line may have made which chat, one each. If a chat is missing, there are more chats than lines.

    The oldest chat comes first. Each one gets the matching line whose window ends first, so as many as possible get
    one.
    """
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
