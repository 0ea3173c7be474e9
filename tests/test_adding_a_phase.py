"""Each item of the checklist "Adding a phase" (docs/architecture.md) fails loudly if it is forgotten."""

from __future__ import annotations

import json
import re
from inspect import get_annotations
from pathlib import Path
from typing import cast

import pytest

from oa_protocol.bindings.base import Binding, Credentials
from oa_protocol.engine.intents import EXCHANGES, Exchange, HttpRequest
from oa_protocol.engine.phases import Phase
from oa_protocol.server import core
from oa_protocol.tape.format import Json
from oa_protocol.testing._model.ledger import COUNTED, Ledger
from oa_protocol.testing._model.server import read_request
from oa_protocol.testing.strategies import FAULTY
from tests.adding_a_phase import EDITS, ROOT, Copy
from tests.bindings.test_bindings import ROWS

WALK = """
from oa_protocol import *
CHAT, PROMPT = "06b02a54-89e8-7932-8000-0fb1fa73d8de", "06b02a54-8a8e-7be5-8000-08c00366f721"
conversation = Conversation(InferenceServer("http://oa.test"), Credentials(token="t"))
conversation.handle(Prompt("Hello"), 0.0)
for reply in (CHAT, "", PROMPT):
    print(conversation.next_intent(0.0))
    conversation.handle(ReplyReceived(200, (), b'{"id": "%s"}' % reply.encode()), 0.0)
print(conversation.phase.name)
"""
PHASES_MD = (
    "from tests.tools.phases import *; print('same' if PAGE.read_text(encoding='utf-8') == phases_md() else 'old')"
)
PICTURE = "from tests.tools.phases import *; print(phases_svg())"
TABLE = "from tests.request_table import *; print('SetTitle' in STEPS)"
LEDGER = "from oa_protocol.testing._model.ledger import *; print(Ledger()._counted(SetTitle(None), 1).titles)"
UNCOUNTED = """
from oa_protocol.engine.intents import EXCHANGES
from oa_protocol.testing._model.ledger import COUNTED
print(*{kind.__name__ for kind in EXCHANGES if kind.is_write and kind not in COUNTED})
"""
UNEXPORTED = """
import oa_protocol
from oa_protocol.engine.intents import EXCHANGES
print(*{kind.__name__ for kind in EXCHANGES} - set(oa_protocol.__all__))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The copy in which nothing is forgotten."""
    return Copy(tmp_path_factory.mktemp("whole"))


def checklist() -> list[str]:
    """The items of the checklist in their order, by the words in bold."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("## Adding a phase")[2].partition("\n## ")[0]
    return re.findall(r"^\d+\. \*\*(.+?)\*\*", section, re.MULTILINE)


def test_the_checklist_has_the_edits_in_their_order() -> None:
    by_item = [edit.item for edit in EDITS]
    assert [item for item in checklist() if item in by_item] == by_item


def test_with_every_edit_the_phase_works(whole: Copy) -> None:
    assert whole.run(WALK) == "PROMPTED"
    assert whole.run(TABLE) == "True"
    assert whole.run(LEDGER) == "1"
    assert whole.run(UNCOUNTED) == whole.run(UNEXPORTED) == ""


@pytest.mark.parametrize(
    ("item", "program", "words"),
    [
        ("group", WALK, "TypeError: TITLED is in no group"),
        ("trigger", WALK, "AttributeError: .*TITLED"),
        ("transition", WALK, "TypeError: TITLED is never reached"),
        ("transition onwards", WALK, "transitions.core.MachineError: 'PROMPTED is not possible in phase TITLED'"),
        ("exchange", WALK, "ImportError: cannot import name 'SetTitle'"),
        ("handler", WALK, "AttributeError: .*has no attribute '_on_title'"),
        ("step", WALK, "TypeError: STEPS has no row for TITLED"),
        ("step of the exchange", WALK, "TypeError: STEPS has no row for SetTitle"),
        ("spelling", WALK, "TypeError: no request spells SetTitle"),
        ("specification", TABLE, "AssertionError"),
        ("request table", TABLE, "AssertionError"),
        ("next intent", PHASES_MD, "KeyError: <Phase.TITLED"),
        ("picture", PICTURE, "KeyError: <Phase.TITLED"),
        ("public name", UNEXPORTED, "SetTitle"),
        ("ledger", UNCOUNTED, "SetTitle"),
        ("ledger's field", LEDGER, "AttributeError: 'Ledger' object has no attribute 'titles'"),
    ],
)
def test_what_is_forgotten_fails_at_once(item: str, program: str, words: str, tmp_path: Path) -> None:
    assert re.fullmatch(f"{words}.*", Copy(tmp_path, item).run(program))


def test_a_page_of_phases_that_was_not_drawn_again_is_old(whole: Copy) -> None:
    """tests/engine/test_phases.py compares them."""
    assert whole.run(PHASES_MD) == "old"


@pytest.mark.once
def test_mypy_finds_a_forgotten_phase_in_a_match_and_a_binding_that_lacks_the_request(tmp_path: Path) -> None:
    copy = Copy(tmp_path, "way out", "state key", "website binding", "inference binding")
    found = copy.mypy("oa_protocol/engine", "oa_protocol/tape/format.py", "oa_protocol/testing/_model/state_key.py")
    assert re.findall(r"^(\S+\.py):\d+: error: (.*?)[;\"] ", found, re.MULTILINE) == [
        ("oa_protocol/engine/moves.py", 'Argument 1 to "assert_never'),
        ("oa_protocol/tape/format.py", 'Argument 1 to "Conversation'),
        ("oa_protocol/testing/_model/state_key.py", 'Argument 1 to "assert_never'),
    ]
    assert found.splitlines()[-1].startswith("Found 3 errors")
    assert found.count("Literal[Phase.TITLED]") == 2


@pytest.mark.once
def test_mypy_finds_a_request_that_is_no_method_of_a_binding(tmp_path: Path) -> None:
    found = Copy(tmp_path, "binding").mypy("oa_protocol/engine/steps.py")
    assert '"Binding" has no attribute "set_title"' in found


def test_an_exchange_has_every_fact_in_its_definition() -> None:
    with pytest.raises(TypeError, match=r"^SetTitle doesn't say is_write, is_counted$"):
        type("SetTitle", (Exchange,), {"doing": "setting the title"})
    assert "SetTitle" not in {kind.__name__ for kind in EXCHANGES}


def test_a_request_that_the_server_does_not_know_is_refused_by_the_model() -> None:
    with pytest.raises(ValueError, match="no such request"):
        read_request(HttpRequest("PUT", "http://oa.test/chats/1/title", ()))


# ---- what each phase and each exchange of the package itself must have


def recorded() -> tuple[set[str], dict[str, HttpRequest]]:
    """The phases in the conformance vectors, and one request of each kind of exchange."""
    phases: set[str] = set()
    requests: dict[str, HttpRequest] = {}
    for path in sorted((ROOT / "specs" / "vectors").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            step: Json = json.loads(line)
            phases.add(step.get("phase", "START"))
            intent: Json = step.get("intent") or {}
            if "url" in intent:
                requests[intent["kind"]] = HttpRequest(intent["method"], intent["url"], ())
    return phases, requests


def test_the_vectors_have_every_phase_and_every_exchange() -> None:
    phases, requests = recorded()
    assert phases == {phase.name for phase in Phase}
    assert requests.keys() == {kind.__name__ for kind in EXCHANGES}


def test_faults_are_drawn_for_whatever_the_engine_asks_for() -> None:
    _, requests = recorded()
    asked = {core.step_of(core.Request(request.method, request.target)) for request in requests.values()}
    assert asked <= {*FAULTY, "events"}


def test_the_explorer_counts_every_write() -> None:
    assert {kind for kind in EXCHANGES if kind.is_write} <= COUNTED.keys()
    assert set(COUNTED.values()) <= set(Ledger._fields)


def test_every_request_of_a_binding_is_in_the_tests_table() -> None:
    spelled: list[str] = []

    class Noting:
        def __getattr__(self, name: str) -> object:
            spelled.append(name)
            return self._nothing

        def _nothing(self, *_: object, **__: object) -> None: ...

    for _, _, _, spell, *_ in ROWS:
        spell(cast("Binding", Noting()), Credentials())
    requests = {
        name
        for name, method in vars(Binding).items()
        if callable(method) and str(get_annotations(method).get("return")).startswith("HttpRequest")
    }
    assert set(spelled) == requests
