"""What the driver makes of transports that are not httpx, and of those that break their contract."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, cast

import anyio
import anyio.lowlevel
import pytest

from oa_protocol import (
    ChatLeakedWarning,
    Cleanup,
    Client,
    ClosedError,
    LocalProtocolError,
    MaybeSent,
    NotSent,
    Phase,
    Timeouts,
)
from oa_protocol.client.answer import Answer as AnswerStream
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.server import Answer
from oa_protocol.transports import Response, Transport
from oa_protocol.transports.httpx import HttpxTransport

from .site import PATIENCE, Site

pytestmark = pytest.mark.anyio


class Foreign(Exception):
    """What no transport may raise."""


class Recorder:
    """A factory of transports that work, but for what a test has them raise."""

    def __init__(self) -> None:
        self.made: list[Recorded] = []
        self.on_make: Callable[[int], None] = lambda number: None
        self.on_open: Callable[[HttpRequest], None] = lambda request: None
        self.on_close: Callable[[], None] = lambda: None

    def __call__(self) -> Transport:
        self.on_make(len(self.made))
        made = Recorded(self)
        self.made.append(made)
        return made


class Recorded:
    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.requests: list[HttpRequest] = []
        self.closed = 0
        self._transport = HttpxTransport()

    async def open(self, request: HttpRequest) -> Response:
        self.requests.append(request)
        self.recorder.on_open(request)
        return await self._transport.open(request)

    async def aclose(self) -> None:
        self.closed += 1
        await self._transport.aclose()
        self.recorder.on_close()


class Stubborn(Recorded):
    """Doesn't let go of a DELETE that is cancelled."""

    async def open(self, request: HttpRequest) -> Response:
        if request.method == "DELETE":
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1.0)
        return await super().open(request)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def client(site: Site, recorder: Recorder) -> Client:
    return site.client(transport=recorder)


def fail_once() -> Callable[[object], None]:
    raised: list[Foreign] = []

    def fail(_: object) -> None:
        if not raised:
            raised.append(Foreign("odd"))
            raise raised[0]

    return fail


async def test_a_conversation_has_one_transport_and_its_cleanup_another(recorder: Recorder, client: Client) -> None:
    async with client:
        async with client.chat() as chat:
            assert recorder.made == []
            await chat.ask("Hello")
            await chat.ask("And again?")
            assert len(recorder.made) == 1
        async with client.chat() as other:
            await other.ask("Hello")
    assert [[request.method for request in made.requests] for made in recorder.made] == [
        ["POST", "POST", "POST", "GET", "POST", "POST", "GET"],
        ["DELETE"],
        ["POST", "POST", "POST", "GET"],
        ["DELETE"],
    ]
    assert [made.closed for made in recorder.made] == [1, 1, 1, 1]


async def test_a_chat_without_a_prompt_has_no_transport(recorder: Recorder, client: Client) -> None:
    async with client, client.chat():
        pass
    assert recorder.made == []


@pytest.mark.parametrize("path", ["prompter_message", "assistant_message", "events"])
async def test_a_foreign_exception_is_raised_and_the_chat_is_deleted(
    site: Site, recorder: Recorder, client: Client, path: str
) -> None:
    def fail(request: HttpRequest) -> None:
        if path in request.url:
            raise Foreign("odd")

    recorder.on_open = fail
    chat = client.chat()
    with pytest.raises(Foreign, match="odd") as caught:
        async with client, chat:
            await chat.ask("Hello")
    assert not hasattr(caught.value, "__notes__")
    assert chat.phase is Phase.DELETED
    assert site.chats == ()


async def test_a_foreign_exception_in_a_create_names_what_it_may_have_made(
    site: Site, recorder: Recorder, client: Client
) -> None:
    recorder.on_open = fail_once()
    with pytest.warns(ChatLeakedWarning), pytest.raises(Foreign):
        async with client, client.chat() as chat:
            await chat.ask("Hello")
    assert [record.chat_id for record in client.leaked] == [None]
    assert "Foreign" in client.leaked[0].reason
    assert site.steps == []


class Denied:
    """A reply that breaks, and says that its request was never sent."""

    def __init__(self, response: Response) -> None:
        self.status = response.status
        self.headers = response.headers
        self.aclose = response.aclose

    async def receive(self) -> bytes:
        raise NotSent("or so it says")


class Denier:
    """Breaks every reply, and the first is that to the create."""

    def __init__(self) -> None:
        self._transport = HttpxTransport()
        self.aclose = self._transport.aclose

    async def open(self, request: HttpRequest) -> Response:
        return Denied(await self._transport.open(request))


async def test_what_breaks_after_a_reply_has_begun_was_sent_whatever_a_transport_says(site: Site) -> None:
    client = site.client(transport=Denier, retries=0)
    with pytest.warns(ChatLeakedWarning), pytest.raises(MaybeSent):
        async with client, client.chat() as chat:
            await chat.ask("Hello")
    assert [record.chat_id for record in client.leaked] == [None]
    site.left = {*site.chats}
    assert len(site.left) == 1


async def test_after_a_foreign_exception_the_conversation_can_go_on(
    site: Site, recorder: Recorder, client: Client
) -> None:
    site.script(Answer(pieces=("Yes.",)))
    async with client, client.chat() as chat:
        answer = chat.send("Hello")
        await anext(answer)
        recorder.on_open = fail_once()
        with pytest.raises(Foreign):
            await anext(answer)
        async for _ in answer:
            pass
        assert answer.text == "Yes."


@pytest.mark.parametrize("in_flight", [False, True])
async def test_a_foreign_exception_while_cleaning_up_is_not_the_last_word(
    site: Site, recorder: Recorder, client: Client, in_flight: bool
) -> None:
    async def body() -> None:
        async with client, client.chat() as chat:
            await chat.ask("Hello")
            recorder.on_open = fail_once()
            if in_flight:
                raise ZeroDivisionError

    if in_flight:
        with pytest.raises(ZeroDivisionError):
            await body()
    else:
        await body()
    assert site.chats == ()


async def test_a_factory_that_fails_has_made_nothing(site: Site, recorder: Recorder, client: Client) -> None:
    recorder.on_make = fail_once()
    chat = client.chat()
    with pytest.raises(Foreign):
        async with client, chat:
            await chat.ask("Hello")
    assert chat.phase is Phase.NEVER_CREATED
    assert client.leaked == []


async def test_a_factory_that_fails_once_for_the_cleanup_is_asked_again(
    site: Site, recorder: Recorder, client: Client
) -> None:
    async with client, client.chat() as chat:
        await chat.ask("Hello")
        recorder.on_make = fail_once()
    assert site.chats == ()
    assert len(recorder.made) == 2


async def test_a_factory_that_fails_for_the_cleanup_leaves_a_named_chat(site: Site, recorder: Recorder) -> None:
    def fail(number: int) -> None:
        raise Foreign("odd")

    client = site.client(transport=recorder, cleanup=Cleanup(drain=0, timeout=0.5))
    chat = client.chat()

    async def body() -> None:
        async with client, chat:
            await chat.ask("Hello")
            recorder.on_make = fail

    with pytest.warns(ChatLeakedWarning, match="Foreign"):
        await body()
    assert [record.chat_id for record in client.leaked] == [chat.id]
    site.left = {chat.id}


async def test_a_transport_that_cannot_be_closed_is_no_news(site: Site, recorder: Recorder, client: Client) -> None:
    def fail() -> None:
        raise Foreign("odd")

    recorder.on_close = fail
    async with client, client.chat() as chat:
        await chat.ask("Hello")
    assert [made.closed for made in recorder.made] == [1, 1]
    assert site.chats == ()


@pytest.mark.clause("OA-7.8")
async def test_a_transport_that_does_not_let_go_is_not_used_again(site: Site, recorder: Recorder) -> None:
    def make() -> Transport:
        made = (Recorded, Stubborn, Recorded)[len(recorder.made)](recorder)
        recorder.made.append(made)
        return made

    cleanup = Cleanup(drain=0, timeout=60.0, attempts=600)  # so that an attempt has 0.1 s
    async with site.client(transport=make, cleanup=cleanup) as client, client.chat() as chat:
        await chat.ask("Hello")
    assert chat.phase is Phase.DELETED
    assert len(recorder.made) == 3


class Clinging(HttpxTransport):
    """Waits for the peer's goodbye before it is closed, and can't be cancelled there."""

    goodbye: ClassVar[anyio.Event]

    async def open(self, request: HttpRequest) -> Response:  # type: ignore[override]
        response: Any = await super().open(request)
        close_reply = response.aclose

        async def aclose() -> None:
            await close_reply()
            await self._wait()

        response.aclose = aclose
        return cast("Response", response)

    async def aclose(self) -> None:
        await super().aclose()
        await self._wait()

    async def _wait(self) -> None:
        with anyio.CancelScope(shield=True):
            await self.goodbye.wait()


@pytest.mark.clause("OA-7.8")
async def test_a_transport_that_waits_for_a_goodbye_does_not_delay_the_client(site: Site) -> None:
    Clinging.goodbye = anyio.Event()
    with anyio.fail_after(PATIENCE):
        async with site.client(transport=Clinging) as client, client.chat() as chat:
            await chat.ask("Hello")
    assert chat.phase is Phase.DELETED
    Clinging.goodbye.set()


class ClingingAndOdd(Clinging):
    """Its second reply can't be read, and can't be closed in time."""

    opened: ClassVar[int]

    async def open(self, request: HttpRequest) -> Response:  # type: ignore[override]
        async def receive() -> bytes:
            raise Foreign("odd")

        response: Any = await super().open(request)
        ClingingAndOdd.opened += 1
        if ClingingAndOdd.opened == 2:
            response.receive = receive
        return cast("Response", response)


@pytest.mark.clause("OA-7.8")
async def test_the_error_of_a_reply_is_raised_even_if_the_reply_cannot_be_closed(site: Site) -> None:
    Clinging.goodbye = anyio.Event()
    ClingingAndOdd.opened = 0
    with anyio.fail_after(PATIENCE):
        async with site.client(transport=ClingingAndOdd) as client, client.chat() as chat:
            with pytest.raises(Foreign):
                await chat.ask("Hello")
    assert chat.phase is Phase.DELETED
    Clinging.goodbye.set()


class Tardy(HttpxTransport):
    """The body of its second reply never comes, and closing any reply takes an await."""

    opened: ClassVar[int]
    still_open: ClassVar[set[int]]

    async def open(self, request: HttpRequest) -> Response:  # type: ignore[override]
        assert not self.still_open, "a reply is still open"
        response: Any = await super().open(request)
        Tardy.opened += 1
        number, close_reply = Tardy.opened, response.aclose

        async def aclose() -> None:
            await anyio.lowlevel.checkpoint()
            await close_reply()
            self.still_open.discard(number)

        response.aclose = aclose
        if number == 2:
            response.receive = anyio.sleep_forever
        if "events" not in request.url:  # a stream may be open beside another reply
            self.still_open.add(number)
        return cast("Response", response)


async def test_a_reply_whose_body_does_not_come_is_closed_before_the_next_request(site: Site) -> None:
    Tardy.opened, Tardy.still_open = 0, set()
    async with site.client(transport=Tardy, timeouts=Timeouts(reply=0.3)) as client, client.chat() as chat:
        await chat.ask("Hello")
    assert Tardy.opened > 5


class Endless(HttpxTransport):
    """Closing a reply never ends, but it can be cancelled."""

    async def open(self, request: HttpRequest) -> Response:  # type: ignore[override]
        response: Any = await super().open(request)
        response.aclose = anyio.sleep_forever
        return cast("Response", response)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_owner_who_waits_in_short_turns_gets_on_although_no_reply_can_be_closed(site: Site) -> None:
    async with site.client(transport=Endless) as client, client.chat() as chat:
        answer = chat.send("Hello")
        with anyio.fail_after(PATIENCE):
            while answer.message is None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(anext(answer), 0.1)


class Lingering(HttpxTransport):
    """Closing a reply takes until it is allowed."""

    closing: ClassVar[asyncio.Event]
    allowed: ClassVar[asyncio.Event]

    async def open(self, request: HttpRequest) -> Response:  # type: ignore[override]
        async def aclose() -> None:
            self.closing.set()
            await self.allowed.wait()

        response: Any = await super().open(request)
        response.aclose = aclose
        return cast("Response", response)


@pytest.fixture
def lingering(monkeypatch: pytest.MonkeyPatch) -> type[Lingering]:
    monkeypatch.setattr("oa_protocol.client._carrier.CLOSE_TIMEOUT", PATIENCE)
    Lingering.closing, Lingering.allowed = asyncio.Event(), asyncio.Event()
    return Lingering


async def closing_a_reply(answer: AnswerStream) -> asyncio.Task[object]:
    """Return a task that waits for the next event, and that has found a reply which is being closed."""
    cancelled = asyncio.create_task(anext(answer))
    await Lingering.closing.wait()
    await anyio.wait_all_tasks_blocked()
    cancelled.cancel()
    await asyncio.wait([cancelled])
    await anext(answer)  # what had happened before the cancellation
    waiting = asyncio.create_task(anext(answer))
    await anyio.wait_all_tasks_blocked()
    return waiting


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_nobody_else_may_use_a_chat_while_a_reply_is_closed(site: Site, lingering: type[Lingering]) -> None:
    async with site.client(transport=lingering) as client, client.chat() as chat:
        answer = chat.send("Hello")
        waiting = await closing_a_reply(answer)
        with pytest.raises(LocalProtocolError, match="in use by another task"):
            await anext(answer)
        lingering.allowed.set()
        await waiting


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_leaving_a_chat_waits_for_a_reply_that_is_closed(site: Site, lingering: type[Lingering]) -> None:
    async with site.client(transport=lingering) as client, client.chat() as chat:
        waiting = await closing_a_reply(chat.send("Hello"))
        leaving = asyncio.create_task(chat.aclose())
        await anyio.wait_all_tasks_blocked()
        assert not leaving.done()
        lingering.allowed.set()
        await leaving
        with pytest.raises(ClosedError):
            await waiting
