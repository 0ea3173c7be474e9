from __future__ import annotations

import signal
import subprocess

import pytest

from .command import ended, oa_protocol, started


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_its_lines_point_the_other_commands_at_it(number: int) -> None:
    with started(["serve", "--model", "echo", "--token-delay", "0", "--host", "localhost"]) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().decode() for _ in range(3)]
        shell = subprocess.run(["sh", "-c", f"{''.join(lines)}env"], capture_output=True, text=True, check=True)
        exported = [line.partition("=") for line in shell.stdout.splitlines() if line.startswith("OA_")]
        pairs = {name: value for name, _, value in exported}
        assert sorted(pairs) == ["OA_COOKIES", "OA_TOKEN", "OA_URL"]
        for api in ("website", "inference"):
            done = oa_protocol("ask", "--api", api, "Hello", env=pairs)
            assert (done.code, done.out, done.err) == (0, "Hello\n", "")
        process.send_signal(number)
        done = ended(process)
    assert (done.code, done.out) == (0, "")
    assert pairs["OA_URL"] in done.err
    assert "until Ctrl-C" in done.err


def test_its_own_default_model_is_lorem() -> None:
    with started(["serve", "--token-delay", "0"]) as process:
        assert process.stdout is not None
        url, cookies = (process.stdout.readline().decode().strip().partition("=")[2] for _ in range(2))
        assert oa_protocol("ask", "x", env={"OA_URL": url, "OA_COOKIES": cookies}).out.endswith(".\n")
        process.send_signal(signal.SIGINT)
        assert ended(process).code == 0
