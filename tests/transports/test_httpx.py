from typing import Unpack

import httpcore
import pytest

from oa_protocol import MaybeSent, NotSent
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.testing.conformance import Options, TransportConformance
from oa_protocol.testing.peers import Connection, Peer, refusing_port
from oa_protocol.transports import KEEP_ALIVE
from oa_protocol.transports.httpx import HttpxTransport


class TestHttpx(TransportConformance):
    takes = ("connect_timeout", "proxy", "ssl_context")

    def make(self, **options: Unpack[Options]) -> HttpxTransport:
        return HttpxTransport(**options)


def get(url: str) -> HttpRequest:
    return HttpRequest("GET", url, (("accept", "*/*"),))


@pytest.mark.anyio
async def test_an_error_names_the_server_and_no_path() -> None:
    def serve(connection: Connection) -> None:
        connection.read_request()
        connection.end()

    transport = HttpxTransport()
    with refusing_port() as netloc, pytest.raises(NotSent, match=f"^cannot reach http://{netloc}: "):
        await transport.open(get(f"http://{netloc}/secret?path"))
    with Peer(serve) as peer, pytest.raises(MaybeSent, match=f"^the connection to {peer.url} failed: "):
        await transport.open(get(f"{peer.url}/secret?path"))
    await transport.aclose()


@pytest.mark.anyio
async def test_a_name_that_is_not_found_was_not_sent() -> None:
    transport = HttpxTransport()
    with pytest.raises(NotSent, match="cannot reach"):
        await transport.open(get("http://no-such-host.invalid/"))
    await transport.aclose()


@pytest.mark.anyio
async def test_an_error_without_a_text_is_named_after_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> httpcore.Response:
        raise httpcore.ReadError("")

    transport = HttpxTransport()
    monkeypatch.setattr(httpcore.AsyncHTTPConnection, "handle_async_request", fail)
    with pytest.raises(MaybeSent, match="ReadError"):
        await transport.open(get("http://x.invalid/"))
    await transport.aclose()


@pytest.mark.anyio
async def test_a_socks_proxy_may_have_any_address() -> None:
    """This one's own address, 10.10.0.1, has two line feeds, like the end of a head."""
    pytest.importorskip("socksio")

    def serve(connection: Connection) -> None:
        for reply in (b"\x05\x00", b"\x05\x00\x00\x01\n\n\x00\x01\x04\x38"):
            connection.read_some()
            connection.send_bare(reply)
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    with Peer(serve) as proxy:
        transport = HttpxTransport(proxy=f"socks5://{proxy.netloc}")
        response = await transport.open(get("http://oa.example.org/"))
        assert await response.receive() == b"ok"
        await transport.aclose()


def test_an_idle_connection_is_dropped_before_a_server_drops_it() -> None:
    assert KEEP_ALIVE < 5
