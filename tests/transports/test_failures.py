"""What the transports say if something is wrong around them: which part, in words, and never a password."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from oa_protocol import MaybeSent, NotSent, TransportError
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.testing.peers import Connection, Peer, refusing_port
from oa_protocol.transports import Transport
from oa_protocol.transports._failures import words_of
from oa_protocol.transports.aiohttp import AiohttpTransport
from oa_protocol.transports.blocking_httpx import BlockingHttpxTransport
from oa_protocol.transports.fast.httptools import HttptoolsTransport
from oa_protocol.transports.httpx import HttpxTransport
from oa_protocol.transports.httpx2 import Httpx2Transport

ALL = (AiohttpTransport, BlockingHttpxTransport, HttptoolsTransport, HttpxTransport, Httpx2Transport)


def failure_of(make: Callable[[], Transport], url: str) -> TransportError:
    async def fail() -> TransportError:
        transport = make()
        try:
            await transport.open(HttpRequest("GET", url, ()))
        except TransportError as error:
            return error
        finally:
            await transport.aclose()
        raise AssertionError("it was sent")

    return anyio.run(fail)


@pytest.mark.parametrize("transport", ALL)
@pytest.mark.parametrize("url", ["http://oa.invalid/x", "https://oa.invalid/x"])
@pytest.mark.clause("OA-2.5")
def test_a_proxy_that_is_not_there_is_named_without_its_password(transport: Callable[..., Transport], url: str) -> None:
    with refusing_port() as netloc:
        failure = failure_of(lambda: transport(proxy=f"http://me:secret@{netloc}"), url)
    assert isinstance(failure, NotSent)
    assert str(failure).startswith(f"cannot reach {url[:-2]} through the proxy http://{netloc}: ")
    assert "secret" not in str(failure)


@pytest.mark.parametrize("transport", ALL)
@pytest.mark.parametrize("url", ["http://oa.invalid/x", "https://oa.invalid/x"])
@pytest.mark.clause("OA-2.5")
def test_a_proxy_that_breaks_off_is_named_without_its_password(transport: Callable[..., Transport], url: str) -> None:
    def serve(connection: Connection) -> None:
        connection.read_head()
        connection.reset()

    with Peer(serve) as peer:
        failure = failure_of(lambda: transport(proxy=f"http://me:secret@{peer.netloc}"), url)
    assert f"{url[:-2]} through the proxy {peer.url}" in str(failure)
    assert "secret" not in str(failure)


@pytest.mark.parametrize("transport", ALL)
def test_a_connection_that_breaks_is_an_error_with_a_text(transport: Callable[..., Transport]) -> None:
    def serve(connection: Connection) -> None:
        connection.read_head()
        connection.reset()

    with Peer(serve) as peer:
        failure = failure_of(transport, peer.url)
    assert isinstance(failure, MaybeSent)
    words = str(failure).partition(" failed: ")[2]
    assert " " in words, failure
    assert "Error" not in words.replace("[Errno", ""), failure


def test_an_error_without_a_text_gets_that_of_its_cause() -> None:
    for error, words in (
        (anyio.BrokenResourceError(), "the connection broke"),
        (TimeoutError(), "it took too long"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ):
        assert words_of(error) == words
    outer = OSError()
    outer.__cause__ = anyio.BrokenResourceError()
    assert words_of(outer) == "the connection broke"
    outer.__cause__.__cause__ = OSError(104, "reset")
    assert words_of(outer) == "[Errno 104] reset"


@pytest.mark.parametrize("transport", [HttptoolsTransport, HttpxTransport, BlockingHttpxTransport])
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_named(
    transport: Callable[..., Transport], content: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "bundle.pem"
    if content is not None:
        file.write_text(content, "utf-8")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    from oa_protocol.transports import httpx

    httpx.default_ssl_context.cache_clear()
    with Peer(lambda _: None, scheme="https") as peer:
        try:
            failure = failure_of(transport, peer.url)
        except NotSent as error:  # it can't even be made
            failure = error
    assert isinstance(failure, NotSent)
    assert f"SSL_CERT_FILE names, {file}, cannot be read: " in str(failure)
