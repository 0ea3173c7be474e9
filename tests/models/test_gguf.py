"""The local model, with a scripted library in place of llama.cpp. ``nox -s local`` runs the same with a real one."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oa_protocol import AnswerFailed, Cleanup, Requested, sync
from oa_protocol.server import Gguf, Server
from tests.driver.site import PATIENCE

Deliver = Callable[[bytes], bool]


def chunk(content: str | None = None, reason: str | None = None) -> bytes:
    return json.dumps({"choices": [{"delta": {"content": content}, "finish_reason": reason}]}).encode()


class Library:
    """What ``xllamacpp`` is to us. ``generate`` is the script of an answer."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.generate: Callable[[Deliver], None] = lambda deliver: None
        self.parameters = SimpleNamespace(
            model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace()
        )

    def CommonParams(self) -> SimpleNamespace:  # noqa: N802 - the library's name
        return self.parameters

    def Server(self, parameters: SimpleNamespace) -> Library:  # noqa: N802 - the library's name
        if "damaged" in parameters.model.path:
            raise RuntimeError("Failed to init server, please check the input params.")
        return self

    def handle_chat_completions(self, body: bytes, deliver: Deliver) -> None:
        self.bodies.append(json.loads(body))
        self.generate(deliver)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setitem(sys.modules, "xllamacpp", library)
    return library


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    path.write_bytes(b"GGUF and more")
    return path


def ask(model: Gguf) -> str:
    with Server(model, reader_grace=PATIENCE) as server, sync.Client(server.url, cookies=server.cookies) as client:
        try:
            with client.chat() as chat:
                return chat.ask("Count")
        finally:
            assert server.chats == ()


def say(*chunks: bytes) -> Callable[[Deliver], None]:
    def generate(deliver: Deliver) -> None:
        for one in chunks:
            deliver(one)

    return generate


def test_the_answer_arrives_and_one_thread_writes_it(library: Library, file: Path) -> None:
    library.generate = say(b'{"choices": []}', chunk("One "), chunk("two."), chunk(None, "stop"))
    assert ask(Gguf(file)) == "One two."
    (body,) = library.bodies
    assert body["messages"] == [{"role": "user", "content": "Count"}]
    assert (body["max_tokens"], body["top_k"], body["stream"]) == (1024, 50, True)
    found = library.parameters
    assert (found.model.path, found.cpuparams.n_threads, found.n_parallel) == (str(file), 1, 1)


def fails(deliver: Deliver) -> None:
    raise ValueError("no memory")


@pytest.mark.parametrize(
    ("generate", "words"),
    [
        (say(chunk("One ")), "gave no reason for the end"),
        (say(b'{"error": {"code": 400, "message": "the prompt is too long"}}'), "the prompt is too long"),
        (fails, "no memory"),
    ],
)
def test_an_answer_that_is_not_complete_is_an_error(
    library: Library, file: Path, generate: Callable[[Deliver], None], words: str
) -> None:
    library.generate = generate
    with pytest.raises(AnswerFailed, match=words):
        ask(Gguf(file))


def test_a_generation_stops_when_its_chat_is_deleted_and_a_waiting_one_is_not_begun(
    library: Library, file: Path
) -> None:
    stopped = threading.Event()

    def generate(deliver: Deliver) -> None:
        deliver(chunk("on and "))
        while not deliver(b"{}"):
            time.sleep(0.001)
        stopped.set()

    library.generate = generate
    with (
        Server(Gguf(file)) as server,
        sync.Client(server.url, cookies=server.cookies, cleanup=Cleanup(drain=0)) as client,
    ):
        with client.chat() as chat:
            assert next(iter(chat.stream("Go on"))) == "on and "
            with client.chat() as waiting:
                assert any(isinstance(event, Requested) for event in waiting.send("Me, too"))
        assert stopped.wait(PATIENCE)
    assert len(library.bodies) == 1


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("missing.gguf", None, OSError, "missing.gguf"),
        ("model.bin", b"PK\x03\x04", ValueError, r"model\.bin is not a GGUF file"),
        ("damaged.gguf", b"GGUF", ValueError, r"damaged\.gguf can't be loaded"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    library: Library, tmp_path: Path, name: str, content: bytes | None, error: type[Exception], words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=words):
        Gguf(tmp_path / name)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ImportError, match=r"pip install 'oa_protocol\[local\]'"):
        Gguf(file)
