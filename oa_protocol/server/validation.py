"""Checks the fields of requests, with the real inference server's error texts."""

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
    """The request is wrong. ``detail`` is the reason: a string, or a list of ``{loc, msg, type}``."""

    def __init__(self, status: int, detail: str | list[Json]) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class ServerError(Exception):
    """An error in the server's own code: a 500, for most requests with the text ``Internal Server Error``."""


class RateLimited(Exception):
    """The account has made too many requests. This is a 500, too, because the real server fails to send its 429."""


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
    """A field of a request, with its conversion and its default."""

    name: str
    convert: Convert
    default: Value = _REQUIRED
    nullable: bool = False

    def read(self, value: Value) -> Value:
        """Convert the field's value."""
        if value is None:
            if self.nullable:
                return None
            raise _Invalid("none is not an allowed value", "type_error.none.not_allowed")
        return self.convert(value)


def text(value: Value) -> str:
    """Read a string. Convert a number to a string."""
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
    """Read an integer, or a value that ``int`` can convert."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise _Invalid("value is not a valid integer", "type_error.integer") from None


def number(value: Value) -> float:
    """Read a float, or a value that ``float`` can convert."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise _Invalid("value is not a valid float", "type_error.float") from None


def boolean(value: Value) -> bool:
    """Read a boolean, or one of its usual names."""
    named = value.lower() if isinstance(value, str) else value
    if named in (True, "1", "on", "t", "true", "y", "yes"):
        return True
    if named in (False, "0", "off", "f", "false", "n", "no"):
        return False
    raise _Invalid("value could not be parsed to a boolean", "type_error.bool")


def mapping(value: Value) -> Json:
    """Read an object, or a value that ``dict`` can convert."""
    try:
        return cast("Json", dict(value))
    except (TypeError, ValueError):
        raise _Invalid("value is not a valid dict", "type_error.dict") from None


def page_size(value: Value) -> int:
    """Read the number of chats on a page, from 1 to 100."""
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
    """Read the sampling parameters. Drop those that the server doesn't know."""
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
    """Read the description of a used plugin."""
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
    """Add validation errors to ``errors``, with ``loc`` in front of their location."""
    try:
        yield
    except _Invalid as error:
        errors.append(((loc,), error))
    except _Several as several:
        errors += [((loc, *path), error) for path, error in several.errors]


def read_fields(given: Json, fields: tuple[Field, ...]) -> Json:
    """Convert the values of all fields."""
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
    """Convert the fields of a body or a query.

    Raise ClientError (422) if a field is invalid. Each ``loc`` in its detail begins with ``source``.
    """
    errors: list[_Located] = []
    with _collecting(errors, source):
        if given is None:
            raise _Invalid("field required", "value_error.missing")
        return read_fields(mapping(given), fields)
    raise ClientError(422, [error.to_json(*loc) for loc, error in errors])


def parse_json(body: bytes) -> Value:
    """Parse the body.

    Raise ClientError: 422, with the position, if the body isn't JSON, and 400 if it isn't even text.
    """
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
