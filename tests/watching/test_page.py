"""The live page without a browser: who may see it, and what is sent to it. ``tests/browser`` looks at it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from oa_protocol import Client, sync, watch
from oa_protocol.server import Answer, Fault, Hold, Reply, Server
from oa_protocol.watching import Watch, _views
from tests.server.helpers import Inference, ask, new_chat, prompted


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(reader_grace=60, pending_interval=60) as running:
        yield running


@pytest.fixture
def page(server: Server) -> Iterator[Watch]:
    with watch(server) as made:
        yield made


@pytest.fixture
def peer(server: Server) -> Iterator[Inference]:
    made = Inference(server)
    with made.http:
        yield made


def get(url: str, method: str = "GET", **headers: str) -> httpx.Response:
    with httpx.Client(trust_env=False) as http:
        return http.request(method, url, headers=headers)


def at(page: Watch, path: str, **query: str) -> str:
    """Return the URL of another path with the page's token."""
    return str(httpx.URL(page.url).copy_with(path=path).copy_merge_params(query))


def shown(page: Watch) -> dict[str, Any]:
    """Return the first snapshot that the page is sent."""
    with httpx.Client(trust_env=False) as http, http.stream("GET", at(page, "/watch/events")) as stream:
        line = next(stream.iter_lines())
    snapshot: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return snapshot


def test_the_page_has_a_policy_that_allows_only_its_own_files(page: Watch) -> None:
    reply = get(page.url)
    assert (reply.status_code, reply.headers["referrer-policy"]) == (200, "no-referrer")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "unsafe" not in reply.headers["content-security-policy"]
    assert "Lose the reply to the next prompt" in reply.text
    for file in ("page.css", "page.js"):
        assert get(str(httpx.URL(page.url).join(f"/watch/{file}"))).status_code == 200


@pytest.mark.parametrize(
    ("change", "headers"),
    [
        pytest.param({"query": b""}, {}, id="no token"),
        pytest.param({"query": b"token=wrong"}, {}, id="a wrong token"),
        pytest.param({}, {"host": "evil.example.org"}, id="another name"),
        pytest.param({}, {"origin": "http://evil.example.org"}, id="another site"),
        pytest.param({}, {"origin": "null"}, id="a file"),
    ],
)
@pytest.mark.parametrize("path", ["/watch", "/watch/events", "/watch/faults"])
def test_only_who_has_the_url_may_see_it(
    page: Watch, path: str, change: dict[str, Any], headers: dict[str, str]
) -> None:
    reply = get(str(httpx.URL(at(page, path)).copy_with(**change)), **headers)
    assert reply.status_code == 403
    assert "token" not in reply.headers


def test_a_fault_is_scripted_only_by_the_page_itself(page: Watch, server: Server) -> None:
    url, origin = at(page, "/watch/faults", fault="fail-delete"), page.url.partition("/watch")[0]
    assert get(url, "POST").status_code == 404
    assert get(url, origin=origin).status_code == 404
    assert not server.unused_faults
    assert get(url, "POST", origin=origin).status_code == 204
    assert server.unused_faults == (Fault("delete", before=Reply(500)),)
    assert get(at(page, "/watch/faults", fault="unknown"), "POST", origin=origin).status_code == 404
    assert get(at(page, "/else")).status_code == 404


def test_a_server_is_shown_by_what_its_clients_asked_for(page: Watch, server: Server, peer: Inference) -> None:
    hold = Hold()
    server.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    created, (prompt, _), gone = new_chat(peer), prompted(peer), new_chat(peer)
    peer.delete(gone)
    running, asked = prompted(peer)
    with peer.events(running, ask(peer, running, asked)) as stream:
        lines = stream.iter_lines()
        next(lines)
        snapshot = shown(page)
    hold.release()
    phases = {dot["id"]: dot["phase"] for dot in snapshot["dots"]}
    assert phases == {created: "CHAT_CREATED", prompt: "PROMPTED", running: "STREAMING", gone: "DELETED"}
    assert snapshot["counts"] == {"waiting": 0, "running": 1, "left behind": 0, "deleted": 1}
    assert snapshot["lines"][0].endswith("→ 200, still open")


def test_a_request_that_failed_is_marked(page: Watch, server: Server, peer: Inference) -> None:
    server.script(Fault("create", before=Reply(503)))
    peer.create()
    assert shown(page)["lines"][0].startswith("!")


def test_a_chat_without_requests_is_left_behind(page: Watch, peer: Inference, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = new_chat(peer)
    assert shown(page)["counts"]["left behind"] == 0
    monkeypatch.setattr(_views, "UNUSED", -1.0)
    snapshot = shown(page)
    assert (snapshot["dots"], snapshot["counts"]["left behind"]) == ([{"id": chat, "phase": "LEAKED"}], 1)


@pytest.mark.filterwarnings("ignore::oa_protocol.ChatLeakedWarning")
def test_a_client_shows_its_chats_and_those_that_it_left(server: Server) -> None:
    server.script(Fault("delete", before=Reply(500), times=3))
    with sync.Client(server.url, token=server.token, api="inference") as client, watch(client) as page:
        assert get(
            at(page, "/watch/faults", fault="fail-delete"), "POST", origin=page.url[: page.url.find("/w")]
        ).is_error
        with client.chat() as chat:
            chat.ask("Hello")
            assert shown(page)["dots"] == [{"id": chat.id, "phase": "ANSWERED"}]
        snapshot = shown(page)
    assert snapshot["counts"] == {"waiting": 0, "running": 0, "left behind": 1}
    assert snapshot["dots"] == [{"id": chat.id, "phase": "LEAKED"}]


def test_an_asynchronous_client_is_watched_too() -> None:
    client = Client("http://127.0.0.1:1", token="a-secret-token", api="inference")
    with watch(client) as page:
        assert "Client of http://127.0.0.1:1" in get(page.url).text
        assert shown(page) == {"dots": [], "counts": {"waiting": 0, "running": 0, "left behind": 0}, "lines": []}


def test_without_the_extra_the_error_names_it() -> None:
    program = """
import sys
sys.modules["starlette"] = None
from oa_protocol import *
try:
    watch(None)
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "watching needs the extra server: pip install 'oa_protocol[server]'\n"
