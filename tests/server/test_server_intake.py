"""What the server does not do for a page of another site, and what it does not keep in memory."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from oa_protocol.server import Server, core
from oa_protocol.server.http import _intake, app
from oa_protocol.server.http.reader import Reader

from .helpers import Inference, asked, connected, exchange, received

LOGIN = "/auth/callback/debug?code=default"
EVIL = "evil.example"


def get(server: Server, *headers: str, target: str = LOGIN, version: str = "1.1") -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return exchange(server, f"GET {target} HTTP/{version}\r\n{lines}Connection: close\r\n\r\n".encode())


@pytest.mark.parametrize("target", [LOGIN, "/chats", "/api/chat", "/configs/model_configs", "/health", "/nowhere"])
@pytest.mark.parametrize(
    "headers",
    [
        [f"Host: {EVIL}"],
        [f"Host: {EVIL}:8000"],
        [f"Host: localhost@{EVIL}"],
        [f"Host: localhost.{EVIL}"],
        [f"Host: 127.0.0.1.{EVIL}"],
        ["Host: [::2]:80"],
        ["Host:"],
        ["Host: localhost", "Origin: null"],
        ["Host: localhost", f"Origin: http://{EVIL}"],
        ["Host: localhost", "Origin: http://localhost", f"Origin: http://{EVIL}"],
    ],
    ids="; ".join,
)
def test_a_page_of_another_site_gets_nothing(server: Server, headers: list[str], target: str) -> None:
    reply = get(server, *headers, target=target)
    assert reply.startswith(b"HTTP/1.1 403 ")
    assert b"is not one of this server's names" in reply
    assert server.token.encode() not in reply
    assert not server.requests


UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
)


@pytest.mark.parametrize("headers", [[f"Host: {EVIL}"], ["Host: localhost", f"Origin: http://{EVIL}"]], ids="; ".join)
def test_a_page_of_another_site_gets_no_websocket(server: Server, headers: list[str]) -> None:
    reply = exchange(server, upgrade("/workers/work", *headers))
    assert reply.startswith(b"HTTP/1.1 403 ")
    assert b"is not one of this server's names" in reply
    assert not server.requests


def test_only_workers_get_a_websocket(server: Server) -> None:
    assert exchange(server, upgrade("/chats", "Host: localhost")).startswith(b"HTTP/1.1 403 ")


def upgrade(target: str, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in (*headers, *UPGRADE))
    return f"GET {target} HTTP/1.1\r\n{lines}\r\n".encode()


def test_what_a_page_of_another_site_embeds_is_refused(server: Server) -> None:
    assert get(server, "Host: localhost", "Sec-Fetch-Site: cross-site").startswith(b"HTTP/1.1 403 ")
    for site in ("same-site", "none"):  # a page of this machine, and the address bar
        assert get(server, "Host: localhost", f"Sec-Fetch-Site: {site}").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("target", "version", "headers"),
    [(f"http://{EVIL}{LOGIN}", "1.1", ["Host: localhost"]), (f"HTTP://{EVIL}", "1.1", ["Host: x"]), (LOGIN, "1.0", [])],
    ids=["absolute target", "absolute target without a path", "no Host"],
)
def test_a_target_counts_like_a_host_and_no_host_is_none_of_ours(
    server: Server, target: str, version: str, headers: list[str]
) -> None:
    assert get(server, *headers, target=target, version=version).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("target", [LOGIN, f"http://127.0.0.1:1{LOGIN}"])
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST.:8000", "oa.localhost", "[::1]:80"])
def test_the_names_of_this_machine_are_its_own(server: Server, name: str, target: str) -> None:
    reply = get(server, f"Host: {name}", f"Origin: http://{name}", target=target)
    assert server.token.encode() in reply


def test_other_names_can_be_allowed() -> None:
    with Server(allowed_hosts=["OA.internal"]) as server:
        assert get(server, "Host: oa.internal:80").startswith(b"HTTP/1.1 200 ")
        assert get(server, f"Host: {EVIL}").startswith(b"HTTP/1.1 403 ")


def post(server: Server, path: str, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that waits for nothing that it doesn't need."""
    monkeypatch.setattr(_intake, "LINGER_SECONDS", 0)
    with Server() as server:
        yield server


@pytest.mark.parametrize("path", ["/chats", "/api/chat"])
def test_a_body_that_is_too_long_is_refused_before_it_is_sent(impatient: Server, path: str) -> None:
    reply = exchange(impatient, post(impatient, path, "Content-Length: 600000000", "Expect: 100-continue"))
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert [record.body for record in impatient.requests] == [b""]


@pytest.mark.parametrize("path", ["/chats", "/api/chat"])
def test_a_body_that_turns_out_too_long_is_read_to_its_end_and_not_kept(server: Server, path: str) -> None:
    limit = core.body_limit(core.Request("POST", path))
    chunk = b"%x\r\n%b\r\n" % (limit, bytes(limit))
    with connected(server) as connection:
        connection.sendall(post(server, path, "Transfer-Encoding: chunked") + 3 * chunk + b"0\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 413 ")
    assert [record.body for record in server.requests] == [b""]


def test_bodies_that_are_too_long_together_are_refused(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setattr(_intake, "BODIES_LIMIT", 1000)
    with ExitStack() as stack:
        first = stack.enter_context(connected(server))
        first.sendall(post(server, "/chats", "Connection: close", "Content-Length: 800") + b" " * 798)
        second = stack.enter_context(connected(server))
        second.sendall(post(server, "/chats", "Content-Length: 800") + b" " * 800)
        assert b" 503 " in received(second)
        first.sendall(b"{}")
        assert b" 403 " in received(first)
    with Inference(server).http as http:
        assert http.post("/chats", json={}).status_code == 200


def test_a_body_that_never_arrives_is_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch, impatient: Server) -> None:
    monkeypatch.setattr(_intake, "BODY_SECONDS", 0)
    assert exchange(impatient, post(impatient, "/chats", "Content-Length: 2")).startswith(b"HTTP/1.1 408 ")


def test_only_so_many_bytes_of_requests_are_remembered(monkeypatch: pytest.MonkeyPatch, inference: Inference) -> None:
    monkeypatch.setattr(app, "RECORDED_LIMIT", 5000)
    server = inference.server
    for _ in range(4):
        inference.http.post("/chats", content=b"{" + b" " * 2000 + b"}")
    assert [record.method for record in server.requests] == ["POST", "POST"]
    assert server.requests[0].size > 2000


@pytest.mark.parametrize("path", ["/chats", "/api/chat"])
def test_an_error_of_the_servers_own_is_a_500_and_logged_with_its_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, server: Server, path: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(app, "handle", fail)
    reply = exchange(server, post(server, f"{path}?code=secret", "Content-Length: 0", "Connection: close"))
    assert reply.startswith(b"HTTP/1.1 500 ")
    assert reply.endswith(b"Internal Server Error")
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (record.getMessage(), record.name) == (f"POST {path} failed", "oa_protocol.server")
    assert logging.getLogger(record.name).handlers == []


def test_an_error_in_mid_stream_breaks_it_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, inference: Inference
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Reader, "receive", fail)
    chat, message = asked(inference)
    with pytest.raises(httpx.RemoteProtocolError), inference.events(chat, message) as reply:
        reply.read()
    shown = [record.getMessage() for record in caplog.records if record.name == "oa_protocol.server"]
    assert shown == [f"GET /chats/{chat}/messages/{message}/events failed"]
