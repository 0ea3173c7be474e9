"""Secrets on a tape: each is replaced by a number of its own, so that the tape still replays equal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import cast

from msgspec.structs import fields

from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.ids import is_id
from oa_protocol.engine.errors import NotSent, TransportError
from oa_protocol.engine.inputs import Input
from oa_protocol.tape.format import Json, encode_bytes

_SHORTEST = 16  # a shorter one may be a word of the protocol, for example "assistant"


class Masks:
    """The secrets of one tape: ``secret-1`` stands for the first one everywhere, ``secret-2`` for the next.

    Every cookie and token is masked in its own place. One of 16 characters or more is also masked in any other text
    that repeats it, unless it is an id or a part of ``base_url``, because a tape can't do without these.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._masks: dict[str, str] = {}
        self._spellings: list[tuple[str, str]] = []

    def mask(self, secret: str) -> str:
        """Return what stands for ``secret``."""
        if secret not in self._masks:
            self._masks[secret] = f"secret-{len(self._masks) + 1}"
            if self._is_searched(secret):
                self._spellings.append((json.dumps(secret)[1:-1], self._masks[secret]))
                self._spellings.sort(key=lambda spelling: len(spelling[0]), reverse=True)  # one may hold another
        return self._masks[secret]

    def credentials(self, credentials: Credentials) -> Json:
        """Return credentials as a tape has them, masked."""
        found: Json = {}
        if credentials.cookies:
            found["cookies"] = {name: self.mask(value) for name, value in credentials.cookies.items()}
        if credentials.token is not None:
            found["token"] = self.mask(credentials.token)
        return found

    def intent(self, intent: Json) -> Json:
        """Return an encoded intent with its Cookie and Authorization headers masked."""
        masked = dict(intent)
        if "cookie" in intent:
            pairs = (pair.partition("=") for pair in intent["cookie"].split("; "))
            masked["cookie"] = "; ".join(f"{name}={self.mask(value)}" for name, _, value in pairs)
        if "authorization" in intent:
            scheme, _, value = intent["authorization"].partition(" ")
            masked["authorization"] = f"{scheme} {self.mask(value)}"
        return masked

    def input(self, happened: Input) -> Json:
        """Return an input as a tape has it, masked: the fields of its struct, except for those that have a default."""
        values = {field.name: (getattr(happened, field.name), field.default) for field in fields(happened)}
        encoded = {name: self._value(value) for name, (value, default) in values.items() if value != default}
        return {"type": type(happened).__name__, **encoded}

    def _value(self, value: object) -> object:
        match value:
            case bytes() | bytearray() | memoryview():
                return self.content(bytes(cast("bytes", value)))
            case Credentials():
                return self.credentials(value)
            case TransportError():
                kind = "NotSent" if isinstance(value, NotSent) else "MaybeSent"
                return {"type": kind, "reason": str(value)}
            case tuple():
                return self.headers(cast("tuple[tuple[str, str], ...]", value))
            case _:
                return value

    def headers(self, headers: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Return a reply's headers by name, the last of several, with the values of the cookies that it sets masked."""
        found: dict[str, str] = {}
        for name, value in headers:
            found[name.lower()] = self._set_cookie(value) if name.lower() == "set-cookie" else value
        return found

    def _set_cookie(self, header: str) -> str:
        name, equals, rest = header.partition("=")
        value, semicolon, attributes = rest.partition(";")
        return f"{name}{equals}{self.mask(value)}{semicolon}{attributes}"

    def content(self, data: bytes) -> str | Json:
        """Return encoded bytes. If they are no text, mask them here, because base64 hides a secret from ``line``."""
        encoded = encode_bytes(data)
        if isinstance(encoded, str):
            return encoded
        for secret, mask in self._masks.items():
            if self._is_searched(secret):
                data = data.replace(secret.encode(), mask.encode())
        return encode_bytes(data)

    def line(self, line: str) -> str:
        """Return a line of the tape without any secret that is repeated in it."""
        for secret, mask in self._spellings:
            line = line.replace(secret, mask)
        return line

    def _is_searched(self, secret: str) -> bool:
        part_of_url = secret in self._base_url or self._base_url in secret
        return len(secret) >= _SHORTEST and not part_of_url and not is_id(secret)
