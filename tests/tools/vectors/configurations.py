"""What a conversation cannot be made with, and credentials that it cannot be given (OA-1.3, OA-2.4, OA-4.6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from oa_protocol.engine.inputs import CredentialsFound

from .notation import Case, happened

_BASE_URLS = {
    "without a scheme": "oa.example.org",
    "with another scheme": "ftp://oa.example.org",
    "without a host": "http://",
    "without a host but with a path": "https:///chat",
    "without a host but with a port": "http://:8080",
    "with a port that is no number": "http://oa.example.org:http",
    "with a query": "http://oa.example.org/?a=1",
    "with an empty query": "http://oa.example.org/?",
    "with a fragment": "http://oa.example.org/#chat",
    "with a user and a password": "http://user:password@oa.example.org",
    "with a user": "http://user@oa.example.org",
    "with a line end in it": "http://oa.example.org/\r\nx-injected: 1",
    "with a space in it": "http://oa.example.org/a b",
}
_COOKIES = {
    "a cookie whose value ends its header": {"next-auth.session-token": "s1\r\nx-injected: 1"},
    "a cookie whose value begins another cookie": {"next-auth.session-token": "s1; admin=1"},
    "a cookie whose name ends its header": {"a\nb": "1"},
    "a cookie whose name has a value in it": {"a=1; b": "1"},
    "a cookie without a name": {"": "1"},
    "a cookie with a NUL": {"next-auth.session-token": "s1\0"},
}
_TOKENS = {
    "a token that ends its header": "t1\r\nx-injected: 1",
    "a token with a line feed alone at its end": "t1\n",
    "a token with a NUL": "t\0001",
}
_SAMPLING: dict[str, dict[str, Any]] = {
    "an unknown name": {"seed": 1},
    "a name in another spelling": {"topK": 50},
    "an integer that is a fraction": {"top_k": 0.5},
    "an integer that is text": {"max_new_tokens": "1024"},
    "an integer that is a truth value": {"top_k": True},
    "the one that cannot be null": {"max_new_tokens": None},
    "a number that is text": {"temperature": "0.5"},
    "a number that is a truth value": {"temperature": False},
    "a number that is a list": {"top_p": [0.9]},
}


def cases() -> Iterator[Case]:
    for name, base_url in _BASE_URLS.items():
        yield Case("website", f"refused: a base URL {name}", "OA-1.3", base_url=base_url, raises="ValueError")
    for name, cookies in _COOKIES.items():
        yield Case("website", f"refused: {name}", "OA-2.4", credentials={"cookies": cookies}, raises="ValueError")
    for name, token in _TOKENS.items():
        yield Case("inference", f"refused: {name}", "OA-2.4", credentials={"token": token}, raises="ValueError")
    for name, sampling in _SAMPLING.items():
        options = {"sampling": sampling}
        yield Case("inference", f"refused: sampling with {name}", "OA-4.6", options=options, raises="TypeError")
    for name, bad in (
        ("a cookie that would break out of its header", {"cookies": {"next-auth.session-token": "a\r\nb: c"}}),
        ("a token that would break out of its header", {"token": "t1\r\nx-injected: 1"}),
    ):
        yield (
            Case("website", f"found: {name}; it is refused, and others are still wanted", "OA-2.4", credentials={})
            .prompt()
            .asks_for_credentials()
            .refuses(happened(CredentialsFound, credentials=bad), "ValueError")
            .finds({"cookies": {"next-auth.session-token": "s2"}}, to="COOKIES")
            .asks("CreateChat")
        )
