"""Every way out, at every step: afterwards the chat is gone."""

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, cast

import anyio
import pytest

from oa_protocol import Chat, ChatLeakedWarning, HttpRequest, LocalProtocolError, Phase, Response, Transport
from oa_protocol.engine.events import Answered, Prompted, Requested, Token
from oa_protocol.server import Answer, Fault, Hold, Reply, Step
from oa_protocol.transports import TransportFactory

from .site import Site, settle

pytestmark = [pytest.mark.anyio, pytest.mark.clause("OA-7.2"), pytest.mark.usefixtures("either_transport")]

Run = Callable[[], Coroutine[Any, Any, object]]
Way = Callable[[Run, Run, Callable[[], None]], Awaitable[None]]
"""Runs the first; interrupts it as soon as the second returns, and then calls the third."""


class Boom(Exception):
    pass


async def cancel_scope(run: Run, reached: Run, interrupted: Callable[[], None]) -> None:
    scope = anyio.CancelScope()

    async def interrupt() -> None:
        await reached()
        scope.cancel()
        interrupted()

    async with anyio.create_task_group() as group:
        group.start_soon(interrupt)
        with scope:
            await run()
    assert scope.cancel_called


async def sibling_fails(run: Run, reached: Run, interrupted: Callable[[], None]) -> None:
    async def fail() -> None:
        await reached()
        interrupted()
        raise Boom

    async def body() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            group.start_soon(fail)

    with pytest.raises(ExceptionGroup) as caught:
        await body()
    assert isinstance(caught.value.exceptions[0], Boom)


def nothing() -> None:
    """Nothing waits for the interruption."""


WAYS: list[Way] = [cancel_scope, sibling_fails]


async def interrupted_at_a_step(site: Site, step: Step, *, carried_out: bool, way: Way) -> None:
    """Hold a step, or its reply, go that way, then let the server go on."""
    hold = Hold()
    interrupted = anyio.Event()
    before = hold if not carried_out or step == "events" else None
    site.script(Fault(step, before=before, after=None if before else hold))
    left: list[Chat] = []

    async def run() -> None:
        async with site.client() as client, client.chat() as chat:
            left.append(chat)
            await chat.ask("Hello")

    async def release() -> None:
        await interrupted.wait()
        await settle()
        hold.release()

    async with anyio.create_task_group() as group:
        group.start_soon(release)
        await way(run, lambda: site.reached(step), interrupted.set)
    assert site.chats == ()
    assert left[0].phase is Phase.DELETED


@pytest.mark.clause("OA-4.3")
@pytest.mark.parametrize("carried_out", [False, True], ids=["held", "reply held"])
@pytest.mark.parametrize("step", ["create", "prompt", "request", "events", "delete"])
@pytest.mark.parametrize("way", WAYS)
async def test_an_interruption_while_a_request_is_under_way(
    site: Site, step: Step, carried_out: bool, way: Way
) -> None:
    await interrupted_at_a_step(site, step, carried_out=carried_out, way=way)


async def interrupted_mid_stream(site: Site, way: Way) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    streaming = anyio.Event()
    left: list[Chat] = []

    async def run() -> None:
        async with site.client() as client, client.chat() as chat:
            left.append(chat)
            async for _ in chat.stream("Hello"):
                streaming.set()

    await way(run, streaming.wait, nothing)
    assert left[0].phase is Phase.DELETED
    assert site.chats == ()
    hold.release()


@pytest.mark.parametrize("way", WAYS)
async def test_an_interruption_in_the_middle_of_a_stream(site: Site, way: Way) -> None:
    await interrupted_mid_stream(site, way)


async def interrupted_between_turns(site: Site, way: Way) -> None:
    answered = anyio.Event()
    left: list[Chat] = []

    async def run() -> None:
        async with site.client() as client, client.chat() as chat:
            left.append(chat)
            await chat.ask("Hello")
            answered.set()
            await anyio.sleep_forever()

    await way(run, answered.wait, nothing)
    assert left[0].phase is Phase.DELETED
    assert site.chats == ()


@pytest.mark.parametrize("way", WAYS)
async def test_an_interruption_between_turns(site: Site, way: Way) -> None:
    await interrupted_between_turns(site, way)


async def named_if_the_server_refuses(site: Site, way: Way) -> None:
    site.script(Fault("delete", before=Reply(500, b"no"), times=3))
    streaming = anyio.Event()
    clients: list[Any] = []

    async def run() -> None:
        async with site.client() as client, client.chat() as chat:
            clients.append(client)
            async for _ in chat.stream("Hello"):
                streaming.set()
                await anyio.sleep_forever()

    with pytest.warns(ChatLeakedWarning) as warned:
        await way(run, streaming.wait, nothing)
    (chat_id,) = site.chats
    site.left = {chat_id}
    assert [record.chat_id for record in clients[0].leaked] == [chat_id]
    assert chat_id in str(warned[0].message)


@pytest.mark.parametrize("way", WAYS)
async def test_an_interruption_names_the_chat_if_the_server_refuses_the_delete(site: Site, way: Way) -> None:
    await named_if_the_server_refuses(site, way)


# ---- what a body does by itself

EVENTS = [Prompted, Requested, Token, Answered]


@pytest.mark.parametrize("kind", EVENTS)
async def test_a_break(site: Site, kind: type) -> None:
    async with site.client() as client, client.chat() as chat:
        async for event in chat.send("Hello"):
            if isinstance(event, kind):
                break
    assert chat.phase is Phase.DELETED
    assert site.chats == ()


@pytest.mark.parametrize("kind", EVENTS)
async def test_a_return(site: Site, kind: type) -> None:
    async def body() -> object:
        async with site.client() as client, client.chat() as chat:
            async for event in chat.send("Hello"):
                if isinstance(event, kind):
                    return event
        raise AssertionError

    assert isinstance(await body(), kind)
    assert site.chats == ()


@pytest.mark.parametrize("kind", EVENTS)
async def test_an_exception_in_the_body_survives_as_it_is(site: Site, kind: type) -> None:
    boom = Boom("mine")
    client = site.client()
    chat = client.chat()

    async def body() -> None:
        async with client, chat:
            async for event in chat.send("Hello"):
                if isinstance(event, kind):
                    raise boom

    with pytest.raises(Boom) as caught:
        await body()
    assert caught.value is boom
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert not hasattr(boom, "__notes__")
    assert site.chats == ()


async def test_an_exception_before_the_first_prompt_sends_nothing(site: Site) -> None:
    with pytest.raises(Boom):
        async with site.client() as client, client.chat():
            raise Boom
    assert site.steps == []


async def test_a_chat_that_was_never_entered_is_closed_by_its_client(site: Site) -> None:
    async with site.client() as client:
        chats = [client.chat() for _ in range(3)]
        for chat in chats:
            await chat.ask("Hello")
        assert len(set(site.chats)) == 3
    assert {chat.phase for chat in chats} == {Phase.DELETED}
    assert site.steps.count("delete") == 3


async def test_aclose_twice(site: Site) -> None:
    async with site.client() as client:
        chat = client.chat()
        await chat.ask("Hello")
        await chat.aclose()
        await chat.aclose()
        await client.aclose()
    assert site.steps.count("delete") == 1


async def test_a_chat_that_is_closed_by_another_task_while_it_streams(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    streaming = anyio.Event()
    async with site.client() as client, client.chat() as chat:

        async def read() -> None:
            async def body() -> None:
                async for _ in chat.stream("Hello"):
                    streaming.set()

            with pytest.raises(
                LocalProtocolError, match=r"^the chat was closed while it was in use \(phase [A-Z_]+\)$"
            ):
                await body()

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await streaming.wait()
            await chat.aclose()
            assert site.chats == ()
        hold.release()


class Observed:
    """A transport or a reply that writes down when a read ends, and when it is closed."""

    def __init__(self, observed: Any, seen: list[str]) -> None:
        self._observed, self._seen = observed, seen
        self.status, self.headers = getattr(observed, "status", 0), getattr(observed, "headers", ())

    async def open(self, request: HttpRequest) -> Response:
        response: Response = await self._observed.open(request)
        return Observed(response, self._seen) if "/events" in request.url else response

    async def receive(self) -> bytes:
        try:
            data: bytes = await self._observed.receive()
            return data
        finally:
            self._seen.append("read")

    async def aclose(self) -> None:
        self._seen.append("closed")
        await self._observed.aclose()


async def test_a_read_of_another_task_ends_before_its_stream_is_closed(site: Site) -> None:
    hold, seen, streaming = Hold(), list[str](), anyio.Event()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    transport = cast("TransportFactory", site.transport)
    async with site.client(transport=lambda: Observed(transport(), seen)) as client, client.chat() as chat:

        async def read() -> None:
            with suppress(LocalProtocolError):
                async for _ in chat.stream("Hello"):
                    streaming.set()

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await streaming.wait()
            await chat.aclose()
    hold.release()
    assert "read" not in seen[seen.index("closed") :]


async def test_a_bug_that_strikes_while_leaving_is_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="oa_protocol")
    opened: list[object] = []

    def transport() -> Transport:
        opened.append(None)
        if len(opened) == 2:  # the one for leaving
            raise KeyError("a bug")
        return cast("TransportFactory", site.transport)()

    async with site.client(transport=transport) as client, client.chat() as chat:
        await chat.ask("Hello")
    assert "<- KeyError" in caplog.messages


@pytest.mark.parametrize("step", ["create", "prompt", "request", "events"])
async def test_a_chat_that_is_closed_by_another_task_while_a_request_is_under_way(site: Site, step: Step) -> None:
    hold = Hold()
    site.script(Fault(step, before=hold))
    async with site.client() as client, client.chat() as chat:

        async def ask() -> None:
            with pytest.raises(
                LocalProtocolError, match=r"^the chat was closed while it was in use \(phase [A-Z_]+\)$"
            ):
                await chat.ask("Hello")

        async def release() -> None:
            await settle()
            hold.release()

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await site.reached(step)
            group.start_soon(release)
            await chat.aclose()
        assert chat.phase is Phase.DELETED
    assert site.chats == ()


@pytest.mark.parametrize("closes", ["chat", "client"])
async def test_closing_a_chat_that_is_being_closed_waits_for_the_end(site: Site, closes: str) -> None:
    hold = Hold()
    site.script(Fault("delete", before=hold))
    async with site.client() as client:
        chat = client.chat()
        await chat.ask("Hello")
        async with anyio.create_task_group() as group:
            group.start_soon(chat.aclose)
            await site.reached("delete")

            async def release() -> None:
                await settle()
                assert chat.phase is Phase.DELETING
                hold.release()

            group.start_soon(release)
            await (chat if closes == "chat" else client).aclose()
            assert chat.phase is Phase.DELETED
            assert site.chats == ()


async def test_a_leak_is_named_once_if_two_tasks_close_the_chat(site: Site) -> None:
    hold = Hold()
    site.script(Fault("delete", before=Reply(500, b"no"), times=3), Fault("chat", before=hold))
    async with site.client() as client:
        chat = client.chat()
        await chat.ask("Hello")
        site.left = {chat.id}

        async def body() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(chat.aclose)
                await site.reached("chat")
                group.start_soon(chat.aclose)
                await settle()
                hold.release()

        with pytest.warns(ChatLeakedWarning) as warned:
            await body()
    assert len(warned) == 1
    assert [record.chat_id for record in client.leaked] == [chat.id]


async def test_the_exception_in_flight_gets_a_note_about_a_leak(site: Site) -> None:
    site.script(Fault("delete", before=Reply(500, b"no"), times=3))
    boom = Boom("mine")
    client = site.client()
    chat = client.chat()

    async def body() -> None:
        async with client, chat:
            await chat.ask("Hello")
            raise boom

    with pytest.warns(ChatLeakedWarning), pytest.raises(Boom) as caught:
        await body()
    assert caught.value is boom
    assert chat.id is not None
    assert chat.id in boom.__notes__[0]
    site.left = {chat.id}


async def test_with_warnings_as_errors_the_exception_in_flight_survives(site: Site) -> None:
    site.script(Fault("delete", before=Reply(500, b"no"), times=3))
    client = site.client()
    chat = client.chat()

    async def body() -> None:
        async with client, chat:
            await chat.ask("Hello")
            raise Boom

    with pytest.raises(Boom) as caught:
        await body()
    assert chat.id is not None
    assert chat.id in caught.value.__notes__[0]
    site.left = {chat.id}


async def test_with_warnings_as_errors_it_survives_the_client_that_closes_the_chat_as_well(site: Site) -> None:
    site.script(Fault("delete", before=Reply(500, b"no"), times=6))
    client = site.client()

    async def body() -> None:
        async with client:
            for _ in range(2):
                await client.chat().ask("Hello")
            raise Boom

    with pytest.raises(Boom) as caught:
        await body()
    site.left = set(site.chats)
    assert {record.chat_id for record in client.leaked} == site.left
    assert len(caught.value.__notes__) == 2


async def test_with_warnings_as_errors_a_leak_is_raised_if_nothing_else_is(site: Site) -> None:
    site.script(Fault("delete", before=Reply(500, b"no"), times=6))
    client = site.client()

    async def body() -> None:
        async with client:
            for _ in range(2):
                await client.chat().ask("Hello")

    with pytest.raises(ChatLeakedWarning, match="left, or maybe left"):
        await body()
    site.left = set(site.chats)
    assert {record.chat_id for record in client.leaked} == site.left
