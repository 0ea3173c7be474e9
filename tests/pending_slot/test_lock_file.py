"""The queue of an account's slot in a folder: who is first, who has died, who is stopped, and what others can see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from anyio.from_thread import start_blocking_portal

from oa_protocol import LockFileSlot, Ticket
from oa_protocol.client import slots
from oa_protocol.client._file_lock import lock_file

pytestmark = pytest.mark.clause("OA-4.8")

HOLDER = """
import sys, time
from oa_protocol import LockFileSlot
ticket = LockFileSlot(sys.argv[1]).ticket("account")
print(ticket.ahead(), flush=True)
time.sleep(60)
"""


class Clock:
    """The time by which tickets go stale."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(slots, "time", made)
    return made


def tickets(folder: Path, count: int) -> list[Ticket]:
    """So many tickets, as if each were of a process of its own; each has come after the one before it."""
    found = [LockFileSlot(folder).ticket("account") for _ in range(count)]
    for number, ticket in enumerate(found):
        assert ticket.ahead() == number
    return found


def test_first_come_first_served(tmp_path: Path) -> None:
    a, b, c = tickets(tmp_path, 3)
    a.close()
    assert (b.ahead(), c.ahead()) == (0, 1)
    b.close()
    late = LockFileSlot(tmp_path).ticket("account")
    assert (late.ahead(), c.ahead()) == (1, 0)


def test_who_gives_up_in_the_queue_is_passed(tmp_path: Path) -> None:
    a, b, c = tickets(tmp_path, 3)
    b.close()
    b.close()
    assert c.ahead() == 1
    a.close()
    assert c.ahead() == 0


def test_a_process_that_is_killed_lets_go(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "0\n"
        ticket = LockFileSlot(tmp_path).ticket("account")
        assert ticket.ahead() == 1
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert ticket.ahead() == 0
    ticket.close()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["gate"]  # nothing of either is left


def test_a_stopped_holder_is_passed_after_a_while(tmp_path: Path, clock: Clock) -> None:
    a, b = tickets(tmp_path, 2)
    for _ in range(6):
        assert b.ahead() == 1
        clock.now += 10.0  # b goes on to ask, while the holder is stopped
    clock.now += 0.1
    assert b.ahead() == 0
    a.close()


def test_a_holder_that_renews_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    a, b = tickets(tmp_path, 2)
    for _ in range(20):
        clock.now += 10.0
        a.renew()
        assert b.ahead() == 1


def test_who_was_stopped_in_the_queue_queues_again(tmp_path: Path, clock: Clock) -> None:
    a, b, c = tickets(tmp_path, 3)
    for _ in range(7):
        clock.now += 10.0
        a.renew()
        c.renew()
    a.close()
    assert c.ahead() == 0
    assert b.ahead() > 0  # though its number was smaller
    c.close()
    assert b.ahead() == 0


def test_while_another_one_takes_a_number_one_waits(tmp_path: Path) -> None:
    (a,) = tickets(tmp_path, 1)
    a.close()
    (gate,) = tmp_path.rglob("gate")
    lock = lock_file(gate)
    assert lock is not None
    late = LockFileSlot(tmp_path).ticket("account")
    assert late.ahead() == 1
    lock.close()
    assert late.ahead() == 0


def test_if_somebody_removes_the_files_a_new_place_is_taken(tmp_path: Path, clock: Clock) -> None:
    a, b = tickets(tmp_path, 2)
    for path in tmp_path.rglob("0*"):
        path.unlink()
    clock.now += 10.0  # it is time to renew
    assert b.ahead() == 1
    assert b.ahead() == 0
    a.close()


def test_foreign_files_in_the_folder_do_not_matter(tmp_path: Path) -> None:
    (a,) = tickets(tmp_path, 1)
    (folder,) = tmp_path.iterdir()
    for name in ("0-x", "9" * 30 + "-x", "000000000000-x"):
        (folder / name).touch()
    b = LockFileSlot(tmp_path).ticket("account")
    assert (a.ahead(), b.ahead()) == (0, 1)
    a.close()
    assert b.ahead() == 0


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_others_can_neither_read_the_folder_nor_see_whose_account_it_is(tmp_path: Path) -> None:
    ticket = LockFileSlot(tmp_path / "state" / "slots").ticket("https://oa.example.org a-secret-token")
    assert ticket.ahead() == 0
    made = list((tmp_path / "state" / "slots").rglob("*"))
    assert {path.stat().st_mode & 0o077 for path in [tmp_path / "state" / "slots", *made]} == {0}
    assert not [path for path in made if "secret" in str(path)]
    assert {path.read_bytes() for path in made if path.is_file()} == {b""}


@pytest.mark.anyio
async def test_who_holds_it_renews_and_who_is_cancelled_leaves_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_RENEWS_EVERY", 0.001)
    renewed = anyio.Event()
    renew = Ticket.renew

    def noted(ticket: Ticket) -> None:
        renew(ticket)
        if any(held.values()):
            renewed.set()

    monkeypatch.setattr(Ticket, "renew", noted)
    slot, other = LockFileSlot(tmp_path), LockFileSlot(tmp_path)
    held = vars(slot)["_held"]
    await slot.enter("account")
    await renewed.wait()
    with anyio.move_on_after(0.02):
        await other.enter("account")
    assert len(list(tmp_path.rglob("0*"))) == 1
    await slot.leave("account")
    await other.enter("account")
    await other.leave("account")
    assert not list(tmp_path.rglob("0*"))


@pytest.mark.anyio
@pytest.mark.parametrize("first_to_leave", [0, 1])
async def test_who_was_passed_within_one_process_still_leaves(
    tmp_path: Path, clock: Clock, first_to_leave: int
) -> None:
    slot = LockFileSlot(tmp_path)
    with ExitStack() as portals:
        one, other = (portals.enter_context(start_blocking_portal("asyncio")) for _ in range(2))
        leaving = [one, other] if first_to_leave == 0 else [other, one]
        await anyio.to_thread.run_sync(one.call, slot.enter, "account")
        clock.now += 100  # the machine slept
        with anyio.fail_after(10):
            await anyio.to_thread.run_sync(other.call, slot.enter, "account")
        for portal in leaving:
            await anyio.to_thread.run_sync(portal.call, slot.leave, "account")
        with anyio.fail_after(10):
            await slot.enter("account")
        await slot.leave("account")
