"""Imports a package's public names when they are first used; its stub, ``__init__.pyi``, is the one list of them.

The engine stays free of I/O that way: ``from oa_protocol import Conversation`` imports neither anyio nor httpx. Type
checkers read the stub, and so does this module.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module


def attach(package: str, file: str) -> tuple[Callable[[str], object], list[str]]:
    """Return the ``__getattr__`` and the ``__all__`` of ``package``, whose ``__init__.py`` is ``file``."""
    homes: dict[str, tuple[str, str]] = {}
    with open(f"{file.removesuffix('.py')}.pyi", encoding="utf-8") as stub:  # noqa: PTH123  # pathlib costs time in --help
        tree = ast.parse(stub.read())
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            homes.update({alias.asname or alias.name: (node.module, alias.name) for alias in node.names})

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = homes[name]
        try:
            return getattr(import_module(module), attribute)
        except AttributeError:
            return import_module(f"{module}.{attribute}")

    return find, sorted(name for name in homes if not name.startswith("_"))
