"""What the server is shown: cookies and tokens, and nothing that breaks out of its header."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.website import Website

BREAKING = ["a\r\nx: y", "a\nb", "a\0", "a\tb", "é", "a\x7f", "\ud800"]


@pytest.mark.clause("OA-2.4")
@pytest.mark.parametrize("value", [*BREAKING, "a; b=c"])
def test_a_cookie_that_would_break_out_of_its_header_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"cookie 'session' has characters"):
        Credentials(cookies={"session": value})


@pytest.mark.clause("OA-2.4", "OA-2.5")
def test_a_name_that_may_be_a_secret_is_not_repeated_but_counted() -> None:
    with pytest.raises(ValueError, match=r"^cookie number 2 has characters that a Cookie header cannot carry$"):
        Credentials(cookies={"a": "b", "eyJhbGciOiJIUzI1NiJ9": "c; d"})


@pytest.mark.clause("OA-2.4", "OA-2.5")
@pytest.mark.parametrize("name", [*BREAKING, "", "a;b", "session=SECRET"])
def test_a_cookie_name_that_would_break_out_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(ValueError, match=r"^the name of a cookie has characters that a Cookie header cannot carry$"):
        Credentials(cookies={name: "value"})


@pytest.mark.clause("OA-2.4")
def test_the_parts_of_a_split_cookie_are_sent_in_the_order_of_their_numbers() -> None:
    given = {"s.10": "k", "a": "x", "s.2": "c", "s.1": "b", "s.x": "y", "s.0": "a"}
    assert dict(Credentials(given).headers)["cookie"] == "s.0=a; a=x; s.1=b; s.2=c; s.x=y; s.10=k"


@pytest.mark.clause("OA-2.4", "OA-2.5")
@pytest.mark.parametrize("token", [*BREAKING, "", "Bearer SECRET"])
def test_a_token_that_would_break_out_of_its_header_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(ValueError, match=r"^the token has characters that an Authorization header cannot carry$"):
        Credentials(token=token)


@pytest.mark.clause("OA-2.4")
@pytest.mark.parametrize("bad", [None, 5, b"bytes"])
def test_what_is_no_text_is_refused(bad: object) -> None:
    refusal = f"^cookies and tokens must be text, not {type(bad).__name__}$"
    with pytest.raises(TypeError, match=refusal):
        Credentials(cookies={"session": bad})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    if bad is not None:
        with pytest.raises(TypeError, match=refusal):
            Credentials(token=bad)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.clause("OA-2.4")
@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5)), st.none() | st.text(max_size=5))
def test_whatever_is_accepted_stays_inside_its_header(cookies: dict[str, str], token: str | None) -> None:
    try:
        who = Credentials(cookies=cookies, token=token)
    except ValueError:
        return
    headers = dict(Website("http://h").create_chat(who).headers)
    assert all(text.isascii() and text.isprintable() for header in headers.items() for text in header)
    told = dict(pair.split("=", 1) for pair in headers["cookie"].split("; ")) if cookies else {}
    assert told == cookies
    assert headers.get("authorization") == (token and f"Bearer {token}")


@pytest.mark.clause("OA-2.5")
def test_no_repr_shows_them() -> None:
    assert repr(Credentials(cookies={"session": "SECRET"}, token="SECRET")) == "Credentials()"


@pytest.mark.clause("OA-4.1")
def test_there_are_none_if_nothing_is_given() -> None:
    assert not Credentials()
    assert Credentials(token="a")
    assert Credentials(cookies={"a": "b"})


@pytest.mark.clause("OA-2.4")
def test_later_changes_of_the_callers_mapping_do_not_reach_them() -> None:
    jar = {"a": "b"}
    who = Credentials(cookies=jar)
    jar["a"] = "b\r\nx: y"
    assert who.cookies == {"a": "b"}


def test_they_compare_and_pickle() -> None:
    who = Credentials(cookies={"a": "b"}, token="c")
    assert pickle.loads(pickle.dumps(who)) == who
    assert who != Credentials(token="c")
