"""A worker and an embedded server, over sockets."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, Self

import anyio
import anyio.to_thread
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from oa_protocol.engine.errors import AuthenticationError, HTTPStatusError, NotSent, OAError
from oa_protocol.models import AnswerRequest, Echo, Model, ModelError, Piece, PluginStep
from oa_protocol.server import Close, End, Fault, Hold, Reply, Reset, Send, Server, WorkerFault, work
from oa_protocol.server.http import _worker_socket as worker_socket
from oa_protocol.worker import BackOff, UpgradeRequired, Worker
from tests.server.helpers import Inference, asked, read_stream, state

AT_ONCE = BackOff(first=0)
MODEL = "_lorem"
ACTIONS: list[Any] = [Close(), Reset(), End(), Send(b"garbage"), Send(b'{"request_type": "error", "error": "why"}')]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(workers=0, reader_grace=60, pending_interval=60) as running:
        yield running


@pytest.fixture
def peers(server: Server) -> Iterator[Callable[[str], Inference]]:
    """Makes clients of one account each."""
    with ExitStack() as stack:

        def make(name: str) -> Inference:
            made = Inference(server, server.account(name))
            stack.enter_context(made.http)
            return made

        yield make


@pytest.fixture
def peer(peers: Callable[[str], Inference]) -> Inference:
    return peers("default")


class Gate:
    """A model that writes a word, waits until it may go on, and writes another one."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = asyncio.Semaphore(0)
        self.closed = 0

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[Piece, None]:
        try:
            yield "Well, "
            self.begun.release()
            await self.gate.wait()
            yield request.prompt
        finally:
            self.closed += 1


class Broken:
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[Piece, None]:
        yield request.prompt
        raise self._error


class Working:
    """Runs a worker in the background, while its context is open."""

    def __init__(self, server: Server, model: Model, **options: Any) -> None:
        arguments: dict[str, Any] = {
            "api_key": server.worker_key,
            "model_config": MODEL,
            "back_off": AT_ONCE,
            **options,
        }
        self.worker = Worker(server.url, model, on_change=self._note, **arguments)
        self.states: list[str] = []
        self._changed = asyncio.Event()

    def _note(self) -> None:
        self.states.append(self.worker.state)
        self._changed.set()

    async def until(self, **wanted: object) -> None:
        """Wait until the worker's attributes have these values."""
        while any(getattr(self.worker, name) != value for name, value in wanted.items()):
            self._changed.clear()
            await self._changed.wait()

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.worker.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError, OAError):
            await self.task


async def to_thread(function: Any, *arguments: Any) -> Any:
    return await anyio.to_thread.run_sync(function, *arguments)


async def stream_of(peer: Inference, prompt: str = "Hello you") -> list[dict[str, Any]]:
    """Ask, and read the events, without those that say that the message waits."""
    chat, message = await to_thread(asked, peer, prompt)
    events = await to_thread(read_stream, peer, chat, message)
    return [event for event in events if event["event_type"] != "pending"]


async def expect_error(peer: Inference, error: str) -> None:
    assert (await stream_of(peer))[-1]["error"] == error


def texts(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in events if event["event_type"] == "token"]


@pytest.mark.anyio
@pytest.mark.clause("OA-10.4")
async def test_it_answers_and_the_stream_shows_each_token(server: Server, peer: Inference) -> None:
    async with Working(server, Echo()) as working:
        events = await stream_of(peer)
        assert texts(events) == ["Hello ", "you"]
        assert events[-1]["message"]["content"] == "Hello you"
        await working.until(answered=1, running=0, state="connected")


@pytest.mark.anyio
async def test_a_plugins_step_is_shown(server: Server, peer: Inference) -> None:
    class WithPlugin:
        async def answer(self, request: AnswerRequest) -> AsyncGenerator[Piece, None]:
            yield PluginStep("I wonder", "look", request.prompt, "42")

    async with Working(server, WithPlugin()):
        step, token, last = await stream_of(peer)
    assert (step["event_type"], step["current_plugin_action_response"]) == ("plugin_intermediate", "42")
    assert (token["text"], last["message"]["content"]) == ("", "")


@pytest.mark.anyio
@pytest.mark.clause("OA-10.4")
@pytest.mark.parametrize(("error", "text"), [(ModelError("No luck."), "No luck."), (KeyError(), "KeyError")])
async def test_a_model_that_fails_fails_one_answer(
    server: Server, peer: Inference, error: Exception, text: str
) -> None:
    async with Working(server, Broken(error)) as working:
        assert [(await stream_of(peer))[-1]["error"] for _ in range(2)] == [text] * 2
        await working.until(failed=2)
        assert working.states.count("connecting") == 1


@pytest.mark.anyio
async def test_it_answers_as_many_at_a_time_as_it_says(server: Server, peers: Callable[[str], Inference]) -> None:
    model = Gate()
    async with Working(server, model, parallel=2) as working:
        chats = [await to_thread(asked, peers(name)) for name in ("ann", "bob", "carl")]
        for _ in range(2):
            await model.begun.acquire()
        await to_thread(server.wait_until, lambda: len(server._live.state.running) == 2)
        assert [state(server, message) for _, message in chats] == ["in_progress", "in_progress", "pending"]
        model.gate.set()
        await working.until(answered=3)


@pytest.mark.anyio
async def test_a_message_goes_to_a_worker_with_its_model(server: Server, peer: Inference) -> None:
    async with Working(server, Echo(), model_config="distilgpt2") as other:
        await to_thread(server.wait_until, lambda: server.workers == 1)
        _, message = await to_thread(asked, peer)
        assert state(server, message) == "pending"
        async with Working(server, Echo()) as working:
            await working.until(answered=1)
        assert other.worker.answered == 0


@pytest.mark.anyio
async def test_the_servers_own_workers_answer_what_no_other_can() -> None:
    with Server(Echo(), workers=1) as server:
        peer = Inference(server)
        with peer.http:
            async with Working(server, Gate(), model_config="distilgpt2"):
                assert (await stream_of(peer))[-1]["message"]["content"] == "Hello you"


@pytest.mark.anyio
@pytest.mark.clause("OA-10.5")
async def test_a_ping_in_mid_answer_is_answered(server: Server, peer: Inference) -> None:
    model, hold = Gate(), Hold()
    server.script(
        WorkerFault(1, (Send(b'{"request_type": "ping", "id": "p"}'), Send(b'{"request_type": "new"}'), hold))
    )
    async with Working(server, model) as working:
        await to_thread(asked, peer)
        await model.begun.acquire()
        hold.release()
        model.gate.set()
        await working.until(answered=1)
        assert working.states.count("connecting") == 1


@pytest.mark.anyio
@pytest.mark.clause("OA-10.6")
@pytest.mark.parametrize("action", ACTIONS, ids=str)
async def test_a_connection_that_ends_before_a_token_costs_nothing(
    server: Server, peer: Inference, action: Any
) -> None:
    server.script(WorkerFault(0, action))
    async with Working(server, Echo()) as working:
        assert (await stream_of(peer))[-1]["event_type"] == "message"
        assert working.states.count("connecting") == 2
        assert working.worker.trouble


@pytest.mark.anyio
@pytest.mark.clause("OA-10.6")
@pytest.mark.parametrize("action", ACTIONS, ids=str)
async def test_a_connection_that_ends_in_mid_answer_ends_the_generation(
    server: Server, peer: Inference, action: Any
) -> None:
    model, hold = Gate(), Hold()
    server.script(WorkerFault(1, (hold, action)))
    async with Working(server, model) as working:
        async with anyio.create_task_group() as group:
            group.start_soon(expect_error, peer, "Aborted due to worker error.")
            await to_thread(server.wait_for, "events")
            hold.release()
        await working.until(failed=1, running=0)
        assert model.closed == 1
        model.gate.set()
        assert (await stream_of(peer))[-1]["message"]["content"] == "Well, Hello you"


@pytest.mark.anyio
@pytest.mark.clause("OA-10.6")
async def test_a_worker_whose_chat_was_deleted_comes_back(server: Server, peer: Inference) -> None:
    model = Gate()
    async with Working(server, model) as working:
        chat, _ = await to_thread(asked, peer)
        await model.begun.acquire()
        await to_thread(peer.delete, chat)
        model.gate.set()
        await working.until(answered=1)
        assert (await stream_of(peer))[-1]["event_type"] == "message"
        assert working.states.count("connecting") == 2
        assert not server._live.state.running


@pytest.mark.anyio
async def test_a_silent_worker_is_given_up_and_its_message_goes_to_another(
    monkeypatch: pytest.MonkeyPatch, server: Server, peer: Inference
) -> None:
    from websockets.asyncio.client import connect

    from oa_protocol.worker._hardware import hardware
    from oa_protocol.worker.model_configs import MODEL_CONFIGS
    from oa_protocol.worker.protocol import encode_hello

    monkeypatch.setattr(worker_socket, "FROZEN_SECONDS", 0.2)
    headers = {"X-API-Key": server.worker_key, "X-Protocol-Version": "1"}
    async with connect(f"{server.url.replace('http', 'ws')}/workers/work", additional_headers=headers) as silent:
        await silent.send(encode_hello(MODEL_CONFIGS[MODEL], 1, hardware()))
        chat, message = await to_thread(asked, peer)
        assert json.loads(await silent.recv())["request_type"] == "work"
        await silent.wait_closed()
        assert silent.close_reason == "The worker has fallen silent."
    assert state(server, message) == "pending"
    monkeypatch.setattr(worker_socket, "FROZEN_SECONDS", 40)
    async with Working(server, Echo()):
        assert (await to_thread(read_stream, peer, chat, message))[-1]["event_type"] == "message"


@pytest.mark.anyio
async def test_a_server_that_reads_slowly_slows_the_model_down_and_nothing_is_lost(
    server: Server, peer: Inference
) -> None:
    made = 0

    class Torrent:
        async def answer(self, request: AnswerRequest) -> AsyncGenerator[Piece, None]:
            nonlocal made
            for made in range(1, 1001):  # noqa: B007
                yield "x" * 1000 + " "
                await asyncio.sleep(0)

    hold = Hold()
    server.script(WorkerFault(1, hold))
    async with Working(server, Torrent()) as working:
        chat, message = await to_thread(asked, peer)
        before = -1
        while before < made:
            before = made
            await asyncio.sleep(0.1)
        hold.release()
        events = await to_thread(read_stream, peer, chat, message)
        await working.until(answered=1)
    assert sum(len(text) for text in texts(events)) == 1_001_000


@pytest.mark.anyio
async def test_an_answer_without_an_end_is_aborted(
    monkeypatch: pytest.MonkeyPatch, server: Server, peer: Inference
) -> None:
    class Endless:
        async def answer(self, request: AnswerRequest) -> AsyncGenerator[Piece, None]:
            while True:
                yield request.prompt

    monkeypatch.setattr(work, "ANSWER_LIMIT", 100)
    async with Working(server, Endless()) as working:
        assert (await stream_of(peer))[-1]["error"] == "The answer is longer than 100 characters."
        await working.until(failed=1, running=0)


@pytest.mark.anyio
@pytest.mark.clause("OA-10.5")
async def test_a_wrong_key_ends_it_without_showing_the_key(server: Server) -> None:
    key = "a secret of many characters"
    working = Working(server, Echo(), api_key=key)
    with pytest.raises(AuthenticationError, match="API key") as caught:
        await working.worker.run()
    assert key not in f"{caught.value}{working.worker.trouble}{working.worker!r}"
    assert working.worker.state == "ended"


@pytest.mark.anyio
@pytest.mark.clause("OA-10.5")
async def test_another_version_of_the_protocol_ends_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_socket, "VERSION", "2")
    with pytest.raises(UpgradeRequired, match="version 1"):
        await Working(server, Echo()).worker.run()


@pytest.mark.anyio
@pytest.mark.clause("OA-10.5")
async def test_terminate_ends_it_after_the_answers_that_are_being_written(server: Server, peer: Inference) -> None:
    model = Gate()
    server.script(WorkerFault(1, Send(b'{"request_type": "terminate"}')))
    async with Working(server, model) as working:
        chat, message = await to_thread(asked, peer)
        await working.until(state="stopping")
        model.gate.set()
        assert (await to_thread(read_stream, peer, chat, message))[-1]["event_type"] == "message"
        await working.task
        assert (working.worker.state, working.worker.answered) == ("ended", 1)


@pytest.mark.anyio
async def test_stop_cuts_answers_that_take_too_long(server: Server, peer: Inference) -> None:
    model = Gate()
    async with Working(server, model, grace=0) as working:
        await to_thread(asked, peer)
        await model.begun.acquire()
        working.worker.stop()
        await working.task
    assert (model.closed, working.worker.failed) == (1, 1)


@pytest.mark.anyio
@pytest.mark.clause("OA-10.1")
@pytest.mark.parametrize(
    ("status", "error"), [(401, AuthenticationError), (403, AuthenticationError), (404, HTTPStatusError)]
)
async def test_a_refused_connection_ends_it(server: Server, status: int, error: type[Exception]) -> None:
    server.script(Fault("worker", before=Reply(status)))
    with pytest.raises(error, match=str(status)):
        await Working(server, Echo()).worker.run()


@pytest.mark.anyio
@pytest.mark.clause("OA-10.1")
async def test_a_redirect_is_not_followed_because_the_key_would_go_along(server: Server) -> None:
    server.script(Fault("worker", before=Reply(307, headers=(("location", "/workers/work"),))))
    with pytest.raises(HTTPStatusError, match="307"):
        await Working(server, Echo()).worker.run()
    assert len([record for record in server.requests if record.step == "worker"]) == 1


@pytest.mark.anyio
@pytest.mark.clause("OA-10.6")
async def test_a_server_that_is_away_is_tried_again(server: Server) -> None:
    server.script(Fault("worker", before=Reply(503), times=2), Fault("worker", before=Reset(), times=2))
    async with Working(server, Echo()) as working:
        await working.until(state="connected")
        assert working.states.count("connecting") == 5


@pytest.mark.clause("OA-10.6")
def test_the_pauses_double_up_to_a_limit_and_differ() -> None:
    back_off = BackOff(first=1, longest=60)
    for failures, whole in ((1, 1), (2, 2), (5, 16), (7, 60), (10_000, 60)):
        pauses = [back_off.pause(failures) for _ in range(20)]
        assert whole / 2 <= min(pauses) < max(pauses) <= whole


@pytest.mark.anyio
async def test_a_server_on_this_machine_is_not_looked_for_behind_a_proxy(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with Working(server, Echo()) as working:
        await working.until(state="connected")
        assert working.states.count("connecting") == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    "proxy", ["http://user:secret@127.0.0.1:x", "ftp://user:secret@host", "socks5://user:secret@host"]
)
async def test_a_proxy_that_cannot_be_used_is_an_error(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy)
    with pytest.raises(NotSent, match="python-socks") as caught:
        await Worker("ws://oa.invalid", Echo(), api_key="key").run()
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.anyio
async def test_an_unknown_model_config_is_refused(server: Server) -> None:
    async with Working(server, Echo(), model_config="Carper_RLHF_13B_1") as working:
        await working.until(state="waiting")
        assert working.worker.trouble == "the server closed the connection: The model config is unknown."


@pytest.mark.anyio
async def test_the_servers_words_are_shown_on_one_short_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oa_protocol.worker.worker._REQUEST_LIMIT", 9999)
    too_long = Send(b"x" * 10000)
    words = Send(json.dumps({"request_type": "error", "error": "why\nnot? " + "and so on " * 500}).encode())
    for action, shown in (
        (words, "The server reports an error: why not? and"),
        (too_long, "the connection was closed: "),
    ):
        server.script(WorkerFault(0, action))
        async with Working(server, Echo()) as working:
            await working.until(state="waiting")
            assert working.worker.trouble.startswith(shown)
            assert len(working.worker.trouble) <= 300


@pytest.mark.anyio
@pytest.mark.parametrize("text", [b"\xff", b'{"x": "\xff"}', b"[" * 9999 + b"]" * 9999, b'{"x":' * 9999], ids=len)
async def test_a_first_message_that_cannot_be_read_is_refused(server: Server, text: bytes) -> None:
    headers = {"X-API-Key": server.worker_key, "X-Protocol-Version": "1"}
    url = server.url.replace("http", "ws") + "/workers/work"
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        await socket.send(text)
        with pytest.raises(ConnectionClosed, match="must have a config"):
            await socket.recv()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"url": "ftp://host"}, "must look like"),
        ({"url": "ws://host:secret"}, "a port that can't exist"),
        ({"url": "ws://host:99999"}, "a port that can't exist"),
        ({"url": "ws://secret..host"}, "a host or"),
        ({"url": "ws://user:secret@host"}, "must not have a user"),
        ({"api_key": ""}, "printable"),
        ({"api_key": "a\r\nX-Other: b"}, "printable"),
        ({"model_config": "gpt-4"}, "no model 'gpt-4'"),
        ({"parallel": 0}, "at least 1"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_at_once(options: dict[str, Any], text: str) -> None:
    arguments: dict[str, Any] = {"url": "ws://host", "api_key": "key", **options}
    with pytest.raises(ValueError, match=text) as caught:
        Worker(model=Echo(), **arguments)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["ws://host", "http://host/", "ws://host/workers/work", "ws://host/workers/work/"])
def test_the_path_may_be_left_out_of_the_url(url: str) -> None:
    assert Worker(url, Echo(), api_key="key")._url == "ws://host/workers/work"
