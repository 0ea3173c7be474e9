"""Print how long each example takes to close if DELETEs hang: ``python -m tests.tools.cleanup_table [TIMEOUT]``.

``TIMEOUT`` is ``Cleanup.timeout`` in seconds. The tables in ``docs/embedding.md`` were printed by this.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from oa_protocol import Cleanup, Conversation
from oa_protocol.engine.inputs import Close, Input
from oa_protocol.server import Fault, Hang, Lorem, Server
from tests.examples.running import ENGINE, Example, Site


class Timed(Conversation):
    """Notes when it begins to close, and when it is over."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.began = self.ended = 0.0

    def handle(self, happened: Input, now: float) -> Any:
        events = super().handle(happened, now)
        if isinstance(happened, Close):
            self.began = time.monotonic()
        if self.is_over and not self.ended:
            self.ended = time.monotonic()
        return events


def row(example: Example, hanging: int, timeout: float) -> str:
    """Return the cells for one example: the seconds until its conversation was over, and what is left."""
    with Server(Lorem(sentences=1)) as server:
        server.script(Fault("delete", before=Hang(), times=hanging))
        site = Site(server, "website")
        conversation = Timed(site.binding, site.credentials, cleanup=Cleanup(timeout=timeout))
        example.converse(conversation, ["Hello"], lambda _: None)
        named = sum(leaked.chat_id is not None for leaked in conversation.leaked)
        left = f"{len(server.chats)} left, {named} named" if server.chats else "nothing left"
        return f"{conversation.ended - conversation.began:.1f} s, {left}"


def main(timeout: float) -> None:
    """Print the table."""
    print("| example | every DELETE hangs | one DELETE hangs |")
    print("| --- | --- | --- |")
    for example in ENGINE:
        name = example.module.__name__.rpartition(".")[2]
        print(f"| {name}.py | {row(example, 1000, timeout)} | {row(example, 1, timeout)} |", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else Cleanup().timeout)
