"""Gives each reader millions of inputs, and prefers those that reach new code: ``python -m tests.fuzz.run``.

It needs atheris, which is libFuzzer for Python. Names after the command choose some of the readers. If one of them
fails, the traceback is printed, and the input is in build/fuzz. Make it a test first, for example with
``READERS["tape"].takes(Path("build/fuzz/tape/crash-…").read_bytes())``, and then fix the reader.
"""

# atheris has no types, and is installed only where this runs.
# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false, reportAttributeAccessIssue=false

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random
from subprocess import PIPE, STDOUT
from tempfile import TemporaryDirectory, mkdtemp

from .mutations import mutate

ARTIFACTS = Path("build/fuzz")
HANGS = 60
"""After how many seconds an input counts as one that hangs."""
MOST_MEMORY = 2048
"""How many megabytes a process may need."""


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one reader, and exit: atheris can't do more than that in one process."""
    import atheris

    # These modules are imported only here, because atheris changes their code to see which parts an input reaches.
    with atheris.instrument_imports(include=["oa_protocol"]):
        from .readers import READERS

    logging.disable()
    reader = READERS[name]
    artifacts = ARTIFACTS / name.replace(" ", "-")
    artifacts.mkdir(parents=True, exist_ok=True)
    corpus = mkdtemp()
    for number, seed in enumerate(reader.seeds()):
        Path(corpus, str(number)).write_bytes(seed)

    def give(data: bytes) -> None:
        reader.takes(data)

    limits = [f"-max_total_time={seconds}", f"-timeout={HANGS}", f"-rss_limit_mb={MOST_MEMORY}", "-max_len=30000"]
    arguments = [name, corpus, f"-artifact_prefix={artifacts}/", *limits, "-print_final_stats=1"]
    atheris.Setup(arguments, give, custom_mutator=_change)
    atheris.Fuzz()


def _change(data: bytes, longest: int, seed: int) -> bytes:
    """Change an input as the tests do, or as libFuzzer does, in turn."""
    import atheris

    return mutate(data, Random(seed))[:longest] if seed % 2 else atheris.Mutate(data, longest)


def fuzz_each(names: Iterable[str], seconds: int) -> list[str]:
    """Fuzz readers, each in its own process. Return the names of those that failed."""
    failed: list[str] = []
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz.run", "--here", f"--seconds={seconds}", name]
        # libFuzzer ends the process without cleaning up, so this removes its files.
        with TemporaryDirectory() as folder:
            here = {**os.environ, "TMPDIR": folder}
            done = subprocess.run(command, stdout=PIPE, stderr=STDOUT, text=True, errors="replace", env=here)
        runs = next((line.split()[-1] for line in done.stdout.splitlines() if "number_of_executed_units" in line), "0")
        print(f"{name}: {runs} inputs, {'failed' if done.returncode else 'no failure'}", flush=True)
        if done.returncode:
            print(done.stdout[-5000:])
            failed.append(name)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="the readers [default: all]")
    parser.add_argument("--seconds", type=int, default=60, help="how long each reader is fuzzed")
    parser.add_argument("--here", action="store_true", help="fuzz one reader in this process")
    options = parser.parse_args()
    if options.here:
        fuzz(options.names[0], options.seconds)
    from .readers import READERS

    return int(bool(fuzz_each(options.names or READERS, options.seconds)))


if __name__ == "__main__":
    sys.exit(main())
