"""OpenTelemetry for a client: ``Client(telemetry=Telemetry())``. It needs the extra ``otel``.

There are no prompts, answers, error texts or secrets in the spans and metrics.

The names that begin with ``gen_ai`` are those of OpenTelemetry's semantic conventions for generative AI. They are
literals, because these conventions are still in development, in a repository of their own and without a package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from oa_protocol._version import __version__
from oa_protocol.bindings.base import AnswerOptions, Binding
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.events import Answered, Created, Event, Failed, Leaked, Requested, Token
from oa_protocol.engine.inputs import Abandon, Close, Input, Prompt, Regenerate

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Histogram, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from oa_protocol.client._observed import Observer

Attributes = dict[str, str | int | float | bool]

# The boundaries that the conventions recommend, in seconds.
_SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]


class Telemetry:
    """Spans and metrics about the conversations of a client. One object may be used for several clients.

    Each conversation is a span, from its first prompt until its chat is gone or named. Below it, each answer is a span
    ``chat {model}``. Each phase is an event of the innermost span. The parent is the span in which you called
    ``Client.chat``. A conversation that you ``resume`` isn't observed.

    The metrics are the counters ``oa_protocol.answers``, ``oa_protocol.failures`` and ``oa_protocol.chats_left``, and
    the histograms ``gen_ai.client.operation.duration`` and ``gen_ai.client.operation.time_to_first_chunk``, in seconds
    from the prompt.

    Args:
        tracer_provider: where the spans go. By default, the global provider.
        meter_provider: where the metrics go. By default, the global provider.

    Raises:
        ImportError: ``opentelemetry-api`` isn't installed.

    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise ImportError("telemetry needs the extra otel: pip install 'oa_protocol[otel]'") from error
        meter = metrics.get_meter("oa_protocol", __version__, meter_provider)
        self._instruments = _Instruments(
            trace.get_tracer("oa_protocol", __version__, tracer_provider),
            meter.create_counter("oa_protocol.answers", "{answer}", "Complete answers."),
            meter.create_counter("oa_protocol.failures", "{answer}", "Answers that failed."),
            meter.create_counter("oa_protocol.chats_left", "{chat}", "Chats that are, or may be, left."),
            meter.create_histogram(
                "gen_ai.client.operation.duration",
                "s",
                "From the prompt to the end of its answer.",
                explicit_bucket_boundaries_advisory=_SECONDS,
            ),
            meter.create_histogram(
                "gen_ai.client.operation.time_to_first_chunk",
                "s",
                "From the prompt to the first token of its answer.",
                explicit_bucket_boundaries_advisory=_SECONDS,
            ),
        )

    def _observer(self, binding: Binding, options: AnswerOptions) -> Observer:
        """Return the observer of a new conversation. Call it in the context of the chat's owner."""
        return _ConversationObserver(self._instruments, binding, options)


class _Instruments(NamedTuple):
    tracer: Tracer
    answers: Counter
    failures: Counter
    left: Counter
    duration: Histogram
    first_token: Histogram


class _ConversationObserver:
    def __init__(self, instruments: _Instruments, binding: Binding, options: AnswerOptions) -> None:
        from opentelemetry import context

        server = urlsplit(binding.base_url)
        self._instruments = instruments
        self._owner = context.get_current()
        self._model = options.model
        self._common: Attributes = {
            "gen_ai.provider.name": "open_assistant",
            "gen_ai.request.model": options.model,
            "server.address": server.hostname or "",
            "server.port": server.port or (443 if server.scheme == "https" else 80),
        }
        sampling = options.sampling
        asked = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        asked["max_tokens"] = sampling.max_new_tokens
        self._sampling: Attributes = {
            f"gen_ai.request.{name}": value for name, value in asked.items() if value is not None
        }
        self._api = binding.api
        self._conversation: Span | None = None
        self._answer: Span | None = None
        self._asked_at = 0.0
        self._awaits_token = False
        self._phase = "START"

    def note(self, conversation: Conversation, happened: Input | None, events: list[Event], now: float) -> None:
        """Begin and end spans, and count."""
        if isinstance(happened, (Prompt, Regenerate)):
            self._begin(conversation, now)
        span = self._answer or self._conversation
        if span is None:
            return
        if conversation.phase.name != self._phase:
            self._phase = conversation.phase.name
            span.add_event("phase", {"oa_protocol.phase": self._phase})
        for event in events:
            self._note_event(span, event, now)
        if self._answer is not None and isinstance(happened, (Close, Abandon)):
            self._end_answer(now, "left")
        if conversation.is_over and self._conversation is not None:
            self._conversation.end()
            self._conversation = None

    def _begin(self, conversation: Conversation, now: float) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context

        tracer = self._instruments.tracer
        if self._conversation is None:
            attributes = {**self._common, "oa_protocol.api": self._api}
            self._conversation = tracer.start_span("conversation", self._owner, attributes=attributes)
        attributes = {"gen_ai.operation.name": "chat", **self._common, **self._sampling}
        if conversation.chat_id is not None:
            attributes["gen_ai.conversation.id"] = conversation.chat_id
        parent = set_span_in_context(self._conversation, self._owner)
        self._answer = tracer.start_span(f"chat {self._model}", parent, SpanKind.CLIENT, attributes)
        self._asked_at, self._awaits_token = now, True

    def _note_event(self, span: Span, event: Event, now: float) -> None:
        match event:
            case Token():
                if self._awaits_token:
                    self._awaits_token = False
                    self._instruments.first_token.record(now - self._asked_at, self._labels())
            case Created(chat_id) if self._conversation is not None:
                self._conversation.set_attribute("gen_ai.conversation.id", chat_id)
                span.set_attribute("gen_ai.conversation.id", chat_id)
            case Requested(message_id):
                span.set_attribute("gen_ai.response.id", message_id)
            case Answered():
                self._instruments.answers.add(1, self._labels())
                self._end_answer(now)
            case Failed(error):
                self._instruments.failures.add(1, self._labels(type(error).__name__))
                self._end_answer(now, type(error).__name__)
            case Leaked(leaked):
                self._instruments.left.add(len(leaked), self._common)
                if self._conversation is not None:
                    _mark_failed(self._conversation, "Leaked")
            case _:
                pass

    def _end_answer(self, now: float, error: str = "") -> None:
        if self._answer is None:
            return
        if error:
            _mark_failed(self._answer, error)
        self._instruments.duration.record(now - self._asked_at, self._labels(error))
        self._answer.end()
        self._answer = None

    def _labels(self, error: str = "") -> Attributes:
        labels = {"gen_ai.operation.name": "chat", **self._common}
        return {**labels, "error.type": error} if error else labels


def _mark_failed(span: Span, error: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_status(StatusCode.ERROR)  # without a description, because that could contain the server's words
    span.set_attribute("error.type", error)
