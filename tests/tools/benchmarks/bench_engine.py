"""The same by pytest-benchmark, to compare commits.

``pytest tests/tools/benchmarks/bench_engine.py --benchmark-compare``
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .engine import answered, converse
from .engine_contenders import CONTENDERS, cut, events_of, msgspec_alone, payloads_of

EVENTS = events_of(5000)
CHUNKS = {"4 KiB chunks": cut(EVENTS, 4096), "one event a chunk": EVENTS}


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("contender", CONTENDERS)
def test_reading_a_stream(benchmark: BenchmarkFixture, contender: str, chunks: str) -> None:
    benchmark.group = chunks
    assert benchmark(CONTENDERS[contender], CHUNKS[chunks]) == len(EVENTS)


@pytest.mark.benchmark(group="one event a chunk")
def test_msgspecs_decoding_alone(benchmark: BenchmarkFixture) -> None:
    assert benchmark(msgspec_alone, payloads_of(EVENTS)) == len(EVENTS)


@pytest.mark.benchmark(group="a conversation")
@pytest.mark.parametrize("work", [answered, converse])
def test_a_conversation(benchmark: BenchmarkFixture, work: object) -> None:
    assert benchmark(work)
