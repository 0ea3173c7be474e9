"""What the client waits for, and how long. A silent server can't make it wait without limit."""

import socket
from typing import Any

import anyio
import pytest

from oa_protocol import AnswerFailed, ChatLeakedWarning, Cleanup, Client, NotSent, Phase, Timeouts, TransportError
from oa_protocol.engine.intents import FetchChat, RequestAssistant, SendPrompt
from oa_protocol.server import Answer, Fault, Freeze, Hang, Hold, Never, Reply, Reset, Step, StreamFault

from .site import PATIENCE, Site

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("either_transport")]


@pytest.mark.usefixtures("no_delays", "no_environment")
async def test_a_server_that_is_not_there_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = Client(f"http://127.0.0.1:{port}", cookies={"a": "b"})
    chat = client.chat()
    with pytest.raises(NotSent, match=f"cannot reach http://127.0.0.1:{port}"):
        async with client, chat:
            await chat.ask("Hello")
    assert client.leaked == []


@pytest.mark.parametrize("step", ["prompt", "request"])
async def test_a_reply_that_does_not_come_is_lost(site: Site, step: Step, impatient_with: Any) -> None:
    site.script(Answer(pieces=("Yes.",)), Fault(step, after=Hang()))
    impatient_with(SendPrompt if step == "prompt" else RequestAssistant, reply=0.3)
    async with site.client() as client, client.chat() as chat:
        assert await chat.ask("Hello") == "Yes."
    assert site.steps.count(step) == 1


async def test_a_server_that_only_hangs_is_an_error(site: Site, impatient_with: Any) -> None:
    site.script(Fault("prompt", before=Hang()), Fault("chat", before=Hang(), times=3))
    impatient_with(SendPrompt, FetchChat, reply=0.3)
    client = site.client()
    chat = client.chat()
    with pytest.raises(TransportError, match=r"no reply within 0\.3 s"):
        async with client, chat:
            await chat.ask("Hello")


@pytest.mark.clause("OA-6.9")
async def test_an_answer_whose_stream_was_lost_is_polled_no_longer_than_allowed(site: Site) -> None:
    site.script(Answer(then=Freeze()), StreamFault(after_events=0, then=Reset()))
    client = site.client(timeouts=Timeouts(poll=0.1))
    chat = client.chat()
    with pytest.raises(AnswerFailed, match="in the time allowed"):
        async with client, chat:
            await chat.ask("Hello")
    assert site.steps.count("events") == 1


@pytest.mark.clause("OA-6.9")
async def test_an_answer_that_waits_is_waited_for_no_longer_than_allowed(site: Site) -> None:
    site.script(Answer(then=Never()))
    client = site.client(timeouts=Timeouts(answer=0.2))
    chat = client.chat()
    with pytest.raises(AnswerFailed, match="in the time allowed"):
        async with client, chat:
            await chat.ask("Hello")


@pytest.mark.clause("OA-7.1")
async def test_without_draining_the_chat_is_deleted_at_once(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    async with site.client(cleanup=Cleanup(drain=0)) as client, client.chat() as chat:
        async for _ in chat.stream("Hello"):
            break
    assert site.steps[-1] == "delete"
    assert "message" not in site.steps
    hold.release()


@pytest.mark.clause("OA-7.1")
async def test_draining_waits_for_the_answer_that_runs(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    async with site.client(cleanup=Cleanup(drain=PATIENCE, timeout=PATIENCE)) as client:
        chat = client.chat()
        async for _ in chat.stream("Hello"):
            break
        async with anyio.create_task_group() as group:
            group.start_soon(chat.aclose)
            await site.reached("message", 2)
            assert chat.phase is Phase.DRAINING
            hold.release()
    assert site.steps.count("delete") == 1


@pytest.mark.clause("OA-7.1")
async def test_draining_waits_no_longer_than_allowed(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    async with site.client(cleanup=Cleanup(drain=1.0)) as client, client.chat() as chat:
        async for _ in chat.stream("Hello"):
            break
    assert "message" in site.steps
    assert site.chats == ()
    hold.release()


@pytest.mark.parametrize("site", [{"reader_grace": 0.1}], indirect=True)
@pytest.mark.clause("OA-7.1", "OA-6.1")
async def test_draining_looks_at_the_chat_if_the_fate_of_a_request_is_unknown(site: Site) -> None:
    site.script(Answer(pieces=("Yes.",)), Fault("request", after=Reset()), Fault("chat", before=Reset(), times=3))
    client = site.client(cleanup=Cleanup(drain=PATIENCE, timeout=PATIENCE))
    chat = client.chat()
    with pytest.raises(TransportError):
        async with client, chat:
            await chat.ask("Hello")
    assert site.steps.count("chat") > 3
    assert site.steps[-1] == "delete"


@pytest.mark.clause("OA-7.2")
@pytest.mark.parametrize("times", [0, 1])
async def test_cleaning_up_takes_no_longer_than_allowed_and_names_the_chat(site: Site, times: int) -> None:
    if times:
        site.script(Fault("delete", before=Hang()))
    with pytest.warns(ChatLeakedWarning, match="could not be deleted"):
        async with (
            site.client(cleanup=Cleanup(drain=0, timeout=2.0 * times, attempts=1)) as client,
            client.chat() as chat,
        ):
            await chat.ask("Hello")
    assert [record.chat_id for record in client.leaked] == [chat.id]
    assert str(chat.id) in repr(client.leaked)
    site.left = {chat.id}


@pytest.mark.clause("OA-7.2", "OA-7.6")
async def test_an_attempt_that_hangs_leaves_time_for_the_next(site: Site) -> None:
    site.script(Fault("delete", before=Hang()))
    async with site.client(cleanup=Cleanup(drain=0, timeout=20, attempts=10)) as client, client.chat() as chat:
        await chat.ask("Hello")
    assert site.steps.count("delete") == 2


@pytest.mark.clause("OA-4.3", "OA-6.8")
async def test_a_create_that_hangs_is_given_up_after_the_cleanup_time_and_named(site: Site) -> None:
    site.script(Fault("create", before=Hang()))
    client = site.client(cleanup=Cleanup(drain=0, timeout=0.1))
    scope = anyio.CancelScope()

    async def body() -> None:
        async with anyio.create_task_group() as group:

            async def interrupt() -> None:
                await site.reached("create")
                scope.cancel()

            group.start_soon(interrupt)
            with scope:
                async with client, client.chat() as chat:
                    await chat.ask("Hello")

    with pytest.warns(ChatLeakedWarning, match="id unknown"):
        await body()
    assert [record.chat_id for record in client.leaked] == [None]


async def test_a_list_of_models_that_does_not_come_is_an_error(site: Site) -> None:
    site.script(Fault("models", before=Hang()))
    async with site.client(timeouts=Timeouts(reply=1.0)) as client:
        with pytest.raises(TransportError, match="no reply within 1 s"):
            await client.models()


async def test_a_pause_is_longer_by_chance_unless_the_chat_is_being_closed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    monkeypatch.setattr("oa_protocol.client._driver.random.uniform", uniform)
    site.script(Fault("create", before=Reply(503)), Fault("delete", before=Reply(500)))
    async with site.client() as client, client.chat() as chat:
        await chat.ask("Hello")
    assert drawn == [(0.0, 0.25)]
