"""Many chats of one client at once, and one chat in several tasks."""

import anyio
import pytest

from oa_protocol import Chat, Cleanup, LocalProtocolError, Phase
from oa_protocol.server import Answer, Fault, Hold
from tests.driver.site import Site


@pytest.mark.anyio
@pytest.mark.clause("OA-6.11")
async def test_two_tasks_cannot_use_one_chat_at_once(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("Yes.",)), Fault("prompt", before=hold))
    async with site.client() as client, client.chat() as chat, anyio.create_task_group() as group:

        async def ask() -> None:
            assert await chat.ask("Hello") == "Yes."

        group.start_soon(ask)
        await site.reached("prompt")
        for _ in range(2):
            with pytest.raises(LocalProtocolError, match=r"^the chat is in use by another task$") as refused:
                await chat.ask("And me?")
            assert refused.value.phase == "CHAT_CREATED"
        hold.release()
    assert site.prompts() == ["Hello"]


@pytest.mark.anyio
@pytest.mark.parametrize("site", [{"workers": 100}], indirect=True)
async def test_a_hundred_chats_at_once(site: Site) -> None:
    answers: list[str] = []
    async with site.client(cleanup=Cleanup(timeout=60)) as client, anyio.create_task_group() as group:

        async def converse(number: int) -> None:
            async with client.chat() as chat:
                answers.append(await chat.ask(f"Prompt {number}"))

        for number in range(100):
            group.start_soon(converse, number)
    assert len(answers) == 100
    assert all(answers)
    assert client.leaked == []


@pytest.mark.anyio
@pytest.mark.parametrize("site", [{"workers": 100}], indirect=True)
@pytest.mark.clause("OA-7.2")
async def test_a_hundred_chats_cancelled_at_once(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold, times=100))
    chats: list[Chat] = []
    async with site.client(cleanup=Cleanup(drain=0, timeout=60)) as client:
        async with anyio.create_task_group() as group:

            async def converse() -> None:
                async with client.chat() as chat:
                    chats.append(chat)
                    await chat.ask("Hello")

            for _ in range(100):
                group.start_soon(converse)
            await site.reached("events", 100)
            group.cancel_scope.cancel()
        assert {chat.phase for chat in chats} == {Phase.DELETED}
    assert site.chats == ()
    hold.release()
