"""An owner who is interrupted and comes back finds the conversation as it was, and no try spent."""

import asyncio
from contextlib import suppress
from typing import Any, cast

import anyio
import pytest

from oa_protocol import AnswerFailed, Cleanup, Phase, Timeouts
from oa_protocol.client.answer import Answer as ClientAnswer
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.server import Answer, Fault, Freeze, Hold, Reply, Reset, Step, StreamFault
from oa_protocol.transports import Response
from oa_protocol.transports.fast.httptools import HttptoolsTransport

from .site import PATIENCE, Site

pytestmark = pytest.mark.anyio

STREAM_LOST = StreamFault(after_events=0, then=Reset())


async def read_on(answer: ClientAnswer) -> None:
    async for _ in answer:
        pass


@pytest.mark.clause("OA-6.9")
@pytest.mark.usefixtures("either_transport")
async def test_the_owners_patience_ends_an_answer_even_without_retries(site: Site) -> None:
    site.script(Answer(pieces=("One",), then=Freeze()), STREAM_LOST)
    client = site.client(timeouts=Timeouts(poll=0.1), retries=0)
    chat = client.chat()
    with pytest.raises(AnswerFailed, match="in the time allowed"):
        async with client, chat:
            await chat.ask("Hello")


@pytest.mark.usefixtures("either_transport", "no_delays")
@pytest.mark.parametrize("step", ["create", "prompt", "request", "events", "message"])
async def test_what_is_under_way_goes_on_while_its_owner_looks_away(site: Site, step: Step) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two.")), Fault(step, before=hold))
    if step == "message":
        site.script(STREAM_LOST)
    async with site.client() as client, client.chat() as chat:
        answer = chat.send("Hello")
        for _ in range(5):
            async with anyio.create_task_group() as group:
                group.start_soon(read_on, answer)
                await site.reached(step)
                group.cancel_scope.cancel()
        hold.release()
        await read_on(answer)
        assert answer.text == "One two."
    assert site.steps.count(step) == 1


@pytest.mark.usefixtures("either_transport")
async def test_an_owner_who_looks_in_more_often_than_replies_come_gets_the_whole_answer(site: Site) -> None:
    site.script(Answer(pieces=("One ", "two.")))
    async with site.client() as client, client.chat() as chat:
        answer = chat.send("Hello")
        with anyio.fail_after(PATIENCE):
            while answer.message is None:
                with anyio.move_on_after(0.0005):
                    await read_on(answer)
        assert answer.text == "One two."
    assert site.steps[:4] == ["create", "prompt", "request", "events"]


async def test_a_pause_goes_on_however_often_it_is_interrupted(site: Site) -> None:
    """Else an owner who looks in more often than the pause is long would wait for ever."""
    site.script(Answer(pieces=("One ", "two.")), Fault("prompt", before=Reply(503)))
    async with site.client() as client, client.chat() as chat:
        answer = chat.send("Hello")
        with anyio.fail_after(PATIENCE):
            while answer.message is None:
                with anyio.move_on_after(0.1):
                    await read_on(answer)
    assert site.steps.count("prompt") == 2


async def test_leaving_while_something_is_put_off_deletes_the_chat(site: Site) -> None:
    site.script(Fault("prompt", before=Reply(503, headers=(("retry-after", "50"),))))
    async with site.client() as client, client.chat() as chat:
        answer = chat.send("Hello")
        async with anyio.create_task_group() as group:
            group.start_soon(read_on, answer)
            await site.reached("prompt")
            driver = cast("Any", chat)._driver
            while driver.conversation.outstanding is not None:  # the refusal has not come
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()
    assert site.steps.count("prompt") == 1
    assert chat.phase is Phase.DELETED


@pytest.mark.clause("OA-7.1")
@pytest.mark.parametrize("attempts", [1, 2])
async def test_draining_leaves_time_to_delete(site: Site, attempts: int) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    cleanup = Cleanup(drain=PATIENCE, timeout=3.0, attempts=attempts)
    async with site.client(cleanup=cleanup) as client, client.chat() as chat:
        async for _ in chat.stream("Hello"):
            break
    assert "message" in site.steps  # it did drain
    assert client.leaked == []
    assert site.chats == ()
    hold.release()


class LingeringResponse:
    """A reply that takes its time to close."""

    def __init__(self, response: Response, closing: asyncio.Event) -> None:
        self._response = response
        self._closing = closing
        self.status = response.status
        self.headers = response.headers
        self.receive = response.receive

    async def aclose(self) -> None:
        self._closing.set()
        await self._response.aclose()
        await asyncio.sleep(PATIENCE)


class LingeringTransport(HttptoolsTransport):
    def __init__(self, closing: asyncio.Event) -> None:
        super().__init__()
        self._closing = closing

    async def open(self, request: HttpRequest) -> Response:  # type: ignore[override]
        response = await super().open(request)
        return LingeringResponse(response, self._closing) if "/message" in request.url else response


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("api", ["website"])
async def test_what_was_received_is_reported_even_if_closing_its_reply_was_interrupted(site: Site) -> None:
    closing = asyncio.Event()
    site.transport = lambda: LingeringTransport(closing)
    site.script(Answer(pieces=("One ", "two.")), STREAM_LOST)
    async with site.client() as client, client.chat() as chat:
        answer = chat.send("Hello")
        reading = asyncio.create_task(read_on(answer))
        await closing.wait()
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        assert chat.phase is Phase.ANSWERED
        await read_on(answer)
        assert answer.text == "One two."
        assert answer.message is not None
