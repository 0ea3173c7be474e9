"""What a replay finds, and what is no tape."""

from __future__ import annotations

from pathlib import Path

import pytest

from oa_protocol.tape import Tape, load_tapes, normalize, parse_tapes, replay, transcript

from .taping import CASES, ONE_TURN

VECTORS = Path(__file__).parents[2] / "specs" / "vectors"


def changed(number: int, **fields: object) -> Tape:
    """The conversation with another step ``number``, counted from 1."""
    steps = [dict(step) for step in ONE_TURN.steps]
    steps[number - 1] |= fields
    return Tape(ONE_TURN.config, tuple(steps))


def happening(kind: str, **fields: object) -> Tape:
    return Tape(ONE_TURN.config, ({"now": 0, "input": {"type": kind, **fields}, "phase": "START"},))


def test_the_first_difference_is_reported_with_its_step() -> None:
    difference = replay(changed(4, events=[{"type": "Created", "chat_id": "another"}]))
    assert difference is not None
    assert difference.number == 4
    assert difference.expected["events"][0]["chat_id"] == "another"
    assert difference.found["events"][0]["chat_id"] == "06b02a53-f28e-708d-8000-044bde7b4953"
    assert difference.found["phase"] == "CHAT_CREATED"
    text = str(difference)
    assert text.startswith('step 4: {"now": 0.0, "input": {"type": "ReplyReceived", "status": 200')
    assert "another" in text.splitlines()[1]
    assert "06b02a53" in text.splitlines()[2]


def test_another_phase_is_a_difference() -> None:
    difference = replay(changed(2, phase="COOKIES"))
    assert difference is not None
    assert (difference.expected["phase"], difference.found["phase"]) == ("COOKIES", "START")


def test_another_deadline_is_a_difference() -> None:
    difference = replay(changed(3, deadline=60.0))
    assert difference is not None
    assert (difference.expected["deadline"], difference.found["deadline"]) == (60.0, 30.0)


def test_another_intent_is_a_difference() -> None:
    difference = replay(changed(3, intent=None))
    assert difference is not None
    assert str(difference).startswith("step 3: the next intent\n")


def test_a_call_that_the_engine_refuses_is_a_difference() -> None:
    prompt = {"now": 0, "input": {"type": "Prompt", "text": "Hello"}, "phase": "START", "deadline": None}
    tape = Tape(ONE_TURN.config, (prompt, prompt))
    difference = replay(tape)
    assert difference is not None
    assert difference.found == {"raises": "LocalProtocolError", "phase": "START", "deadline": None}


def test_a_tape_is_its_text() -> None:
    assert parse_tapes("".join(map(str, CASES.values()))) == list(CASES.values())
    (tape,) = parse_tapes(str(Tape(ONE_TURN.config, ONE_TURN.steps)))
    assert tape == Tape(ONE_TURN.config, ONE_TURN.steps)


def test_a_tape_without_a_step_is_one() -> None:
    (tape,) = parse_tapes(str(Tape(ONE_TURN.config, ())))
    assert replay(tape) is None
    assert normalize(tape).steps == ()
    assert len(list(transcript(tape))) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"now": 0}\n', "line 1 of the tape: a tape must begin"),
        ('{"config": {}}\nno JSON\n', "line 2 of the tape is not JSON"),
        pytest.param('{"config": {}}\n' + "[" * 100_000 + "\n", "line 2 of the tape is not JSON", id="deep"),
        ('{"config": {}}\n[]\n', "line 2 of the tape is not a JSON object"),
        ('{"config": 5}\n', "line 1 of the tape: it has the wrong form: Expected `object`, got `int`"),
        ('{"config": {"credentials": ""}}\n', "line 1 of the tape: .* at `\\$.config.credentials`"),
        ('{"config": {}, "name": 5}\n', "line 1 of the tape: .* at `\\$.name`"),
        ('{"config": {}}\n{"events": 5}\n', "line 2 of the tape: it has the wrong form: .* at `\\$.events`"),
        ('{"config": {}}\n{"events": [5]}\n', "line 2 of the tape: .* at `\\$.events"),
        ('{"config": {}}\n{"events": [{"type": "Leaked", "leaked": [{}]}]}\n', "line 2 of the tape: .* `chat_id`"),
        ('{"config": {}}\n{"events": [{"type": "Token", "text": 5}]}\n', "line 2 of the tape: .*text`"),
        (
            '{"config": {}}\n{"intent": {"kind": "CreateChat", "url": 5}}\n',
            "line 2 of the tape: .* at `\\$.intent.url`",
        ),
        ('{"config": {}}\n{"now": 1' + "0" * 400 + "}\n", "line 2 of the tape: .* at `\\$.now`"),
        ('{"config": {}}\n{"phase": "DANCING"}\n', "line 2 of the tape: there is no phase 'DANCING'"),
        (
            '{"config": {}}\n{"events": [{"type": "Token", "text": {"repeat": ["a", 1000000000]}}]}\n',
            "line 2 of the tape: a repeated piece has more than 268,435,456 characters",
        ),
    ],
)
def test_what_is_no_tape_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_tapes(text)


@pytest.mark.parametrize(
    ("tape", "problem"),
    [
        (Tape({"base_url": "http://oa.example.org"}, ()), "api must be one of website, inference, not None"),
        (Tape({"api": "website"}, ()), "base_url must be"),
        (Tape(ONE_TURN.config | {"credentials": {"cookies": []}}, ()), "the config has the wrong form: .*credentials"),
        (Tape(ONE_TURN.config, ({"dance": True, "phase": "START"},)), "not a step of a tape: {'dance': True"),
        (Tape(ONE_TURN.config, ({"now": "soon", "phase": "START"},)), "not a step of a tape: {'now': 'soon'"),
        (happening("Dance"), "not an input of a tape: {'type': 'Dance'}"),
        (happening("Close", wait=True), "not an input of a tape: {'type': 'Close', 'wait': True}"),
        (happening("StreamData", data=5), "not the bytes of a tape: 5"),
        (happening("StreamData", data={"base64": 5}), "not the bytes of a tape: {'base64': 5}"),
        (happening("StreamData", data={"repeat": ["ab", 10**30]}), "a repeated piece has more than"),
        (happening("ReplyReceived", status=200, headers=[]), "not an input of a tape"),
        (happening("ExchangeFailed", failure={"type": "OSError"}), "not an input of a tape"),
    ],
)
def test_a_tape_without_a_conversation_is_refused(tape: Tape, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        replay(tape)


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*.jsonl")), ids=lambda path: path.stem)
def test_the_conformance_vectors_are_tapes(path: Path) -> None:
    conversations = [tape for tape in load_tapes(path) if "api" in tape.config and not tape.raises]
    assert conversations or path.stem == "sse"
    for tape in conversations:
        assert replay(tape) is None
        assert list(transcript(tape))
