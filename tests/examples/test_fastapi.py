"""The web service over real sockets: a browser that reads to the end, and browsers that disconnect before."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from oa_protocol.server import Answer, Hold, Server
from tests.examples import fastapi_stream

pytestmark = pytest.mark.clause("OA-7.2")


@pytest.fixture
def browser(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[http.client.HTTPConnection]:
    """A connection to the web service, which asks ``server``."""
    monkeypatch.setenv("OA_URL", server.url)
    monkeypatch.setenv("OA_COOKIES", "; ".join("=".join(pair) for pair in server.cookies.items()))
    service = uvicorn.Server(uvicorn.Config(fastapi_stream.app, log_level="warning", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=service.run, args=([listener],))
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=60)
        yield connection
        connection.close()
        server.wait_until(lambda: not server.chats)
        service.should_exit = True
        thread.join()


def test_a_browser_reads_the_answer_to_its_end(browser: http.client.HTTPConnection, server: Server) -> None:
    server.script(Answer(pieces=("One ", "two.")))
    browser.request("GET", "/answer?prompt=Count")
    assert browser.getresponse().read() == b"One two."
    server.wait_for("delete")


@pytest.mark.clause("OA-4.3")
def test_a_browser_disconnects_in_the_middle_of_the_answer(browser: http.client.HTTPConnection, server: Server) -> None:
    hold = Hold()
    server.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    browser.request("GET", "/answer?prompt=Count")
    response = browser.getresponse()
    assert response.read1() == b"One "
    response.close()
    browser.close()
    server.wait_for("message")  # the answer may be running, so the chat isn't deleted at once
    hold.release()
    server.wait_for("delete")


@pytest.mark.clause("OA-4.3")
def test_a_browser_disconnects_before_the_answer_has_begun(browser: http.client.HTTPConnection, server: Server) -> None:
    hold = Hold()
    server.script(Answer(pieces=("One ", "two."), then=hold))
    browser.request("GET", "/answer?prompt=Count")
    server.wait_for("events")
    browser.close()
    server.wait_for("message")
    hold.release()
    server.wait_for("delete")
