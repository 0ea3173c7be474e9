"""Proxies: the URLs that are accepted, the hosts that go without, and the secrets that are never shown."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable
from importlib import import_module

import pytest

from oa_protocol import MaybeSent, NotSent, TransportError
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.testing.peers import Connection, Peer
from oa_protocol.transports import Transport
from oa_protocol.transports.default import default_transport_factory, proxy_of_environment
from oa_protocol.transports.fast.httptools import _Proxy  # pyright: ignore[reportPrivateUsage]

pytestmark = [pytest.mark.usefixtures("no_environment")]

SECRET = "Zugang2024geheim"


def named(module: str, name: str) -> Callable[..., Transport]:
    found: Callable[..., Transport] = getattr(import_module(f"oa_protocol.transports.{module}"), name)
    return found


TRANSPORTS = {
    "httptools": named("fast.httptools", "HttptoolsTransport"),
    "httpx": named("httpx", "HttpxTransport"),
    "httpx2": named("httpx2", "Httpx2Transport"),
    "blocking_httpx": named("blocking_httpx", "BlockingHttpxTransport"),
    "aiohttp": named("aiohttp", "AiohttpTransport"),
}


@pytest.fixture(params=TRANSPORTS)
def make(request: pytest.FixtureRequest, anyio_backend: str) -> Callable[..., Transport]:
    if request.param == "aiohttp" and anyio_backend != "asyncio":
        pytest.skip("aiohttp is for asyncio")
    return TRANSPORTS[request.param]


CUT = [
    f"http://me:{SECRET}#1@127.0.0.1:1",
    f"http://me:{SECRET}/1@127.0.0.1:1",
    f"http://me:{SECRET}?1@127.0.0.1:1",
    f"http://me:12#{SECRET}@127.0.0.1:1",
    f"http://me:12/{SECRET}@127.0.0.1:1",
    f"me:{SECRET}@127.0.0.1:1",
    f"ftp://me:{SECRET}@127.0.0.1:1",
    f"http://me:{SECRET}@127.0.0.1:99999",
    f"http://me:{SECRET}@127.0.0.1:0",
    f"http://me:{SECRET}@[127.0.0.1",
    f"http://me:{SECRET}@[::1]x",
    f"http://me:{SECRET}@",
    f"http://me:{SECRET}@300.1.2.3:1",
    f"http://me:{SECRET}@[127.0.0.1]:1",
    f"http://me:{SECRET}@[::1::]:1",
    f"http://me:{SECRET}@127.0.0.1\\r\\nx: y",
    f"http://me:{SECRET}é@127.0.0.1:1",
    f"http://127.0.0.1:{SECRET}",
    f"http://127.0.0.1/{SECRET}",
]


@pytest.mark.clause("OA-2.5")
@pytest.mark.anyio
async def test_a_proxy_that_would_be_another_one_is_refused_and_not_repeated(make: Callable[..., Transport]) -> None:
    for proxy in CUT:
        with pytest.raises(ValueError, match="proxy") as refused:
            make(proxy=proxy)
        assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.clause("OA-2.5")
def test_so_is_one_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in CUT:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        named = proxy_of_environment("http://oa.example.org")
        if proxy != CUT[5]:  # one without a scheme is taken there
            with pytest.raises(ValueError, match="proxy") as refused:
                default_transport_factory(proxy=named)
            assert SECRET not in str(refused.value)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("spelled", "user"),
    [
        ("me:a%23b", b"me:a#b"),
        ("me:a@b", b"me:a@b"),
        ("me:a%zb:c", b"me:a%zb:c"),
        ("me", b"me:"),
    ],
)
async def test_user_and_password_arrive_as_they_were_meant(
    make: Callable[..., Transport], spelled: str, user: bytes
) -> None:
    def serve(connection: Connection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    with Peer(serve) as proxy:
        transport = make(proxy=f"http://{spelled}@{proxy.netloc}/")
        response = await transport.open(HttpRequest("GET", "http://oa.example.org/", ()))
        await response.aclose()
        await transport.aclose()
    sent = {name.lower(): value for name, value in proxy.requests[0].headers}
    assert base64.b64decode(sent["proxy-authorization"].removeprefix("Basic ")) == user


@pytest.mark.clause("OA-2.5")
@pytest.mark.anyio
@pytest.mark.parametrize("status", [b"407 No", b"502 Bad", b"??"])
@pytest.mark.parametrize("url", ["http://oa.example.org/", "https://oa.example.org/"])
async def test_what_a_proxy_refuses_does_not_tell_its_password(
    make: Callable[..., Transport], url: str, status: bytes
) -> None:
    def serve(connection: Connection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    with Peer(serve) as proxy:
        transport = make(proxy=f"http://me:{SECRET}@{proxy.netloc}", connect_timeout=10)
        try:
            response = await transport.open(HttpRequest("GET", url, ()))
        except TransportError as error:
            assert SECRET not in f"{error} {error!r}"  # noqa: PT017  # some are replies
        else:
            await response.aclose()
        await transport.aclose()
    assert SECRET not in repr(transport)


@pytest.mark.clause("OA-2.5")
@pytest.mark.parametrize("kind", [NotSent, MaybeSent])
def test_the_text_of_a_library_is_repeated_without_user_and_password(kind: type[TransportError]) -> None:
    for url in (f"http://me:{SECRET}@p:1", f"socks5://{SECRET}/1@p:1", f"http://me:{SECRET}@1@p:1"):
        assert str(kind(f"cannot connect to {url} now")) == f"cannot connect to {url.partition('//')[0]}//***@p:1 now"


@pytest.mark.parametrize(
    ("base_url", "no_proxy", "is_excepted"),
    [
        ("http://localhost:8000", "localhost,127.0.0.1,::1", True),
        ("http://[::1]:8000", "localhost,127.0.0.1,::1", True),
        ("http://[::1]", "[::1]", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://[::1]:8000", "[::1]:8001", False),
        ("http://[0:0:0:0:0:0:0:1]:8000", "::1", True),
        ("http://[fd00::5]:8000", "fd00::/8", True),
        ("http://[fe00::5]:8000", "fd00::/8", False),
        ("http://[fd00::5]:8000", "[fd00::]/8", True),
        ("http://10.1.2.3:8000", "10.0.0.0/8", True),
        ("http://11.1.2.3:8000", "10.0.0.0/8", False),
        ("http://10.1.2.3:8000", "10.1.2.3/8", True),
        ("http://10.1.2.3:8000", "10.1.*", True),
        ("http://10.1.2.3:8000", "10.1.2.3:8000", True),
        ("http://10.1.2.3:8000", "::/0", False),
        ("http://oa.corp:8000", ".corp", True),
        ("http://oa.corp:8000", "*.corp", True),
        ("http://oa.corp:8000", "CORP", True),
        ("http://oa.corp:8000", "oa-*.corp", False),
        ("http://oa.corp:8000", "oa.corp.", True),
        ("http://oa.corp.:8000", "oa.corp", True),
        ("http://xn--mller-kva.corp", "Müller.corp", True),
        ("http://oa.xn--mller-kva.corp", "*.müller.corp", True),
        ("http://oa.corp", "\u0300", False),
        ("http://oa.corp", "oa.corp:80", True),
        ("https://oa.corp", "oa.corp:443", True),
        ("https://oa.corp", "oa.corp:80", False),
        ("http://oa.corp:8000", "*", True),
        ("http://oa.corp:8000", "a.example b.example oa.corp", True),
        ("http://oa.corp:8000", "a.example, , oa.corp", True),
        ("http://oa.corp:8000", "corp.example", False),
        ("http://oa.corp:8000", "a.corp", False),
        ("http://oacorp:8000", "corp", False),
        ("http://oa.corp:8000", ".", False),
        ("http://oa.corp:8000", "", False),
    ],
)
def test_no_proxy_names_hosts_addresses_networks_and_patterns(
    monkeypatch: pytest.MonkeyPatch, base_url: str, no_proxy: str, is_excepted: bool
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://proxy.corp:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_of_environment(base_url) is None) is is_excepted


@pytest.mark.clause("OA-2.5")
def test_no_repr_of_a_proxy_shows_its_password() -> None:
    proxy = _Proxy.of(f"http://me:{SECRET}@127.0.0.1:1")
    assert repr(proxy).startswith("_Proxy(origin=")
    assert proxy.headers[0][1] not in repr(proxy)
