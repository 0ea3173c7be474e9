"""OpenTelemetry, seen by the SDK's exporters in memory."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

otel = pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: E402
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

from oa_protocol import AnswerFailed, Cleanup, Telemetry, sync  # noqa: E402
from oa_protocol.server import Answer, Fault, Hold, Reply, Reset, Server, StreamFault, WorkerError  # noqa: E402
from tests.driver.site import Site  # noqa: E402

pytestmark = pytest.mark.anyio


class Seen:
    """What an application would see of its client."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.telemetry = Telemetry(self.tracers, self.meters)

    def span(self, name: str) -> ReadableSpan:
        (span,) = [each for each in self.exporter.get_finished_spans() if each.name.startswith(name)]
        return span

    @property
    def metrics(self) -> dict[str, Any]:
        """The sum or the count of each metric, with the attributes of its only point."""
        data = self.reader.get_metrics_data()
        found: dict[str, Any] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    (point,) = metric.data.data_points
                    found[metric.name] = (getattr(point, "value", None) or getattr(point, "count", None), point)
        return found


@pytest.fixture
def seen() -> Iterator[Seen]:
    made = Seen()
    yield made
    made.meters.shutdown()


def phases(span: ReadableSpan) -> list[object]:
    return [(event.attributes or {})["oa_protocol.phase"] for event in span.events]


async def test_a_conversation_and_its_answer_are_spans_with_the_phases_as_events(site: Site, seen: Seen) -> None:
    async with site.client(telemetry=seen.telemetry) as client, client.chat(sampling={"temperature": 0.5}) as chat:
        await chat.ask("Hello")
        chat_id, message = chat.id, chat.answer.message if chat.answer else None
    conversation, answer = seen.span("conversation"), seen.span("chat OA_SFT_Llama_30B_6")
    assert answer.parent is not None
    assert conversation.context is not None
    assert answer.parent.span_id == conversation.context.span_id
    assert dict(answer.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "open_assistant",
        "gen_ai.request.model": "OA_SFT_Llama_30B_6",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_k": 50,
        "gen_ai.request.max_tokens": 1024,
        "gen_ai.conversation.id": chat_id,
        "gen_ai.response.id": message.id if message else None,
        "server.address": "127.0.0.1",
        "server.port": int(site.server.url.rpartition(":")[2]),
    }
    assert (conversation.attributes or {})["gen_ai.conversation.id"] == chat_id
    assert phases(answer) == ["CHAT_CREATED", "PROMPTED", "ASSISTANT_REQUESTED", "STREAMING", "ANSWERED"]
    assert phases(conversation) == ["DELETING", "DELETED"]
    assert answer.status.is_unset


async def test_another_answer_to_a_prompt_has_a_span_of_its_own(site: Site, seen: Seen) -> None:
    async with site.client(telemetry=seen.telemetry) as client, client.chat() as chat:
        await chat.ask("Hello")
        async for _ in chat.regenerate():
            pass
    names = [span.name for span in seen.exporter.get_finished_spans()]
    assert names == ["chat OA_SFT_Llama_30B_6", "chat OA_SFT_Llama_30B_6", "conversation"]


async def test_answers_and_their_times_are_counted(site: Site, seen: Seen) -> None:
    async with site.client(telemetry=seen.telemetry) as client, client.chat() as chat:
        await chat.ask("Hello")
        await chat.ask("And again?")
    metrics = seen.metrics
    assert {name: count for name, (count, _) in metrics.items()} == {
        "oa_protocol.answers": 2,
        "gen_ai.client.operation.duration": 2,
        "gen_ai.client.operation.time_to_first_chunk": 2,
    }
    first = metrics["gen_ai.client.operation.time_to_first_chunk"][1]
    assert 0 < first.sum <= metrics["gen_ai.client.operation.duration"][1].sum


async def test_another_answer_to_the_same_prompt_is_a_span_too(site: Site, seen: Seen) -> None:
    async with site.client(telemetry=seen.telemetry) as client, client.chat() as chat:
        await chat.ask("Hello")
        async for _ in chat.regenerate():
            pass
    assert seen.metrics["oa_protocol.answers"][0] == 2
    assert [span.name for span in seen.exporter.get_finished_spans()].count("chat OA_SFT_Llama_30B_6") == 2


async def test_a_failure_is_counted_by_the_name_of_its_error(site: Site, seen: Seen) -> None:
    site.script(Answer(pieces=("One ", "two."), after=1, then=WorkerError("a private text")))
    async with site.client(telemetry=seen.telemetry) as client, client.chat() as chat:
        with suppress(AnswerFailed):
            await chat.ask("Hello")
    answer = seen.span("chat")
    assert (answer.status.is_ok, answer.status.description) == (False, None)
    assert (answer.attributes or {})["error.type"] == "AnswerFailed"
    count, point = seen.metrics["oa_protocol.failures"]
    assert (count, point.attributes["error.type"]) == (1, "AnswerFailed")


@pytest.mark.filterwarnings("ignore::oa_protocol.ChatLeakedWarning")
async def test_a_chat_that_is_left_is_counted(site: Site, seen: Seen) -> None:
    site.script(Fault("delete", before=Reply(500), times=3))
    cleanup = Cleanup(drain=0, attempts=3)
    async with site.client(telemetry=seen.telemetry, cleanup=cleanup) as client, client.chat() as chat:
        await chat.ask("Hello")
        site.left.add(chat.id)
    assert seen.metrics["oa_protocol.chats_left"][0] == 1
    assert (seen.span("conversation").attributes or {})["error.type"] == "Leaked"


async def test_an_answer_whose_owner_leaves_has_an_end(site: Site, seen: Seen) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    async with site.client(telemetry=seen.telemetry) as client, client.chat() as chat:
        async for _ in chat.stream("Hello"):
            break
    hold.release()
    assert (seen.span("chat").attributes or {})["error.type"] == "left"
    assert phases(seen.span("conversation"))[-1] == "DELETED"


async def test_the_owners_span_is_the_parent(site: Site, seen: Seen) -> None:
    tracer = seen.tracers.get_tracer("program")
    with tracer.start_as_current_span("work"):
        client = site.client(telemetry=seen.telemetry)
        chat = client.chat()
    async with client, chat:
        await chat.ask("Hello")
    parent, work = seen.span("conversation").parent, seen.span("work").context
    assert parent is not None
    assert work is not None
    assert parent.span_id == work.span_id


@pytest.mark.clause("OA-2.5")
async def test_no_prompt_no_answer_and_no_secret_is_seen(site: Site, seen: Seen) -> None:
    site.script(Answer(pieces=("a-private-", "piece")), StreamFault(after_events=1, then=Reset()))
    async with site.client(telemetry=seen.telemetry) as client, client.chat(system_prompt="private too") as chat:
        assert await chat.ask("A private prompt") == "a-private-piece"
    shown = "".join(span.to_json() for span in seen.exporter.get_finished_spans()) + str(seen.reader.get_metrics_data())
    for secret in ("private", "piece", site.server.token, *site.server.cookies.values()):
        assert secret not in shown


async def test_a_tape_and_telemetry_go_together(site: Site, seen: Seen) -> None:
    tape = io.StringIO()
    async with site.client(telemetry=seen.telemetry) as client, client.chat(tape=tape) as chat:
        await chat.ask("Hello")
    assert '"phase": "DELETED"' in tape.getvalue()
    assert seen.metrics["oa_protocol.answers"][0] == 1


async def test_an_exporter_that_raises_does_no_harm(site: Site, seen: Seen) -> None:
    class Broken(SimpleSpanProcessor):
        def on_start(self, *_: object, **__: object) -> None:
            raise OSError("no disk")

    seen.tracers.add_span_processor(Broken(seen.exporter))
    async with site.client(telemetry=seen.telemetry) as client, client.chat() as chat:
        assert await chat.ask("Hello")


def test_programs_without_an_event_loop_have_it_too(seen: Seen) -> None:
    with (
        Server() as server,
        sync.Client(server.url, cookies=server.cookies, telemetry=seen.telemetry) as client,
        client.chat() as chat,
    ):
        assert chat.ask("Hello")
    assert seen.metrics["oa_protocol.answers"][0] == 1


def test_nothing_is_imported_unless_it_is_asked_for() -> None:
    program = """
import sys
from oa_protocol import Client, Telemetry
Client("http://127.0.0.1:1", token="t").chat()
print([name for name in sys.modules if name.startswith("opentelemetry") or name.endswith("_observed")])
sys.modules["opentelemetry"] = None
try:
    Telemetry()
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\ntelemetry needs the extra otel: pip install 'oa_protocol[otel]'\n"
