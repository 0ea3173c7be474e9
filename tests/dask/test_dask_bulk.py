"""The example with Dask, on a cluster of processes, of which one is killed in the middle. ``nox -s dask`` runs it."""

# Dask has no types, and is installed only where this runs.
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

pytest.importorskip("distributed", reason="only `nox -s dask` installs it")

from dask import config
from distributed import Client, LocalCluster

from oa_protocol.server import Echo, Server
from tests.examples import dask_bulk

COUNT = int(os.environ.get("DASK_PROMPTS", "60"))
PROMPTS = {str(number): f"prompt {number}" for number in range(COUNT)}


@pytest.fixture
def server() -> Iterator[Server]:
    """Two workers for sixteen threads, so messages do wait."""
    with Server(Echo(), workers=2, token_delay=0.02, pending_interval=0.1, reader_grace=60) as running:
        yield running


@contextmanager
def cluster() -> Iterator[Client]:
    config.set({"distributed.scheduler.locks.lease-timeout": "5s"})
    config.set({"distributed.scheduler.locks.lease-validation-interval": "1s"})
    with LocalCluster(n_workers=4, threads_per_worker=4, dashboard_address=None) as machines, Client(machines) as made:
        yield made


def settings(server: Server, folder: Path, **others: Any) -> dask_bulk.Settings:
    cookies = "; ".join(f"{name}={value}" for name, value in server.cookies.items())
    return dask_bulk.Settings(server.url, cookies, str(folder), **others)


@pytest.mark.filterwarnings("default")
def test_no_message_is_cancelled_and_a_killed_worker_loses_nothing(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found: dict[str, str | Exception] = {}
    asked = settings(server, tmp_path)
    began = time.monotonic()
    with cluster() as machines:
        for key, answer in dask_bulk.ask_all(machines, asked, PROMPTS):
            assert key not in found
            found[key] = answer
            if len(found) == COUNT // 3:
                os.kill(next(iter(machines.run(os.getpid).values())), signal.SIGKILL)
        seconds = time.monotonic() - began
    assert found == PROMPTS
    left = len(server.chats)
    anyio.run(dask_bulk.sweep, asked)
    assert server.chats == ()
    with capsys.disabled():
        print(f"\n{COUNT} answers in {seconds:.0f} s; the killed worker left {left} chats, and the sweep none")


@pytest.mark.skipif("DASK_PROMPTS" not in os.environ, reason="it only measures what a slot is good for")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("has_slot", [True, False])
def test_what_a_slot_is_good_for(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], has_slot: bool
) -> None:
    with cluster() as machines:
        began = time.monotonic()
        results = dict(dask_bulk.ask_all(machines, settings(server, tmp_path, has_slot=has_slot), PROMPTS))
        seconds = time.monotonic() - began
    failed = [answer for answer in results.values() if isinstance(answer, Exception)]
    again = sum(request.step == "create" for request in server.requests) - COUNT
    with capsys.disabled():
        print(f"\nslot: {has_slot}; {again} asked again, {len(failed)} of {COUNT} failed, {seconds:.0f} s")
