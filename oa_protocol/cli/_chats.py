"""The commands ``chats``, ``show`` and ``delete``, about chats that exist already."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import asdict

from oa_protocol.bindings.ids import check_id
from oa_protocol.bindings.tree import MessageTree
from oa_protocol.cli._terminal import Terminal
from oa_protocol.client.client import Client
from oa_protocol.engine.errors import AuthenticationError, OAError
from oa_protocol.engine.phases import Phase

_LONGEST_TITLE = 60
_SPEAKERS = {"prompter": "You", "assistant": "Assistant"}


async def list_chats(client: Client, terminal: Terminal, *, json: bool, hidden: bool) -> None:
    """Print the account's chats, the newest first: the id, the date, and the beginning of the title."""
    terminal.progress("listing the chats…")
    async for chat in client.chats(include_hidden=hidden):
        if json:
            terminal.record(asdict(chat))
        else:
            terminal.line(f"{chat.id}\t{(chat.created_at or '')[:10]}\t{shortened(chat.title or '(empty)')}")


async def show(client: Client, terminal: Terminal, chat_id: str, *, json: bool) -> None:
    """Print a chat: all messages as JSON, or the shown branch as Markdown."""
    terminal.progress("reading the chat…")
    async with await client.open(chat_id) as chat:
        tree = await chat.messages()
    if json:
        messages = [asdict(message) for message in tree]
        shown = [message.id for message in tree.shown]
        terminal.record({"id": chat_id, "title": tree.title, "messages": messages, "shown": shown})
    else:
        terminal.line(as_markdown(tree))


async def delete(client: Client, terminal: Terminal, chat_ids: Sequence[str], *, json: bool) -> None:
    """Delete chats, and print the ids of those that are gone. An answer that is running is waited for first.

    If a chat can't be deleted, the others still are. Then the first error is raised.

    Raises:
        ValueError: One of them isn't an id. Nothing is deleted.

    """
    for chat_id in chat_ids:
        check_id(chat_id)
    failed: list[OAError] = []
    for chat_id in chat_ids:
        terminal.progress(f"deleting chat {chat_id}…")
        try:
            chat = await client.open(chat_id, keep=False)
            await chat.delete()
        except AuthenticationError:
            raise
        except OAError as error:
            terminal.complain(f"Not deleted: chat {chat_id}")
            failed.append(error)
            continue
        if chat.phase is not Phase.DELETED:
            continue  # it is named in ``client.leaked``
        if json:
            terminal.record({"event": "deleted", "chat_id": chat_id})
        else:
            terminal.line(chat_id)
    if failed:
        raise failed[0]


def as_markdown(tree: MessageTree) -> str:
    """Return the shown branch as Markdown, and how many messages other branches have."""
    shown = tree.shown
    parts = [f"# {shortened(tree.title or '(empty)')}"]
    for message in shown:
        content = message.content if message.content is not None else f"({message.state})"
        parts += [f"## {_SPEAKERS.get(message.role, message.role)}", content]
    if others := len(tree) - len(shown):
        parts.append(f"*{others} more message{'s' if others > 1 else ''} in other branches: --json prints all.*")
    return "\n\n".join(parts)


def shortened(text: str) -> str:
    """Return the beginning of a text, as one line."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_TITLE else f"{line[: _LONGEST_TITLE - 1]}…"
