"""The inference server's checks of a request's fields, with its error texts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

Value = Any
"""Any JSON value."""
Json = dict[str, Value]
Convert = Callable[[Value], Value]


class Refused(Exception):
    """The server refuses, with a status and a reason: a string, or a list of ``{loc, msg, type}``."""

    def __init__(self, status: int, detail: str | list[Json]) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class Broken(Exception):
    """The server runs into an error of its own: a plain 500."""


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


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a request: how its value is converted, and what it is when absent."""

    name: str
    convert: Convert
    default: Value = _REQUIRED
    nullable: bool = False

    def read(self, value: Value) -> Value:
        """The converted value."""
        if value is None:
            if self.nullable:
                return None
            raise _Invalid("none is not an allowed value", "type_error.none.not_allowed")
        return self.convert(value)


def text(value: Value) -> str:
    """A string, or the string that a number is."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise _Invalid("str type expected", "type_error.str")


def short_text(value: Value) -> str:
    """A string of at most 100 characters."""
    found = text(value)
    if len(found) > 100:
        raise _Invalid(
            "ensure this value has at most 100 characters", "value_error.any_str.max_length", limit_value=100
        )
    return found


def integer(value: Value) -> int:
    """An integer, or what ``int`` makes one of."""
    try:
        return int(value)
    except (TypeError, ValueError):
        raise _Invalid("value is not a valid integer", "type_error.integer") from None


def number(value: Value) -> float:
    """A float, or what ``float`` makes one of."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise _Invalid("value is not a valid float", "type_error.float") from None


def boolean(value: Value) -> bool:
    """A truth value, or one of its usual names."""
    named = value.lower() if isinstance(value, str) else value
    if named in (True, "1", "on", "t", "true", "y", "yes"):
        return True
    if named in (False, "0", "off", "f", "false", "n", "no"):
        return False
    raise _Invalid("value could not be parsed to a boolean", "type_error.bool")


def list_of_anything(value: Value) -> list[Any]:
    """A list, unchecked."""
    if isinstance(value, list):
        return value  # pyright: ignore[reportUnknownVariableType] - any JSON
    raise _Invalid("value is not a valid list", "type_error.list")


def page_size(value: Value) -> int:
    """The number of chats on a page: 1 to 100."""
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


def sampling_parameters(value: Value) -> Json:
    """The sampling parameters the server knows, each with a value; others are dropped."""
    return read_fields(_mapping(value), SAMPLING)


PROMPT = (Field("parent_id", text, None, nullable=True), Field("content", text))
REQUEST = (
    Field("parent_id", text),
    Field("model_config_name", text),
    Field("sampling_parameters", sampling_parameters, {}),
    Field("system_prompt", text, None, nullable=True),
    Field("user_profile", text, None, nullable=True),
    Field("user_response_instructions", text, None, nullable=True),
    Field("plugins", list_of_anything, []),
)
UPDATE = (
    Field("title", short_text, None, nullable=True),
    Field("hidden", boolean, None, nullable=True),
    Field("allow_data_use", boolean, None, nullable=True),
    Field("active_thread_tail_message_id", text, None, nullable=True),
)
PAGE = (
    Field("limit", page_size, 10),
    Field("after", text, None, nullable=True),
    Field("before", text, None, nullable=True),
    Field("include_hidden", boolean, False),
)


class _Several(Exception):
    def __init__(self, errors: list[tuple[tuple[str, ...], _Invalid]]) -> None:
        super().__init__(errors)
        self.errors = errors


def read_fields(given: Json, fields: tuple[Field, ...]) -> Json:
    """The converted value of every field."""
    found: Json = {}
    errors: list[tuple[tuple[str, ...], _Invalid]] = []
    for field in fields:
        try:
            if field.name in given:
                found[field.name] = field.read(given[field.name])
            elif field.default is _REQUIRED:
                raise _Invalid("field required", "value_error.missing")
            elif field.convert is sampling_parameters:
                found[field.name] = sampling_parameters({})
            else:
                found[field.name] = field.default
        except _Invalid as error:
            errors.append(((field.name,), error))
        except _Several as several:
            errors += [((field.name, *path), error) for path, error in several.errors]
    if errors:
        raise _Several(errors)
    return found


def check(source: str, given: Value, fields: tuple[Field, ...]) -> Json:
    """The converted fields of a body or query; Refused (422) names each bad one, `source` first in its ``loc``."""
    try:
        if given is None:
            raise _Invalid("field required", "value_error.missing")
        return read_fields(_mapping(given), fields)
    except _Invalid as error:
        raise Refused(422, [error.to_json(source)]) from None
    except _Several as several:
        raise Refused(422, [error.to_json(source, *path) for path, error in several.errors]) from None


def parse_json(body: bytes) -> Value:
    """The body's JSON; Refused (422) says where it is none, or (400) that it is not UTF-8."""
    try:
        return json.loads(body.decode())
    except UnicodeDecodeError:
        raise Refused(400, "There was an error parsing the body") from None
    except json.JSONDecodeError as error:
        detail: Json = {
            "loc": ["body", error.pos],
            "msg": str(error),
            "type": "value_error.jsondecode",
            "ctx": {
                "msg": error.msg,
                "doc": error.doc,
                "pos": error.pos,
                "lineno": error.lineno,
                "colno": error.colno,
            },
        }
        raise Refused(422, [detail]) from None


def _mapping(value: Value) -> Json:
    try:
        return cast("Json", dict(value))
    except (TypeError, ValueError):
        raise _Invalid("value is not a valid dict", "type_error.dict") from None
