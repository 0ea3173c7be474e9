"""A tape as a page. What it looks like is seen in a browser; here it is what is on the page."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from oa_protocol.tape import Tape, to_html

from .taping import CASES, ONE_TURN

TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "h4", "p", "input", "label", "section",
    "ul", "ol", "li", "nav", "a", "strong", "figure", "div", "span", "b", "i", "bdi", "time", "details", "summary",
    "pre", "svg", "marker", "path", "rect", "text", "circle", "g",
}  # fmt: skip
VOID = {"meta", "input"}


class Page(HTMLParser):
    """Reads a page. It has the tags with their attributes, and the text within each kind of tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, "a tag isn't closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(*tapes: Tape) -> Page:
    return Page(to_html(*tapes))


def step(now: float, phase: str, **fields: Any) -> dict[str, Any]:
    return {"now": now, "deadline": None, "phase": phase, **fields}


def test_each_step_is_on_the_page_with_its_time_its_ends_and_its_phase() -> None:
    page = page_of(ONE_TURN)
    assert page.texts["bdi"][:4] == [
        'asks "Hello"',
        "CreateChat: POST /api/chat",
        "replies 200",
        "Created: chat 06b02a53-f28e-708d-8000-044bde7b4953",
    ]
    ends = ["owner to engine: ", "engine to server: ", "server to engine: ", "engine to owner: "]
    assert page.texts["i"][:4] == ends
    assert len(page.texts["time"]) == len([each for each in page.attributes("li") if "id" in each])
    assert "CHAT_CREATED" in page.texts["span"]


def test_a_step_opens_to_its_request_and_its_reply() -> None:
    page = page_of(ONE_TURN)
    asked = next(text for text in page.texts["pre"] if text.startswith("POST http://oa.example.org/api/chat/prompter"))
    assert '"content": "Hello"' in asked
    assert page.texts["h4"].count("Reply") == page.texts["a"].count("Go to the request, step 3") + 3
    assert any(text.startswith("status 200") for text in page.texts["pre"])


def test_the_way_through_the_phases_stands_out() -> None:
    page = page_of(ONE_TURN)
    way = "START, CHAT_CREATED, PROMPTED, ASSISTANT_REQUESTED, STREAMING, ANSWERED, DELETING, DELETED"
    assert f"The way through the phases: {way}" in page.texts["title"]
    assert [each.get("class") for each in page.attributes("g")].count("phase taken") == 8


def test_faults_are_red_and_linked_at_the_top() -> None:
    failure = {"type": "ExchangeFailed", "failure": {"type": "MaybeSent", "reason": "connection reset"}}
    steps = [
        step(0.0, "START", input={"type": "Prompt", "text": "Hello"}),
        step(0.5, "LEAKED", input=failure, events=[{"type": "Leaked", "leaked": [{"chat_id": None}]}]),
    ]
    page = page_of(Tape(ONE_TURN.config, tuple(steps)))
    (fault,) = [each for each in page.attributes("li") if each.get("class") == "fault"]
    assert {"href": f"#{fault['id']}"} in page.attributes("a")
    assert "1 fault" in page.texts["li"]
    assert "Fault. " in page.texts["i"]


def test_a_page_has_only_known_tags_and_every_link_has_a_target() -> None:
    tapes = list(CASES.values())
    page = page_of(*tapes)
    assert {tag for tag, _ in page.tags} <= TAGS
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(each["href"])[1:] for each in page.attributes("a")} <= {str(name) for name in ids}
    assert page.texts["h1"] == [f"{len(tapes)} conversations"]
    assert len(page.texts["h2"]) == len(tapes)


HOSTILE = "</pre></title></style><script>alert(1)</script><img src=x onerror='alert(2)'>\"'&amp;\u202e\x00\ud800"


def test_nothing_that_came_from_a_network_becomes_a_part_of_the_page() -> None:
    config = ONE_TURN.config | {"options": {"model": HOSTILE}}
    reply = {"type": "ReplyReceived", "status": 200, "headers": {HOSTILE: HOSTILE}, "body": HOSTILE}
    request = {"kind": HOSTILE, "method": HOSTILE, "url": HOSTILE, "body": {HOSTILE: HOSTILE}, "accept": HOSTILE}
    steps = [
        step(0.0, "START", input={"type": "Prompt", "text": HOSTILE}),
        step(0.0, "START", intent=request),
        step(0.1, "FAILED", input=reply, events=[{"type": HOSTILE, "reason": HOSTILE}], reason=HOSTILE),
        step(0.2, "FAILED", input={"type": "StreamData", "data": HOSTILE}, events=[{"type": "Token", "text": HOSTILE}]),
    ]
    html = to_html(Tape(config, tuple(steps), name=HOSTILE, clause=(HOSTILE,)))
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= TAGS
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "src"]
    assert sum("<script>alert(1)</script>" in text for text in page.texts["pre"]) == 5
    html.encode()  # a lone surrogate couldn't be written


def test_the_policy_allows_only_the_style_of_the_page() -> None:
    html = to_html(ONE_TURN)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert Page(html).attributes("meta")[1] == {"http-equiv": "Content-Security-Policy", "content": policy}
    assert "style=" not in html


@pytest.mark.clause("OA-2.5")
def test_credentials_are_masked_even_if_the_tape_is_not() -> None:
    secret, short = "a-long-and-secret-token", "short"
    config = ONE_TURN.config | {"credentials": {"cookies": {"session": secret}, "token": short}}
    request = {"kind": "CreateChat", "method": "POST", "url": "http://oa.example.org", "cookie": f"session={secret}"}
    reply = {"type": "ReplyReceived", "status": 500, "body": f"no such session: {secret}"}
    steps = [
        step(0.0, "START", intent=request | {"authorization": f"Bearer {short}"}),
        step(0.1, "START", input=reply),
    ]
    html = to_html(Tape(config, tuple(steps)))
    assert secret not in html
    assert short not in html
    assert "no such session: secret-1" in html


def test_ten_thousand_steps_stay_small() -> None:
    asks = step(0.0, "POLLING", intent={"kind": "FetchMessage", "method": "GET", "url": "http://oa.example.org/m"})
    replies = step(0.1, "POLLING", input={"type": "ReplyReceived", "status": 500, "body": "x" * 10_000})
    html = to_html(Tape(ONE_TURN.config, (asks, replies) * 5_000))
    assert html.count('<li id="') == 10_000
    assert html.count("<a href=") == 5_000 + 20, "not every fault is listed at the top"
    assert len(html) < 35_000_000, "long bodies are cut"
