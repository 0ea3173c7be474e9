"""Check an engine against the conformance vectors.

check [FILE…] -- COMMAND…  start COMMAND, send it the cases of the files (default: all files), and print each case
                           whose answers differ
answer                     answer the lines on stdin with this package's engine
folder                     print the folder with the vectors, and with the README.md that explains them
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from oa_protocol.tape.format import Tape, load_tapes, to_line
from oa_protocol.testing.vectors.check import check
from oa_protocol.testing.vectors.engine import Engine
from oa_protocol.testing.vectors.files import folder
from oa_protocol.testing.vectors.program import Program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Return 1 if an answer differs, otherwise 0. Exit with 2 if the arguments can't be used."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="python -m oa_protocol.testing.vectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="does", required=True)
    checking = commands.add_parser("check", usage=f"{parser.prog} check [FILE…] -- COMMAND…")
    checking.add_argument("files", metavar="FILE", nargs="*", type=Path, help="conformance vectors")
    commands.add_parser("answer")
    commands.add_parser("folder")
    end = given.index("--") if "--" in given else len(given)
    options, command = parser.parse_args(given[:end]), given[end + 1 :]
    if options.does == "answer":
        _answer()
        return 0
    if options.does == "folder":
        sys.stdout.write(f"{folder()}\n")
        return 0
    if not command:
        checking.error("the COMMAND that starts the engine is missing: write it after --")
    try:
        cases = [
            (path, case) for path in options.files or sorted(folder().glob("*.jsonl")) for case in load_tapes(path)
        ]
        program = Program(command)
    except (OSError, ValueError) as error:
        checking.error(str(error))
    try:
        return _check(cases, program)
    finally:
        program.close()


def _answer() -> None:
    engine = Engine()
    for line in sys.stdin:
        sys.stdout.write(to_line(engine.answer(json.loads(line))))
        sys.stdout.flush()


def _check(cases: Sequence[tuple[Path, Tape]], program: Program) -> int:
    differ = 0
    for path, case in cases:
        difference = check(case, program)
        if difference is not None:
            differ += 1
            clauses = ", ".join(case.clause)
            sys.stdout.write(f"{path.name}: {case.name} ({clauses})\n{difference}\n\n")
    sys.stdout.write(f"{len(cases)} cases, {differ} of them differ\n")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
