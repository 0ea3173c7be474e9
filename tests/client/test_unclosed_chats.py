"""Chats that are never closed."""

import gc

import anyio
import pytest

from oa_protocol import ChatLeakedWarning
from oa_protocol.transports.httpx import HttpxTransport
from tests.driver.site import Site


@pytest.mark.anyio
async def test_a_chat_that_is_never_closed_is_warned_of(site: Site) -> None:
    async def careless() -> str | None:
        chat = site.client(transport=HttpxTransport).chat()  # it leaves no connection open between two requests
        await chat.ask("Hello")
        return chat.id

    async def forgotten() -> str | None:
        chat_id = await careless()
        await anyio.wait_all_tasks_blocked()  # the event loop forgets the last exchange
        gc.collect()  # if it was not collected already
        return chat_id

    with pytest.warns(ChatLeakedWarning) as caught:
        chat_id = await forgotten()
    assert chat_id is not None
    site.left = {chat_id}
    assert [chat_id in str(each.message) for each in caught] == [True]


@pytest.mark.anyio
async def test_a_chat_without_a_prompt_needs_no_closing(site: Site) -> None:
    client = site.client()
    client.chat()
    del client
    gc.collect()
