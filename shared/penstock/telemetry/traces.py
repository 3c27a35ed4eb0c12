"""W3C trace context through Kafka headers.

Without a collector the headers are passed on untouched, which costs nothing. With one, every hop is a span whose parent
is the span of the hop before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from penstock.telemetry.gen_ai import Attributes

__all__ = ["Headers", "NoTracing", "SpanTracing", "Tracing", "carried", "tracing_to"]

Headers = Sequence[tuple[str, bytes]]
_CARRIED = frozenset({"traceparent", "tracestate"})
_propagator = TraceContextTextMapPropagator()


def carried(headers: Headers) -> list[tuple[str, bytes]]:
    """Return the headers that every hop passes on."""
    return [(key, value) for key, value in headers if key in _CARRIED]


class Tracing(Protocol):
    """What the bus asks of a tracer."""

    def hop(self, name: str, headers: Headers) -> AbstractContextManager[list[tuple[str, bytes]]]:
        """Return a context manager around the work on one message; it gives the headers for what the work emits."""
        ...

    def call(
        self, name: str, headers: Headers, attributes: Callable[[], Attributes]
    ) -> AbstractContextManager[trace.Span]:
        """Return a context manager around a call of something outside that the work on a message makes; it gives its span.

        ``headers`` are those that :meth:`hop` gave; ``attributes`` is called where there is a span to carry them. A call
        that raises is marked as failed; what the error says stays out of the span.
        """
        ...


class NoTracing:
    """Passes trace context on and records nothing."""

    def hop(self, name: str, headers: Headers) -> AbstractContextManager[list[tuple[str, bytes]]]:
        return nullcontext(carried(headers))

    def call(
        self, name: str, headers: Headers, attributes: Callable[[], Attributes]
    ) -> AbstractContextManager[trace.Span]:
        return nullcontext(trace.INVALID_SPAN)


class SpanTracing:
    """One span a message and hop, and one a call."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer("penstock")

    @contextmanager
    def hop(self, name: str, headers: Headers) -> Iterator[list[tuple[str, bytes]]]:
        span = self._tracer.start_span(name, context=_parent(headers), kind=trace.SpanKind.CONSUMER)
        out: dict[str, str] = {}
        _propagator.inject(out, context=trace.set_span_in_context(span))
        try:
            yield [(key, value.encode("ascii")) for key, value in out.items()]
        finally:
            span.end()

    @contextmanager
    def call(self, name: str, headers: Headers, attributes: Callable[[], Attributes]) -> Iterator[trace.Span]:
        span = self._tracer.start_span(
            name, context=_parent(headers), kind=trace.SpanKind.CLIENT, attributes=dict(attributes())
        )
        try:
            yield span
        except BaseException:
            # Without a description: an endpoint's error may quote the prompt.
            span.set_status(trace.StatusCode.ERROR)
            raise
        finally:
            span.end()


def _parent(headers: Headers) -> Context:
    return _propagator.extract({key: value.decode("ascii", "replace") for key, value in carried(headers)})


def tracing_to(service: str, exporter: SpanExporter) -> SpanTracing:
    """Return tracing that sends the spans of ``service`` to ``exporter`` in batches."""
    provider = TracerProvider(resource=Resource.create({"service.name": f"penstock-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return SpanTracing(provider)
