"""Imports point downwards, and the engine imports nothing that can do I/O."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "oa_protocol"
IO = ("anyio", "asyncio", "httpx", "selectors", "socket", "ssl")


def layer(folder: str) -> list[str]:
    return [folder, *(f"{folder}.{path.stem}" for path in sorted((PACKAGE / folder).glob("[a-z]*.py")))]


BASE = ["_version", "bindings._base_url", "bindings._secrets"]
LEAVES = ["engine", "engine.phases", "engine.events", "engine.intents", "engine.errors"]
BINDINGS, ENGINE, TAPE = (
    layer("bindings"),
    layer("engine"),
    [*layer("tape"), "tape._form", "tape._har_file", "tape._page", "tape._phases_svg", "tape._words"],
)

BLOCK = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {IO!r}:
            raise ImportError(f"{{name}} is blocked")

for name in [name for name in sys.modules if name.partition(".")[0] in {IO!r}]:
    del sys.modules[name]
sys.meta_path.insert(0, Blocked())
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", [*BINDINGS, *ENGINE, *TAPE])
def test_the_engine_imports_if_nothing_can_do_io(name: str) -> None:
    run(f"{BLOCK}\nimport oa_protocol.{name}")


def test_the_block_works() -> None:
    assert "blocked" in run(f"{BLOCK}\ntry:\n    import asyncio\nexcept ImportError as error:\n    print(error)")


def test_an_engine_without_io_speaks() -> None:
    program = """
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.inputs import Prompt
from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.website import Website
conversation = Conversation(Website("http://127.0.0.1"), Credentials(token="t"))
conversation.handle(Prompt("Hello"), 0.0)
print(conversation.next_intent(0.0).request.url)
"""
    assert run(BLOCK + program).strip() == "http://127.0.0.1/api/chat"


def test_the_public_names_of_the_engine_import_if_nothing_can_do_io() -> None:
    run(f"{BLOCK}\nfrom oa_protocol import AnswerOptions, Conversation, Credentials, InferenceServer, Phase, Website")


def test_importing_the_package_imports_neither_httpx_nor_anyio() -> None:
    program = "import oa_protocol, sys; print(*sorted({'httpx', 'anyio', 'httpcore', 'starlette'} & set(sys.modules)))"
    assert run(program).strip() == ""


def imports_of(name: str) -> set[str]:
    """Return the modules of this package that its module ``name`` imports, at the top or in a function."""
    path = PACKAGE / name.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            assert node.module is not None
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    ours = {module.removeprefix("oa_protocol.") for module in found if module.split(".")[0] == "oa_protocol"}
    return {_module(module) for module in ours}


def _module(imported: str) -> str:
    """``events`` for ``events.Token``."""
    parts = imported.split(".")
    while parts and not (PACKAGE.joinpath(*parts).with_suffix(".py").exists() or PACKAGE.joinpath(*parts).is_dir()):
        parts.pop()
    return ".".join(parts)


@pytest.mark.parametrize(
    ("names", "may_import"),
    [
        pytest.param(["engine.phases", "engine.errors", "engine.intents"], [], id="leaves"),
        pytest.param(["engine.events"], ["engine.errors"], id="events"),
        pytest.param(BINDINGS, [*BASE, *LEAVES, *BINDINGS], id="bindings"),
        pytest.param(ENGINE, [*BINDINGS, *ENGINE], id="engine"),
        pytest.param(TAPE, ["bindings._secrets", *BINDINGS, *ENGINE, *TAPE], id="tape"),
    ],
)
def test_imports_point_downwards(names: list[str], may_import: list[str]) -> None:
    for name in names:
        assert imports_of(name) <= set(may_import), name


LAYERS = {
    "bindings": {"engine"},  # its leaves only, see above
    "engine": {"bindings"},
    "tape": {"bindings", "engine"},
    "transports": {"engine"},
    "client": {"bindings", "engine", "tape", "transports"},
    "models": {"bindings"},
    "server": {"models"},
    "worker": {"engine", "models"},
    "testing": {"bindings", "engine", "server", "tape", "transports"},
    "watching": {"client", "engine", "server", "tape"},
    "cli": {"bindings", "client", "engine", "models", "server", "tape", "transports", "watching", "worker"},
}
"""Which folders a folder may import, as the table in docs/architecture.md says."""


@pytest.mark.parametrize("folder", LAYERS)
def test_a_layer_imports_only_those_below(folder: str) -> None:
    names = [path.relative_to(PACKAGE).with_suffix("").as_posix() for path in (PACKAGE / folder).rglob("*.py")]
    found = {module.partition(".")[0] for name in names for module in imports_of(name.removesuffix("/__init__"))}
    assert found - {folder, "", "_lazy", "_version"} == LAYERS[folder]


def test_every_folder_is_a_layer() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == LAYERS.keys()
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \| .* \| (.*) \|$", page, re.MULTILINE)
    assert {folder: set(re.findall(r"`(\w+)`", below)) for folder, below in rows} == LAYERS


def test_a_leafs_imports_are_seen() -> None:
    assert imports_of("engine.events") == {"engine.errors"}
    assert "bindings.replies" in imports_of("engine.conversation")
