"""What an answer is asked for with: sampling parameters and the optional texts, checked before any request."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oa_protocol.bindings import json as schemas
from oa_protocol.bindings.base import AnswerOptions, check_text
from oa_protocol.bindings.json import SamplingParameters

INTEGERS = ["top_k", "max_new_tokens"]
NUMBERS = ["top_p", "typical_p", "temperature", "repetition_penalty"]


@pytest.mark.clause("OA-4.6")
def test_the_defaults_are_the_historic_clients() -> None:
    assert json.loads(schemas.encode(SamplingParameters.of(None))) == {
        "top_k": 50,
        "top_p": None,
        "typical_p": None,
        "temperature": 0.35,
        "repetition_penalty": 1.1111111111111112,
        "max_new_tokens": 1024,
    }


@pytest.mark.clause("OA-4.6")
@pytest.mark.parametrize("name", INTEGERS + NUMBERS)
@pytest.mark.parametrize("value", ["1", b"1", True, False, [], {}, 1j, {1, 2}], ids=repr)
def test_a_value_that_is_no_number_is_refused_by_name(name: str, value: object) -> None:
    kind = "a number or None" if name in NUMBERS else "an integer" + " or None" * (name == "top_k")
    with pytest.raises(TypeError, match=f"^{name} must be {kind}, not {re.escape(repr(value))}$"):
        SamplingParameters.of({name: value})


@pytest.mark.clause("OA-4.6")
@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("value", [1.0, 0.5, float("nan")])
def test_a_fraction_is_refused_in_place_of_an_integer(name: str, value: float) -> None:
    with pytest.raises(TypeError, match=f"{name} must be an integer"):
        SamplingParameters.of({name: value})


@pytest.mark.clause("OA-4.6")
@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be finite"):
        SamplingParameters.of({name: value})


@pytest.mark.clause("OA-4.6")
@pytest.mark.parametrize("name", INTEGERS + NUMBERS)
@pytest.mark.parametrize("value", [10**400, 10**5000, 2**63, -(2**63) - 1], ids=["e400", "e5000", "over", "under"])
def test_an_integer_that_no_server_can_hold_is_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must fit into 64 bits"):
        SamplingParameters.of({name: value})


@pytest.mark.clause("OA-4.6")
@pytest.mark.parametrize("name", ["top_k", *NUMBERS])
def test_all_but_max_new_tokens_may_be_null(name: str) -> None:
    assert getattr(SamplingParameters.of({name: None}), name) is None
    with pytest.raises(TypeError, match=r"^max_new_tokens must be an integer, not None$"):
        SamplingParameters.of({"max_new_tokens": None})


@pytest.mark.clause("OA-4.6")
@pytest.mark.parametrize("name", NUMBERS)
@given(value=st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False))
@example(value=-(2**63))
def test_any_finite_number_is_sent_as_it_is(name: str, value: float) -> None:
    assert json.loads(schemas.encode(SamplingParameters.of({name: value})))[name] == value


@pytest.mark.clause("OA-4.6")
@pytest.mark.parametrize("unknown", ["seed", "Temperature", "top_k ", "api_key", "", 1])
def test_an_unknown_name_is_refused_by_name_and_its_value_is_not_repeated(unknown: Any) -> None:
    with pytest.raises(TypeError) as refused:
        SamplingParameters.of({unknown: "SECRET"})
    assert str(refused.value) == (
        f"unknown sampling parameter {unknown!r}; the server knows top_k, top_p, typical_p, temperature, "
        "repetition_penalty, max_new_tokens"
    )


@pytest.mark.clause("OA-4.6")
@pytest.mark.parametrize("values", [5, "temperature", [("temperature", 1.0)]])
def test_what_is_no_mapping_is_refused(values: Any) -> None:
    with pytest.raises(
        TypeError, match=f"^sampling must be a mapping of names to numbers, not {type(values).__name__}$"
    ):
        SamplingParameters.of(values)


@pytest.mark.clause("OA-4.6")
def test_they_are_checked_when_they_are_made_directly_as_well() -> None:
    made = SamplingParameters(temperature=1)
    assert SamplingParameters.of(made) is made
    with pytest.raises(TypeError, match="top_k"):
        SamplingParameters(top_k=True)
    with pytest.raises(AttributeError):
        made.temperature = 2.0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.clause("OA-4.4")
@pytest.mark.parametrize("text", ["", " ", "Hé 😀", "\u2028\x01\uffff", "a" * 100_000])
def test_any_text_may_be_sent(text: str) -> None:
    check_text("prompt", text)


@pytest.mark.clause("OA-4.4")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\0", "a NUL character, which the server cannot store"),
        ("a\0b", "a NUL character, which the server cannot store"),
        ("\ud83d", "a lone surrogate at index 0, which isn't a character"),
        ("a\udc00", "a lone surrogate at index 1, which isn't a character"),
    ],
    ids=["NUL", "NUL inside", "a surrogate", "a surrogate inside"],
)
def test_text_that_no_server_can_store_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^prompt has {why}$"):
        check_text("prompt", text)


@pytest.mark.clause("OA-4.4")
@pytest.mark.parametrize("value", [None, 5, b"bytes", ["a"]])
def test_what_is_no_text_is_refused_by_name(value: object) -> None:
    with pytest.raises(TypeError, match=f"^prompt must be text, not {type(value).__name__}$"):
        check_text("prompt", value)


@pytest.mark.clause("OA-4.5")
@pytest.mark.parametrize("name", ["model", "system_prompt", "user_profile", "user_response_instructions"])
def test_the_texts_of_the_options_are_checked_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has a NUL"):
        AnswerOptions(**{name: "\0"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=f"{name} must be text"):
        AnswerOptions(**{name: 5})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.clause("OA-4.5")
def test_there_is_always_a_model() -> None:
    with pytest.raises(TypeError, match="model must be text"):
        AnswerOptions(model=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def _nested(depth: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for _ in range(depth):
        found = {"a": found}
    return found


@pytest.mark.clause("OA-4.5")
@pytest.mark.parametrize(
    ("plugins", "error", "text"),
    [
        (({"a": object()},), ValueError, "plugins must be what JSON can carry: .+"),
        (({"a": "\ud800"},), ValueError, "plugins must be what JSON can carry: .+"),
        ((_nested(100_000),), ValueError, "plugins must be what JSON can carry: .+"),
        (("a",), TypeError, "each of plugins must be a mapping, not str"),
        ((None,), TypeError, "each of plugins must be a mapping, not NoneType"),
        ("a", TypeError, "each of plugins must be a mapping, not str"),
    ],
    ids=["no JSON", "a lone surrogate", "nested too deep", "no mapping", "none", "text"],
)
def test_plugins_that_cannot_be_sent_are_refused_before_any_request(
    plugins: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=f"^{text}$"):
        AnswerOptions(plugins=plugins)
