"""The page on transports: its transports pass the suite, and a client takes the one it is given."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import anyio
import pytest

from oa_protocol.server import Server

from .transports_page import CLIENT, H11, H11_SUITE, HTTP_CLIENT, HTTP_CLIENT_SUITE, PAGE

pytest_plugins = ["pytester"]


def test_the_page_s_transports_pass_the_suite(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_h11=f"{H11}\n\n{H11_SUITE}")
    imports = "from oa_protocol.testing import TransportConformance\n"
    pytester.makepyfile(test_http_client=f"{imports}{HTTP_CLIENT}\n\n{HTTP_CLIENT_SUITE}")
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    outcomes = done.parseoutcomes()
    assert outcomes.keys() == {"passed", "skipped"}
    assert outcomes["passed"] > 2 * 2 * 50  # all but those about proxies, of two transports, on two backends


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_client_takes_the_transport_that_it_is_given(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with Server() as server:
        cookies = [f"127.0.0.1\tFALSE\t/\tFALSE\t0\t{name}\t{value}\n" for name, value in server.cookies.items()]
        Path("cookies.txt").write_text("".join(cookies), "utf-8")
        code = CLIENT.replace("https://oa.example.org", server.url)

        async def main() -> None:
            running = eval(compile(code, PAGE.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), {"__name__": "page"})
            assert inspect.isawaitable(running)
            await running

        anyio.run(main, backend=backend)
        assert server.requests
        assert not server.chats
    assert capsys.readouterr().out.strip()
