from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from oa_protocol.server import Server

from .command import ended, oa_protocol, process, started

FULL = Path("/dev/full")


def environment_of(process: subprocess.Popen[bytes]) -> dict[str, str]:
    """What a shell makes of the lines on stdout."""
    assert process.stdout is not None
    lines = [process.stdout.readline().decode() for _ in range(4)]
    shell = subprocess.run(["sh", "-c", f"{''.join(lines)}env"], capture_output=True, text=True, check=True)
    exported = [line.partition("=") for line in shell.stdout.splitlines() if line.startswith("OA_")]
    return {name: value for name, _, value in exported}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_its_lines_point_the_other_commands_at_it(number: int) -> None:
    with started(["serve", "--answers", "echo", "--token-delay", "0", "--host", "localhost"]) as running:
        pairs = environment_of(running)
        assert sorted(pairs) == ["OA_COOKIES", "OA_TOKEN", "OA_URL", "OA_WORKER_KEY"]
        for api in ("website", "inference"):
            done = oa_protocol("ask", "--api", api, "Hello", env=pairs)
            assert (done.code, done.out, done.err) == (0, "Hello\n", "")
        running.send_signal(number)
        done = ended(running)
    assert (done.code, done.out) == (0, "")
    assert pairs["OA_URL"] in done.err
    assert "until you press Ctrl-C" in done.err
    assert done.err.endswith("\n0 chats left.\n")


def test_it_shows_each_request_without_secrets_and_says_how_many_chats_are_left() -> None:
    with started(["serve", "--workers", "0"]) as running:
        pairs = environment_of(running)
        done = oa_protocol("ask", "Hello", "--timeout", "0.1", env=pairs)
        assert done.code == 5  # without a worker there is no answer
        httpx.post(f"{pairs['OA_URL']}/chats", json={}, headers={"Authorization": f"Bearer {pairs['OA_TOKEN']}"})
        running.send_signal(signal.SIGINT)
        shown = ended(running).err
    assert "Z POST /api/chat 200 " in shown
    assert "Z DELETE /api/chat 200 " in shown
    assert shown.endswith("\n1 chat left.\n")
    for secret in (pairs["OA_TOKEN"], pairs["OA_COOKIES"], pairs["OA_WORKER_KEY"], "chat_id"):
        assert secret not in shown


def test_the_log_goes_to_a_file_which_may_be_moved_away(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started(["serve", "--log", str(log)]) as running:
        pairs = environment_of(running)
        for path in ("first", "second"):
            httpx.get(f"{pairs['OA_URL']}/{path}")
            while path not in (line := log.read_text() if log.exists() else ""):
                time.sleep(0.01)  # the line is written after the reply
            assert line.count("\n") == 1
            log.rename(tmp_path / path)
        running.send_signal(signal.SIGTERM)
        assert "GET /" not in ended(running).err
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}Z GET /first 404 \d+ ms\n", (tmp_path / "first").read_text())


def test_a_log_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    done = oa_protocol("serve", "--log", str(tmp_path / "no" / "log"))
    assert (done.code, done.out) == (2, "")
    assert "log can't be written: No such file or directory." in done.err


@pytest.mark.skipif(not FULL.exists(), reason="needs a disk that is full")
def test_a_log_on_a_full_disk_is_complained_about_once_and_serving_goes_on() -> None:
    with started(["serve", "--log", str(FULL)]) as running:
        url = environment_of(running)["OA_URL"]
        assert [httpx.get(f"{url}/health").status_code for _ in range(3)] == [200, 200, 200]
        running.send_signal(signal.SIGTERM)
        done = ended(running)
    assert (done.code, done.err.count("No space left on device")) == (0, 1)


@pytest.mark.skipif(not FULL.exists(), reason="needs a disk that is full")
def test_on_a_full_disk_it_does_not_blame_the_port() -> None:
    with FULL.open("wb") as full, started(["serve"], stdout=full.fileno()) as running:
        done = ended(running)
    assert (done.code, done.err) == (1, "Error: stdout: No space left on device\n0 chats left.\n")


def test_a_port_that_is_taken_is_named() -> None:
    with Server() as server:
        port = urlsplit(server.url).port
        done = process("serve", "--port", str(port))
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"Error: the server cannot listen on port {port}: Address already in use. --port 0 picks a free port.\n"
    )


def test_its_own_default_model_is_lorem() -> None:
    with started(["serve", "--token-delay", "0"]) as running:
        assert oa_protocol("ask", "x", env=environment_of(running)).out.endswith(".\n")
        running.send_signal(signal.SIGINT)
        assert ended(running).code == 0


def test_it_prints_the_url_of_the_live_page() -> None:
    with started(["serve", "--watch"]) as running:
        environment_of(running)
        assert running.stderr is not None
        line = next(line.decode() for line in running.stderr if b"Watch it at" in line)
        reply = httpx.get(line.split()[-1], trust_env=False)
        running.send_signal(signal.SIGINT)
        done = ended(running)
    assert (done.code, reply.status_code) == (0, 200)
    assert "Last requests" in reply.text
