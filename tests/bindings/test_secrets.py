"""The forms in which a server may repeat a secret, all of which are hidden in errors and logs."""

from __future__ import annotations

import html
import json
from urllib.parse import quote

import pytest

from oa_protocol.bindings._secrets import hide, is_searched, spellings

SECRET = 'a+secret/of%20"some" <length>&more!\'()'
URL = "http://oa.test"


def in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


FORMS = {
    "plain": SECRET,
    "JSON": in_json(SECRET),
    "JSON of PHP": in_json(SECRET).replace("/", "\\/"),
    "JSON in JSON": in_json(in_json(SECRET)),
    "JSON of PHP in JSON": in_json(in_json(SECRET).replace("/", "\\/")),
    "a part of a path": quote(SECRET, safe=""),
    "a path": quote(SECRET),
    "encodeURIComponent": quote(SECRET, safe="!'()*"),
    "encodeURI": quote(SECRET, safe=";,/?:@&=+$#!'()*"),
    "decoded": SECRET.replace("%20", " "),
    "HTML": html.escape(SECRET),
}


@pytest.mark.clause("OA-2.5")
@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_hidden_in_each_form(form: str) -> None:
    assert hide(f"before {FORMS[form]} after", [SECRET], URL) == "before *** after"


@pytest.mark.clause("OA-2.5")
def test_the_longest_form_is_hidden_first_so_that_no_part_of_it_stays() -> None:
    sizes = [len(form) for form in spellings(SECRET)]
    assert sizes == sorted(sizes, reverse=True)
    assert set(spellings(SECRET)) == set(FORMS.values())


@pytest.mark.clause("OA-2.5")
def test_every_secret_is_hidden_and_short_ones_are_left() -> None:
    assert hide(f"short {16 * 'b'} {16 * 'c'}", ["short", 16 * "b", 16 * "c"], URL) == "short *** ***"


@pytest.mark.clause("OA-2.5")
@pytest.mark.parametrize(
    ("secret", "searched"),
    [
        pytest.param(16 * "x", True, id="16 characters"),
        pytest.param(15 * "x", False, id="15 characters"),
        pytest.param("oa.example.org/api", False, id="a part of the base URL"),
        pytest.param("https://oa.example.org/api/v1", False, id="more than the base URL"),
    ],
)
def test_which_secrets_are_searched_for(secret: str, searched: bool) -> None:
    assert is_searched(secret, "https://oa.example.org/api") is searched


@pytest.mark.clause("OA-2.5")
def test_a_form_that_is_shorter_than_its_secret_may_be_a_word_and_is_left() -> None:
    assert spellings("abc%20def%20ghijk") == ["abc%2520def%2520ghijk", "abc%20def%20ghijk"]
