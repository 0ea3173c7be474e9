"""The journal: a chat is written down before it is made, and crossed out when it is gone."""

import re
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from oa_protocol import ChatLeakedWarning, Cleanup, Client, OAError
from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.website import Website
from oa_protocol.client.journal import Journal, Line, fingerprint
from oa_protocol.engine.errors import NotSent
from oa_protocol.server import Fault, Hold, Reply, Reset
from tests.driver.site import Site

pytestmark = pytest.mark.anyio

BINDING = Website("http://oa.example.org")
CREDENTIALS = Credentials({"session": "secret"})
REFUSED = Reply(422, b'{"detail": "no", "message": "no"}')


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite3"


def lines(path: Path) -> list[Line]:
    return Journal(path).lines()


def owners(path: Path) -> list[str]:
    """The owners whose locks have files."""
    return [file.name for file in path.with_name(f"{path.name}.owners").iterdir()]


@contextmanager
def named_as_left(site: Site) -> Generator[None]:
    """What is done in here leaves something, and warns of it."""
    site.left = set(site.chats)
    with pytest.warns(ChatLeakedWarning):
        yield
    site.left = set(site.chats)


@pytest.mark.clause("OA-7.2")
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
    assert not path.parent.exists()
    assert lines(path) == []


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


@pytest.mark.parametrize("obstacle", ["a folder in its place", "a file in its folder's place", "no database"])
@pytest.mark.clause("OA-7.2")
async def test_without_a_journal_that_can_be_written_no_chat_is_made(site: Site, path: Path, obstacle: str) -> None:
    if obstacle == "a folder in its place":
        path.mkdir(parents=True)
    elif obstacle == "a file in its folder's place":
        path.parent.write_text("")
    else:
        path.parent.mkdir()
        path.write_bytes(b"this is something else " * 100)
    client = site.client(journal=path)
    for _ in range(2):
        chat = client.chat()
        with pytest.raises((OSError, sqlite3.Error)) as raised:
            async with chat:
                await chat.ask("Hello")
        assert str(path.parent) in str(raised.value)
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
            with pytest.raises(sqlite3.DatabaseError, match=re.escape(str(path))):
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
    with Journal(path).abandoned() as found:
        assert found == []
    await client.aclose()
    await client.aclose()
    with Journal(path).abandoned() as found:
        assert [line.chat_id for line in found] == [chat.id]


async def test_a_client_can_go_on_after_its_end_as_another_owner(site: Site, path: Path) -> None:
    site.script(Fault("delete", before=Reset(), times=6))
    client = site.client(journal=path)
    for _ in range(2):
        with named_as_left(site):
            async with client.chat() as chat:
                await chat.ask("Hello")
        await client.aclose()
    assert len({line.owner for line in lines(path)}) == 2


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
        journal, together, numbers = Journal(path), threading.Barrier(8), list[int]()

        def create(journal: Journal = journal, together: threading.Barrier = together) -> None:
            together.wait()
            numbers.append(journal.creating(BINDING, CREDENTIALS))  # noqa: B023

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
from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.website import Website

journal = Journal(sys.argv[1])
for number in range(int(sys.argv[2])):
    line = journal.creating(Website("http://oa.example.org"), Credentials({"session": "secret"}))
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
        with journal.abandoned() as found:
            assert found == []
        running.kill()
        running.wait()
        with journal.abandoned() as found:
            assert len(found) == 1


def test_the_lines_of_an_owner_in_this_process_are_abandoned_when_it_closes_or_is_forgotten(path: Path) -> None:
    reader, one, two = Journal(path), Journal(path), Journal(path)
    one.creating(BINDING, CREDENTIALS)
    two.creating(BINDING, CREDENTIALS)
    with reader.abandoned() as found, one.abandoned() as own:
        assert found == own == []
    one.close()
    with reader.abandoned() as found:
        assert [line.line for line in found] == [1]
    del two
    with reader.abandoned() as found:
        assert [line.line for line in found] == [1, 2]


def test_two_sweeps_at_once_have_each_line_once(path: Path) -> None:
    dead = Journal(path)
    dead.creating(BINDING, CREDENTIALS)
    dead.close()
    with Journal(path).abandoned() as first, Journal(path).abandoned() as second:
        assert (len(first), second) == (1, [])
    with Journal(path).abandoned() as again:
        assert len(again) == 1


def test_what_was_crossed_out_is_forgotten_with_its_owner(path: Path) -> None:
    dead = Journal(path)
    line = dead.creating(BINDING, CREDENTIALS)
    dead.close()
    with Journal(path).abandoned() as found:
        assert len(found) == 1
        dead.gone(line)
    assert owners(path) == []


def test_lost_lock_files_are_no_living_owners(path: Path) -> None:
    """Somebody moved the file alone."""
    dead = Journal(path)
    dead.creating(BINDING, CREDENTIALS)
    dead.close()
    moved = path.parent / "moved.sqlite3"
    path.rename(moved)
    with Journal(moved).abandoned() as found:
        assert len(found) == 1


def test_a_lock_that_cannot_be_had_at_all_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("locks as POSIX has them")
    import fcntl

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="No locks"):
        Journal(path).creating(BINDING, CREDENTIALS)


def test_a_path_that_is_none_is_refused_and_leaves_nothing_half_made() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError):
            Journal(5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_a_fingerprint_tells_accounts_apart_and_nothing_else() -> None:
    prints = [
        fingerprint(credentials)
        for credentials in (
            Credentials({"a": "1", "b": "2"}),
            Credentials({"a": "1", "b": "3"}),
            Credentials({}, "secret"),
            Credentials({"a": "1"}, "secret"),
        )
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(Credentials({"b": "2", "a": "1"})) == prints[0]
    assert "secret" not in "".join(prints)
