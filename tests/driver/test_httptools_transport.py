"""What the fast transport does beyond the contract: its connections, what it refuses to read, and its proxies."""

import base64
import socket
import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import anyio.to_thread
import pytest
import trustme

from oa_protocol import MaybeSent, NotSent
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.transports.fast import httptools as transport_module
from oa_protocol.transports.fast.httptools import HttptoolsResponse, HttptoolsTransport

from .peers import peer, read_head

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"


def get(url: str, *headers: tuple[str, str]) -> HttpRequest:
    return HttpRequest("GET", url, headers)


async def read(response: HttptoolsResponse) -> bytes:
    body = b""
    while data := await response.receive():
        body += data
    return body


class Counting:
    """A peer that gives one reply to each request, and counts its connections; ``then`` is what follows a reply."""

    def __init__(self, reply: bytes = OK, then: Callable[[socket.socket], None] = lambda connection: None) -> None:
        self.connections = 0
        self._reply = reply
        self._then = then

    def __call__(self, connection: socket.socket) -> None:
        self.connections += 1
        while read_head(connection):
            connection.sendall(self._reply)
            self._then(connection)


@contextmanager
def answering(data: bytes) -> Generator[str]:
    """A peer that says this, and closes."""

    def serve(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(data)

    with peer(serve) as port:
        yield f"http://127.0.0.1:{port}/"


# ---- connections


async def converse(url: str, times: int = 2) -> None:
    """Send requests one after the other over one transport, and read the replies."""
    transport = HttptoolsTransport()
    for _ in range(times):
        response = await transport.open(get(url))
        assert await read(response) == b"abc"
        await response.aclose()
    await transport.aclose()


async def test_a_connection_whose_reply_was_read_is_used_again() -> None:
    counting = Counting()
    with peer(counting) as port:
        await converse(f"http://127.0.0.1:{port}/", times=3)
    assert counting.connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc", id="said"),
        pytest.param(b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", id="old"),
        pytest.param(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nxyz", id="unasked"),
        pytest.param(OK + b"abc", id="longer than said"),
    ],
)
async def test_a_connection_that_is_not_to_be_trusted_is_not_used_again(reply: bytes) -> None:
    counting = Counting(reply)
    with peer(counting) as port:
        await converse(f"http://127.0.0.1:{port}/")
    assert counting.connections == 2


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    def close(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    closed = threading.Event()
    counting = Counting(then=close)
    transport = HttptoolsTransport()
    with peer(counting) as port:
        for _ in range(2):
            response = await transport.open(get(f"http://127.0.0.1:{port}/"))
            assert await read(response) == b"abc"
            await response.aclose()
            await anyio.to_thread.run_sync(closed.wait, 10)
            closed.clear()
        await transport.aclose()
    assert counting.connections == 2


async def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "KEEP_ALIVE", 0.0)
    counting = Counting()
    with peer(counting) as port:
        await converse(f"http://127.0.0.1:{port}/")
    assert counting.connections == 2


async def test_a_connection_whose_reply_was_not_read_is_closed() -> None:
    def serve(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab")
        ends.append(connection.recv(1))

    ends: list[bytes] = []
    transport = HttptoolsTransport()
    with peer(serve) as port:
        response = await transport.open(get(f"http://127.0.0.1:{port}/"))
        await response.aclose()
    assert ends == [b""]
    await transport.aclose()


async def test_a_reply_that_is_closed_twice_lets_go_once() -> None:
    def serve(connection: socket.socket) -> None:
        thread = threading.Thread(target=serve_beside, args=(connection.dup(),))
        threads.append(thread)
        thread.start()

    def serve_beside(connection: socket.socket) -> None:
        with connection:
            counting(connection)

    threads: list[threading.Thread] = []
    counting = Counting()
    transport = HttptoolsTransport()
    with peer(serve) as port:
        first = await transport.open(get(f"http://127.0.0.1:{port}/"))
        assert await read(first) == b"abc"
        await first.aclose()
        second = await transport.open(get(f"http://127.0.0.1:{port}/"))
        await first.aclose()
        third = await transport.open(get(f"http://127.0.0.1:{port}/"))
        for response in (second, third):
            assert await read(response) == b"abc"
            await response.aclose()
        await transport.aclose()
    for thread in threads:
        thread.join(10)
    assert counting.connections == 2


async def test_an_idle_connection_to_another_server_is_closed() -> None:
    one, other = Counting(), Counting()
    transport = HttptoolsTransport()
    with peer(one) as port, peer(other) as other_port:
        for number in (port, other_port):
            response = await transport.open(get(f"http://127.0.0.1:{number}/"))
            assert await read(response) == b"abc"
            await response.aclose()
        await transport.aclose()
    assert (one.connections, other.connections) == (1, 1)


# ---- replies


async def test_interim_replies_are_passed_over() -> None:
    transport = HttptoolsTransport()
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    with answering(interim + OK) as url:
        response = await transport.open(get(url))
        assert (response.status, response.headers) == (200, [("content-length", "3")])
        assert await read(response) == b"abc"
        await response.aclose()
    await transport.aclose()


async def test_trailers_are_no_headers() -> None:
    transport = HttptoolsTransport()
    data = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nstatus: 500\r\n\r\n"
    with answering(data) as url:
        response = await transport.open(get(url))
        assert await read(response) == b"abc"
        assert response.headers == [("transfer-encoding", "chunked")]
        await response.aclose()
    await transport.aclose()


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n",
        b"ICE/1.0 200 OK\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 099 Odd\r\n\r\n",
        b"HTTP/1.1 2000 Odd\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: \0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: y\r\n",
        b"",
    ],
)
async def test_a_head_that_is_none_may_have_been_sent(data: bytes) -> None:
    transport = HttptoolsTransport()
    with answering(data) as url, pytest.raises(MaybeSent, match=f"the connection to {url[:-1]} failed: "):
        await transport.open(get(url))
    await transport.aclose()


async def test_a_body_is_passed_on_up_to_its_first_error() -> None:
    transport = HttptoolsTransport()
    with answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzzz\r\n") as url:
        response = await transport.open(get(url))
        assert await response.receive() == b"abc"
        for _ in range(2):
            with pytest.raises(MaybeSent, match="in the middle of a reply: this is not HTTP"):
                await response.receive()
        await response.aclose()
    await transport.aclose()


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"x: y\r\n" * 30_000, id="many fields"),
        pytest.param(b"x: " + b"y" * 1_000_000, id="an endless field"),
    ],
)
async def test_an_endless_head_may_have_been_sent(head: bytes) -> None:
    transport = HttptoolsTransport()
    with answering(b"HTTP/1.1 200 OK\r\n" + head) as url, pytest.raises(MaybeSent, match=r"failed: .* bytes"):
        await transport.open(get(url))
    await transport.aclose()


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(b"0\r\n" + b"x: y\r\n" * 30_000, id="trailers"),
        pytest.param(b"3;" + b"x" * 1_000_000, id="a chunk's extension"),
    ],
)
async def test_an_endless_end_of_a_body_is_a_cut(end: bytes) -> None:
    transport = HttptoolsTransport()
    with answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n" + end) as url:
        response = await transport.open(get(url))
        with pytest.raises(MaybeSent, match=r"in the middle of a reply: .* bytes"):
            await read(response)
        await response.aclose()
    await transport.aclose()


# ---- requests


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (HttpRequest("GET /\r\n", "http://127.0.0.1:1/", ()), "method"),
        (HttpRequest("GET", "http://127.0.0.1:1/x y", ()), "URL"),
        (HttpRequest("GET", "http://127.0.0.1:1/x\r\nhost: y", ()), "URL"),
        (HttpRequest("GET", "ftp://127.0.0.1:1/", ()), "URL"),
        (HttpRequest("GET", "http:///", ()), "URL"),
        (HttpRequest("GET", "http://127.0.0.1:1/", (("x", "y\r\nhost: z"),)), "'x'"),
        (HttpRequest("GET", "http://127.0.0.1:1/", (("x", "y\0"),)), "'x'"),
        (HttpRequest("GET", "http://127.0.0.1:1/", (("x", "€"),)), "'x'"),
        (HttpRequest("GET", "http://127.0.0.1:1/", (("x: y\r\nz", ""),)), "header"),
    ],
)
async def test_what_would_break_out_of_its_place_is_not_sent(request_: HttpRequest, named: str) -> None:
    transport = HttptoolsTransport()
    with pytest.raises(NotSent, match=f"cannot send the request: .*{named}"):
        await transport.open(request_)
    await transport.aclose()


# ---- TLS and proxies


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "oa.example.org").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    return context


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]
    return context


async def test_a_server_whose_authority_is_trusted_is_spoken_to(
    server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    def serve(connection: socket.socket) -> None:
        with server_context.wrap_socket(connection, server_side=True) as encrypted:
            read_head(encrypted)
            encrypted.sendall(b"HTTP/1.1 200 OK\r\n\r\nabc")

    transport = HttptoolsTransport(ssl_context=trusting)
    with peer(serve) as port:
        response = await transport.open(get(f"https://127.0.0.1:{port}/"))
        assert await read(response) == b"abc"
        await response.aclose()
    await transport.aclose()


async def test_a_server_whose_authority_is_not_trusted_was_sent_nothing(server_context: ssl.SSLContext) -> None:
    def serve(connection: socket.socket) -> None:
        with server_context.wrap_socket(connection, server_side=True) as encrypted:
            heads.append(read_head(encrypted))

    heads: list[bytes] = []
    transport = HttptoolsTransport()
    with peer(serve) as port, pytest.raises(NotSent, match=r"cannot reach https://.*certificate"):
        await transport.open(get(f"https://127.0.0.1:{port}/"))
    assert heads == []
    await transport.aclose()


BASIC = base64.b64encode(b"me:p@ss").decode()


async def test_a_proxy_gets_the_whole_url_and_the_user_of_its_own(server_context: ssl.SSLContext) -> None:
    def serve(connection: socket.socket) -> None:
        heads.append(read_head(connection))
        connection.sendall(OK)

    heads: list[bytes] = []
    with peer(serve) as port:
        transport = HttptoolsTransport(proxy=f"http://me:p%40ss@127.0.0.1:{port}")
        response = await transport.open(get("http://oa.example.org?x=y", ("accept", "*/*")))
        assert await read(response) == b"abc"
        await response.aclose()
        await transport.aclose()
    (head,) = heads
    assert head.decode() == (
        "GET http://oa.example.org/?x=y HTTP/1.1\r\n"
        f"host: oa.example.org\r\naccept: */*\r\nproxy-authorization: Basic {BASIC}\r\n\r\n"
    )


@pytest.mark.parametrize("encrypted_proxy", [False, True])
async def test_a_proxy_opens_a_tunnel_and_sees_no_more(
    server_context: ssl.SSLContext, trusting: ssl.SSLContext, encrypted_proxy: bool
) -> None:
    def serve(connection: socket.socket) -> None:
        if encrypted_proxy:
            with server_context.wrap_socket(connection, server_side=True) as encrypted:
                tunnel(encrypted)
        else:
            tunnel(connection)

    def tunnel(connection: socket.socket) -> None:
        heads.append(read_head(connection))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        answer_through(connection)

    def answer_through(connection: socket.socket) -> None:
        """TLS by hand, for it may run in TLS."""
        arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        inner = server_context.wrap_bio(arrived, leaving, server_side=True)

        def carry(step: Callable[[], object]) -> object:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    if leaving.pending:
                        connection.sendall(leaving.read())
                    arrived.write(connection.recv(65536))
                finally:
                    if leaving.pending:
                        connection.sendall(leaving.read())

        carry(inner.do_handshake)
        inner_heads.append(carry(lambda: inner.read(65536)))
        carry(lambda: inner.write(OK))
        connection.recv(65536)

    heads: list[bytes] = []
    inner_heads: list[object] = []
    scheme = "https" if encrypted_proxy else "http"
    with peer(serve) as port:
        transport = HttptoolsTransport(proxy=f"{scheme}://me:p%40ss@127.0.0.1:{port}", ssl_context=trusting)
        response = await transport.open(get("https://oa.example.org/x", ("accept", "*/*")))
        assert await read(response) == b"abc"
        await response.aclose()
        await transport.aclose()
    tunnelled = f"CONNECT oa.example.org:443 HTTP/1.1\r\nhost: oa.example.org:443\r\nproxy-authorization: Basic {BASIC}"
    assert heads == [f"{tunnelled}\r\n\r\n".encode()]
    assert inner_heads == [b"GET /x HTTP/1.1\r\nhost: oa.example.org\r\naccept: */*\r\n\r\n"]


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", "407"),
        (b"SSH-2.0-x\r\n", "not HTTP"),
        (b"", "closed from the other side"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel_was_sent_nothing(reply: bytes, told: str) -> None:
    with answering(reply) as url:
        transport = HttptoolsTransport(proxy=url)
        with pytest.raises(NotSent, match=told):
            await transport.open(get("https://[::1]/"))
        await transport.aclose()


@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:1", "http://", "http://127.0.0.1:x", "http://a b/", "socks5://x"])
def test_a_proxy_that_cannot_be_used_is_an_error(proxy: str) -> None:
    with pytest.raises(ValueError, match="proxy must be a URL"):
        HttptoolsTransport(proxy=proxy)
