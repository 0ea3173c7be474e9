"""The code on the page on transports, in the order in which it stands there."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "transports.md"

CLIENT, H11, HTTP_CLIENT, H11_SUITE, HTTP_CLIENT_SUITE = re.findall(
    r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
