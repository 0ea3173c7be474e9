"""Models of one's own in the embedded server: what they are given, and when they are closed."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from oa_protocol.server import Answer, AnswerRequest, Finish, ModelError, Piece, Quirks, Sampling, Server, Turn

from .helpers import ask, asked, prompted, read_stream
from .test_server_streams import Connect, take


class Broken:
    """A model whose pieces are none."""

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[Any, None]:
        yield request


def test_a_worker_that_breaks_is_logged_and_aborts_its_message(
    caplog: pytest.LogCaptureFixture, connect: Connect
) -> None:
    with Server(Broken(), reader_grace=60) as server:
        peer = connect(server)
        chat, message = asked(peer)
        assert read_stream(peer, chat, message)[-1]["event_type"] == "error"
    assert [record.getMessage() for record in caplog.records if record.name == "oa_protocol.server"] == [
        f"the answer {message} failed"
    ]


def test_a_model_that_raises_is_a_worker_error(connect: Connect) -> None:
    class Failing:
        async def answer(self, request: AnswerRequest) -> AsyncGenerator[str, None]:
            yield "a "
            raise ModelError(f"cannot answer {request.prompt!r} after {request.history}")

    with Server(Failing(), reader_grace=60) as server:
        peer = connect(server)
        _, error = read_stream(peer, *asked(peer, "this"))
        assert error["error"] == "cannot answer 'this' after ()"


def test_a_model_gets_everything_that_came_with_the_prompt(connect: Connect) -> None:
    found: list[AnswerRequest] = []

    class Noting:
        async def answer(self, request: AnswerRequest) -> AsyncGenerator[Piece, None]:
            found.append(request)
            yield "noted"
            yield Finish("eos_token")

    plugin = {"url": "http://x", "enabled": True, "plugin_config": None, "trusted": False}
    with Server(Noting(), reader_grace=60) as server:
        peer = connect(server)
        chat, first = asked(peer)
        read_stream(peer, chat, first)
        second = peer.prompt(chat, content="More", parent_id=first).json()["id"]
        options = {"system_prompt": "Be brief", "user_profile": "Ann", "user_response_instructions": "In verse"}
        name = {"model_config_name": "distilgpt2"}
        sampling = {"top_k": 5, "temperature": 1}
        reply = peer.request(chat, parent_id=second, sampling_parameters=sampling, plugins=[plugin], **options, **name)
        read_stream(peer, chat, reply.json()["id"])
    _, request = found
    assert request == AnswerRequest(
        prompt="More",
        history=(Turn("prompter", "Hello"), Turn("assistant", "noted")),
        model="distilgpt2",
        sampling=Sampling(top_k=5, temperature=1.0),
        seed=request.seed,
        plugins=(plugin,),
        **options,
    )
    assert request.seed is not None
    assert request.messages == [
        {"role": "system", "content": "Be brief\n\nAbout the user: Ann\n\nHow to answer: In verse"},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "noted"},
        {"role": "user", "content": "More"},
    ]


class Endless:
    """A model that never ends by itself."""

    def __init__(self) -> None:
        self.closed = threading.Semaphore(0)

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[str, None]:
        del request
        try:
            yield "a "
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.closed.release()


@pytest.mark.parametrize("torn", [False, True])
def test_all_answers_of_a_deleted_chat_are_no_longer_generated(connect: Connect, torn: bool) -> None:
    model = Endless()
    with Server(model, workers=2, quirks=Quirks(delete_tears_worker=torn)) as server:
        peer = connect(server)
        chat, prompt = prompted(peer)
        for message in (ask(peer, chat, prompt), ask(peer, chat, prompt)):
            take(peer, chat, message, 1)
        assert peer.delete(chat).status_code == 200
        assert all(model.closed.acquire(timeout=60) for _ in range(2))


def test_a_deleted_chats_answer_is_no_longer_generated_and_its_worker_is_free(connect: Connect) -> None:
    model = Endless()
    with Server(model, workers=1, reader_grace=60) as server:
        peer = connect(server)
        chat, message = asked(peer)
        take(peer, chat, message, 1)
        peer.delete(chat)
        assert model.closed.acquire(timeout=60)
        server.script(Answer(("next",)))
        assert read_stream(peer, *asked(peer))[-1]["message"]["content"] == "next"


def test_a_model_is_closed_before_its_server_has_stopped(connect: Connect) -> None:
    model = Endless()
    with Server(model) as server:
        peer = connect(server)
        take(peer, *asked(peer), 1)
    assert model.closed.acquire(blocking=False)
