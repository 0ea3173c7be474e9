"""The commands about chats that exist, and the commands of ``chat`` about its branches."""

from __future__ import annotations

import pytest

from oa_protocol.server import Answer, Fault, Reply, Server

from .command import Done, credentials, oa_protocol

UNKNOWN = "06b02a53-0000-7000-8000-000000000000"
ONE, TWO = Answer(pieces=("One",)), Answer(pieces=("Two",))

each_api = pytest.mark.parametrize("api", ["website", "inference"])


def kept(server: Server, *lines: str, api: str = "website") -> Done:
    """Chat, and keep the chat."""
    return oa_protocol("chat", "--keep", "--api", api, stdin="\n".join(lines), env=credentials(server))


@each_api
def test_kept_chats_are_listed_shown_and_deleted(server: Server, api: str) -> None:
    done = kept(server, "Count\tto  two", "and on", api=api)
    [chat] = server.chats
    assert (done.code, done.out, done.err) == (0, "Count\tto  two\nand on\n", f"Kept: chat {chat.id}\n")
    listed = oa_protocol("chats", "--api", api, env=credentials(server))
    assert listed.out == f"{chat.id}\t{chat.created_at[:10]}\tCount to two\n"
    assert [each["id"] for each in oa_protocol("chats", "--json", "--hidden", env=credentials(server)).events] == [
        chat.id
    ]
    shown = oa_protocol("show", chat.id, "--api", api, env=credentials(server))
    assert shown.out == (
        "# Count to two\n\n## You\n\nCount\tto  two\n\n## Assistant\n\nCount\tto  two\n\n"
        "## You\n\nand on\n\n## Assistant\n\nand on\n"
    )
    assert server.chats != ()
    deleted = oa_protocol("delete", chat.id, "--api", api, env=credentials(server))
    assert (deleted.code, deleted.out, deleted.err) == (0, f"{chat.id}\n", "")
    assert server.chats == ()


def test_a_chat_is_shown_as_json_with_all_branches(server: Server) -> None:
    server.script(ONE, TWO)
    kept(server, "Count", "/regenerate")
    [chat] = server.chats
    [shown] = oa_protocol("show", chat.id, "--json", env=credentials(server)).events
    assert (shown["id"], shown["title"]) == (chat.id, "Count")
    assert [message["content"] for message in shown["messages"]] == ["Count", "One", "Two"]
    assert shown["shown"] == [chat.messages[0].id, chat.messages[2].id]
    assert "*1 more message in other branches" in oa_protocol("show", chat.id, env=credentials(server)).out


def test_if_one_chat_cannot_be_deleted_the_others_still_are(server: Server) -> None:
    kept(server, "Count")
    [chat] = server.chats
    done = oa_protocol("delete", "--json", UNKNOWN, chat.id, env=credentials(server))
    assert (done.code, done.events) == (1, [{"event": "deleted", "chat_id": chat.id}])
    assert f"Not deleted: chat {UNKNOWN}" in done.err
    assert server.chats == ()


def test_a_chat_that_stays_after_all_is_named(server: Server) -> None:
    kept(server, "Count")
    [chat] = server.chats
    server.script(Fault("delete", before=Reply(403), times=2))
    done = oa_protocol("delete", chat.id, env=credentials(server))
    assert (done.code, done.out) == (6, "")
    assert f"Left behind: chat {chat.id}" in done.err


def test_no_server_no_credentials_or_no_id_is_an_error(server: Server) -> None:
    assert "there is no server that has chats" in oa_protocol("chats").err
    assert oa_protocol("show", "nonsense", env=credentials(server)).code == 2
    assert oa_protocol("delete", UNKNOWN, env={"OA_URL": server.url}).code == 3
    assert oa_protocol("show", UNKNOWN, "--api", "inference", env=credentials(server)).code == 1


@each_api
def test_an_existing_chat_goes_on(server: Server, api: str) -> None:
    kept(server, "Count", api=api)
    [chat] = server.chats
    done = oa_protocol("chat", "--open", chat.id, "--json", "--api", api, stdin="on\n", env=credentials(server))
    assert done.events[-1] == {"event": "kept", "chat_id": chat.id}
    assert [message.content for message in server.chats[0].messages] == ["Count", "Count", "on", "on"]


def test_answers_are_regenerated_and_prompts_edited(server: Server) -> None:
    server.script(ONE, TWO, Answer(pieces=("Three",)), Answer(pieces=("Four",)), Answer(pieces=("Five",)))
    done = kept(server, "Count", "/regenerate", "on", "/edit on, please", "/branch", "/branch 1", "more")
    assert (done.code, done.out) == (0, "One\nTwo\nThree\nFour\nFive\n")
    assert "  1  Count → One\n  2  on → Three\n* 3  on, please → Four\n" in done.err
    [chat] = server.chats
    by_id = {message.id: message for message in chat.messages}
    parents = {message.content: by_id[message.parent_id].content for message in chat.messages if message.parent_id}
    assert parents == {
        "One": "Count",
        "Two": "Count",
        "on": "Two",
        "Three": "on",
        "on, please": "Two",
        "Four": "on, please",
        "more": "One",
        "Five": "more",
    }


def test_in_a_chosen_branch_its_own_prompt_is_edited_and_regenerated(server: Server) -> None:
    server.script(*(Answer(pieces=(text,)) for text in ("One", "Two", "Three", "Four", "Five")))
    done = kept(server, "Count", "on", "/edit off", "/branch 1", "/edit again", "/branch 1", "/regenerate")
    assert (done.code, done.out) == (0, "One\nTwo\nThree\nFour\nFive\n")
    [chat] = server.chats
    by_id = {message.id: message for message in chat.messages}
    assert by_id[chat.messages[-1].parent_id or ""].content == "on"
    assert by_id[chat.messages[-2].parent_id or ""].content == "again"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("/regenerate", "there is no prompt in the chat"),
        ("/edit on", "there is no prompt to edit yet"),
        ("Count\n/edit on", "the first prompt of a chat can't be edited"),
        ("Count\n/branch 2", "there is no branch 2: /branch lists them"),
    ],
)
def test_what_is_not_possible_is_an_error(server: Server, lines: str, words: str) -> None:
    done = oa_protocol("chat", stdin=lines, env=credentials(server))
    assert done.code in (1, 2)
    assert words in done.err
    assert server.chats == ()


def test_a_chat_is_kept_later(server: Server) -> None:
    done = oa_protocol("chat", stdin="/keep\nCount\n/keep", env=credentials(server))
    [chat] = server.chats
    stays = "The chat stays on the server when you leave"
    assert (done.code, done.out) == (0, "Count\n")
    assert done.err == f"{stays}.\n{stays}: {chat.id}.\nKept: chat {chat.id}\n"


def test_before_anything_is_deleted_all_ids_are_checked(server: Server) -> None:
    kept(server, "Count")
    [chat] = server.chats
    done = oa_protocol("delete", chat.id, "nonsense", env=credentials(server))
    assert (done.code, done.out) == (2, "")
    assert "not an id of this protocol (a UUID): 'nonsense'" in done.err
    assert server.chats == (chat,)


def test_an_edit_without_a_text_is_an_error(server: Server) -> None:
    done = kept(server, "Count", "on", "/edit")
    assert done.code == 2
    assert "/edit needs a text: /edit TEXT" in done.err
