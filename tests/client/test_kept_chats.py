"""Chats that exist already, chats that stay, and the list of the account's chats."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import anyio
import pytest

from oa_protocol import (
    ChatLeakedWarning,
    Conversation,
    Credentials,
    InferenceServer,
    LocalProtocolError,
    OAError,
    Phase,
    Website,
)
from oa_protocol.client.journal import Journal
from oa_protocol.server import Answer, Fault, Hang, Hold, Reply, Reset
from tests.driver.site import Site
from tests.journal.test_sweep import make_chats

pytestmark = pytest.mark.anyio


async def kept(site: Site, *, answers: int = 1, **settings: Any) -> str:
    """Keep a chat, and return its id."""
    async with site.client(**settings) as client, client.chat(keep=True) as chat:
        site.script(*(Answer(pieces=(f"Answer {number}",)) for number in range(answers)))
        for number in range(answers):
            await chat.ask(f"Prompt {number}")
    assert client.leaked == []
    chat_id = chat.id or ""
    site.left.add(chat_id)
    return chat_id


# ---- keep


@pytest.mark.clause("OA-7.9", "OA-9.2")
async def test_a_kept_chat_is_never_swept(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    await kept(site, journal=path)
    assert Journal(path).lines() == []
    async with site.client(journal=path) as client:
        assert (await client.sweep(grace=0)).deleted == ()
    assert "delete" not in site.steps


@pytest.mark.clause("OA-7.9", "OA-9.1")
async def test_a_chat_can_be_kept_later(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with site.client(journal=path) as client, client.chat() as chat:
        await chat.ask("Hello")
        assert [line.chat_id for line in Journal(path).lines()] == [chat.id]
        await chat.keep()
        assert chat.is_kept
        assert Journal(path).lines() == []
    site.left.add(chat.id)
    assert chat.phase is Phase.KEPT


@pytest.mark.clause("OA-7.9")
async def test_a_running_answer_of_a_kept_chat_is_left_alone(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    async with site.client() as client, client.chat(keep=True) as chat:
        async for text in chat.stream("Count"):
            assert text == "One "
            break
    site.left.add(chat.id)
    assert client.leaked == []
    hold.release()
    await site.until(lambda: site.server.chats[0].messages[-1].state == "complete")


@pytest.mark.clause("OA-7.9", "OA-6.8")
async def test_a_lost_create_is_named_even_if_the_chat_is_kept(site: Site) -> None:
    site.script(Fault("create", after=Reset()))
    client = site.client()
    with pytest.warns(ChatLeakedWarning, match="id unknown"):
        async with client, client.chat(keep=True) as chat:
            await chat.ask("Hello")
    assert [record.chat_id for record in client.leaked] == [None]
    site.left = set(site.chats)
    assert len(site.left) == 2


@pytest.mark.clause("OA-7.9", "OA-9.1")
async def test_a_chat_can_be_kept_while_it_is_created(site: Site, tmp_path: Path) -> None:
    path, hold = tmp_path / "journal", Hold()
    site.script(Fault("create", after=hold))
    async with site.client(journal=path) as client, client.chat() as chat, anyio.create_task_group() as group:
        group.start_soon(chat.ask, "Hello")
        await site.reached("create")
        await chat.keep()
        hold.release()
    assert Journal(path).lines() == []
    site.left.add(chat.id)


@pytest.mark.clause("OA-7.9", "OA-9.1")
async def test_a_lost_create_stays_in_the_journal_even_if_its_owner_wants_to_keep_it(
    site: Site, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    site.script(Fault("create", after=Reset()))
    async with site.client(journal=path, retries=0) as client:
        chat = client.chat()
        with pytest.raises(OAError):
            await chat.ask("Hello")
        with pytest.raises(LocalProtocolError, match="in phase LEAKED"):
            await chat.keep()
        with pytest.warns(ChatLeakedWarning):
            await chat.aclose()
    assert [line.chat_id for line in Journal(path).lines()] == [None]
    site.left = set(site.chats)


# ---- open


@pytest.mark.clause("OA-3.6", "OA-7.9")
async def test_an_existing_chat_goes_on_and_stays(site: Site) -> None:
    chat_id = await kept(site, answers=2)
    site.script(Answer(pieces=("More.",)))
    async with site.client() as client, await client.open(chat_id) as chat:
        assert chat.is_kept
        assert await chat.ask("And?") == "More."
        assert [message.content for message in (await chat.messages()).shown][-3:] == ["Answer 1", "And?", "More."]
    assert site.chats == (chat_id,)
    assert client.leaked == []


@pytest.mark.clause("OA-3.6")
async def test_an_existing_chat_goes_on_in_the_branch_that_the_server_shows(site: Site) -> None:
    chat_id = await kept(site)
    site.script(Answer(pieces=("Other",)), Answer(pieces=("More.",)))
    async with site.client() as client, await client.open(chat_id) as chat:
        async for _ in chat.regenerate():
            pass
        _, first, _ = await chat.messages()
        await chat.show(first)
    async with site.client() as client, await client.open(chat_id) as chat:
        await chat.ask("And?")
        assert [message.content for message in (await chat.messages()).shown] == [
            "Prompt 0",
            "Answer 0",
            "And?",
            "More.",
        ]


@pytest.mark.clause("OA-7.9")
async def test_an_existing_chat_is_deleted_if_its_owner_wants_that(site: Site, tmp_path: Path) -> None:
    first, second = await kept(site), await kept(site)
    async with site.client(journal=tmp_path / "journal") as client:
        async with await client.open(first, keep=False):
            pass
        await (await client.open(second)).delete()
    assert client.leaked == []
    site.left.clear()


@pytest.mark.clause("OA-7.2")
@pytest.mark.parametrize("kind", ["new", "kept before", "opened"])
async def test_a_sweep_is_recommended_only_for_what_is_in_the_journal(site: Site, tmp_path: Path, kind: str) -> None:
    chat_id = await kept(site)
    site.script(Fault("delete", before=Reply(403), times=10))
    async with site.client(journal=tmp_path / "journal") as client:
        chat = await client.open(chat_id) if kind == "opened" else client.chat()
        await chat.ask("Hello")
        if kind == "kept before":
            await chat.keep()
        with pytest.warns(ChatLeakedWarning) as warned:
            await chat.delete()
    assert ("oa-protocol sweep" in str(warned[0].message)) == (kind == "new")
    site.left.add(chat.id)
    site.endless = True


@pytest.mark.clause("OA-7.9")
async def test_without_a_chat_there_is_nothing_to_delete(site: Site) -> None:
    async with site.client(retries=0) as client:
        await client.chat(keep=True).delete()
        chat = client.chat(keep=True)
        site.script(Fault("create", before=Reply(404)))
        with pytest.raises(OAError, match="404"):
            await chat.ask("Hello")
        await chat.delete()
    assert site.steps == ["create"]


@pytest.mark.clause("OA-7.9")
@pytest.mark.parametrize("keep", [False, True])
async def test_a_chat_that_cannot_be_opened_stays_as_it_is(site: Site, keep: bool) -> None:
    chat_id = await kept(site)
    async with site.client(retries=0) as client:
        site.script(Fault("chat", before=Reply(500, b"Internal Server Error")))
        with pytest.raises(OAError, match="500"):
            await client.open(chat_id, keep=keep)
        site.script(Fault("chat", before=Hang()))
        with anyio.move_on_after(0.05) as scope:
            await client.open(chat_id, keep=keep)
        assert scope.cancelled_caught
        with pytest.raises(ValueError, match="not an id"):
            await client.open("../account")
    assert client.leaked == []
    assert "delete" not in site.steps


@pytest.mark.clause("OA-3.6")
async def test_a_conversation_that_is_still_to_be_read_is_resumed(site: Site) -> None:
    chat_id = await kept(site)
    binding = (Website if site.api == "website" else InferenceServer)(site.server.url)
    async with site.client() as client:
        credentials = (
            Credentials(site.server.cookies) if site.api == "website" else Credentials(token=site.server.token)
        )
        conversation = Conversation(binding, credentials, chat_id=chat_id, keep=True)
        chat = await client.resume(pickle.loads(pickle.dumps(conversation)))
        assert chat.answer is None
        assert chat.phase is Phase.ANSWERED


# ---- the list


@pytest.mark.clause("OA-1.2")
async def test_all_pages_of_the_list_are_read(site: Site) -> None:
    made = await make_chats(site, 45 if site.api == "website" else 130)
    async with site.client() as client:
        found = [chat.id async for chat in client.chats()]
    assert found == made[::-1]
    assert site.steps.count("list") == (3 if site.api == "website" else 2)


async def test_a_list_that_changes_or_turns_in_a_circle_ends_and_repeats_nothing(site: Site) -> None:
    chat_id = await kept(site)
    chats = [{"id": chat_id, "title": "t" * 9_000_000, "created_at": "2026-11-28T14:38:29.355308"}]
    page = Reply(200, json.dumps({"chats": chats, "next": "again", "prev": None}).encode())
    site.script(Fault("list", before=page, times=2))
    async with site.client() as client:
        [chat] = [chat async for chat in client.chats()]
    assert chat.title == "t" * 9_000_000
