"""Search for a way to break the engine's promises: everything that owner, network and server can do, in every order."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace

from oa_protocol.bindings.base import Binding
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.website import Website
from oa_protocol.engine.timers import Timeouts
from oa_protocol.testing.explorer import SHORT_CLEANUP, SHORT_TIMEOUTS, Explorer

_BINDINGS: dict[str, Binding] = {
    "website": Website("http://oa.test"),
    "inference": InferenceServer("http://oa.test"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, and print what was found. Return 1 if an invariant doesn't hold, otherwise 0."""
    parser = argparse.ArgumentParser(prog="python -m oa_protocol.testing.explore", description=__doc__)
    parser.add_argument("--api", choices=list(_BINDINGS), action="append", help="default: both")
    parser.add_argument("--faults", type=int, default=2, help="most faults in one story (default: 2)")
    parser.add_argument("--turns", type=int, default=2, help="prompts that the owner has (default: 2)")
    parser.add_argument("--retries", type=int, default=1, help="how often each step is tried again (default: 1)")
    parser.add_argument("--attempts", type=int, default=2, help="most DELETEs of a chat (default: 2)")
    parser.add_argument(
        "--timeout",
        type=_timeout,
        action="append",
        metavar="NAME=SECONDS",
        help="a field of Timeouts, such as answer=4",
    )
    parser.add_argument("--existing", action="store_true", help="begin with a chat that exists, and use its branches")
    parser.add_argument("--depth", type=int, help="most steps of one story (default: no limit)")
    given = parser.parse_args(arguments)
    for api in given.api or _BINDINGS:
        began = time.monotonic()
        found = Explorer(
            _BINDINGS[api],
            faults=given.faults,
            turns=given.turns,
            retries=given.retries,
            timeouts=replace(SHORT_TIMEOUTS, **dict(given.timeout or ())),
            cleanup=replace(SHORT_CLEANUP, attempts=given.attempts),
            existing=given.existing,
            depth=given.depth,
        ).run()
        took = time.monotonic() - began
        sys.stdout.write(
            f"{api}: {found.states:,} states, {found.transitions:,} transitions, depth {found.depth}, "
            f"{len(found.phases)} phases, {took:.0f} s\n"
        )
        if found.violation is not None:
            sys.stdout.write(f"{found.violation}\n")
            return 1
    return 0


def _timeout(text: str) -> tuple[str, float]:
    name, _, seconds = text.partition("=")
    if name not in {field.name for field in fields(Timeouts)}:
        raise argparse.ArgumentTypeError(f"Timeouts has no field {name!r}")
    return name, float(seconds)


if __name__ == "__main__":
    sys.exit(main())
