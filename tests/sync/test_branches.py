"""Branches and kept chats, for programs without an event loop."""

from __future__ import annotations

import pytest

from oa_protocol.server import Answer
from tests.driver.site import Site

from .clients import client_of

pytestmark = [pytest.mark.once, pytest.mark.clause("OA-3.4", "OA-3.5", "OA-3.6", "OA-7.9")]


def test_threads_open_and_keep_chats(site: Site) -> None:
    site.script(Answer(pieces=("One",)), Answer(pieces=("Two",)))
    with client_of(site) as client:
        with client.chat() as chat:
            chat.ask("Count")
            chat.keep()
        chat_id = chat.id or ""
        with client.open(chat_id) as again:
            assert again.is_kept
            again.ask("On")
        assert set(site.chats) == {chat_id}
        client.open(chat_id).delete()
        client.chat(keep=True).delete()
    assert site.chats == ()


def test_threads_do_the_same(site: Site) -> None:
    site.script(*(Answer(pieces=(text,)) for text in ("One", "Two", "Three", "Four")))
    with client_of(site) as client, client.chat() as chat:
        chat.ask("Count")
        assert "".join(getattr(event, "text", "") for event in chat.regenerate()) != ""
        chat.ask("On")
        *_, on, _ = chat.messages().shown
        list(chat.edit(on, "More"))
        assert [message.content for message in chat.messages().shown] == ["Count", "Two", "More", "Four"]
        chat.rename("Numbers")
        chat.hide()
        chat.show(on)
        assert [each.title for each in client.chats(include_hidden=True)] == ["Numbers"]
    assert site.chats == ()
