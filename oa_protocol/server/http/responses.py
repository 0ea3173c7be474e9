"""HTTP responses with exactly the headers that the real servers send."""

from __future__ import annotations

import gzip
import hashlib
from email.utils import formatdate

from starlette.responses import Response

from oa_protocol.server.requests import Api, Reply, Request

Headers = list[tuple[str, str]]

_COMPRESSED_FROM = 1024


class BareReply(Response):
    """A response with these headers and no others. If there is no content-length, the body is chunked."""

    def __init__(self, status: int, headers: Headers, body: bytes = b"") -> None:
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def refusal(status: int, sentence: str) -> BareReply:
    """Return a reply that refuses a request, and closes the connection, because the body isn't read."""
    body = sentence.encode()
    headers = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body)))]
    return BareReply(status, [_date(), *headers, ("connection", "close")], body)


def headers_of(api: Api, reply: Reply) -> Headers:
    """Return the headers that the API's server sends, without those that describe the body."""
    if api == "inference":
        return [_date(), ("server", "uvicorn"), *reply.headers]
    # The website closes each connection after one reply.
    return [*reply.headers, _date(), ("connection", "close")]


def response_of(api: Api, request: Request, reply: Reply) -> Response:
    """Return the reply as an HTTP response."""
    if api == "inference":
        return _inference(reply)
    if not reply.body or "content-type" not in dict(reply.headers):
        headers = [("connection", "close")] if reply.status == 431 else headers_of(api, reply)
        return BareReply(reply.status, headers, reply.body)
    return _website_json(request, reply)


def _date() -> tuple[str, str]:
    return "date", formatdate(usegmt=True)


def _inference(reply: Reply) -> Response:
    headers = headers_of("inference", reply)
    if reply.status != 204 and "content-length" not in dict(headers):
        place = next((place for place, (name, _) in enumerate(headers) if name == "content-type"), len(headers))
        headers.insert(place, ("content-length", str(len(reply.body))))
    return BareReply(reply.status, headers, reply.body)


def _website_json(request: Request, reply: Reply) -> Response:
    """Return JSON with an etag. Compress it if it is long and the client accepts gzip."""
    body = reply.body
    headers: Headers = [*reply.headers, ("etag", f'"{hashlib.blake2s(body, digest_size=6).hexdigest()}"')]
    if len(body) >= _COMPRESSED_FROM and reply.status == 200 and "gzip" in request.header("accept-encoding"):
        headers += [("vary", "Accept-Encoding"), _date(), ("content-encoding", "gzip"), ("connection", "close")]
        return BareReply(reply.status, headers, gzip.compress(body, compresslevel=1))
    headers += [("content-length", str(len(body))), ("vary", "Accept-Encoding"), _date(), ("connection", "close")]
    return BareReply(reply.status, headers, body)
