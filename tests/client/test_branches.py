"""Regenerate and edit, over real sockets: the right branch goes on, even if a reply is lost."""

from __future__ import annotations

import pytest

from oa_protocol import ClosedError, Credentials, LocalProtocolError, MessageTree, RemoteProtocolError
from oa_protocol.bindings.json import ChatUpdate
from oa_protocol.client.chat import Chat
from oa_protocol.server import Answer, Fault, Outcome, Reply, Reset, Step
from tests.bindings.test_own_binding import API
from tests.driver.site import Site

pytestmark = pytest.mark.anyio

CUTS: list[Outcome] = [Reset(), Reply(500, b"Internal Server Error")]


def says(*texts: str) -> list[Answer]:
    return [Answer(pieces=(text,)) for text in texts]


async def regenerated(chat: Chat) -> str:
    answer = chat.regenerate()
    async for _ in answer:
        pass
    return answer.text


def outline(tree: MessageTree) -> list[str | None]:
    """The contents of the shown branch."""
    return [message.content for message in tree.shown]


@pytest.mark.clause("OA-3.5")
async def test_an_answer_is_regenerated_and_the_next_prompt_follows_the_new_one(site: Site) -> None:
    site.script(*says("One", "Two", "Three"))
    async with site.client() as client, client.chat() as chat:
        await chat.ask("Count")
        assert await regenerated(chat) == "Two"
        assert await chat.ask("On") == "Three"
        tree = await chat.messages()
        assert outline(tree) == ["Count", "Two", "On", "Three"]
        [count] = tree.children(None)
        assert [answer.content for answer in tree.children(count)] == ["One", "Two"]
    assert site.prompts() == ["Count", "On"]
    assert site.chats == ()


@pytest.mark.clause("OA-3.4")
async def test_a_prompt_is_edited_and_the_earlier_branch_stays(site: Site) -> None:
    site.script(*says("One", "Two", "Three", "Four"))
    async with site.client() as client, client.chat() as chat:
        await chat.ask("Count")
        await chat.ask("On")
        _, one, on, two = (await chat.messages()).shown
        answer = chat.edit(on, "On, please")
        async for _ in answer:
            pass
        assert outline(await chat.messages()) == ["Count", "One", "On, please", "Three"]
        assert await chat.ask("More", after=two) == "Four"
        tree = await chat.messages()
        assert outline(tree) == ["Count", "One", "On", "Two", "More", "Four"]
        assert len(tree.children(one)) == 2


@pytest.mark.clause("OA-6.14")
@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("carried_out", [False, True])
async def test_after_a_lost_reply_to_a_regenerate_the_new_answer_comes(
    site: Site, carried_out: bool, cut: Outcome
) -> None:
    async with site.client() as client, client.chat() as chat:
        site.script(*says("One", "Two"))
        await chat.ask("Count")
        site.script(Fault("request", after=cut) if carried_out else Fault("request", before=cut))
        assert await regenerated(chat) == "Two"
        assert outline(await chat.messages()) == ["Count", "Two"]
    assert site.steps.count("request") == (2 if carried_out else 3)


@pytest.mark.clause("OA-6.14")
@pytest.mark.parametrize("step", ["prompt", "request"])
@pytest.mark.parametrize("carried_out", [False, True])
async def test_after_a_lost_reply_to_an_edit_the_new_branch_goes_on(site: Site, step: Step, carried_out: bool) -> None:
    """The new prompt has the same words as the old one."""
    async with site.client() as client, client.chat() as chat:
        site.script(*says("One", "Two", "Three"))
        await chat.ask("Count")
        await chat.ask("On")
        _, one, on, _ = (await chat.messages()).shown
        site.script(Fault(step, after=Reset()) if carried_out else Fault(step, before=Reset()))
        async for _ in chat.edit(on, "On"):
            pass
        tree = await chat.messages()
        assert outline(tree) == ["Count", "One", "On", "Three"]
        assert [[answer.content for answer in tree.children(prompt)] for prompt in tree.children(one)] == [
            ["Two"],
            ["Three"],
        ]


@pytest.mark.clause("OA-3.4")
async def test_what_cannot_be_done_is_said_before_any_request(site: Site) -> None:
    site.script(*says("One"))
    async with site.client() as client, client.chat() as chat:
        assert await chat.messages() == MessageTree()
        with pytest.raises(LocalProtocolError, match="there is no prompt in the chat"):
            await regenerated(chat)
        with pytest.raises(LocalProtocolError, match="send a prompt first"):
            await chat.rename("Numbers")
        await chat.ask("Count")
        count, one = await chat.messages()
        sent = len(site.steps)
        with pytest.raises(LocalProtocolError, match="the first prompt of a chat can't be edited: begin another chat"):
            chat.edit(count, "Count!")
        with pytest.raises(ValueError, match="is an answer"):
            chat.edit(one, "Count!")
        with pytest.raises(ValueError, match="after must be a complete answer"):
            chat.send("More", after=count)
        with pytest.raises(ValueError, match="at most 100 characters"):
            await chat.rename("t" * 101)
        assert len(site.steps) == sent
        site.script(Fault("request", before=Reply(422, b"{}")))
        with pytest.raises(Exception, match="422"):
            async for _ in chat.regenerate(one):
                pass
    with pytest.raises(ClosedError):
        await chat.keep()


def test_an_api_without_titles_says_so() -> None:
    with pytest.raises(LocalProtocolError, match="the API 'talks' can't change a chat's title"):
        API.update_chat(Credentials(token="secret"), "00000001", ChatUpdate(title="Numbers"))


@pytest.mark.clause("OA-3.7")
async def test_a_chat_is_renamed_and_hidden_and_its_branch_is_remembered(site: Site) -> None:
    site.script(*says("One", "Two"))
    async with site.client() as client, client.chat() as chat:
        await chat.ask("Count")
        await regenerated(chat)
        await chat.rename("Numbers")
        [listed] = [each async for each in client.chats()]
        assert (listed.id, listed.title, listed.hidden) == (chat.id, "Numbers", False)
        await chat.hide()
        assert [each async for each in client.chats()] == []
        [listed] = [each async for each in client.chats(include_hidden=True)]
        assert listed.hidden
        await chat.hide(hidden=False)
        _, one, _ = await chat.messages()
        await chat.show(one)
        assert site.server.chats[0].active_thread_tail_message_id == one.id
        site.script(Fault("update", before=Reply(200, b"<html>Please log in")))
        with pytest.raises(RemoteProtocolError, match="the end of a change"):
            await chat.rename("Numbers")
