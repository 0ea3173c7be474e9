"""The journal: a chat is written down before it is made, and crossed out when it is gone."""

import os
import re
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Never

import anyio
import pytest

from oa_protocol import ChatLeakedWarning, Cleanup, Client, OAError
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.website import Website
from oa_protocol.client._file_lock import Lock
from oa_protocol.client.journal import Entry, Journal, Line
from oa_protocol.engine.errors import JournalError, NotSent
from oa_protocol.server import Fault, Hold, Reply, Reset
from tests.driver.site import PATIENCE, Site

pytestmark = pytest.mark.anyio

BINDING = Website("http://oa.example.org")
ACCOUNT = "0" * 32
REFUSED = Reply(422, b'{"detail": "no", "message": "no"}')


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite3"


def lines(path: Path) -> list[Line]:
    return Journal(path).lines()


def owners(path: Path) -> list[str]:
    """The owners whose locks have files."""
    return [file.name for file in path.with_name(f"{path.name}.owners").iterdir() if file.name != "sweep"]


def abandoned(journal: Journal) -> list[Line]:
    """The lines whose owners do not live."""
    lines = journal.lines()
    living = journal.living({line.owner for line in lines})
    return [line for line in lines if line.owner not in living]


@contextmanager
def named_as_left(site: Site) -> Generator[None]:
    """What is done in here leaves something, and warns of it."""
    site.left = set(site.chats)
    with pytest.warns(ChatLeakedWarning):
        yield
    site.left = set(site.chats)


@pytest.mark.clause("OA-7.2", "OA-9.1")
async def test_a_chat_is_written_down_before_it_is_made_and_crossed_out_when_it_is_gone(site: Site, path: Path) -> None:
    create, prompt, delete = Hold(), Hold(), Hold()
    site.script(Fault("create", before=create), Fault("prompt", before=prompt), Fault("delete", after=delete))

    async def look() -> None:
        await site.reached("create")
        [line] = lines(path)
        assert (line.api, line.base_url) == (site.api, site.server.url)
        assert (line.chat_id, line.settled_at) == (None, None)
        create.release()
        await site.reached("prompt")
        [line] = lines(path)
        assert line.chat_id == site.chats[0]
        prompt.release()
        await site.reached("delete")
        await site.until(lambda: not site.chats)
        assert [line.chat_id for line in lines(path)] == [line.chat_id]
        delete.release()

    async with site.client(journal=path) as client, anyio.create_task_group() as group:
        group.start_soon(look)
        async with client.chat() as chat:
            await chat.ask("Hello")
        assert lines(path) == []
    assert owners(path) == []


async def test_nothing_is_written_for_a_client_that_makes_no_chat(site: Site, path: Path) -> None:
    async with site.client(journal=path) as client, client.chat():
        await client.models()
    assert lines(path) == []
    assert not path.parent.exists()


@pytest.mark.clause("OA-9.1")
async def test_neither_credentials_nor_text_are_in_it(site: Site, path: Path) -> None:
    site.script(Fault("delete", before=Reset(), times=3))
    client = site.client(journal=path, cleanup=Cleanup(drain=0.05, attempts=3))
    with named_as_left(site):
        async with client.chat(system_prompt="Be discreet") as chat:
            await chat.ask("A very private prompt")
    await client.aclose()
    assert len(lines(path)) == 1
    written = b"".join(file.read_bytes() for file in path.parent.rglob("*") if file.is_file())
    for secret in (site.server.token, *site.server.cookies.values(), "private prompt", "discreet"):
        assert secret.encode() not in written
    assert len(written) > 4096


@pytest.mark.parametrize("fault", [Fault("create", before=REFUSED), Fault("create", before=Reply(503), times=3)])
async def test_a_create_that_made_nothing_is_crossed_out(site: Site, path: Path, fault: Fault) -> None:
    site.script(fault)
    async with site.client(journal=path) as client:
        with pytest.raises(OAError):
            async with client.chat() as chat:
                await chat.ask("Hello")
        assert lines(path) == []
    assert site.chats == ()


async def test_a_create_that_was_never_sent_is_crossed_out(path: Path, no_delays: None, no_environment: None) -> None:
    async with Client("http://127.0.0.1:1", cookies={"a": "b"}, journal=path, retries=1) as client:
        with pytest.raises(NotSent):
            async with client.chat() as chat:
                await chat.ask("Hello")
        assert lines(path) == []


@pytest.mark.parametrize("made", [False, True])
async def test_each_create_of_unknown_outcome_has_a_line_that_stays(site: Site, path: Path, made: bool) -> None:
    site.script(
        Fault("create", after=Reset(), times=2) if made else Fault("create", before=Reply(500), times=2),
    )
    client = site.client(journal=path)
    with named_as_left(site):
        async with client.chat() as chat:
            await chat.ask("Hello")
            assert [line.chat_id for line in lines(path)] == [None, None, chat.id]
    await client.aclose()
    assert [line.chat_id for line in lines(path)] == [None, None]
    assert all(line.settled_at is not None and line.settled_at >= line.sent_at for line in lines(path))
    assert len(site.chats) == (2 if made else 0)
    assert len(owners(path)) == 1


async def test_a_chat_that_is_left_stays_in_it_with_its_id(site: Site, path: Path) -> None:
    site.script(Fault("delete", before=Reset(), times=3))
    client = site.client(journal=path)
    with named_as_left(site):
        async with client.chat() as chat:
            await chat.ask("Hello")
    await client.aclose()
    assert [line.chat_id for line in lines(path)] == [chat.id]


@pytest.mark.parametrize(
    "obstacle", ["a folder in its place", "a file in its folder's place", "no database", "no name of a file\0"]
)
@pytest.mark.clause("OA-7.2", "OA-9.1")
async def test_without_a_journal_that_can_be_written_no_chat_is_made(site: Site, path: Path, obstacle: str) -> None:
    if obstacle == "a folder in its place":
        path.mkdir(parents=True)
    elif obstacle == "a file in its folder's place":
        path.parent.write_text("")
    elif obstacle == "no database":
        path.parent.mkdir()
        path.write_bytes(b"this is something else " * 100)
    else:
        path = path.with_name(obstacle)
    client = site.client(journal=path)
    for _ in range(2):
        chat = client.chat()
        with pytest.raises(JournalError) as raised:
            async with chat:
                await chat.ask("Hello")
        assert f"the journal {path} cannot be used" in str(raised.value)
        assert chat.phase.name == "NEVER_CREATED"
    await client.aclose()
    assert "create" not in site.steps
    assert client.leaked == []


async def test_a_journal_that_breaks_under_way_costs_no_chat_and_no_exception(site: Site, path: Path) -> None:
    """The id cannot be written down: that is raised, and the chat is deleted. At the end it says no more."""
    hold = Hold()
    site.script(Fault("create", after=hold))

    async def destroy() -> None:
        await site.reached("create")
        path.write_bytes(b"this is something else " * 1000)
        hold.release()

    async with site.client(journal=path) as client, anyio.create_task_group() as group:
        group.start_soon(destroy)
        chat = client.chat()
        async with chat:
            with pytest.raises(JournalError, match=re.escape(str(path))):
                await chat.ask("Hello")
            assert chat.id is not None
        assert chat.phase.name == "DELETED"


async def test_the_end_of_a_client_keeps_the_exception_in_flight_whatever_the_journal_does(
    site: Site, path: Path
) -> None:
    async def converse() -> None:
        async with site.client(journal=path) as client:
            async with client.chat() as chat:
                await chat.ask("Hello")
            path.write_bytes(b"this is something else " * 1000)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await converse()


async def test_the_end_of_a_client_lets_its_lines_go(site: Site, path: Path) -> None:
    site.script(Fault("delete", before=Reset(), times=3))
    client = site.client(journal=path)
    with named_as_left(site):
        async with client.chat() as chat:
            await chat.ask("Hello")
    assert abandoned(Journal(path)) == []
    await client.aclose()
    await client.aclose()
    assert [line.chat_id for line in abandoned(Journal(path))] == [chat.id]


async def test_many_chats_of_many_clients_share_it(site: Site, path: Path) -> None:
    async def converse(client: Client) -> None:
        async with client.chat() as chat:
            await chat.ask("Hello")

    async with site.client(journal=path) as a, site.client(journal=path) as b, anyio.create_task_group() as group:
        for client in (a, b) * 10:
            group.start_soon(converse, client)
    assert lines(path) == []
    assert owners(path) == []


def test_an_owner_takes_its_lock_once_however_many_threads_begin(path: Path) -> None:
    for _ in range(5):
        journal, together, numbers = Journal(path), threading.Barrier(8), list[Line]()

        def create(journal: Journal = journal, together: threading.Barrier = together) -> None:
            together.wait()
            numbers.append(journal.creating(BINDING, ACCOUNT))  # noqa: B023

        threads = [threading.Thread(target=create, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(set(numbers)) == 8
        assert len({line.owner for line in journal.lines()}) == 1
        for number in numbers:
            journal.gone(number)
        journal.close()
    assert owners(path) == []


_WRITER = """
import sys
from oa_protocol.client.journal import Journal
from oa_protocol.bindings.website import Website

journal = Journal(sys.argv[1])
for number in range(int(sys.argv[2])):
    line = journal.creating(Website("http://oa.example.org"), "an account")
    journal.created(line, f"00000000-0000-0000-0000-{number:012}")
    if number % 2:
        journal.gone(line)
print("written", flush=True)
sys.stdin.read()
"""


@contextmanager
def writer(path: Path, count: int) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def has_written(running: subprocess.Popen[str]) -> None:
    assert running.stdout is not None
    assert running.stdout.readline() == "written\n"


def test_several_processes_write_at_once(path: Path) -> None:
    with writer(path, 10) as one, writer(path, 10) as two:
        has_written(one)
        has_written(two)
        assert len(lines(path)) == 10
        assert len({line.owner for line in lines(path)}) == 2


def test_the_lines_of_a_process_are_abandoned_when_it_is_dead_and_not_before(path: Path) -> None:
    journal = Journal(path)
    with writer(path, 1) as running:
        has_written(running)
        assert abandoned(journal) == []
        running.kill()
        running.wait()
        assert len(abandoned(journal)) == 1


def test_the_lines_of_an_owner_in_this_process_are_abandoned_when_it_closes_or_is_forgotten(path: Path) -> None:
    reader, one, two = Journal(path), Journal(path), Journal(path)
    one.creating(BINDING, ACCOUNT)
    two.creating(BINDING, ACCOUNT)
    assert abandoned(reader) == abandoned(one) == []
    one.close()
    assert [line.line for line in abandoned(reader)] == [1]
    del two
    assert [line.line for line in abandoned(reader)] == [1, 2]


def test_an_owner_that_writes_again_after_its_end_is_a_new_one(path: Path) -> None:
    journal = Journal(path)
    assert journal.patience == 10.0
    one = journal.creating(BINDING, ACCOUNT)
    journal.close()
    two = journal.creating(BINDING, ACCOUNT)
    assert journal.living([one.owner, two.owner]) == {two.owner}
    journal.close()


def test_an_owner_whose_file_somebody_removed_ends_as_usual(path: Path) -> None:
    journal = Journal(path)
    journal.gone(journal.creating(BINDING, ACCOUNT))
    [owner] = owners(path)
    path.with_name(f"{path.name}.owners").joinpath(owner).unlink()
    journal.close()
    assert owners(path) == []


@pytest.mark.parametrize("is_linked", [False, True])
def test_one_sweep_at_a_time(path: Path, is_linked: bool) -> None:
    journal, claims = Journal(path), list[Lock | None]()
    claims.append(journal.claim())
    if is_linked:
        path.with_name("link").hardlink_to(path)
        path = path.with_name("link")
    claims.append(Journal(path).claim())
    assert claims[1] is None
    assert claims[0] is not None
    journal.release(claims[0], [])
    assert journal.claim() is not None


def test_a_sweep_ends_even_if_the_journal_has_become_unusable(path: Path) -> None:
    journal = Journal(path)
    claim = journal.claim()
    assert claim is not None
    path.rename(path.with_name("moved"))
    path.mkdir()
    journal.release(claim, ["0" * 32])
    path.rmdir()
    path.with_name("moved").rename(path)
    assert journal.claim() is not None


def test_the_lines_of_one_server_and_what_is_elsewhere(path: Path) -> None:
    journal = Journal(path)
    others = [Website("http://b.example.org"), Website("http://a.example.org")]
    mine, *_ = [journal.creating(binding, ACCOUNT) for binding in (BINDING, *others, *others)]
    assert journal.lines(BINDING) == [mine]
    assert journal.elsewhere(BINDING) == ["http://a.example.org", "http://b.example.org"]
    journal.creating(InferenceServer(BINDING.base_url), ACCOUNT)
    assert journal.elsewhere(BINDING) == ["http://a.example.org", "http://b.example.org", BINDING.base_url]
    assert len(journal.lines()) == 6
    journal.close()


def test_the_file_of_a_dead_owner_goes_with_its_last_line(path: Path) -> None:
    dead = Journal(path)
    line, other = dead.creating(BINDING, ACCOUNT), dead.creating(BINDING, ACCOUNT)
    dead.close()
    for each, left in ((line, 1), (other, 0)):
        claim = dead.claim()
        assert claim is not None
        dead.gone(each)
        dead.release(claim, ["0" * 32, line.owner])
        assert len(owners(path)) == left


@pytest.mark.clause("OA-9.2")
@pytest.mark.parametrize(
    "way", ["symbolic link", "hard link", "relative path", "moved", "copied", "moved with its locks"]
)
def test_a_living_owner_is_found_by_whatever_path_one_comes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    owner, other = Journal(path), tmp_path / "elsewhere" / "other.sqlite3"
    owner.creating(BINDING, ACCOUNT)
    other.parent.mkdir()
    match way:
        case "symbolic link":
            other.symlink_to(path)
        case "hard link":
            other.hardlink_to(path)
        case "relative path":
            monkeypatch.chdir(path.parent)
            other = Path(path.name)
        case "moved":
            path.rename(other)
        case "copied":
            other.write_bytes(path.read_bytes())
        case _:
            path.parent.rename(tmp_path / "renamed")
            other = tmp_path / "renamed" / path.name
    journal = Journal(other)
    monkeypatch.chdir(tmp_path)
    journal.creating(BINDING, ACCOUNT)
    assert abandoned(journal) == []
    if way in ("symbolic link", "hard link", "relative path"):
        assert abandoned(owner) == []
    owner.close()
    assert [line.line for line in abandoned(journal)] == [1]


@pytest.mark.parametrize("owner", ["../victim", "/etc/passwd", "", "a\0b", ".", "sweep"])
def test_an_owner_that_somebody_made_up_touches_no_file(path: Path, owner: str) -> None:
    dead = Journal(path)
    dead.creating(BINDING, ACCOUNT)
    dead.close()
    victim = path.parent / "victim"
    victim.write_text("")
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE chats SET owner = ?", (owner,))
    [line] = abandoned(dead)
    dead.gone(line)
    claim = dead.claim()
    assert claim is not None
    dead.release(claim, [owner])
    assert victim.exists()
    assert dead.claim() is not None


def test_thousands_of_dead_owners_need_few_descriptors(path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("limits as POSIX has them")
    import resource

    for _ in range(100):
        dead = Journal(path)
        dead.creating(BINDING, ACCOUNT)
        dead.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = max(int(file.name) for file in Path("/dev/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 20, hard))
    try:
        assert len(abandoned(Journal(path))) == 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_owner_whose_lock_may_not_be_looked_at_may_live(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = Journal(path)
    dead.creating(BINDING, ACCOUNT)
    dead.close()

    def refuse(*_: object) -> Never:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("oa_protocol.client._file_lock.lock_file", refuse)
    assert abandoned(dead) == []


def test_a_line_of_another_owner_with_the_same_number_is_left_alone(path: Path) -> None:
    """Somebody removed the journal, and another process made a new one."""
    one, two = Journal(path), Journal(path)
    line = one.creating(BINDING, ACCOUNT)
    path.unlink()
    assert two.creating(BINDING, ACCOUNT).line == line.line
    one.gone(line)
    assert [line.owner for line in lines(path)] != [line.owner]
    assert len(lines(path)) == 1


def test_a_journal_of_version_0_1_is_taken_over(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(
            "CREATE TABLE chats (line INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, api TEXT NOT NULL,"
            " base_url TEXT NOT NULL, account TEXT NOT NULL, chat_id TEXT, sent_at REAL NOT NULL, settled_at REAL)"
        )
        for base_url in ("HTTP://OA.Example.org:80", "what is this?"):
            database.execute("INSERT INTO chats VALUES (NULL, 'o', 'website', ?, 'a', 'c', 1.0, NULL)", (base_url,))
    assert [line.base_url for line in lines(path)] == ["http://oa.example.org", "what is this?"]


@pytest.mark.parametrize(
    "table", ["PRAGMA user_version = 16", "CREATE TABLE customers (name)", "CREATE TABLE chats (line, name)"]
)
def test_a_database_of_something_else_is_refused(path: Path, table: str) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(table)
    content = path.read_bytes()
    with pytest.raises(JournalError, match=re.escape(f"{path} was made by another version")):
        lines(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("size", [1, 99, 511])
def test_a_short_file_of_something_else_is_refused(path: Path, size: int) -> None:
    path.parent.mkdir()
    path.write_bytes(b"x" * size)
    with pytest.raises(JournalError):
        Journal(path).creating(BINDING, ACCOUNT)
    assert path.read_bytes() == b"x" * size


def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    Journal(path).creating(BINDING, ACCOUNT)
    assert len(lines(path)) == 1


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("UPDATE chats SET owner = x'ff'", "its line 1 is damaged: Expected `str`, got `bytes` - at `$.owner`"),
        ("UPDATE chats SET sent_at = 'soon'", "its line 1 is damaged: Expected `float`, got `str` - at `$.sent_at`"),
        ("ALTER TABLE chats ADD COLUMN more TEXT", "its line 1 is damaged"),
        (
            "PRAGMA user_version = 0; UPDATE chats SET base_url = x'ff'",
            "its line 1 is damaged: Expected `str`, got `bytes` - at `$.base_url`",
        ),
        ("DELETE FROM home", "used: it is damaged, because it does not say where it was made. "),
        ("UPDATE home SET path = x'ff'", "it is damaged, because it does not say where it was made"),
    ],
)
def test_a_damaged_journal_is_refused(path: Path, damage: str, problem: str) -> None:
    journal = Journal(path)
    line = journal.creating(BINDING, "account")
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(damage)
    with pytest.raises(JournalError, match=re.escape(problem)):
        journal.living([each.owner for each in journal.lines()])
    journal.gone(line)
    journal.close()


def test_a_line_that_somebody_has_looked_at_is_forgotten_unless_its_owner_lives(path: Path) -> None:
    journal = Journal(path)
    other, line = journal.creating(BINDING, ACCOUNT), journal.creating(BINDING, ACCOUNT)
    with pytest.raises(JournalError, match="still runs"):
        journal.forget(line.line)
    journal.close()
    assert journal.forget(line.line) == line
    assert journal.forget(line.line) is None
    assert lines(path) == [other]


_FORK = """
import os, sys
from oa_protocol.bindings.website import Website
from oa_protocol.client.journal import Journal

journal, website = Journal(sys.argv[1]), Website("http://oa.example.org")
journal.gone(journal.creating(website, "an account"))
child = os.fork()
if not child:
    if sys.argv[2] == "creates":
        journal.creating(website, "an account")
    journal.close()
    os._exit(0)
os.waitpid(child, 0)
line = journal.creating(website, "an account")
owners = {each.owner for each in journal.lines()}
print(journal.living(owners) == {line.owner}, len(owners))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize(("child", "owners_in_all"), [("closes", 1), ("creates", 2)])
def test_a_forked_process_is_an_owner_of_its_own(path: Path, child: str, owners_in_all: int) -> None:
    """If it closes what it inherited, its parent still lives; and if it dies, what it made is free for a sweep."""
    done = subprocess.run(
        [sys.executable, "-c", _FORK, str(path), child], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.stdout, done.stderr) == (f"True {owners_in_all}\n", "")


@contextmanager
def held(path: Path) -> Generator[sqlite3.Connection]:
    """The journal while another process holds it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield database


@pytest.fixture
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself ends the waiting for another process, however late its thread begins."""
    monkeypatch.setattr("oa_protocol.client.journal._TARDINESS", PATIENCE)


@pytest.mark.clause("OA-9.4")
async def test_the_event_loop_goes_on_while_another_process_holds_the_journal(site: Site, path: Path) -> None:
    """What lets go of the journal is in this loop."""
    client = site.client(journal=path)
    chat = client.chat()
    await chat.ask("Hello")
    with held(path) as holder:

        async def let_go() -> None:
            await site.until(lambda: not site.chats)
            await anyio.wait_all_tasks_blocked()
            holder.execute("COMMIT")

        async with anyio.create_task_group() as group:
            group.start_soon(let_go)
            await client.aclose()
    assert chat.phase.name == "DELETED"
    assert lines(path) == []


@pytest.mark.clause("OA-9.4")
async def test_leaving_does_not_wait_longer_than_allowed_for_the_journal(
    site: Site, path: Path, caplog: pytest.LogCaptureFixture, busy_machine: None
) -> None:
    client = site.client(journal=path)
    chat = client.chat()
    await chat.ask("Hello")
    vars(client)["_journal"].patience = 0.01
    with held(path):
        await client.aclose()
    assert chat.phase.name == "DELETED"
    assert "another process has held it for 0.01 s" in caplog.text
    assert len(abandoned(Journal(path))) == 1


async def test_a_chat_that_cannot_be_written_down_in_time_is_not_made(
    site: Site, path: Path, busy_machine: None
) -> None:
    path.parent.mkdir()
    lines_so_far = Journal(path).creating(BINDING, ACCOUNT)
    with held(path):
        async with site.client(journal=path, cleanup=Cleanup(drain=0.05, timeout=0.4)) as client:
            chat = client.chat()
            with pytest.raises(JournalError, match=r"another process has held it for 0.2 s\. Choose another file"):
                await chat.ask("Hello")
    assert chat.phase.name == "NEVER_CREATED"
    assert lines(path) == [lines_so_far]


def test_changes_that_threads_ask_for_at_once_fail_together_and_each_with_an_error_of_its_own(path: Path) -> None:
    journal, raised = Journal(path, patience=0.01), list[JournalError]()
    path.mkdir(parents=True)
    writing: threading.Lock = vars(journal)["_writing"]

    def create() -> None:
        with pytest.raises(JournalError) as caught:
            journal.creating(BINDING, ACCOUNT)
        raised.append(caught.value)

    threads = [threading.Thread(target=create, daemon=True) for _ in range(3)]
    with writing:
        create()
        journal.patience = PATIENCE
        for thread in threads:
            thread.start()
        while len(vars(journal)["_changes"]) <= len(threads):
            threads[0].join(0.001)
    for thread in threads:
        thread.join(PATIENCE)
    assert "writing to it takes more than 0.01 s" in str(raised.pop(0))
    assert len({id(error) for error in raised}) == 3
    assert {str(error) for error in raised} == {str(raised[0])}


async def test_a_disk_that_hangs_is_not_waited_for(
    site: Site, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wakes = threading.Event()

    def gone(self: Journal, line: Line) -> None:
        wakes.wait(PATIENCE)

    client = site.client(journal=path)
    chat = client.chat()
    await chat.ask("Hello")
    monkeypatch.setattr(Journal, "gone", gone)
    monkeypatch.setattr("oa_protocol.client.journal._TARDINESS", 0.0)
    vars(client)["_journal"].patience = 0.01
    await client.aclose()
    wakes.set()
    assert chat.phase.name == "DELETED"
    assert "writing to it takes more than 0.01 s" in caplog.text


async def test_while_python_shuts_down_the_journal_is_written_without_a_thread(
    site: Site, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once it waits a little, and never again."""

    async def refuse(*_: object, **__: object) -> Never:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    client = site.client(journal=path)
    first, *others = [client.chat() for _ in range(3)]
    for chat in (first, *others):
        await chat.ask("Hello")
    with monkeypatch.context() as shutting_down:
        shutting_down.setattr("oa_protocol.client.journal.to_thread.run_sync", refuse)
        await first.aclose()
        shutting_down.setattr("oa_protocol.client.journal._LAST_PATIENCE", 0.01)
        with held(path):
            await client.aclose()
    assert caplog.text.count("another process has held it for 0.01 s") == 1
    assert caplog.text.count("another process holds it") == 1
    assert [line.chat_id for line in lines(path)] == [chat.id for chat in others]


async def test_what_is_left_behind_names_the_command_that_deletes_it(site: Site, path: Path) -> None:
    site.script(Fault("delete", before=Reset(), times=3))
    client = site.client(journal=path)
    chat = client.chat()
    await chat.ask("Hello")
    site.left = set(site.chats)
    with pytest.warns(ChatLeakedWarning, match=re.escape(f"`oa-protocol sweep --journal {path}`")):
        await chat.aclose()
    await client.aclose()


@pytest.mark.clause("OA-9.3")
async def test_an_inference_server_says_whose_a_token_is_and_is_asked_once(site: Site, path: Path) -> None:
    async with site.client(journal=path) as client:
        for _ in range(2):
            async with client.chat() as chat:
                await chat.ask("Hello")
    assert [request.target for request in site.server.requests].count("/auth/check") == (site.api == "inference")


def test_a_lock_that_cannot_be_had_at_all_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("locks as POSIX has them")
    import fcntl

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(JournalError, match=re.escape(f"the journal {path} cannot be used: No locks available")):
        Journal(path).creating(BINDING, ACCOUNT)


def test_a_path_that_is_none_is_refused_and_leaves_nothing_half_made() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError):
            Journal(5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@pytest.mark.clause("OA-9.1")
async def test_a_create_under_way_stays_in_the_journal_when_its_chat_is_kept_because_it_may_be_lost(path: Path) -> None:
    entry = Entry(Journal(path))
    await entry.creating(BINDING, ACCOUNT)
    await entry.kept()
    await entry.settled(None, is_unclear=True, is_kept=True)
    [line] = lines(path)
    assert line.settled_at is not None
