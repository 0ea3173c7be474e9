"""A client goes through the proxy that it is given, or that the environment names."""

import http.client
import socket
from urllib.parse import urlsplit

import pytest

from oa_protocol.server import Answer

from .peers import peer, read_head
from .site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_environment")]


def forward(connection: socket.socket, seen: list[str]) -> None:
    """A proxy: take one request with an absolute target, and pass it on."""
    head = read_head(connection)
    first, *lines = head.split(b"\r\n\r\n")[0].decode().split("\r\n")
    method, target, _ = first.split(" ")
    seen.append(target)
    headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    lower = {name.lower(): value for name, value in headers.items()}
    body = head.split(b"\r\n\r\n", 1)[1]
    while len(body) < int(lower.get("content-length", "0")):
        body += connection.recv(65536)
    parts = urlsplit(target)
    upstream = http.client.HTTPConnection(parts.netloc, timeout=10)
    upstream.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, body or None, headers)
    reply = upstream.getresponse()
    content = reply.read()
    upstream.close()
    head_out = f"HTTP/1.1 {reply.status} X\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
    connection.sendall(head_out.encode() + content)


async def test_a_conversation_goes_through_the_proxy_it_is_given(site: Site) -> None:
    seen: list[str] = []
    site.script(Answer(pieces=("Yes.",)))
    with peer(lambda connection: forward(connection, seen)) as port:
        async with site.client(proxy=f"http://127.0.0.1:{port}") as client, client.chat() as chat:
            assert await chat.ask("Hello") == "Yes."
    assert len(seen) == len(site.steps)
    assert all(target.startswith(site.server.url + "/") for target in seen)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_the_environment_s_proxy_is_taken(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str, scheme: str
) -> None:
    seen: list[str] = []
    with peer(lambda connection: forward(connection, seen)) as port:
        monkeypatch.setenv(name, f"{scheme}127.0.0.1:{port}")
        async with site.client() as client:
            monkeypatch.delenv(name)  # what it was when the client was made
            await client.models()
    assert len(seen) == 1


@pytest.mark.parametrize("bypass", ["127.0.0.1", "*", "example.org,127.0.0.1"])
async def test_no_proxy_is_for_hosts_without(site: Site, monkeypatch: pytest.MonkeyPatch, bypass: str) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", bypass)
    async with site.client() as client:
        await client.models()
    assert site.steps == ["models"]
