"""A phase with a request of its own, added to a copy of the package: the chat gets a title before its first prompt.

Each edit is one item of the checklist in docs/architecture.md, under the same name and in the same order.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Edit(NamedTuple):
    """In ``path``, put ``new`` before ``mark``, which occurs there once."""

    item: str
    path: str
    mark: str
    new: str


_SPELLED = '''    def set_title(self, credentials: Credentials, chat_id: str) -> HttpRequest:
        """Give the chat its title."""
        {}

'''
_PUT = 'return build_request("PUT", {}, credentials, body=b"{{}}")'
_FACTS = """    doing: ClassVar[str] = "setting the title"
    is_write: ClassVar[bool] = True
    is_counted: ClassVar[bool] = True
"""
_HANDLER = """    def _on_title(self, outcome: Outcome, events: Events) -> None:
        if not isinstance(outcome, Reply) or not outcome.is_success:
            self._try_again(self._problem(SetTitle, outcome), outcome)
            return
        self._move(Trigger.TITLED)
        self._begin_step()

"""

EDITS = (
    Edit("phase", "oa_protocol/engine/phases.py", '    PROMPT_LOST = "whether', '    TITLED = "the title"\n'),
    Edit("group", "oa_protocol/engine/phases.py", "*_IDLE, _P.PROMPT_LOST, _P.PROMPTED)\n", "_P.TITLED, "),
    Edit("trigger", "oa_protocol/engine/phases.py", "    CREATE_FAILED =", '    TITLED = "the title is set"\n'),
    Edit(
        "transition",
        "oa_protocol/engine/phases.py",
        "    (Trigger.CREATE_FAILED,",
        "    (Trigger.TITLED, (_P.CHAT_CREATED,), _P.TITLED),\n",
    ),
    Edit("transition onwards", "oa_protocol/engine/phases.py", "*_IDLE, _P.PROMPT_LOST), _P.PROMPTED)", "_P.TITLED, "),
    Edit(
        "exchange",
        "oa_protocol/engine/intents.py",
        "class SendPrompt(",
        f'class SetTitle(Exchange, frozen=True):\n    """Set the title."""\n\n{_FACTS}\n\n',
    ),
    Edit("import", "oa_protocol/engine/steps.py", "    SendPrompt,\n)", "    SetTitle,\n"),
    Edit("handler", "oa_protocol/engine/steps.py", "    # ---- prompt\n", _HANDLER),
    Edit(
        "step of the exchange",
        "oa_protocol/engine/steps.py",
        "Step(SendPrompt, Steps._on_prompt, _has_turn)],\n    Phase.ANSWERED",
        "Step(SetTitle, Steps._on_title, _has_turn), ",
    ),
    Edit(
        "step",
        "oa_protocol/engine/steps.py",
        "    Phase.ANSWERED: [",
        "    Phase.TITLED: [Step(SendPrompt, Steps._on_prompt, _has_turn)],\n",
    ),
    Edit(
        "spelling",
        "oa_protocol/engine/steps.py",
        "        turn = self._current\n        if kind is SendPrompt:",
        "        if kind is SetTitle:\n            return api.set_title(credentials, chat_id)\n",
    ),
    Edit("way out", "oa_protocol/engine/moves.py", "Phase.PROMPT_LOST\n", "Phase.TITLED\n                | "),
    Edit("binding", "oa_protocol/bindings/base.py", "    def send_prompt(", _SPELLED.format("...")),
    Edit(
        "inference binding",
        "oa_protocol/bindings/inference.py",
        "    def send_prompt(",
        _SPELLED.format(_PUT.format("self._chat(chat_id)")),
    ),
    Edit(
        "website binding",
        "oa_protocol/bindings/website.py",
        "    def send_prompt(",
        _SPELLED.format(_PUT.format('f"{self.base_url}/api/chat?chat_id={check_id(chat_id)}"')),
    ),
    Edit(
        "specification",
        "specs/protocol.md",
        "| send the prompt |",
        "| set the title | `PUT /api/chat?chat_id=` | `PUT /chats/{chat_id}` |\n",
    ),
    Edit(
        "request table",
        "tests/request_table.py",
        '    "send the prompt"',
        '    "set the title": ("title", "SetTitle"),\n',
    ),
    Edit("next intent", "tests/tools/phases.py", "    Phase.PROMPT_LOST:", '    Phase.TITLED: "SendPrompt",\n'),
    Edit("picture", "oa_protocol/tape/_phases_svg.py", "    P.PROMPT_LOST: (", "    P.TITLED: (350, 130),\n"),
    Edit("public name", "oa_protocol/__init__.pyi", "from oa_protocol.engine.phases", (
        "from oa_protocol.engine.intents import SetTitle as SetTitle\n"
    )),
    Edit(
        "state key",
        "oa_protocol/testing/_model/state_key.py",
        "Phase.PROMPT_LOST | Phase.ANSWERED",
        "Phase.TITLED | ",
    ),
    Edit(
        "ledger",
        "oa_protocol/testing/_model/ledger.py",
        '    SendPrompt: "prompts",',
        '    SetTitle: "titles",\n',
    ),
    Edit("ledger's field", "oa_protocol/testing/_model/ledger.py", "    prompts: int = 0\n", "    titles: int = 0\n"),
    Edit("ledger's import", "oa_protocol/testing/_model/ledger.py", "    SendPrompt,\n)", "    SetTitle,\n"),
)  # fmt: skip


class Copy:
    """A copy of the package, with the edits that are not forgotten."""

    def __init__(self, path: Path, *forgotten: str) -> None:
        self.path = path
        for folder in ("oa_protocol", "specs"):
            shutil.copytree(ROOT / folder, path / folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests" / "tools", path / "tests" / "tools")
        for name in ("__init__.py", "request_table.py"):
            shutil.copy(ROOT / "tests" / name, path / "tests")
        for edit in EDITS:
            if edit.item not in forgotten:
                self._make(edit)

    def _make(self, edit: Edit) -> None:
        path = self.path / edit.path
        text = path.read_text(encoding="utf-8")
        assert text.count(edit.mark) == 1, f"{edit.item}: {edit.mark!r} occurs {text.count(edit.mark)} times"
        path.write_text(text.replace(edit.mark, edit.new + edit.mark), encoding="utf-8")

    def run(self, program: str) -> str:
        """Run a program in the copy; return the last line that it prints."""
        return self._run("-c", program).splitlines()[-1]

    def mypy(self, *paths: str) -> str:
        """Return what mypy says of some of its files."""
        settings = ["--strict", "--enable-error-code=exhaustive-match", "--cache-dir", str(self.path / "cache")]
        return self._run("-m", "mypy", *settings, *paths)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.path,
            env={"PYTHONPATH": str(self.path), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return done.stdout
