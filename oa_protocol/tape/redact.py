"""Masks the secrets on a tape. Each one is replaced by its own number, so that a replay still gives equal results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from msgspec.structs import fields

from oa_protocol.bindings._secrets import SHORTEST, is_searched, spellings
from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.ids import is_id
from oa_protocol.engine.errors import NotSent, TransportError
from oa_protocol.engine.inputs import Input
from oa_protocol.tape.format import Json, encode_bytes

_ID = "00000000-0000-0000-0000-"


class Masks:
    """The secrets of one tape. ``secret-1`` replaces the first one everywhere, ``secret-2`` the second one, and so on.

    Every cookie and token is masked in its header. One of 16 characters or more is also masked in all other texts,
    unless it is a part of ``base_url``, because a tape needs that. If a secret has the form of an id, so has its mask.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._masks: dict[str, str] = {}
        self._spellings: list[tuple[bytes, bytes]] = []

    def mask(self, secret: str) -> str:
        """Return the mask of ``secret``."""
        if secret not in self._masks:
            number = len(self._masks) + 1
            mask = self._masks[secret] = f"{_ID}{number:012}" if is_id(secret) else f"secret-{number}"
            if is_searched(secret, self._base_url):
                self._spellings += [(spelled.encode(), mask.encode()) for spelled in spellings(secret)]
                self._spellings.sort(key=lambda spelling: len(spelling[0]), reverse=True)  # One may contain another.
        return self._masks[secret]

    def credentials(self, credentials: Credentials) -> Json:
        """Return masked credentials as a tape has them."""
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
        """Return a masked input as a tape has it: the fields of its struct, except for default values."""
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
        """Return a reply's headers by name, with masked cookies. The last one of several with the same name counts."""
        found: dict[str, str] = {}
        for name, value in headers:
            found[name.lower()] = self._set_cookie(value) if name.lower() == "set-cookie" else value
        return found

    def _set_cookie(self, header: str) -> str:
        name, equals, rest = header.partition("=")
        value, semicolon, attributes = rest.partition(";")
        return f"{name}{equals}{self.mask(value)}{semicolon}{attributes}"

    def content(self, data: bytes) -> str | Json:
        """Return masked and encoded bytes. They are masked here, because ``texts`` doesn't look into base64."""
        return encode_bytes(self._masked(data))

    def texts(self, value: Any) -> Any:  # noqa: ANN401  # JSON
        """Return JSON with all secrets in its texts masked."""
        match value:
            case str():
                return self._masked(value.encode(errors="surrogatepass")).decode(errors="surrogatepass")
            case dict():
                return {self.texts(name): self.texts(each) for name, each in cast("Json", value).items()}
            case list() | tuple():
                return [self.texts(each) for each in cast("list[Any]", value)]
            case _:
                return value

    def _masked(self, data: bytes) -> bytes:
        for spelled, mask in self._spellings:
            data = data.replace(spelled, mask)
        return data

    def join(self, pieces: list[bytes]) -> list[bytes]:
        """Return the pieces of a stream with masked secrets, even those that are cut, or whose end is missing.

        The mask is in the piece in which the secret begins.
        """
        for spelled, mask in self._spellings:
            while (start := b"".join(pieces).find(spelled)) >= 0:
                pieces = _replaced(pieces, start, start + len(spelled), mask)
        whole = b"".join(pieces)
        start, mask = self._cut(whole)
        return _replaced(pieces, start, len(whole), mask) if len(whole) - start >= SHORTEST else pieces

    def is_cut(self, data: bytes) -> bool:
        """Return whether ``data`` may end within a secret."""
        return self._cut(data)[0] < len(data)

    def _cut(self, data: bytes) -> tuple[int, bytes]:
        """Return where a secret begins that is cut by the end of ``data``, and its mask. Otherwise, return the end."""
        if data.endswith((b"\n", b"\r")):  # Nearly all pieces end like this, and no secret contains a line end.
            return len(data), b""
        found = [(_start_of(spelled, data), mask) for spelled, mask in self._spellings]
        return min(found, default=(len(data), b""))


def _start_of(secret: bytes, data: bytes) -> int:
    """Return where ``secret`` begins if ``data`` ends within it. Otherwise, return the end of ``data``."""
    start = max(len(data) - len(secret) + 1, 0)
    while not secret.startswith(data[start:]):
        start = data.find(secret[:1], start + 1)
        if start < 0:
            return len(data)
    return start


def _replaced(pieces: list[bytes], start: int, end: int, mask: bytes) -> list[bytes]:
    """Return the pieces with the bytes from ``start`` to ``end``, counted over all pieces, replaced by ``mask``."""
    found: list[bytes] = []
    for piece in pieces:
        before, after = piece[: max(start, 0)], piece[max(end, 0) :]
        found.append(before + (mask if 0 <= start < len(piece) else b"") + after)
        start -= len(piece)
        end -= len(piece)
    return found
