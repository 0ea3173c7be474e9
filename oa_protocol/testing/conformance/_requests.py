"""Tests of requests: each one is sent once, and unchanged."""

from __future__ import annotations

from collections.abc import Sequence

from oa_protocol.engine.errors import TransportError
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.testing._fields import ADDED, changed_fields
from oa_protocol.testing.conformance._suite import Suite, conformance
from oa_protocol.testing.conformance._wire import BIG, ask, failure_of, get, must_be, noise, post, reply_of, say
from oa_protocol.testing.peers import Connection, Received


def check_fields(request: Received, fields: Sequence[tuple[str, str]], which: str) -> None:
    """Check that a request has these header fields in this order, and otherwise only fields that HTTP needs."""
    change = changed_fields(fields, [field for field in request.headers if field[0].lower() not in ADDED])
    if change:
        raise AssertionError(f"{which} was changed: {change}")


class Requests(Suite):
    """What a transport sends."""

    @conformance
    async def test_the_request_goes_out_as_it_is(self) -> None:
        """Method, target, header fields and body are sent unchanged. Only fields that HTTP needs are added."""
        fields = (
            ("accept", "*/*"),
            ("x-two", "1"),
            ("cookie", "a=b; c=d"),
            ("authorization", "Bearer %2F"),
            ("x-two", "2"),
        )
        async with self._served(say(reply_of(b"ok"))) as (peer, transport):
            url = f"{peer.url}/a%2Fb/%7Ec?y=%2F%20&z=1+2&&"
            await ask(transport, HttpRequest("POST", url, fields, b'{"a": 1}'))
        (request,) = peer.requests
        must_be("the method", request.method, "POST")
        must_be("the target", request.target, "/a%2Fb/%7Ec?y=%2F%20&z=1+2&&")
        must_be("the body that was sent", request.body, b'{"a": 1}')
        check_fields(request, fields, "the request")
        must_be("the field host", request.values("host"), [peer.netloc])
        must_be("the field content-length", request.values("content-length"), ["8"])

    @conformance
    async def test_a_conversation_s_fields_go_out_as_they_are(self) -> None:
        """With each method, no header field is added, left out, replaced or moved."""
        fields = (
            ("accept", "text/event-stream"),
            ("accept-encoding", "identity"),
            ("user-agent", "oa_protocol/1.0"),
            ("cookie", "a=b"),
        )
        with_body = (*fields, ("content-type", "application/json"))
        sent = [
            ("GET", fields, b""),
            ("POST", with_body, b"{}"),
            ("PUT", with_body, b"{}"),
            ("POST", fields, b""),
            ("DELETE", fields, b""),
        ]
        async with self._served(say(reply_of(b"ok"))) as (peer, transport):
            for method, headers, body in sent:
                await ask(transport, HttpRequest(method, f"{peer.url}/", headers, body))
        for (method, headers, _), request in zip(sent, peer.requests, strict=True):
            check_fields(request, headers, f"the {method}")

    @conformance
    async def test_a_request_without_a_body_has_none(self) -> None:
        """A GET, POST, PUT or DELETE without a body has no ``transfer-encoding``, and no ``content-length`` but 0."""
        methods = ["GET", "POST", "PUT", "DELETE"]
        async with self._served(say(reply_of(b"ok"))) as (peer, transport):
            for method in methods:
                await ask(transport, HttpRequest(method, f"{peer.url}/", ()))
        must_be("the list of methods that were sent", [request.method for request in peer.requests], methods)
        for request in peer.requests:
            must_be(f"the field content-length of a {request.method}", request.values("content-length"), [], ["0"])
            must_be(f"the field transfer-encoding of a {request.method}", request.values("transfer-encoding"), [])

    @conformance
    async def test_a_big_body_is_sent_whole(self) -> None:
        """A body of 4 MiB is sent without an ``expect`` header."""
        body = noise(BIG)
        async with self._served(say(reply_of(b"ok"))) as (peer, transport):
            await ask(transport, post(peer.url, body))
        (request,) = peer.requests
        assert request.values("expect") == [], "the server was asked first, by an expect header"
        must_be("the body that was sent", request.body, body)

    @conformance
    async def test_no_cookie_is_kept(self) -> None:
        """A transport doesn't store cookies, because each request brings its own credentials."""
        async with self._served(say(reply_of(b"ok", b"set-cookie: a=b; path=/"))) as (peer, transport):
            await ask(transport, get(peer.url))
            await ask(transport, get(peer.url))
        cookies = [cookie for request in peer.requests for cookie in request.values("cookie")]
        must_be("the list of cookies that were sent", cookies, [])

    @conformance
    async def test_a_line_break_in_a_header_is_not_sent(self) -> None:
        """A line break in a header, the target or the method is refused or removed, so that it can't add a header."""
        for odd in ("\r\n", "\n", "\r"):
            smuggled = f"1{odd}x-smuggled: 1"
            for request in (
                HttpRequest("GET", "{}/", (("x-odd", smuggled),)),
                HttpRequest("GET", "{}/", ((smuggled, "1"),)),
                HttpRequest("GET", f"{{}}/?{smuggled}", ()),
                HttpRequest(f"GET / HTTP/1.1{odd}x-smuggled: 1{odd}x:", "{}/", ()),
            ):
                heads: list[bytes] = []

                def serve(connection: Connection, heads: list[bytes] = heads) -> None:
                    heads.append(connection.read_head())
                    connection.send(reply_of(b""))

                async with self._peer(serve) as peer:
                    url = request.url.replace("{}", peer.url)
                    async with self._transport() as transport:
                        failure = await failure_of(transport, HttpRequest(request.method, url, request.headers))
                if failure is not None and not isinstance(failure, TransportError):
                    raise AssertionError(
                        f"open() raised {type(failure).__name__} because of a line break: raise NotSent"
                    ) from failure
                for head in heads:
                    for ending in (b"\r\n", b"\n", b"\r"):
                        lines = head.lower().split(ending)
                        smuggled_in = [line for line in lines if line.strip().startswith(b"x-smuggled")]
                        assert not smuggled_in, f"a line break was sent, which adds a header: {head!r}"
