"""The sweep: it deletes what dead owners left, and nothing of anybody else's."""

import json
import re
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import pytest

from oa_protocol import AuthenticationError, ChatLeakedWarning, Cleanup, Client, OAError, Timeouts
from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.website import Website
from oa_protocol.client._accounts import session_name
from oa_protocol.client._file_lock import Lock
from oa_protocol.client.journal import Journal
from oa_protocol.client.sweep import SweepResult
from oa_protocol.engine.events import LeakRecord
from oa_protocol.server import Answer, Fault, Hold, Reply, Reset
from tests.driver.site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.clause("OA-7.2")]

LATE = 120.0
OTHER = Credentials({}, "somebody-elses")
AN_ID = "00000000-0000-0000-0000-000000000001"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


def written(
    path: Path,
    site: Site,
    chat_id: str | None = None,
    *,
    sent: float = 0.0,
    settled: float | None = None,
    credentials: Credentials | None = None,
    url: str = "",
) -> Journal:
    """Write a line, as if ``sent`` and ``settled`` seconds from now; return its owner, who lives."""
    binding = (Website if site.api == "website" else InferenceServer)(url or site.server.url)
    owner = Journal(path)
    line = owner.creating(binding, session_name(binding, credentials or Credentials(**site.credentials)))
    now = time.time()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(
            "UPDATE chats SET chat_id = ?, sent_at = ?, settled_at = ? WHERE line = ?",
            (chat_id, now + sent, None if settled is None else now + settled, line.line),
        )
    return owner


def left_behind(path: Path, site: Site, chat_id: str | None = None, **details: float) -> None:
    """Write a line whose owner dies."""
    written(path, site, chat_id, sent=details.get("sent", 0.0), settled=details.get("settled")).close()


def ids(path: Path) -> list[str | None]:
    return [line.chat_id for line in Journal(path).lines()]


async def make_chats(site: Site, count: int = 1, *, account: str = "default", title: str | None = None) -> list[str]:
    """Make chats as a browser does; they stay, unless they are deleted."""
    headers = {"authorization": f"Bearer {site.server.account(account).token}"}

    def make() -> list[str]:
        with httpx.Client(base_url=site.server.url, headers=headers, trust_env=False) as http:
            made = [str(http.post("/chats", json={}).json()["id"]) for _ in range(count)]
            for chat_id in made if title is not None else ():
                http.put(f"/chats/{chat_id}", json={"title": title})
            return made

    made = await anyio.to_thread.run_sync(make)
    site.left.update(made)
    return made


async def sweep(site: Site, path: Path, grace: float = 0.0, client: Client | None = None) -> SweepResult:
    client = client or site.client(journal=path)
    swept = await client.sweep(grace=grace)
    site.left.difference_update(swept.deleted)
    assert not set(swept.deleted) & set(site.chats)
    await client.aclose()
    return swept


def named(chat_id: str | None, reason: str, line: int = 1) -> LeakRecord:
    return LeakRecord(chat_id=chat_id, reason=f"{reason} (line {line} of the journal)")


def unnamed(reason: str, line: int = 1) -> LeakRecord:
    return named(None, reason, line)


def in_use(*chat_ids: str | None, reason: str = "the process that made it still runs") -> SweepResult:
    return SweepResult(in_use=tuple(LeakRecord(chat_id=chat_id, reason=reason) for chat_id in chat_ids))


def reasons(swept: SweepResult) -> list[str]:
    return [record.reason for record in swept.leaked]


# ---- chats whose ids are known


async def test_the_chats_of_a_dead_owner_are_deleted_and_crossed_out(site: Site, path: Path) -> None:
    made = await make_chats(site, 2)
    for chat_id in made:
        left_behind(path, site, chat_id)
    assert await sweep(site, path) == SweepResult(tuple(made), ())
    assert site.steps.count("chat") == 2  # Each one is read once, to see whether an answer runs.
    assert (ids(path), site.chats) == ([], ())
    assert [file.name for file in path.with_name(f"{path.name}.owners").iterdir()] == ["sweep"]
    assert await sweep(site, path) == SweepResult((), ())


@pytest.mark.clause("OA-9.2")
async def test_the_chats_of_living_owners_are_left_alone_and_named(site: Site, path: Path) -> None:
    [known, unknown] = await make_chats(site, 2)
    owners = [written(path, site, known), written(path, site)]
    assert await sweep(site, path) == in_use(known, None)
    assert set(site.chats) == {known, unknown}
    for owner in owners:
        owner.close()
    assert set((await sweep(site, path)).deleted) == {known, unknown}


@pytest.mark.clause("OA-9.2")
async def test_an_owner_that_crosses_its_last_line_out_during_a_sweep_still_lives(site: Site, path: Path) -> None:
    hold, binding = Hold(), Website("http://oa.example.org")
    [chat_id] = await make_chats(site)
    left_behind(path, site, chat_id)
    owner = written(path, site)
    [_, line] = owner.lines()
    site.script(Fault("delete", before=hold))
    async with anyio.create_task_group() as group:
        group.start_soon(sweep, site, path)
        await site.reached("delete")
        owner.gone(line)
        hold.release()
    line = owner.creating(binding, "an account")
    assert owner.living([line.owner]) == {line.owner}
    owner.close()


async def test_a_client_does_not_sweep_what_it_has_open(site: Site, path: Path) -> None:
    async with site.client(journal=path) as client, client.chat() as chat:
        await chat.ask("Hello")
        assert await client.sweep(grace=0) == in_use(chat.id)
        assert site.chats == (chat.id,)


async def test_a_chat_that_is_gone_already_is_crossed_out(site: Site, path: Path) -> None:
    left_behind(path, site, AN_ID)
    assert await sweep(site, path) == SweepResult((AN_ID,), ())
    assert ids(path) == []


async def test_a_chat_that_reads_badly_is_deleted_all_the_same(site: Site, path: Path) -> None:
    [chat_id] = await make_chats(site)
    left_behind(path, site, chat_id)
    site.script(Fault("chat", before=Reply(200, b"{")))
    assert (await sweep(site, path)).deleted == (chat_id,)


async def test_a_delete_is_tried_and_awaited_as_the_client_says(site: Site, path: Path) -> None:
    [chat_id] = await make_chats(site)
    left_behind(path, site, chat_id)
    site.script(Fault("delete", before=Hold()))
    client = site.client(journal=path, timeouts=Timeouts(reply=0.05), cleanup=Cleanup(attempts=1))
    swept = await sweep(site, path, client=client)
    [reason] = reasons(swept)
    assert "in 1 attempts: no reply within 0.05 s" in reason


@pytest.mark.clause("OA-9.3")
async def test_a_chat_that_comes_with_an_error_was_not_read(site: Site, path: Path) -> None:
    [chat_id] = await make_chats(site)
    written(path, site, chat_id, credentials=OTHER).close()
    body = json.dumps({"id": chat_id, "messages": []}).encode()
    site.script(Fault("chat", before=Reply(500, body)))
    swept = await sweep(site, path)
    assert (swept.deleted, len(swept.leaked)) == ((), 1)


async def test_two_sweeps_at_once_do_everything_once(site: Site, path: Path) -> None:
    hold = Hold()
    made = await make_chats(site, 2)
    site.script(Fault("delete", before=hold))
    for chat_id in made:
        left_behind(path, site, chat_id)
    found: list[SweepResult] = []

    async def first() -> None:
        found.append(await sweep(site, path))

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await site.reached("delete")
        assert await sweep(site, path) == in_use(*made, reason="another sweep of this journal is running")
        hold.release()
    assert found == [SweepResult(tuple(made), ())]
    assert site.steps.count("delete") == 2


async def test_a_server_that_is_down_leaves_everything_and_says_so(site: Site, path: Path, unused_tcp_url: str) -> None:
    for chat_id, account in ((AN_ID, None), (AN_ID, OTHER), (None, None)):
        written(path, site, chat_id, url=unused_tcp_url, credentials=account).close()
    client = Client(unused_tcp_url, api=site.api, journal=path, **site.credentials)
    swept = await client.sweep(grace=0)
    await client.aclose()
    assert sorted(record.chat_id or "" for record in swept.leaked) == ["", AN_ID, AN_ID]
    assert all("connect" in reason.lower() for reason in reasons(swept))
    assert ids(path) == [AN_ID, AN_ID, None]


@pytest.fixture
def unused_tcp_url() -> str:
    """A port on which no server listens: port 1 of loopback."""
    return "http://127.0.0.1:1"


@pytest.mark.parametrize("status", [401, 403])
async def test_credentials_that_are_refused_leave_everything(site: Site, path: Path, status: int) -> None:
    [chat_id] = await make_chats(site)
    site.endless = True
    site.script(*(Fault(step, before=Reply(status), times=9) for step in ("delete", "list")))
    left_behind(path, site, chat_id)
    left_behind(path, site)
    swept = await sweep(site, path)
    assert [record.chat_id for record in swept.leaked] == [chat_id, None]
    assert ids(path) == [chat_id, None]


@pytest.mark.clause("OA-2.6")
@pytest.mark.parametrize("chat_id", ["../account/", "", "a?b", "00000000-0000-0000-0000-00000000000/", AN_ID + "\n"])
@pytest.mark.parametrize("credentials", [None, OTHER])
async def test_what_is_no_id_never_gets_into_a_url(
    site: Site, path: Path, chat_id: str, credentials: Credentials | None
) -> None:
    written(path, site, chat_id, credentials=credentials).close()
    swept = await sweep(site, path)
    assert [record.chat_id for record in swept.leaked] == [chat_id]
    assert "id of this" in reasons(swept)[0]
    assert set(site.steps) <= {"other"}
    assert ids(path) == [chat_id]


# ---- other servers, other accounts


async def test_the_lines_of_other_servers_are_none_of_its_business(site: Site, path: Path) -> None:
    for chat_id in (AN_ID, None):
        written(path, site, chat_id, url="http://elsewhere.example.org").close()
    assert await sweep(site, path) == SweepResult(elsewhere=("http://elsewhere.example.org",))
    assert len(ids(path)) == 2
    assert site.steps == []


@pytest.mark.clause("OA-9.3")
async def test_under_another_account_nothing_counts_as_gone(site: Site, path: Path) -> None:
    [foreign] = await make_chats(site, account="other")
    for chat_id in (foreign, AN_ID, None):
        written(path, site, chat_id, credentials=OTHER).close()
    await make_chats(site)
    swept = await sweep(site, path)
    assert swept.deleted == ()
    known = "another account made it, or it is gone: these credentials cannot read it"
    unknown = "another account may have made it, or an earlier login of this one"
    assert swept.leaked == (named(foreign, known, 1), named(AN_ID, known, 2), unnamed(unknown, 3))
    assert set(site.steps).isdisjoint({"delete", "list"})
    assert ids(path) == [foreign, AN_ID, None]


@pytest.mark.clause("OA-7.1", "OA-9.3")
async def test_after_a_new_login_a_chat_that_can_be_read_tells_that_the_account_is_the_same(
    site: Site, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then its answer is waited for, what is not found is gone, and creates of unknown outcome are looked for."""
    site.allowed.add("used after deletion")  # by the owner, because the test sweeps while it is still there
    monkeypatch.setattr("oa_protocol.client.sweep._LOOK_EVERY", 0.01)
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    async with site.client() as other, other.chat() as chat:
        assert await anext(chat.stream("Hello")) == "One "
        for chat_id in (chat.id, AN_ID, None):
            written(path, site, chat_id, credentials=OTHER).close()
        [unknown] = await make_chats(site)
        async with site.client(journal=path, cleanup=Cleanup(drain=60.0)) as client, anyio.create_task_group() as group:

            async def look() -> None:
                await site.reached("chat", 4)
                assert "delete" not in site.steps
                hold.release()

            group.start_soon(look)
            assert await client.sweep(grace=0) == SweepResult((chat.id or "", AN_ID, unknown))
    assert ids(path) == []
    site.left.clear()


@pytest.mark.clause("OA-9.3")
async def test_after_a_new_token_or_with_other_cookies_the_account_is_the_same(site: Site, path: Path) -> None:
    account = site.server.account()
    site.script(Fault("create", after=Reset()))
    async with site.client(journal=path, retries=0) as client:
        with pytest.raises(OAError), pytest.warns(ChatLeakedWarning):
            async with client.chat() as chat:
                await chat.ask("Hello")
    site.left.update(site.chats)
    renewed: dict[str, Any] = (
        {"cookies": account.cookies | {"_ga": "GA1.2"}} if site.api == "website" else {"token": account.session}
    )
    swept = await sweep(site, path, client=site.client(journal=path, **renewed))
    assert len(swept.deleted) == 1
    assert ids(path) == []


@pytest.mark.clause("OA-9.3")
@pytest.mark.parametrize(
    "credentials",
    [
        Credentials({"_ga": "GA1.2", "next-auth.session-token": "one-two"}, "another"),
        Credentials({"next-auth.session-token.1": "two", "next-auth.session-token.0": "one-"}),
        Credentials({"__Secure-next-auth.session-token": "one-two", "next-auth.csrf-token": "c"}),
        Credentials(token="one-two"),
    ],
)
def test_a_websites_account_is_identified_by_the_session_token_alone(credentials: Credentials) -> None:
    website, usual = Website("http://oa.example.org"), Credentials({"next-auth.session-token": "one-two"})
    assert session_name(website, credentials) == session_name(website, usual)
    assert "one-two" not in session_name(website, credentials)
    others = [Credentials({"next-auth.session-token": "three"}), Credentials({"a": "1"}), Credentials({"a": "2"})]
    assert len({session_name(website, other) for other in (usual, *others)}) == 4
    assert website.ask_account(usual) is None


@pytest.mark.clause("OA-9.3")
@pytest.mark.parametrize("reply", [Reply(500), Reply(404), Reply(200, b"<html>"), Reset()])
async def test_a_server_that_does_not_say_whose_a_token_is_is_swept_with_the_same_token(
    site: Site, path: Path, reply: Reply | Reset
) -> None:
    site.allowed.add("used after deletion")  # by the owner, because the test sweeps while it is still there
    site.endless = True
    site.script(Fault("other", before=reply, times=9))
    [chat_id] = await make_chats(site)
    left_behind(path, site, chat_id)
    left_behind(path, site, AN_ID)
    assert (await sweep(site, path)).deleted == (chat_id, AN_ID)


@pytest.mark.clause("OA-9.3")
async def test_credentials_that_are_renewed_in_mid_sweep_are_not_used(site: Site, path: Path, tmp_path: Path) -> None:
    """They may be another account's by now, to whom every chat is unknown."""
    if site.api == "inference":
        pytest.skip("a token is not read again")
    hold, found = Hold(), list[SweepResult]()
    [chat_id] = await make_chats(site)
    left_behind(path, site, chat_id)
    file = site.write_cookies(tmp_path / "cookies.txt")
    ours, theirs = (site.server.account(name).session for name in ("default", "other"))
    site.script(Fault("chat", before=hold), Fault("delete", before=Reply(403)))

    async def first() -> None:
        found.append(await sweep(site, path, client=site.client(journal=path, cookies=file)))

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await site.reached("chat")
        file.write_text(file.read_text("utf-8").replace(ours, theirs), "utf-8")
        hold.release()
    assert found[0].deleted == ()
    assert ids(path) == [chat_id]


async def test_a_sweep_that_is_cancelled_lets_the_next_one_begin(
    site: Site, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, claims = Journal.claim, list[object]()

    def remembered(journal: Journal) -> Lock | None:
        claims.append(found := claim(journal))  # otherwise Python releases the unused lock
        return found

    monkeypatch.setattr(Journal, "claim", remembered)
    [chat_id] = await make_chats(site)
    left_behind(path, site, chat_id)
    site.script(Fault("chat", before=Hold()))
    async with anyio.create_task_group() as group:
        group.start_soon(sweep, site, path)
        await site.reached("chat")
        group.cancel_scope.cancel()
    assert (await sweep(site, path)).deleted == (chat_id,)


@pytest.mark.clause("OA-7.1")
async def test_without_time_to_wait_for_an_answer_its_chat_is_not_read(site: Site, path: Path) -> None:
    [chat_id] = await make_chats(site)
    left_behind(path, site, chat_id)
    client = site.client(journal=path, cleanup=Cleanup(drain=0.0))
    assert (await sweep(site, path, client=client)).deleted == (chat_id,)
    assert "chat" not in site.steps


# ---- creates of unknown outcome


@pytest.mark.clause("OA-9.5")
@pytest.mark.parametrize("account", [None, OTHER])
async def test_a_create_of_unknown_outcome_is_not_named_for_ever(
    site: Site, path: Path, account: Credentials | None
) -> None:
    written(path, site, credentials=account, sent=-31 * 86400.0).close()
    swept = await sweep(site, path)
    why = "another account may have made it, or an earlier login of this one"
    dropped = f"{why} (line 1 of the journal, which is over 30 days old, and dropped now)"
    assert reasons(swept) == ([dropped] if account else [])
    assert ids(path) == []


@pytest.mark.clause("OA-9.5")
@pytest.mark.parametrize(("sent", "count"), [(-86400.0, 1), (86400.0, 2), (86400.0, 12), (1e12, 1)])
async def test_a_create_whose_clock_was_wrong_is_not_crossed_out_in_silence(
    site: Site, path: Path, sent: float, count: int
) -> None:
    left_behind(path, site, sent=sent)
    [line] = Journal(path).lines()
    made = await make_chats(site, count)
    swept = await sweep(site, path)
    assert (swept.deleted, ids(path)) == ((), [])
    [record] = swept.leaked
    at = re.escape(datetime.fromtimestamp(line.sent_at, UTC).isoformat(" ", "seconds") if sent < 1e12 else "?")
    one = f"({'|'.join(made)})"
    some = ", ".join([one] * min(count, 8)) + (f", and {count - 8} more" if count > 8 else "")
    assert re.fullmatch(
        rf"no empty chat is from the time of its create \({at} by this machine's clock then\)\. "
        rf"If that clock was wrong, it made one of these: {some}\. Line 1 of the journal is dropped now",
        record.reason,
    )
    assert record.chat_id == (made[0] if count == 1 else None)
    assert await sweep(site, path) == SweepResult()


@pytest.mark.clause("OA-9.5")
@pytest.mark.parametrize("reaches_back", [False, True])
async def test_a_list_without_an_end_is_read_for_a_bounded_number_of_pages(
    site: Site, path: Path, monkeypatch: pytest.MonkeyPatch, reaches_back: bool
) -> None:
    monkeypatch.setattr("oa_protocol.client.sweep._MAX_PAGES", 3)
    left_behind(path, site, sent=-600.0)
    then = (datetime.now(UTC) - timedelta(seconds=900 if reaches_back else 0)).replace(tzinfo=None).isoformat()
    for number in range(3):
        chats = [{"id": AN_ID, "title": "Notes", "created_at": then}]
        page = {"chats": chats, "next": f"page {number}", "prev": None}
        site.script(Fault("list", before=Reply(200, json.dumps(page).encode())))
    swept = await sweep(site, path)
    assert site.steps.count("list") == 3
    assert reasons(swept) == (
        []
        if reaches_back
        else ["the first 3 pages of the list of chats don't reach back to its create (line 1 of the journal)"]
    )
    assert len(ids(path)) == (not reaches_back)


async def test_an_empty_chat_from_when_its_create_was_under_way_is_deleted(site: Site, path: Path) -> None:
    left_behind(path, site)
    left_behind(path, site, settled=1.0)
    made = await make_chats(site, 2)
    assert await sweep(site, path) == SweepResult(tuple(made), ())
    assert ids(path) == []


async def test_one_that_is_young_is_left_until_it_is_not(site: Site, path: Path) -> None:
    left_behind(path, site)
    [chat_id] = await make_chats(site)
    swept = await sweep(site, path, grace=60.0)
    assert swept == SweepResult((), (named(chat_id, "younger than 60 s: somebody may be about to use it"),))
    assert ids(path) == [None]
    assert (await sweep(site, path)).deleted == (chat_id,)


async def test_nothing_is_too_young_without_grace_however_coarse_the_servers_date_is(site: Site, path: Path) -> None:
    left_behind(path, site)
    [chat_id] = await make_chats(site)
    now = datetime.now(UTC)
    site.script(Fault("list", before=listed([chat_id], created=now, date=now - timedelta(seconds=1))))
    assert (await sweep(site, path)).deleted == (chat_id,)


@pytest.mark.parametrize("sent", [-LATE - 60, 60.0])
async def test_one_from_another_time_is_a_strangers(site: Site, path: Path, sent: float) -> None:
    left_behind(path, site, sent=sent)
    await make_chats(site)
    swept = await sweep(site, path)
    assert swept.deleted == ()
    # Its time is over, or it is yet to come.
    assert ids(path) == ([] if sent < 0 else [None])


async def test_one_with_a_title_is_a_strangers(site: Site, path: Path) -> None:
    left_behind(path, site)
    await make_chats(site, title="Notes")
    await make_chats(site, title="")
    assert (await sweep(site, path)).deleted == ()


async def test_more_empty_chats_than_creates_are_left_and_named(site: Site, path: Path) -> None:
    left_behind(path, site)
    made = await make_chats(site, 2)
    swept = await sweep(site, path)
    assert swept.deleted == ()
    [reason] = reasons(swept)
    assert reason.startswith("2 empty chats were made at that time, and only 1 can be ours: ")
    assert all(chat_id in reason for chat_id in made)
    assert ids(path) == [None]


async def test_a_create_of_another_time_does_not_explain_a_chat(site: Site, path: Path) -> None:
    """Two creates and two chats; but in the time of the one create both chats were made, and none in the other's."""
    left_behind(path, site)
    left_behind(path, site, sent=-3600.0)
    made = await make_chats(site, 2)
    swept = await sweep(site, path)
    assert swept.deleted == ()
    assert all(chat_id in reason for chat_id in made for reason in reasons(swept))


async def test_a_chat_of_an_old_create_does_not_settle_a_new_one(site: Site, path: Path) -> None:
    """The old one made it, and its time is over; the new one may still be carried out."""
    left_behind(path, site, sent=-LATE + 10)
    left_behind(path, site)
    [chat_id] = await make_chats(site)
    now = datetime.now(UTC)
    site.script(Fault("list", before=listed([chat_id], created=now - timedelta(seconds=60), date=now)))
    swept = await sweep(site, path)
    assert swept == SweepResult((chat_id,), (unnamed("its create may still be carried out", 2),))
    assert [line.line for line in Journal(path).lines()] == [2]


async def test_a_create_that_may_still_come_is_kept_and_then_crossed_out(site: Site, path: Path) -> None:
    left_behind(path, site)
    assert await sweep(site, path) == SweepResult((), (unnamed("its create may still be carried out"),))
    assert ids(path) == [None]
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE chats SET sent_at = sent_at - ?", (LATE + 10,))
    assert await sweep(site, path) == SweepResult((), ())
    assert ids(path) == []


async def test_creates_that_may_still_come_are_named_in_their_order(site: Site, path: Path) -> None:
    for _ in range(6):
        left_behind(path, site)
    expected = tuple(unnamed("its create may still be carried out", line) for line in range(1, 7))
    assert (await sweep(site, path)).leaked == expected


async def test_a_create_that_is_carried_out_late_is_found_by_a_later_sweep(site: Site, path: Path) -> None:
    left_behind(path, site)
    assert (await sweep(site, path)).deleted == ()
    made = await make_chats(site)
    assert (await sweep(site, path)).deleted == tuple(made)


async def test_a_living_owners_empty_chat_is_not_taken_for_a_dead_ones(site: Site, path: Path) -> None:
    """It has its id, and has not yet sent its prompt."""
    hold = Hold()
    site.script(Fault("prompt", before=hold))
    async with site.client(journal=path) as client, anyio.create_task_group() as group:

        async def converse() -> None:
            async with client.chat() as chat:
                await chat.ask("Hello")

        group.start_soon(converse)
        await site.reached("prompt")
        left_behind(path, site)
        assert (await sweep(site, path)).leaked == (unnamed("its create may still be carried out", 2),)
        hold.release()
    assert site.steps.count("create") == 1


async def test_a_living_owners_create_is_not_taken_for_a_dead_ones(site: Site, path: Path) -> None:
    """The chat is there, and its owner does not know it yet."""
    hold = Hold()
    left_behind(path, site)
    site.script(Fault("create", after=hold))
    async with site.client(journal=path) as client, anyio.create_task_group() as group:

        async def converse() -> None:
            async with client.chat() as chat:
                await chat.ask("Hello")

        group.start_soon(converse)
        await site.reached("create")
        await site.until(lambda: len(site.chats) == 1)
        swept = await sweep(site, path)
        assert swept.leaked == (named(site.chats[0], "a process that still runs may have made it"),)
        hold.release()
    assert site.steps.count("create") == 1


async def test_one_that_cannot_be_deleted_is_named_and_its_line_stays(site: Site, path: Path) -> None:
    left_behind(path, site)
    [chat_id] = await make_chats(site)
    site.script(Fault("delete", before=Reply(503), times=3))
    swept = await sweep(site, path)
    assert [record.chat_id for record in swept.leaked] == [chat_id]
    assert ids(path) == [None]


async def test_all_pages_of_the_list_are_read(site: Site, path: Path) -> None:
    left_behind(path, site)
    [chat_id] = await make_chats(site)
    await make_chats(site, 25 if site.api == "website" else 105, title="Notes")
    assert (await sweep(site, path)).deleted == (chat_id,)
    assert site.steps.count("list") == 2


async def test_a_list_that_turns_in_a_circle_ends(site: Site, path: Path) -> None:
    left_behind(path, site)
    page = Reply(200, json.dumps({"chats": [], "next": "again", "prev": None}).encode())
    site.script(Fault("list", before=page, times=2))
    assert (await sweep(site, path)).deleted == ()
    assert site.steps.count("list") == 2


@pytest.mark.parametrize("ahead", [-7200.0, 7200.0])
async def test_the_servers_clock_is_not_ours(site: Site, path: Path, ahead: float) -> None:
    left_behind(path, site)
    [chat_id] = await make_chats(site)
    theirs = datetime.now(UTC) + timedelta(seconds=ahead)
    site.script(Fault("list", before=listed([chat_id], created=theirs, date=theirs), times=2))
    assert (await sweep(site, path, grace=60.0)).deleted == ()
    assert (await sweep(site, path)).deleted == (chat_id,)


@pytest.mark.parametrize("created", [None, "some day", "2023-01-01T00:00:00"])
async def test_a_chat_whose_time_is_unknown_is_a_strangers(site: Site, path: Path, created: str | None) -> None:
    left_behind(path, site)
    [chat_id] = await make_chats(site)
    chat = {"id": chat_id, "title": None, "created_at": created}
    page = Reply(200, json.dumps({"chats": [chat], "next": None, "prev": None}).encode(), (("date", "some day"),))
    site.script(Fault("list", before=page))
    assert (await sweep(site, path)).deleted == ()


async def test_an_id_in_the_list_that_is_none_never_gets_into_a_url(site: Site, path: Path) -> None:
    left_behind(path, site)
    now = datetime.now(UTC)
    site.script(Fault("list", before=listed(["../account/"], created=now, date=now)))
    swept = await sweep(site, path)
    assert [record.chat_id for record in swept.leaked] == ["../account/"]
    assert "delete" not in site.steps


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (Reply(500), "HTTP 500 while listing the chats"),
        (Reply(200, b"{"), "the server sent something other than a list of chats: .+"),
        (Reply(200, b"null"), "the server sent something other than a list of chats: .+"),
        (Hold(), "no reply within 0.5 s"),
    ],
)
async def test_without_a_list_nothing_is_deleted(site: Site, path: Path, before: Reply | Hold, why: str) -> None:
    left_behind(path, site)
    await make_chats(site)
    site.script(Fault("list", before=before))
    timeouts = Timeouts(reply=0.5) if isinstance(before, Hold) else None
    swept = await sweep(site, path, client=site.client(journal=path, timeouts=timeouts))
    assert swept.deleted == ()
    assert [record.chat_id for record in swept.leaked] == [None]
    assert re.fullmatch(rf"{why} \(line 1 of the journal\)", reasons(swept)[0])
    assert ids(path) == [None]


@pytest.mark.clause("OA-2.5")
async def test_credentials_that_the_server_repeats_are_hidden(site: Site, path: Path) -> None:
    left_behind(path, site)
    secret = site.server.token if site.api == "inference" else list(site.server.cookies.values())[-1]
    site.script(Fault("list", before=Reply(422, json.dumps({"detail": secret, "message": secret}).encode())))
    assert reasons(await sweep(site, path)) == ["***: HTTP 422 while listing the chats (line 1 of the journal)"]


# ---- what it needs


async def test_without_a_journal_there_is_nothing_to_sweep(site: Site) -> None:
    async with site.client() as client:
        with pytest.raises(ValueError, match="journal"):
            await client.sweep()


async def test_without_credentials_there_is_nothing_to_sweep_with(site: Site, path: Path) -> None:
    async with Client(site.server.url, api=site.api, journal=path) as client:
        with pytest.raises(AuthenticationError):
            await client.sweep()


async def test_no_journal_yet_is_an_empty_one(site: Site, path: Path) -> None:
    assert await sweep(site, path) == SweepResult((), ())
    assert not path.exists()


def listed(chats: Iterable[str], *, created: datetime, date: datetime) -> Reply:
    """A list of empty chats, at a server whose clock shows ``date``."""
    at = created.replace(tzinfo=None).isoformat()
    found = [{"id": chat_id, "title": None, "created_at": at} for chat_id in chats]
    body = json.dumps({"chats": found, "next": None, "prev": None}).encode()
    return Reply(200, body, (("date", format_datetime(date, usegmt=True)),))


@pytest.mark.clause("OA-7.1")
async def test_an_answer_that_still_runs_is_waited_for(site: Site, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.allowed.add("used after deletion")  # by the owner, because the test sweeps while it is still there
    monkeypatch.setattr("oa_protocol.client.sweep._LOOK_EVERY", 0.01)
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    async with site.client() as other, other.chat() as chat:
        assert await anext(chat.stream("Hello")) == "One "
        left_behind(path, site, chat.id)
        async with site.client(journal=path, cleanup=Cleanup(drain=60.0)) as client, anyio.create_task_group() as group:
            group.start_soon(client.sweep)
            await site.reached("chat", 3)
            assert "delete" not in site.steps
            hold.release()
        assert site.chats == ()
    assert ids(path) == []


@pytest.mark.clause("OA-7.1")
async def test_an_answer_that_still_runs_is_waited_for_no_longer_than_allowed(site: Site, path: Path) -> None:
    site.allowed.add("used after deletion")  # by the owner, because the test sweeps while it is still there
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    async with site.client() as other, other.chat() as chat:
        assert await anext(chat.stream("Hello")) == "One "
        left_behind(path, site, chat.id)
        async with site.client(journal=path) as client:
            assert await client.sweep() == SweepResult((chat.id or "",), ())
        hold.release()
    assert ids(path) == []
