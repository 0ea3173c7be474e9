"""The loop that is printed, left at every event and at every intent: the chat is deleted, or named."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Literal

import pytest

from oa_protocol import Cleanup, Conversation
from oa_protocol.server import Answer, Server
from tests.docs.test_embedding import CODE

pytestmark = pytest.mark.clause("OA-7.2")

How = Literal["break", "exception", "interruption"]


class Boom(Exception):
    pass


class Countdown:
    """Leaves in this way at the thing of this number."""

    def __init__(self, how: How, number: int) -> None:
        self.how = how
        self.remaining = number

    def __call__(self) -> bool:
        self.remaining -= 1
        if self.remaining == 0 and self.how != "break":
            raise Boom if self.how == "exception" else KeyboardInterrupt
        return self.remaining == 0


def converse(server: Server, event: Callable[[], bool], intent: Callable[[], bool]) -> Conversation:
    """Run the page's loop as it is printed, but call these at each event and each intent."""
    loop = re.sub(r"load_cookies\(.*?\)", repr(server.cookies), CODE[3].replace("https://oa.example.org", server.url))
    loop = loop.replace('print(*events, sep="\\n")', "if any([event() for _ in events]): break")
    assert "event()" in loop
    names: dict[str, Any] = {"event": event}
    exec("".join(CODE[1:3]), names)
    carry_out = names["Driver"].carry_out

    def counted(self: Any, wanted: object) -> Any:
        if wanted is not None:
            intent()
        return carry_out(self, wanted)

    names["Driver"].carry_out = counted
    names["Conversation"] = partial(Conversation, cleanup=Cleanup(drain=0.05, timeout=1.0))
    with suppress(Boom, KeyboardInterrupt):
        exec(loop, names)
    found: Conversation = names["conversation"]
    return found


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("event", "break"),
        ("event", "exception"),
        ("event", "interruption"),
        ("intent", "exception"),
        ("intent", "interruption"),
    ],
)
def test_the_printed_loop_is_left_at_every_point(what: str, how: How) -> None:
    known: set[str] = set()
    with Server() as server:
        for number in count(1):
            server.script(Answer(pieces=("One ", "two.")))
            at, never = Countdown(how, number), Countdown(how, 0)
            conversation = converse(server, *((at, never) if what == "event" else (never, at)))
            named = {leaked.chat_id for leaked in conversation.leaked}
            left = {chat.id for chat in server.chats} - known
            assert conversation.is_over
            assert left <= named, f"{what} {number}"
            known |= left
            if at.remaining > 0:
                return
