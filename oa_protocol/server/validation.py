"""The inference server's checks of a request's fields, with its error texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

Value = Any
"""Any JSON value."""
Json = dict[str, Value]
Convert = Callable[[Value], Value]


class ClientError(Exception):
    """The request is at fault: a status and a reason, which is a string or a list of ``{loc, msg, type}``."""

    def __init__(self, status: int, detail: str | list[Json]) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class ServerError(Exception):
    """The server runs into an error of its own: a 500. Most requests get ``Internal Server Error``, some no text."""


class RateLimited(Exception):
    """The account has made too many requests: a 500 as well, for the server fails to say 429."""


class _Invalid(Exception):
    def __init__(self, msg: str, type_: str, **ctx: Value) -> None:
        super().__init__(msg)
        self.msg = msg
        self.type = type_
        self.ctx = ctx

    def to_json(self, *loc: str | int) -> Json:
        found: Json = {"loc": [*loc], "msg": self.msg, "type": self.type}
        return {**found, "ctx": self.ctx} if self.ctx else found


_REQUIRED = object()


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A field of a request: how its value is converted, and what it is when absent."""

    name: str
    convert: Convert
    default: Value = _REQUIRED
    nullable: bool = False

    def read(self, value: Value) -> Value:
        """Convert the value."""
        if value is None:
            if self.nullable:
                return None
            raise _Invalid("none is not an allowed value", "type_error.none.not_allowed")
        return self.convert(value)


def text(value: Value) -> str:
    """Read a string, or a number as a string."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise _Invalid("str type expected", "type_error.str")


def short_text(value: Value) -> str:
    """Read a string of at most 100 characters."""
    found = text(value)
    if len(found) > 100:
        raise _Invalid(
            "ensure this value has at most 100 characters", "value_error.any_str.max_length", limit_value=100
        )
    return found


def integer(value: Value) -> int:
    """Read an integer, or what ``int`` makes one of."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise _Invalid("value is not a valid integer", "type_error.integer") from None


def number(value: Value) -> float:
    """Read a float, or what ``float`` makes one of."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise _Invalid("value is not a valid float", "type_error.float") from None


def boolean(value: Value) -> bool:
    """Read a truth value, or one of its usual names."""
    named = value.lower() if isinstance(value, str) else value
    if named in (True, "1", "on", "t", "true", "y", "yes"):
        return True
    if named in (False, "0", "off", "f", "false", "n", "no"):
        return False
    raise _Invalid("value could not be parsed to a boolean", "type_error.bool")


def mapping(value: Value) -> Json:
    """Read an object, or what ``dict`` makes one of."""
    try:
        return cast("Json", dict(value))
    except (TypeError, ValueError):
        raise _Invalid("value is not a valid dict", "type_error.dict") from None


def page_size(value: Value) -> int:
    """Read the number of chats on a page: 1 to 100."""
    found = integer(value)
    if found <= 0:
        raise _Invalid("ensure this value is greater than 0", "value_error.number.not_gt", limit_value=0)
    if found > 100:
        raise _Invalid("ensure this value is less than or equal to 100", "value_error.number.not_le", limit_value=100)
    return found


SAMPLING = (
    Field("top_k", integer, None, nullable=True),
    Field("top_p", number, None, nullable=True),
    Field("typical_p", number, None, nullable=True),
    Field("temperature", number, None, nullable=True),
    Field("repetition_penalty", number, None, nullable=True),
    Field("max_new_tokens", integer, 1024),
)


PLUGIN = (
    Field("url", text),
    Field("enabled", boolean, True),
    Field("plugin_config", mapping, None, nullable=True),
    Field("trusted", boolean, False, nullable=True),
)
USED_PLUGIN = (
    Field("name", text, None, nullable=True),
    Field("url", text, None, nullable=True),
    Field("trusted", boolean, None, nullable=True),
    Field("execution_details", mapping),
)


def sampling_parameters(value: Value) -> Json:
    """Read the sampling parameters that the server knows. Others are dropped."""
    return read_fields(mapping(value), SAMPLING)


def plugins(value: Value) -> list[Json]:
    """Read a list of plugins."""
    if not isinstance(value, list):
        raise _Invalid("value is not a valid list", "type_error.list")
    found: list[Json] = []
    errors: list[_Located] = []
    for number, entry in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - any JSON
        with _collecting(errors, number):
            found.append(read_fields(mapping(entry), PLUGIN))
    if errors:
        raise _Several(errors)
    return found


def used_plugin(value: Value) -> Json:
    """Read a plugin that was used."""
    return read_fields(mapping(value), USED_PLUGIN)


PROMPT = (Field("parent_id", text, None, nullable=True), Field("content", text))
REQUEST = (
    Field("parent_id", text),
    Field("model_config_name", text),
    Field("sampling_parameters", sampling_parameters, {field.name: field.default for field in SAMPLING}),
    Field("system_prompt", text, None, nullable=True),
    Field("user_profile", text, None, nullable=True),
    Field("user_response_instructions", text, None, nullable=True),
    Field("plugins", plugins, []),
    Field("used_plugin", used_plugin, None, nullable=True),
)
UPDATE = (
    Field("title", short_text, None, nullable=True),
    Field("hidden", boolean, None, nullable=True),
    Field("allow_data_use", boolean, None, nullable=True),
    Field("active_thread_tail_message_id", text, None, nullable=True),
)
LOGIN = (Field("code", text),)
GO_TO_LOGIN = (Field("username", text), Field("state", text, "{}"))
PAGE = (
    Field("limit", page_size, 10),
    Field("after", text, None, nullable=True),
    Field("before", text, None, nullable=True),
    Field("include_hidden", boolean, False),
)


_Located = tuple[tuple[str | int, ...], _Invalid]


class _Several(Exception):
    def __init__(self, errors: list[_Located]) -> None:
        super().__init__(errors)
        self.errors = errors


@contextmanager
def _collecting(errors: list[_Located], loc: str | int) -> Generator[None, None, None]:
    """Add what is invalid to ``errors``, as found at ``loc``."""
    try:
        yield
    except _Invalid as error:
        errors.append(((loc,), error))
    except _Several as several:
        errors += [((loc, *path), error) for path, error in several.errors]


def read_fields(given: Json, fields: tuple[Field, ...]) -> Json:
    """Convert every field's value."""
    found: Json = {}
    errors: list[_Located] = []
    for field in fields:
        with _collecting(errors, field.name):
            if field.name in given:
                found[field.name] = field.read(given[field.name])
            elif field.default is _REQUIRED:
                raise _Invalid("field required", "value_error.missing")
            else:
                found[field.name] = field.default
    if errors:
        raise _Several(errors)
    return found


def check(source: str, given: Value, fields: tuple[Field, ...]) -> Json:
    """Convert the fields of a body or query. Raises ClientError (422), whose ``loc`` begins with ``source``."""
    errors: list[_Located] = []
    with _collecting(errors, source):
        if given is None:
            raise _Invalid("field required", "value_error.missing")
        return read_fields(mapping(given), fields)
    raise ClientError(422, [error.to_json(*loc) for loc, error in errors])


def parse_json(body: bytes) -> Value:
    """Parse the body. Raises ClientError: 422 says where it isn't JSON, 400 that it isn't even text."""
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        names = ("msg", "doc", "pos", "lineno", "colno")
        ctx = {name: getattr(error, name) for name in names}
        loc = ["body", error.pos]
        raise ClientError(
            422, [{"loc": loc, "msg": str(error), "type": "value_error.jsondecode", "ctx": ctx}]
        ) from None
    except (ValueError, RecursionError):
        raise ClientError(400, "There was an error parsing the body") from None
