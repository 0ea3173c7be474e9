"""Tests of TLS and proxies."""

from __future__ import annotations

from oa_protocol.engine.intents import HttpRequest
from oa_protocol.testing.conformance._suite import IMPATIENCE, Suite, conformance
from oa_protocol.testing.conformance._wire import (
    ask,
    check_not_sent,
    chunked,
    get,
    must_be,
    over_tls,
    post,
    reply_of,
    say,
    tls_contexts,
)
from oa_protocol.testing.peers import Connection, Received, refusing_port


class Connecting(Suite):
    """How a transport connects."""

    @conformance
    async def test_a_server_with_a_certificate_of_a_trusted_authority_is_served(self) -> None:
        """Requests over TLS work like those over plain HTTP."""
        async with self._served(say(chunked(b"ok")), is_encrypted=True) as (peer, transport):
            must_be("the body", await ask(transport, post(peer.url, b"{}")), b"ok")
            must_be("the body", await ask(transport, post(peer.url, b"{}")), b"ok")
        must_be("the list of bodies that were sent", [request.body for request in peer.requests], [b"{}", b"{}"])

    @conformance
    async def test_a_certificate_of_an_unknown_authority_was_not_sent(self) -> None:
        """``open`` raises ``NotSent``, because the handshake fails before the request is sent."""
        self._need_connections()
        server, _ = tls_contexts("127.0.0.1")
        async with self._served(over_tls(server, say(reply_of(b"ok"))), scheme="https") as (peer, transport):
            await check_not_sent(transport, post(peer.url, b"{}"))
        must_be("the list of requests that were sent", peer.requests, [])

    @conformance
    async def test_a_certificate_for_another_host_was_not_sent(self) -> None:
        """``open`` raises ``NotSent``, because the handshake fails before the request is sent."""
        self._need("ssl_context")
        server, trusting = tls_contexts("another.invalid")
        serve = over_tls(server, say(reply_of(b"ok")))
        async with self._served(serve, scheme="https", ssl_context=trusting) as (peer, transport):
            await check_not_sent(transport, post(peer.url, b"{}"))
        must_be("the list of requests that were sent", peer.requests, [])

    @conformance
    async def test_a_server_that_speaks_no_tls_was_not_sent(self) -> None:
        """``open`` raises ``NotSent``, because the handshake fails before the request is sent."""
        self._need_connections()

        def serve(connection: Connection) -> None:
            connection.send(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
            connection.end()

        async with self._served(serve, scheme="https") as (peer, transport):
            await check_not_sent(transport, post(peer.url, b"{}"))

    @conformance
    async def test_a_tls_handshake_that_takes_too_long_was_not_sent(self) -> None:
        """``connect_timeout`` includes the handshake, and then ``open`` raises ``NotSent``."""
        self._need("connect_timeout")
        async with self._served(lambda _: None, scheme="https", connect_timeout=IMPATIENCE) as (peer, transport):
            await check_not_sent(transport, get(peer.url))

    @conformance
    async def test_a_proxy_is_asked_for_the_whole_url(self) -> None:
        """A request to an http URL is sent to the proxy, with the URL as its target. IPv6 addresses keep brackets."""
        self._need("proxy")
        for host in ("oa.invalid", "[2001:db8::1]:3000"):
            async with self._peer(say(reply_of(b"ok"))) as proxy, self._transport(proxy=proxy.url) as transport:
                asked = HttpRequest("POST", f"http://{host}/a%2Fb?c", (("x-one", "1"),), b"{}")
                must_be("the body", await ask(transport, asked), b"ok")
            (request,) = proxy.requests
            must_be("the method", request.method, "POST")
            must_be("the target", request.target, f"http://{host}/a%2Fb?c")
            must_be("the field host", request.values("host"), [host])
            must_be("the field x-one", request.values("x-one"), ["1"])
            must_be("the body that was sent", request.body, b"{}")

    @conformance
    async def test_a_proxy_is_asked_for_a_tunnel(self) -> None:
        """A request to an https URL is sent through a tunnel, so that the proxy can't read it."""
        self._need("proxy", "ssl_context")
        for host, target in (("oa.invalid", "oa.invalid:443"), ("[2001:db8::1]:3000", "[2001:db8::1]:3000")):
            await self._is_tunnelled(host, target)

    async def _is_tunnelled(self, host: str, target: str) -> None:
        server, trusting = tls_contexts(host.partition("]")[0].removeprefix("["))
        tunnels: list[Received] = []

        def serve(connection: Connection) -> None:
            tunnels.append(connection.read_request())
            connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            over_tls(server, say(reply_of(b"ok")))(connection)

        async with self._peer(serve) as proxy, self._transport(proxy=proxy.url, ssl_context=trusting) as transport:
            secret = HttpRequest("POST", f"https://{host}/a?b", (("authorization", "Bearer secret"),), b"{}")
            must_be("the body", await ask(transport, secret), b"ok")
        (tunnel,) = tunnels
        must_be("the request for a tunnel", f"{tunnel.method} {tunnel.target}", f"CONNECT {target}")
        must_be("the field host of the CONNECT", tunnel.values("host"), [target], [host])
        must_be("the field authorization of the CONNECT", tunnel.values("authorization"), [])
        (inside,) = proxy.requests[1:]
        must_be("the request in the tunnel", f"{inside.method} {inside.target}", "POST /a?b")
        must_be("its field host", inside.values("host"), [host])

    @conformance
    async def test_a_refused_tunnel_was_not_sent(self) -> None:
        """``open`` raises ``NotSent``, because the server has received nothing."""
        self._need("proxy")
        async with (
            self._peer(say(reply_of(b"no", status=b"403 Forbidden"))) as proxy,
            self._transport(proxy=proxy.url) as transport,
        ):
            await check_not_sent(transport, post("https://oa.invalid", b"{}"))
        must_be("the list of methods that the proxy got", [request.method for request in proxy.requests], ["CONNECT"])

    @conformance
    async def test_a_proxy_that_is_not_there_was_not_sent(self) -> None:
        """``open`` raises ``NotSent``, and doesn't try to connect without the proxy."""
        self._need("proxy")
        with refusing_port() as netloc:
            async with self._transport(proxy=f"http://{netloc}") as transport:
                for url in ("http://oa.invalid", "https://oa.invalid"):
                    await check_not_sent(transport, post(url, b"{}"))
