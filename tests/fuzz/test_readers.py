"""A reader takes any bytes, or raises the error that it documents."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .mutations import mutate
from .readers import READERS

pytestmark = pytest.mark.once

HANGS = 120.0


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """If a reader hangs, end the process, so that the test has a name."""
    faulthandler.dump_traceback_later(HANGS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.parametrize("name", READERS)
def test_a_reader_takes_its_usual_input(name: str) -> None:
    reader = READERS[name]
    taken = [reader.takes(seed) for seed in reader.seeds()]
    assert any(taken)


@pytest.mark.clause("OA-5.10", "OA-6.11")
@pytest.mark.parametrize("name", READERS)
def test_a_reader_takes_or_refuses_any_bytes(name: str) -> None:
    reader = READERS[name]

    @settings(max_examples=150)
    @given(inputs(reader.seeds()))
    def check(data: bytes) -> None:
        reader.takes(data)

    check()


def inputs(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Random bytes, or a valid input with some changes."""
    randoms = st.randoms(use_true_random=False, note_method_calls=False)
    return st.binary(max_size=100) | st.builds(_changed, st.sampled_from(seeds), st.integers(1, 4), randoms)


def _changed(data: bytes, changes: int, random: Random) -> bytes:
    for _ in range(changes):
        data = mutate(data, random)
    return data
