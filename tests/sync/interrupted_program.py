"""A program that somebody interrupts: ``python -m tests.sync.interrupted_program API``."""

import signal
import sys
from types import FrameType
from typing import cast

from oa_protocol import Cleanup, sync
from tests.driver.site import Api


def main() -> None:
    with sync.Client(api=cast("Api", sys.argv[1]), cleanup=Cleanup(drain=0)) as client, client.chat() as chat:
        for _ in chat.stream("Hello"):
            print("streaming", flush=True)


def leave(number: int, frame: FrameType | None) -> None:
    sys.exit(3)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    main()
