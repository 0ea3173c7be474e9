"""What is checked before anything lands: ``nox`` runs it all, ``nox -s tests`` the tests alone."""

import subprocess

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


def install(session: nox.Session, group: str) -> None:
    session.install("-e", ".[cli,server]", *nox.project.dependency_groups(PROJECT, group))


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Both type checkers, both strict."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests, on each Python that is here: the longest on the oldest alone, the core's coverage on the newest."""
    install(session, "test")
    pytest = ["pytest", "--numprocesses=auto", "--dist=worksteal"]
    if session.python != PYTHONS[0]:
        pytest += ["-m", "not once"]
    if session.python != PYTHONS[-1] or session.posargs:
        session.run(*pytest, *session.posargs)
        return
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", *pytest)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--fail-under=100", "--include", ",".join(CORE))


@nox.session
def docs(session: nox.Session) -> None:
    """The README's commands, in an environment as new as its reader's."""
    install(session, "test")
    session.run("pytest", "tests/docs/readme_commands.py", *session.posargs)


CORE = [
    "oa_protocol/phases.py",
    "oa_protocol/conversation.py",
    "oa_protocol/turn.py",
    "oa_protocol/wire/*",
    "oa_protocol/finalize.py",
    "oa_protocol/driver.py",
]
