"""How a chat that was left behind is reported: on the client, in a warning, and on the exception."""

import asyncio
import linecache
from collections.abc import Awaitable, Callable

import pytest

from oa_protocol import Chat, ChatLeakedWarning, Cleanup, Client
from oa_protocol.server import Fault, Hold, Reply
from tests.driver.site import PATIENCE, Site, settle

pytestmark = [pytest.mark.anyio, pytest.mark.clause("OA-7.2")]


async def leave_chat(client: Client, chat: Chat) -> None:
    async with chat:
        pass  # this chat


async def close_chat(client: Client, chat: Chat) -> None:
    await chat.aclose()  # this chat


async def leave_client(client: Client, chat: Chat) -> None:
    async with client:
        pass  # this chat


async def close_client(client: Client, chat: Chat) -> None:
    await client.aclose()  # this chat


@pytest.mark.parametrize("leave", [leave_chat, close_chat, leave_client, close_client])
async def test_the_warning_points_to_who_left_it(site: Site, leave: Callable[[Client, Chat], Awaitable[None]]) -> None:
    site.script(Fault("delete", before=Reply(500, b"no"), times=3))
    client = site.client()
    chat = client.chat()
    await chat.ask("Hello")
    site.left = {chat.id}
    with pytest.warns(ChatLeakedWarning, match=str(chat.id)) as caught:
        await leave(client, chat)
    (warning,) = caught
    assert warning.filename == __file__
    line = warning.lineno
    assert "this chat" in linecache.getline(__file__, line) + linecache.getline(__file__, line + 1)


@pytest.mark.parametrize("whole", [False, True], ids=["chat", "client"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_that_comes_while_leaving_is_raised_and_names_it(site: Site, whole: bool) -> None:
    hold = Hold()
    site.script(Fault("delete", before=Reply(500)), Fault("chat", before=hold))
    client = site.client(cleanup=Cleanup(drain=0, timeout=PATIENCE, attempts=1))
    chat = client.chat()
    await chat.ask("Hello")
    site.left = {chat.id}
    leaving = asyncio.create_task((client if whole else chat).aclose())
    await site.reached("chat")
    leaving.cancel()
    await settle()
    hold.release()
    # Warnings are errors in these tests, but this one must not replace the exception.
    with pytest.raises(asyncio.CancelledError) as caught:
        await leaving
    (note,) = caught.value.__notes__
    assert str(chat.id) in note
