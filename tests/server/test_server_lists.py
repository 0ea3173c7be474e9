"""The list of chats."""

import base64
from typing import Any

import httpx
import pytest

from .helpers import Inference, Peer, Website, new_chat, prompted


def ids(reply: httpx.Response) -> list[str]:
    return [chat["id"] for chat in reply.json()["chats"]]


def test_the_list_is_newest_first_and_shows_empty_chats(peer: Peer) -> None:
    chats = [new_chat(peer), prompted(peer, "the whole first message")[0], new_chat(peer)]
    reply = peer.list_chats()
    assert list(reply.json()) == ["chats", "next", "prev"]
    assert ids(reply) == chats[::-1]
    assert [chat["title"] for chat in reply.json()["chats"]] == [None, "the whole first message", None]


def test_an_empty_list_has_no_cursors(peer: Peer) -> None:
    assert peer.list_chats().text == '{"chats":[],"next":null,"prev":null}'


def test_hidden_chats_are_listed_only_when_asked_for(peer: Peer) -> None:
    chat = new_chat(peer)
    peer.update(chat, hidden=True)
    assert ids(peer.list_chats()) == []
    assert ids(peer.list_chats(include_hidden="true")) == [chat]
    assert peer.chat(chat).json()["hidden"] is True


@pytest.mark.parametrize(("api", "size"), [("website", 20), ("inference", 10)])
def test_pages_follow_one_another_in_both_directions(
    website: Website, inference: Inference, api: str, size: int
) -> None:
    peer: Peer = website if api == "website" else inference
    chats = [new_chat(peer) for _ in range(2 * size + 1)][::-1]
    first = peer.list_chats()
    assert (ids(first), first.json()["prev"]) == (chats[:size], None)
    assert base64.b64decode(first.json()["next"]).decode() == chats[size - 1]
    second = peer.list_chats(after=first.json()["next"])
    assert ids(second) == chats[size : 2 * size]
    third = peer.list_chats(after=second.json()["next"])
    assert (ids(third), third.json()["next"]) == (chats[2 * size :], None)
    assert ids(peer.list_chats(before=third.json()["prev"])) == chats[size : 2 * size]
    assert peer.list_chats(before=second.json()["prev"]).json()["prev"] is None


def test_the_inference_server_takes_a_limit_and_the_website_does_not(website: Website, inference: Inference) -> None:
    for _ in range(3):
        new_chat(inference)
    assert len(ids(inference.list_chats(limit=2))) == 2
    assert len(ids(website.list_chats(limit=2))) == 3


@pytest.mark.parametrize(
    ("query", "error"),
    [
        (
            {"limit": 101},
            {
                "loc": ["query", "limit"],
                "msg": "ensure this value is less than or equal to 100",
                "type": "value_error.number.not_le",
                "ctx": {"limit_value": 100},
            },
        ),
        (
            {"limit": 0},
            {
                "loc": ["query", "limit"],
                "msg": "ensure this value is greater than 0",
                "type": "value_error.number.not_gt",
                "ctx": {"limit_value": 0},
            },
        ),
        (
            {"limit": "abc"},
            {"loc": ["query", "limit"], "msg": "value is not a valid integer", "type": "type_error.integer"},
        ),
        (
            {"include_hidden": "maybe"},
            {
                "loc": ["query", "include_hidden"],
                "msg": "value could not be parsed to a boolean",
                "type": "type_error.bool",
            },
        ),
    ],
)
def test_an_invalid_query(inference: Inference, query: dict[str, Any], error: dict[str, Any]) -> None:
    reply = inference.list_chats(**query)
    assert (reply.status_code, reply.json()) == (422, {"detail": [error]})


def test_cursors_that_are_none(website: Website, inference: Inference) -> None:
    assert inference.list_chats(after="garbage").text == "Internal Server Error"
    assert inference.list_chats(after="%%%").json() == {"chats": [], "next": None, "prev": "%%%"}
    both = inference.list_chats(after="eA==", before="eA==")
    assert (both.status_code, both.json()) == (400, {"detail": "Cannot specify both after and before."})
    assert website.list_chats(after="garbage").status_code == 500


@pytest.mark.parametrize("cursor", ["\ufffd", "\u00e9", "/w==", "\0"])
def test_an_odd_cursor_is_answered(peer: Peer, cursor: str) -> None:
    assert peer.list_chats(after=cursor).status_code in {200, 500}
