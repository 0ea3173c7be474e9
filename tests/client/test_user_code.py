"""Whatever the user's own code raises, it never looks like an end of ours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Literal

import pytest

from oa_protocol import (
    ChatLeakedWarning,
    ClosedError,
    HttpRequest,
    InferenceServer,
    Response,
    Token,
    Transport,
    Website,
)
from oa_protocol.server import Answer, Hold
from oa_protocol.transports.fast.httptools import HttptoolsTransport
from tests.driver.site import Site
from tests.sync.clients import client_of

pytestmark = [pytest.mark.anyio, pytest.mark.clause("OA-5.7")]

Place = Literal["factory", "open", "receive", "close"]


class Odd:
    """A transport that raises at this place, once the stream is asked for."""

    def __init__(self, place: Place, error: type[BaseException]) -> None:
        self._transport = HttptoolsTransport(connect_timeout=10)
        self._place: Place = place
        self._error = error

    async def open(self, request: HttpRequest) -> Response:
        is_stream = "/events" in request.url
        if is_stream and self._place == "open":
            raise self._error
        response = await self._transport.open(request)
        return OddResponse(response, self._place, self._error) if is_stream else response

    async def aclose(self) -> None:
        await self._transport.aclose()


class OddResponse:
    def __init__(self, response: Response, place: Place, error: type[BaseException]) -> None:
        self._response = response
        self._place: Place = place
        self._error = error

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        return self._response.headers

    async def receive(self) -> bytes:
        data = await self._response.receive()
        if self._place == "receive" and b"token" in data:
            raise self._error
        return data

    async def aclose(self) -> None:
        await self._response.aclose()
        if self._place == "close":
            raise self._error


@pytest.mark.parametrize("error", [StopAsyncIteration, StopIteration, GeneratorExit, asyncio.CancelledError])
@pytest.mark.parametrize("place", ["factory", "open", "receive"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_transport_that_raises_what_ends_an_iteration(
    site: Site, place: Place, error: type[BaseException]
) -> None:
    site.script(Answer(pieces=("One ", "two.")))
    opened: list[Transport] = []

    def factory() -> Transport:
        if place == "factory" and not opened:
            opened.append(HttptoolsTransport(connect_timeout=10))
            raise error
        opened.append(Odd(place, error))
        return opened[-1]

    text = None
    site.endless = True
    async with site.client(transport=factory) as client, client.chat() as chat:
        with suppress(RuntimeError, GeneratorExit):
            text = await chat.ask("Hello")
    assert text in (None, "One two.")
    assert site.chats == ()


@pytest.mark.parametrize("error", [StopAsyncIteration, GeneratorExit, asyncio.CancelledError, KeyboardInterrupt])
async def test_a_reply_that_cannot_be_closed(site: Site, error: type[BaseException]) -> None:
    text, raised = None, None
    async with site.client(transport=lambda: Odd("close", error)) as client, client.chat() as chat:
        try:
            text = await chat.ask("Hello")
        except KeyboardInterrupt as interruption:
            raised = interruption
    assert (text is None) is (raised is not None) is (error is KeyboardInterrupt)
    assert site.chats == ()


@pytest.mark.clause("OA-7.2")
@pytest.mark.parametrize("error", [StopAsyncIteration, GeneratorExit, KeyError])
async def test_a_binding_that_raises_leaves_no_chat_unnamed(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def read_chat_id(*_: object) -> str:
        raise error

    monkeypatch.setattr(Website if site.api == "website" else InferenceServer, "read_chat_id", read_chat_id)
    client = site.client()
    chat = client.chat()
    with pytest.raises((RuntimeError, KeyError)):
        await chat.ask("Hello")
    with pytest.warns(ChatLeakedWarning):
        await client.aclose()
    site.left = set(site.chats)
    assert len(client.leaked) == len(site.left) == 1


@pytest.fixture
def raising_log() -> Generator[None]:
    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise StopAsyncIteration(record)

    logger, handler = logging.getLogger("oa_protocol"), Raises()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.usefixtures("raising_log")
async def test_a_log_handler_that_raises_interrupts_nothing(site: Site) -> None:
    site.script(Answer(pieces=("One ", "two.")))
    async with site.client() as client, client.chat() as chat:
        assert await chat.ask("Hello") == "One two."


async def test_the_text_of_an_answer_that_was_given_up_is_whole_when_the_next_one_has_come(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold), Answer(pieces=("Next.",)))
    async with site.client() as client, client.chat() as chat:
        first = chat.send("Hello")
        async for event in first:
            if isinstance(event, Token):
                break
        assert first.text == "One "
        hold.release()
        assert await chat.ask("And?") == "Next."
        assert first.text == "One two."


@pytest.mark.clause("OA-7.2")
async def test_a_closed_client_makes_no_chats(site: Site) -> None:
    client = site.client()
    unused = client.chat()
    await client.aclose()
    with pytest.raises(ClosedError, match="client is closed"):
        client.chat()
    with pytest.raises(ClosedError, match="client is closed"):
        await unused.ask("Hello")
    with pytest.raises(ClosedError, match="client is closed"):
        await client.models()
    assert site.steps == []


@pytest.mark.clause("OA-7.2")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_closed_client_for_threads_makes_no_chats(site: Site) -> None:
    client = client_of(site)
    unused = client.chat()
    client.close()
    with pytest.raises(ClosedError, match="client is closed"):
        client.chat()
    with pytest.raises(ClosedError, match="client is closed"):
        unused.ask("Hello")
    with pytest.raises(ClosedError, match="client is closed"):
        client.models()
