"""The benchmarks run, and every contender reads the whole stream."""

import pytest

from .engine import answered, converse, main
from .engine_contenders import CONTENDERS, cut, events_of, msgspec_alone, payloads_of

pytestmark = pytest.mark.once


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize("contender", CONTENDERS)
def test_a_contender_reads_every_event(contender: str, size: int) -> None:
    assert CONTENDERS[contender](cut(events_of(20), size)) == 20


def test_the_limit_is_that_of_the_same_events() -> None:
    assert msgspec_alone(payloads_of(events_of(20))) == 20


def test_the_conversations_are_whole() -> None:
    assert answered().awaits_prompt
    assert converse().is_chat_gone


def test_the_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--runs", "1", "--tokens", "100"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*CONTENDERS, "heap", "import oa_protocol", "--help"))
