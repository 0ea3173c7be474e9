"""``oa-protocol worker``: what it shows, and how it ends."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from oa_protocol.server import Fault, Hold, Reply, Send, Server, WorkerFault
from oa_protocol.server.http import _worker_socket as worker_socket

from .command import Done, credentials, ended, oa_protocol, started

MODEL = ("--answers", "echo")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(workers=0) as running:
        yield running


def worker(server: Server, *options: str, key: str | None = None) -> Done:
    return oa_protocol("worker", server.url, *MODEL, *options, env={"OA_WORKER_KEY": key or server.worker_key})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_until_a_signal_and_says_how_much(server: Server, number: int) -> None:
    with started(["worker", server.url, *MODEL], {"OA_WORKER_KEY": server.worker_key}) as running:
        done = oa_protocol("ask", "Hello", env=credentials(server))
        assert (done.code, done.out) == (0, "Hello\n")
        running.send_signal(number)
        done = ended(running)
    assert (done.code, done.out, done.err) == (0, "", "Connected.\n1 answered, 0 failed.\n")


def test_a_signal_lets_a_running_answer_end_and_a_second_one_quits(server: Server) -> None:
    hold = Hold()
    server.script(WorkerFault(1, hold))
    with started(["worker", server.url, "--answers", "lorem"], {"OA_WORKER_KEY": server.worker_key}) as running:
        with started(["ask", "Hello"], credentials(server)) as asking:
            server.wait_until(lambda: any(stream.text for stream in server._live.state.streams.values()))
            running.send_signal(signal.SIGTERM)
            hold.release()
            assert ended(asking).code == 0
        assert ended(running).code == 0


def test_a_wrong_key_is_an_error_of_credentials(server: Server) -> None:
    done = worker(server, key="a wrong key of many characters")
    assert (done.code, done.out) == (3, "")
    assert "Error: The server doesn't accept the worker's API key. It is in OA_WORKER_KEY.\n" in done.err
    assert "a wrong key" not in done.err


def test_another_version_of_the_protocol_has_an_exit_code(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_socket, "VERSION", "2")
    done = worker(server)
    assert done.code == 7
    assert "doesn't speak version 1 of the worker protocol" in done.err


def test_terminate_is_a_success(server: Server) -> None:
    server.script(WorkerFault(0, Send(b'{"request_type": "terminate"}')))
    assert worker(server).code == 0


def test_a_server_without_workers_is_named(server: Server) -> None:
    server.script(Fault("worker", before=Reply(404)))
    done = worker(server)
    assert done.code == 1
    assert "refuses the worker with HTTP 404. Is /workers/work below the URL" in done.err


def test_without_a_key_or_with_an_unknown_model_it_is_a_usage_error(server: Server) -> None:
    done = oa_protocol("worker", server.url)
    assert (done.code, done.err.count("OA_WORKER_KEY")) == (2, 1)
    assert worker(server, "--model-config", "gpt-4").code == 2
