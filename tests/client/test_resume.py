"""A conversation that was pickled goes on in another client."""

from __future__ import annotations

import pickle

import anyio
import pytest

from oa_protocol import (
    Answered,
    ChatLeakedWarning,
    ClosedError,
    Conversation,
    Created,
    Event,
    InferenceServer,
    Prompted,
    Requested,
    Token,
    Website,
    sync,
)
from oa_protocol.server import Answer, Hold
from tests.driver.site import Site
from tests.sync.clients import client_of

pytestmark = [pytest.mark.anyio, pytest.mark.clause("OA-7.2")]


async def pickled(site: Site, until: type[Event]) -> Conversation:
    """Return the conversation as it was at this event, of a client that is gone."""
    client = site.client()
    chat = client.chat()
    async for event in chat.send("Hello"):
        if isinstance(event, until):
            break
    driver = vars(chat)["_driver"]
    found: Conversation = pickle.loads(pickle.dumps(driver.conversation))
    driver.abandon()
    await driver.aclose()
    with pytest.warns(ChatLeakedWarning):
        await client.aclose()
    return found


@pytest.mark.parametrize("until", [Created, Prompted, Requested, Token])
async def test_the_rest_of_an_answer_is_read(site: Site, until: type[Event]) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    conversation = await pickled(site, until)
    hold.release()
    async with site.client() as client:
        chat = await client.resume(conversation)
        assert chat.answer is not None
        async for _ in chat.answer:
            pass
        assert chat.answer.text == "One two."
        assert site.prompts() == ["Hello"]
    assert site.chats == ()


async def test_the_next_prompt_is_put(site: Site) -> None:
    conversation = await pickled(site, Answered)
    async with site.client() as client:
        chat = await client.resume(conversation)
        assert chat.answer is None
        await chat.ask("And?")
    assert site.prompts() == ["Hello", "And?"]
    assert site.chats == ()


async def test_a_client_for_threads_takes_it_as_well(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    conversation = await pickled(site, Token)
    hold.release()

    def go_on() -> str:
        with client_of(site) as client, client.resume(conversation) as chat:
            assert chat.answer is not None
            list(chat.answer)
            return chat.answer.text

    assert await anyio.to_thread.run_sync(go_on) == "One two."
    assert site.chats == ()


async def test_what_cannot_be_resumed_is_refused(site: Site) -> None:
    client = site.client()
    elsewhere = (Website if site.api == "inference" else InferenceServer)("http://elsewhere.example")
    with pytest.raises(ValueError, match="elsewhere"):
        await client.resume(Conversation(elsewhere))
    with pytest.raises(TypeError, match="must be a Conversation"):
        await client.resume(b"pickle")  # type: ignore[arg-type]
    await client.aclose()
    with pytest.raises(ClosedError):
        await client.resume(Conversation(elsewhere))


def test_a_chat_for_threads_that_was_asked_nothing_has_no_answer() -> None:
    with sync.Client("http://oa.test", token="x", api="inference") as client, client.chat() as chat:
        assert chat.answer is None
