"""The command ``oa-protocol``.

Importing this module costs almost nothing, because a command imports what it needs when it runs.
"""

from __future__ import annotations

import sys

_OF_THE_EXTRA = frozenset({"click", "platformdirs", "prompt_toolkit", "rich", "starlette", "uvicorn", "websockets"})


def main() -> None:
    """Run the command line, and exit with its code."""
    try:
        from oa_protocol.cli._commands import run

        code = run()
    except KeyboardInterrupt:  # Ctrl-C during the imports; the commands handle their own
        sys.exit(130)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _OF_THE_EXTRA:
            raise
        sys.exit(f"oa-protocol needs the package {missing}, which isn't installed. Run: pip install 'oa_protocol[cli]'")
    sys.exit(code)
