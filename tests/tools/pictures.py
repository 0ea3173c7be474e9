"""Takes the pictures of pages in docs/: ``python -m tests.tools.pictures``. It needs Chromium and Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from oa_protocol import watch
from oa_protocol.server import Answer, Fault, Hold, Reply, Server
from oa_protocol.tape import load_tapes, to_html
from tests.server.helpers import Inference, ask, new_chat, prompted

ROOT = Path(__file__).parents[2]
SHOWN = "a stream that was cut is polled, not opened again, for the rest"


def tape_page() -> str:
    """Return the page of a tape with a fault."""
    tapes = load_tapes(ROOT / "specs" / "vectors" / "recovery.jsonl")
    return to_html(next(tape for tape in tapes if tape.name == SHOWN))


def take_tape(page: Page) -> None:
    """Write the picture of a tape's page."""
    page.set_content(tape_page())
    _take(page, "tape.png", 1150)


def take_live_page(page: Page) -> None:
    """Write the picture of a live page. Its conversations are in many phases, and stay there."""
    hold = Hold()
    with Server(reader_grace=60, pending_interval=60) as server, watch(server) as live, ExitStack() as stack:
        server.script(Answer(pieces=("One ", "two."), after=1, then=hold, times=4))
        peer = Inference(server)
        stack.enter_context(peer.http)
        for _ in range(6):
            peer.delete(new_chat(peer))
        for chat, prompt in [prompted(peer) for _ in range(4)]:
            stack.enter_context(peer.events(chat, ask(peer, chat, prompt)))
        for chat, prompt in [prompted(peer) for _ in range(3)]:
            with peer.events(chat, ask(peer, chat, prompt)) as stream:
                stream.read()
        prompted(peer)
        new_chat(peer)
        server.script(Fault("delete", before=Reply(500)))
        peer.delete(new_chat(peer))
        page.emulate_media(reduced_motion="reduce")
        page.goto(live.url)
        expect(page.locator(".dot")).to_have_count(16)
        _take(page, "watch.png", 900)
        hold.release()


def _take(page: Page, picture: str, height: int) -> None:
    page.set_viewport_size({"width": 1000, "height": height})
    page.screenshot(path=ROOT / "docs" / picture)


@contextmanager
def chromium() -> Generator[Browser]:
    """Run the system's Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        raise FileNotFoundError("install Chromium")
    with sync_playwright() as playwright:
        # A container's root may not use Chromium's sandbox. All pages are ours.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


if __name__ == "__main__":
    with chromium() as running:
        take_tape(running.new_page())
        take_live_page(running.new_page())
