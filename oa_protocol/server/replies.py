"""HTTP replies with exactly the headers that each API's server sends."""

import gzip
import hashlib
import json
from decimal import Decimal
from email.utils import formatdate

from starlette.responses import Response

from oa_protocol.server.validation import Value

Headers = list[tuple[str, str]]

_SAFE_INTEGER = 2**53
_COMPRESSED_FROM = 1024


class BareReply(Response):
    """A reply with these headers and no others. Without a content-length its body is chunked."""

    def __init__(self, status: int, headers: Headers, body: bytes = b"") -> None:
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [(name.encode(), value.encode()) for name, value in headers]


def _date() -> tuple[str, str]:
    return "date", formatdate(usegmt=True)


def inference_headers() -> Headers:
    """The headers of every inference server reply."""
    return [_date(), ("server", "uvicorn")]


def inference_json(status: int, value: Value, extra: Headers | None = None) -> BareReply:
    """JSON from the inference server."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    length = ("content-length", str(len(body)))
    headers = [*inference_headers(), *(extra or []), length, ("content-type", "application/json")]
    return BareReply(status, headers, body)


def inference_empty(status: int, extra: Headers | None = None) -> BareReply:
    """An empty inference server reply."""
    length = [] if status == 204 else [("content-length", "0")]
    return BareReply(status, [*inference_headers(), *length, *(extra or [])])


def inference_text(status: int, text: str) -> BareReply:
    """Plain text from the inference server."""
    headers = [("content-length", str(len(text))), ("content-type", "text/plain; charset=utf-8")]
    return BareReply(status, inference_headers() + headers, text.encode())


def website_headers() -> Headers:
    """The headers of every website reply: the connection is never kept."""
    return [_date(), ("connection", "close")]


def website_json(status: int, value: Value, *, compress: bool = False) -> BareReply:
    """JSON from the website, which has been through JavaScript; compressed if large and `compress`."""
    body = json.dumps(_through_javascript(value), ensure_ascii=False, separators=(",", ":")).encode()
    etag = f'"{hashlib.blake2s(body, digest_size=6).hexdigest()}"'
    headers: Headers = [("content-type", "application/json; charset=utf-8"), ("etag", etag)]
    if compress and len(body) >= _COMPRESSED_FROM:
        headers += [("vary", "Accept-Encoding"), _date(), ("content-encoding", "gzip"), ("connection", "close")]
        return BareReply(status, headers, gzip.compress(body, compresslevel=1))
    headers += [("content-length", str(len(body))), ("vary", "Accept-Encoding"), *website_headers()]
    return BareReply(status, headers, body)


def website_text(status: int, text: str = "") -> BareReply:
    """Plain text or nothing from the website: chunked, without a content-type."""
    return BareReply(status, website_headers(), text.encode())


def _through_javascript(value: Value) -> Value:
    """What is left of JSON when JavaScript has parsed it: every number is a double."""
    match value:
        case bool():
            return value
        case dict():
            return {key: _through_javascript(one) for key, one in value.items()}  # pyright: ignore[reportUnknownVariableType] - any JSON
        case list():
            return [_through_javascript(one) for one in value]  # pyright: ignore[reportUnknownVariableType] - any JSON
        case int() if abs(value) > _SAFE_INTEGER:
            return int(Decimal(repr(float(value))))
        case float() if value.is_integer() and abs(value) < 1e21:
            return int(Decimal(repr(value)))
        case _:
            return value
