"""Both pages in a real browser: ``nox -s browser``. It needs Chromium, so it isn't among the tests.

Each test fails if the page's policy forbids something that the page does, because the browser logs that as an error.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from oa_protocol import AnswerFailed, sync, watch
from oa_protocol.server import Answer, Hold, Server
from oa_protocol.tape import Tape, load_tapes, to_html
from tests.tools.pictures import ROOT, chromium, tape_page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    made = browser.new_page()
    made.set_default_timeout(30_000)
    made.on("console", note)
    made.on("pageerror", lambda error: errors.append(str(error)))
    yield made
    made.close()
    assert [error for error in errors if "ERR_" not in error] == []


def open_tape(page: Page, html: str, folder: Path) -> None:
    file = folder / "tape.html"
    file.write_text(html, encoding="utf-8")
    page.goto(file.as_uri())


def test_a_tape_is_read_with_the_keyboard_alone(page: Page, tmp_path: Path) -> None:
    open_tape(page, tape_page(), tmp_path)
    request = page.locator("#c1s2")
    request.locator("summary").focus()
    expect(request.locator("pre")).to_be_hidden()
    page.keyboard.press("Enter")
    expect(request.locator("pre")).to_contain_text("POST http")
    page.keyboard.press("Tab")
    expect(page.locator("#c1s3 summary")).to_be_focused()


def test_a_faults_link_leads_to_it_and_the_rest_can_be_hidden(page: Page, tmp_path: Path) -> None:
    open_tape(page, tape_page(), tmp_path)
    page.get_by_role("navigation", name="Faults").get_by_role("link").first.click()
    fault = page.locator("li.fault").first
    expect(fault).to_be_in_viewport()
    page.get_by_label("Show only faults").check()
    expect(page.locator("#c1s2")).to_be_hidden()
    expect(fault).to_be_visible()


def test_a_reply_leads_back_to_its_request(page: Page, tmp_path: Path) -> None:
    open_tape(page, tape_page(), tmp_path)
    page.locator("#c1s3 summary").click()
    page.get_by_role("link", name="Go to the request, step 2").click()
    assert page.url.endswith("#c1s2")


def test_a_screen_reader_hears_who_sent_what_to_whom(page: Page, tmp_path: Path) -> None:
    open_tape(page, tape_page(), tmp_path)
    tree = page.locator("main").aria_snapshot()
    assert 'heading "The way through the phases" [level=3]' in tree
    assert re.search(r"engine to server: ?CreateChat", tree)
    assert re.search(r"The way through the phases: START, CHAT_CREATED", tree)


def test_both_pages_are_light_and_dark(page: Page, tmp_path: Path) -> None:
    with Server() as server, watch(server) as live:
        for url in ((tmp_path / "tape.html").as_uri(), live.url):
            (tmp_path / "tape.html").write_text(tape_page(), encoding="utf-8")
            page.goto(url)
            colors: list[str] = []
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
                colors.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            assert colors == ["rgb(255, 255, 255)", "rgb(13, 17, 23)"]
        page.goto("about:blank")


def test_ten_thousand_steps_can_be_read_to_the_end(page: Page, tmp_path: Path) -> None:
    (tape, *_) = load_tapes(ROOT / "specs" / "vectors" / "conversations.jsonl")
    steps = [step for step in tape.steps if "StreamData" not in str(step)]
    many = tuple((steps * (10_000 // len(steps) + 1))[:10_000])
    open_tape(page, to_html(Tape(tape.config, many)), tmp_path)
    last = page.locator(".steps > li").last
    last.scroll_into_view_if_needed()
    last.locator("summary, div").first.click()
    expect(last).to_be_in_viewport()


def test_a_conversation_is_a_dot_that_moves_and_a_button_makes_it_fail(page: Page) -> None:
    hold = Hold()
    errors: list[Exception] = []
    with Server(reader_grace=60) as server, watch(server) as live:
        page.goto(live.url)
        expect(page.get_by_role("status")).to_have_text("Live")
        page.get_by_role("button", name="Let the next answer fail").click()
        expect(page.get_by_role("status")).to_have_text("Scripted: Let the next answer fail")
        server.script(Answer(pieces=("One ", "two."), after=1, then=hold))

        def talk() -> None:
            with sync.Client(server.url, cookies=server.cookies) as client:
                try:
                    with client.chat() as chat:
                        chat.ask("Hello")
                except AnswerFailed as error:
                    errors.append(error)
                with client.chat() as chat:
                    chat.ask("Hello")

        client = threading.Thread(target=talk)
        client.start()
        expect(page.locator(".dot.STREAMING")).to_have_count(1)
        expect(page.locator("#counts")).to_contain_text("running 1")
        expect(page.get_by_role("row", name="STREAMING 1")).to_be_visible()
        assert len(errors) == 1
        hold.release()
        client.join()
        expect(page.locator(".dot.DELETED")).to_have_count(2)
        expect(page.locator("#lines")).to_contain_text("DELETE /api/chat")
    expect(page.get_by_role("status")).to_have_text("The program has ended, or can't be reached.")


def test_a_program_watches_its_own_client(page: Page) -> None:
    with Server() as server, sync.Client(server.url, cookies=server.cookies) as client, watch(client) as live:
        page.goto(live.url)
        with client.chat() as chat:
            chat.ask("Hello")
            expect(page.locator(".dot.ANSWERED")).to_have_count(1)
            expect(page.locator("#lines")).to_contain_text(f"{chat.id}  ANSWERED")
        expect(page.locator(".dot")).to_have_count(0)
        expect(page.get_by_role("button")).to_have_count(0)
