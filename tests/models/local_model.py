"""The local model of docs/models.md, for real. ``nox -s local`` runs this: it downloads 98 MB, so it isn't a test.

It prints how long the model takes. The commands are those of the page.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from importlib import import_module
from pathlib import Path

import httpx
import pytest

from oa_protocol import Cleanup, Event, Requested, Token, sync
from oa_protocol.server import AnswerRequest, Gguf, OpenAICompatible, Piece, Server
from tests.docs.readme import ROOT
from tests.driver.site import PATIENCE
from tests.models.endpoint import KEY

COMMANDS = re.findall(r"^\$ (.+)$", (ROOT / "docs" / "models.md").read_text(encoding="utf-8"), re.MULTILINE)
_, DOWNLOAD, CHAT = COMMANDS
FILE = CHAT.rpartition(" ")[2]
# A proxy that isn't there: whatever asks the network for something fails.
OFFLINE: dict[str, str] = dict.fromkeys(
    ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"
)
SHORT = ["--max-new-tokens", "40", "--json"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the page's second command was run."""
    path = tmp_path_factory.mktemp("page")
    run(DOWNLOAD, path, {})
    return path


def run(command: str, folder: Path, env: dict[str, str], stdin: str = "") -> str:
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, shell=True, cwd=folder, env={**os.environ, "PATH": binaries, **env}, input=stdin.encode(),
        capture_output=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@contextmanager
def measured(what: str, capsys: pytest.CaptureFixture[str]) -> Generator[None]:
    began = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - began:.2f} s", capsys)


def say(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{line}")


@pytest.mark.parametrize(
    ("command", "stdin", "turns"),
    [
        (CHAT.replace(" chat ", " ask 'What is the capital of France?' "), "", 1),
        (CHAT, "What is the capital of France?\nAnd of Italy?\n", 2),
    ],
    ids=["ask", "chat"],
)
def test_the_command_line_holds_a_conversation_offline(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, stdin: str, turns: int
) -> None:
    with measured(f"{command.split()[1]}, from the command to its end, {turns} turns", capsys):
        out = run(f"{command} {' '.join(SHORT)}", folder, OFFLINE, stdin)
    events = [json.loads(line) for line in out.splitlines()]
    answers = [event["message"]["content"] for event in events if event["event"] == "answered"]
    assert len(answers) == turns
    assert all(answers)
    assert events[-1]["event"] == "deleted"
    for answer in answers:
        say(f"  {answer}", capsys)


class Watched:
    """A model that notes when the generation of its answer has ended."""

    def __init__(self, model: Gguf) -> None:
        self.ended = threading.Event()
        self._model = model

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[Piece, None]:
        try:
            async with aclosing(self._model.answer(request)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self.ended.set()


@pytest.mark.parametrize(
    ("prompt", "event", "pause"),
    [("Tell me a long story.", Token, 0), ("Repeat this: " + "word " * 1500, Requested, 1)],
    ids=["while it answers", "while it reads the prompt"],
)
def test_a_generation_stops_within_half_a_second_of_the_delete(
    folder: Path, capsys: pytest.CaptureFixture[str], prompt: str, event: type[Event], pause: float
) -> None:
    with measured("loading the model", capsys):
        model = Watched(Gguf(folder / FILE))
    with (
        Server(model) as server,
        sync.Client(server.url, cookies=server.cookies, cleanup=Cleanup(drain=0)) as client,
    ):
        with client.chat() as chat:
            with measured(f"to the first {event.__name__}", capsys):
                assert any(isinstance(one, event) for one in chat.send(prompt))
            time.sleep(pause)
            left = time.monotonic()
        assert model.ended.wait(PATIENCE)
        took = time.monotonic() - left
    say(f"from leaving the chat to the end of the generation: {took:.2f} s", capsys)
    assert took < 0.5


def test_llama_cpp_answers_as_an_endpoint_and_is_idle_soon_after_the_delete(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xllamacpp = import_module("xllamacpp")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(folder / FILE)
    parameters.n_ctx = 4096
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = parameters.n_parallel = 1
    parameters.api_keys = [KEY]
    parameters.verbosity = -1
    endpoint = xllamacpp.Server(parameters)
    slots = httpx.Client(base_url=endpoint.listening_address, headers={"Authorization": f"Bearer {KEY}"})
    with (
        Server(OpenAICompatible(f"{endpoint.listening_address}/v1", KEY, "small")) as server,
        sync.Client(server.url, cookies=server.cookies, cleanup=Cleanup(drain=0)) as client,
        slots,
    ):
        with client.chat(sampling={"max_new_tokens": 40}) as chat:
            assert all(chat.ask(prompt) for prompt in ("What is the capital of France?", "And of Italy?"))
        with client.chat() as chat:
            assert next(iter(chat.stream("Tell me a long story.")))
            assert slots.get("/slots").json()[0]["is_processing"]
            left = time.monotonic()
        while slots.get("/slots").json()[0]["is_processing"]:
            time.sleep(0.01)
        took = time.monotonic() - left
    say(f"from leaving the chat to an idle endpoint: {took:.2f} s", capsys)
    assert took < 0.5


def test_a_worker_answers_with_it_for_another_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Server(workers=0) as server:
        program = Path(sys.executable).parent / "oa-protocol"
        command = [program, "worker", server.url, "--answers", "gguf", "--gguf", FILE]
        env = {**os.environ, **OFFLINE, "OA_WORKER_KEY": server.worker_key}
        with (
            measured("a worker, from its command to the end of two turns", capsys),
            subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE) as worker,
            sync.Client(server.url, cookies=server.cookies) as client,
            client.chat(sampling={"max_new_tokens": 40}) as chat,
        ):
            for prompt in ("What is the capital of France?", "And of Italy?"):
                say(f"  {chat.ask(prompt)}", capsys)
            worker.terminate()
            assert worker.communicate(timeout=PATIENCE)[1].endswith(b"2 answered, 0 failed.\n")
        assert not server.chats
