"""Takes the pictures of pages in docs/: ``python -m tests.tools.pictures``. It needs Chromium.

The pages are of conformance vectors, so the same pages give the same pictures.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from oa_protocol.tape import load_tapes, to_html

ROOT = Path(__file__).parents[2]
SHOWN = "a stream that was cut is polled, not opened again, for the rest"


def tape_page() -> str:
    """Return the page of a tape with a fault."""
    tapes = load_tapes(ROOT / "specs" / "vectors" / "recovery.jsonl")
    return to_html(next(tape for tape in tapes if tape.name == SHOWN))


def take(page: str, picture: Path, width: int, height: int) -> None:
    """Write a picture of ``page``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "page.html")
        file.write_text(page, encoding="utf-8")
        # A container's root may not use Chromium's sandbox. The page is ours, and has no scripts.
        command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={width},{height}"]
        subprocess.run([*command, f"--screenshot={picture}", file.as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    take(tape_page(), ROOT / "docs" / "tape.png", 1000, 1150)
    sys.stdout.write("docs/tape.png\n")
